//go:build linux

package lab

// The report: what was due and what came of it, as values. Names are those of
// nlb show --json.

import (
	"encoding/json"
	"slices"

	"nlb/integration/lab/plan"
)

// Report is what a rehearsal found.
type Report struct {
	Connections int       `json:"connections"` // all that were tried
	Seconds     float64   `json:"seconds"`
	Profiles    []Profile `json:"profiles"`
	// Problems are those that could be seen without sending anything.
	Problems []string `json:"problems"`
	// Notes are what may surprise, and what was not rehearsed.
	Notes []string `json:"notes"`
}

// Profile is what was found of one profile.
type Profile struct {
	Name     string    `json:"name"`
	Services []Service `json:"services"`
}

// Service is what was found of one service.
type Service struct {
	Name      string   `json:"name"`
	Listen    []string `json:"listen"`
	Protocol  []string `json:"protocol"`
	Role      string   `json:"role"`
	Scheduler string   `json:"scheduler"`
	SNAT      string   `json:"snat"`
	Trials    []Trial  `json:"trials"`
	// Limits are what was tried of limit and max-connections.
	Limits []Limit `json:"limits,omitempty"`
	// Outage is what happened when a backend ended; nil: not tried, since
	// there was none to take over.
	Outage *Outage `json:"outage,omitempty"`
	// Failings are outages under nlb run, in their order; nil: there is no health, or
	// a note says why they were not tried.
	Failings []Failing `json:"failings,omitempty"`
}

// Trial is the connections of one family and protocol, from one side.
type Trial struct {
	Family   string `json:"family"`   // IPv4 or IPv6
	Protocol string `json:"protocol"` // tcp, udp or sctp
	From     string `json:"from"`     // network, or host: the balancer itself
	// Due is what was to become of the connections: balanced, refused or
	// silence.
	Due         string   `json:"due"`
	Connections int      `json:"connections"`
	Clients     int      `json:"clients"` // source addresses
	Answered    int      `json:"answered"`
	Failures    Failures `json:"failures,omitempty"`
	// Kept says of a hash or an affinity how many clients met one backend
	// only; nil: it is neither.
	Kept *Kept `json:"kept,omitempty"`
	// Denied says how many of those that must be refused were; nil: there is
	// no allow and no deny.
	Denied   *Denied   `json:"denied,omitempty"`
	Backends []Backend `json:"backends"`
	Problems []string  `json:"problems"`
}

// Failures counts connections by the way in which they failed.
type Failures map[string]int

// Total is how many failed.
func (f Failures) Total() int {
	n := 0
	for _, c := range f {
		n += c
	}
	return n
}

// Kept counts the clients, or whatever else decides, that met one backend only.
type Kept struct {
	Kept int `json:"kept"`
	Of   int `json:"of"`
}

// Denied counts the connections of clients that are not allowed.
type Denied struct {
	Refused int `json:"refused"`
	Of      int `json:"of"`
}

// Backend is what one backend got.
type Backend struct {
	Name        string  `json:"name"`
	Address     string  `json:"address"`
	Weight      int     `json:"weight"`
	Share       float64 `json:"share"`
	Connections int     `json:"connections"`
	// Due is its share of the connections; Least and Most are the bounds that
	// arithmetic, or chance, leave.
	Due   float64 `json:"due"`
	Least int     `json:"least"`
	Most  int     `json:"most"`
	// Sources are the addresses that it saw, sorted; SourcesDue says in words
	// which ones it was to see.
	Sources    []string `json:"sources"`
	SourcesDue string   `json:"sources-due"`
}

// Limit is what was tried of one limit.
type Limit struct {
	What     string   `json:"what"`              // the limit as in the profile
	Found    string   `json:"found"`             // in words
	Skipped  bool     `json:"skipped,omitempty"` // it was not tried; Found says why
	Problems []string `json:"problems"`
}

// Outage is what clients saw when a backend ended.
type Outage struct {
	Backend string `json:"backend"`
	Trial   string `json:"trial"` // family and protocol
	// Live is how many live connections it had; Ended how many of them ended.
	Live  int `json:"live"`
	Ended int `json:"ended"`
	// While it was in the profile: new connections, and those that failed.
	Connections int      `json:"connections"`
	Failures    Failures `json:"failures,omitempty"`
	// After the profile was applied without it.
	AfterConnections int      `json:"after-connections"`
	AfterFailures    Failures `json:"after-failures,omitempty"`
	Problems         []string `json:"problems"`
}

// Failing is what became of a backend that failed, and of its clients, while nlb run
// checked it. Times are in seconds.
type Failing struct {
	Backend string  `json:"backend"`
	Way     string  `json:"way"`   // refuse, silent, slow or flap
	Trial   string  `json:"trial"` // family and protocol
	Began   float64 `json:"began"` // from the beginning of the service's outages
	// Falls is how often it was taken out, Out how long that took at first; nil: it was
	// not. OutDue is what the settings promise; nil: no check sees it, or it was out.
	Falls  int       `json:"falls"`
	Out    *float64  `json:"out,omitempty"`
	OutDue *plan.Due `json:"out-due,omitempty"`
	// Back is how long it took until it was back, once it worked again.
	Back    *float64  `json:"back,omitempty"`
	BackDue *plan.Due `json:"back-due,omitempty"`
	// New connections that began in between; those that were lost; those that came,
	// but took longer than a second.
	Connections int      `json:"connections"`
	Lost        int      `json:"lost"`
	Late        int      `json:"late"`
	Problems    []string `json:"problems"`
}

// OK reports whether everything was as due.
func (r *Report) OK() bool { return len(r.AllProblems()) == 0 }

// AllProblems are those of the report and of all its parts, each with its
// place in front.
func (r *Report) AllProblems() []string {
	out := slices.Clone(r.Problems)
	for _, p := range r.Profiles {
		for _, s := range p.Services {
			add := func(part string, problems []string) {
				for _, problem := range problems {
					out = append(out, p.Name+"/"+s.Name+": "+part+problem)
				}
			}
			for _, t := range s.Trials {
				add(t.Title()+": ", t.Problems)
			}
			for _, l := range s.Limits {
				add(l.What+": ", l.Problems)
			}
			if s.Outage != nil {
				add(s.Outage.Trial+", without "+s.Outage.Backend+": ", s.Outage.Problems)
			}
			for _, f := range s.Failings {
				add(f.Backend+"="+f.Way+": ", f.Problems)
			}
		}
	}
	return out
}

// MarshalJSON adds ok to the fields.
func (r *Report) MarshalJSON() ([]byte, error) {
	type fields Report
	return json.Marshal(struct {
		OK bool `json:"ok"`
		*fields
	}{r.OK(), (*fields)(r)})
}

// FailedAsDue is how many connections failed in the way that was due.
func (t *Trial) FailedAsDue() int { return t.Failures[dueFailure[t.Due]] }

// Title is its family and protocol, and whether it is from the balancer itself.
func (t *Trial) Title() string { return title(t.Family, t.Protocol, t.From == "host") }

func title(family, protocol string, fromHost bool) string {
	s := family + " " + protocol
	if fromHost {
		s += " from the balancer itself"
	}
	return s
}
