// Package doctor says why balancing does not work on a host, or why it will:
// it examines a picture of the host, as plain values, for the traffic of
// profiles. It is pure; package survey takes the picture.
package doctor

// Findings, and the examination as a whole.

import (
	"cmp"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// Level says how bad a finding is.
type Level uint8

// The levels.
const (
	OK   Level = iota // all is well
	Warn              // it may not work, or not for long
	Fail              // it does not work
)

var levelWords = []string{"ok", "warn", "fail"}

func (l Level) String() string { return levelWords[l] }

// MarshalText writes ok, warn or fail.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one line of the list.
type Finding struct {
	Level Level `json:"level"`
	// Check is what was looked at: "forwarding", "route". There is a fixed
	// number of them.
	Check string `json:"check"`
	// Subject is a service or a backend of it, "shop/web 10.0.0.11:8080"; empty:
	// the host.
	Subject string `json:"subject"`
	// Problem is what will not work; of OK, what is fine.
	Problem string `json:"problem"`
	// Why is the reason, and how certain it is; may be empty.
	Why string `json:"why"`
	// Mend is the command that mends it, ready to paste; empty where there is
	// none, or more than one way.
	Mend string `json:"mend"`
}

// Ask is what to examine.
type Ask struct {
	// Profiles are examined in this order.
	Profiles []*lb.Profile
	// Files are the arguments that name them; none: they are in the kernel.
	Files []string
	// Unresolved are the names of backends that stand for nobody, each with the reason.
	Unresolved []string
	// Table is the name of nlb's table.
	Table string
}

// applied reports whether the profiles are what is in the kernel.
func (a Ask) applied() bool { return len(a.Files) == 0 }

// apply is the command that makes the kernel hold the profiles; empty where
// no files are known.
func (a Ask) apply(flags ...string) string {
	if a.applied() {
		return ""
	}
	return strings.Join(slices.Concat([]string{"nlb apply"}, a.tableFlag(), flags, a.Files), " ")
}

func (a Ask) tableFlag() []string {
	if a.Table == "nlb" {
		return nil
	}
	return []string{"--table " + a.Table}
}

// checks are all, in the order of the list: what others depend on first.
var checks = []struct {
	name string
	look func(*exam)
}{
	{"rights", (*exam).rights},
	{"nftables", (*exam).nftables},
	{"rules", (*exam).rules},
	{"names", (*exam).names},
	{"forwarding", (*exam).forwarding},
	{"router-advertisements", (*exam).advertisements},
	{"listen", (*exam).listens},
	{"socket", (*exam).sockets},
	{"chained", (*exam).chained},
	{"rp-filter", (*exam).reversePath},
	{"route", (*exam).routes},
	{"direct", (*exam).direct},
	{"return", (*exam).returns},
	{"source", (*exam).sources},
	{"hairpin", (*exam).hairpins},
	{"loopback", (*exam).loopback},
	{"bridge", (*exam).bridges},
	{"filter", (*exam).filters},
	{"nat", (*exam).rivals},
	{"mark", (*exam).marks},
	{"notrack", (*exam).untracked},
	{"conntrack", (*exam).conntrack},
	{"ports", (*exam).ports},
	{"capacity", (*exam).capacity},
	{"answers", (*exam).answers},
	{"gone", (*exam).gone},
	{"offload", (*exam).offload},
	{"health", (*exam).health},
	{"announce", (*exam).announced},
	{"keepalived", (*exam).keepalived},
	{"conntrackd", (*exam).conntrackd},
}

// exam is one examination.
type exam struct {
	Ask
	*Host
	check string
	paths []*path
	found []Finding
}

// Examine looks at a host for profiles. The list has the findings in the order
// of the checks, the worst first; a check that found nothing to mend, but could
// look, says so in a line.
func Examine(h *Host, a Ask) []Finding {
	e := &exam{Ask: a, Host: h, paths: paths(h, a.Profiles)}
	for _, c := range checks {
		e.check = c.name
		c.look(e)
	}
	return fold(e.found)
}

// Sick reports whether there is something to mend.
func Sick(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Level != OK })
}

func (e *exam) add(l Level, subject, problem, why, mend string) {
	e.found = append(e.found, Finding{l, e.check, subject, problem, why, mend})
}

// fine says that a check found nothing, where it could look and did not.
func (e *exam) fine(what string) {
	if !e.Blind[e.check] && !slices.ContainsFunc(e.found, func(f Finding) bool { return f.Check == e.check }) {
		e.add(OK, "", what, "", "")
	}
}

// fineIf is fine of a check that has something to look at only where that is so.
func (e *exam) fineIf(looked bool, what string) {
	if looked {
		e.fine(what)
	}
}

// most is how many subjects with the same finding are told apart.
const most = 3

// fold makes one finding of those that say the same of many subjects. Where
// their commands differ, the first few are one command line.
func fold(findings []Finding) []Finding {
	type group struct {
		at    int // its place in out
		count int
		seen  map[string]bool
		mends []string
	}
	groups := map[Finding]*group{} // by the finding without its subject and command
	var out []Finding
	for _, f := range findings {
		key := f
		key.Subject, key.Mend = "", ""
		g := groups[key]
		if g == nil {
			g = &group{len(out), 0, map[string]bool{}, nil}
			groups[key], out = g, append(out, f)
			out[g.at].Subject, out[g.at].Mend = "", ""
		}
		o := &out[g.at]
		if !g.seen[f.Subject] {
			g.seen[f.Subject] = true
			if g.count++; g.count <= most {
				o.Subject = strings.TrimPrefix(o.Subject+", "+f.Subject, ", ")
			}
		}
		if f.Mend != "" && len(g.mends) < most && !slices.Contains(g.mends, f.Mend) {
			g.mends = append(g.mends, f.Mend)
			o.Mend = strings.Join(g.mends, " && ")
		}
	}
	for _, g := range groups {
		if n := g.count - most; n > 0 {
			out[g.at].Subject += " and " + text.Count(n, "other")
		}
	}
	rank := map[string]int{}
	for i, c := range checks {
		rank[c.name] = i
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.Check], rank[b.Check]), cmp.Compare(b.Level, a.Level))
	})
	return out
}
