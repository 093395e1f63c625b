//go:build linux

package web

// Service: one of them with its backends, and why they get what they get. What the agent
// knows of these is asked for at most once a second.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

// service is what the page of a service shows.
type service struct {
	Name     string
	Sentence string
	Alarm    string
	State    state
	Way      []step
	Backends []backend
	Checked  bool // backends have checks
	Line     line
	Commands []string
}

// step is a part of the way of a packet.
type step struct {
	What  string
	Lines []string
}

// backend is a row.
type backend struct {
	Name, Address string // the address is empty where it is the name
	State         state
	Since         string // 2026-11-26T04:05:06Z; empty: it is not known
	Ago           string
	Why           string
	Strips        []strip
	Wanted, Gets  string // shares
	Weight        string
	Live          string
	Rate          string
	Commands      []string
}

// strip is what came of the last checks.
type strip struct {
	What  string // in words
	Marks []mark
}

// mark is one of them.
type mark struct {
	X     int
	Class string
}

// line is connections a second over the last minutes.
type line struct {
	Points string // of an SVG of 600 x 80; empty: nothing is known yet
	Words  string
}

func (s *Server) service(ctx context.Context, shown *view.ShownService) *service {
	is, what, _ := serviceState(shown)
	name := shown.Profile + "/" + shown.Service.Name
	out := &service{Name: name, Alarm: s.alarm(), State: is, Way: way(shown), Commands: []string{"nlb show " + name, "nlb show --watch " + name}}
	out.Sentence = name + ": all " + text.Count(len(shown.Backends), "backend") + " up."
	if what != "" {
		out.Sentence = name + ": " + what + "."
	}
	known := s.asker.of(ctx, shown.Profile, shown.Service.Name)
	for i := range shown.Backends {
		b := &shown.Backends[i]
		row := backendOf(name, b, known[b.Name])
		if r, ok := s.history.backend(lb.BackendID{Profile: shown.Profile, Service: shown.Service.Name, Address: b.Address}); ok {
			row.Rate = rate(r)
		}
		out.Checked = out.Checked || len(row.Strips) > 0
		out.Backends = append(out.Backends, row)
	}
	if out.Line = lineOf(s.history.service(shown.Profile, shown.Service.Name)); !shown.Service.Tracked() {
		with := "mode: " + shown.Service.Mode.String()
		if !shown.Service.Mode.Direct() {
			with = "balance: " + shown.Service.Balance.String()
		}
		out.Line = line{Words: "With " + with + " the kernel tracks no connections. It counts packets: " + packetsOf(shown) + "."}
	}
	return out
}

// packetsOf are those of the backends of a service: b1 12, b2 0.
func packetsOf(s *view.ShownService) string {
	var out []string
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Packets != nil {
			out = append(out, fmt.Sprintf("%s %d", b.Name, *b.Packets))
		}
	}
	return strings.Join(out, ", ")
}

func backendOf(service string, b *view.ShownBackend, known *view.Known) backend {
	out := backend{
		Name: b.Name, State: backendState(b), Why: b.Reasoning(), Weight: fmt.Sprint(b.Weight), Live: "–", Rate: "–",
		Wanted: fmt.Sprintf("%.1f%%", 100*b.Wanted), Gets: fmt.Sprintf("%.1f%%", 100*b.Share),
		Commands: []string{"nlb show " + service + "/" + b.Name, "nlb drain " + service + "/" + b.Name + " --for 30m", "nlb enable " + service + "/" + b.Name},
	}
	if address := b.Address.String(); address != b.Name {
		out.Address = address
	}
	if b.Effective() != b.Weight && b.Effective() > 0 {
		out.Weight = fmt.Sprintf("%d of %d", b.Effective(), b.Weight)
	}
	if b.Live != nil {
		out.Live = fmt.Sprint(*b.Live)
	}
	since, reason := b.Standing.Since, b.Standing.Reason
	if known != nil && !known.Since.IsZero() {
		since, reason = known.Since, known.Reason
	}
	if !since.IsZero() {
		out.Since, out.Ago = since.UTC().Format(time.RFC3339), ago(time.Since(since))
	}
	if reason != "" && b.Failing() {
		out.Why += " (" + reason + ")"
	}
	if known != nil {
		for i := range known.Checks {
			out.Strips = append(out.Strips, stripOf(&known.Checks[i]))
		}
	}
	return out
}

// backendState is the state with a shape.
func backendState(b *view.ShownBackend) state {
	switch {
	case b.Failing() && b.State == lb.Up:
		return stateOpen
	case b.Failing():
		return stateDown
	case b.Standing.Order == lb.OrderDisable:
		return stateDisabled
	case b.State == lb.Draining:
		return stateDraining
	case b.State == lb.Standby:
		return stateStandby
	case b.State == lb.Down:
		return state{"idle", "○", "not checked yet"}
	}
	return stateUp
}

// ago is a time in its largest units.
func ago(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// stripOf draws the last checks of a kind, the newest to the right.
func stripOf(c *view.Check) strip {
	n := map[byte]int{}
	out := strip{}
	for i := range len(c.Past) {
		n[c.Past[i]]++
		out.Marks = append(out.Marks, mark{4 * (60 - len(c.Past) + i), map[byte]string{'+': "passed", '-': "failed"}[c.Past[i]]})
	}
	out.What = fmt.Sprintf("%s %s: %s; of the last %d %d failed", c.Check, c.At, c, len(c.Past), n['-'])
	if n['~'] > 0 {
		out.What += fmt.Sprintf(", %d were late", n['~'])
	}
	return out
}

// way is what a packet passes: listens, guard, scheduler, backends.
func way(s *view.ShownService) []step {
	v := s.Service
	listen := step{What: "listen"}
	for _, l := range v.Listen {
		listen.Lines = append(listen.Lines, l.String())
	}
	protocols := make([]string, len(v.Protocols))
	for i, p := range v.Protocols {
		protocols[i] = p.String()
	}
	listen.Lines = append(listen.Lines, strings.Join(protocols, ", "))
	guard := step{What: "guard"}
	for _, key := range []string{"allow", "deny", "limit"} {
		if said := v.Values().Text(key); said != "" && said != "none" {
			guard.Lines = append(guard.Lines, key+" "+said)
		}
	}
	if guard.Lines == nil {
		guard.Lines = []string{"lets all in"}
	}
	if s.Refused > 0 {
		guard.Lines = append(guard.Lines, fmt.Sprintf("turned away %d", s.Refused))
	}
	draws := step{What: "scheduler", Lines: []string{v.SchedulerText()}}
	if v.Affinity != nil {
		draws.Lines = append(draws.Lines, "affinity "+v.Affinity.String())
	}
	ends := step{What: "backends"}
	for i := range s.Backends {
		b := &s.Backends[i]
		if i == 8 {
			ends.Lines = append(ends.Lines, fmt.Sprintf("and %d more", len(s.Backends)-i))
			break
		}
		is := backendState(b)
		ends.Lines = append(ends.Lines, fmt.Sprintf("%s %s %.0f%%", is.Shape, b.Name, 100*b.Share))
	}
	return []step{listen, guard, draws, ends}
}

// lineOf draws rates, the newest to the right.
func lineOf(rates []float32) line {
	if len(rates) < 2 {
		return line{Words: "New connections a second: counted since somebody looks; the line begins in a moment."}
	}
	most := slices.Max(rates)
	top := max(1, most)
	var points strings.Builder
	for i, r := range rates {
		fmt.Fprintf(&points, "%d,%.1f ", 600-10*(len(rates)-1-i), 78-75*r/top)
	}
	span := time.Duration(len(rates)) * sampleEvery
	return line{
		Points: strings.TrimSpace(points.String()),
		Words:  fmt.Sprintf("New connections a second over the last %s: now %s, at most %s.", ago(span), rate(rates[len(rates)-1]), rate(most)),
	}
}

const (
	askEvery  = time.Second
	mostAsked = 256 // services whose answers are kept
)

// asker asks the agent, and remembers the answers for a moment.
type asker struct {
	ask Ask

	mu      sync.Mutex
	answers map[string]answered
}

type answered struct {
	at    time.Time
	known map[string]*view.Known
}

// of is what is known of the backends of a service, by their names; nil: the agent
// does not say.
func (a *asker) of(ctx context.Context, profile, service string) map[string]*view.Known {
	name := profile + "/" + service
	a.mu.Lock()
	last, there := a.answers[name]
	if there && time.Since(last.at) < askEvery {
		a.mu.Unlock()
		return last.known
	}
	// Others make do with the last answer meanwhile.
	if len(a.answers) >= mostAsked || a.answers == nil {
		a.answers = map[string]answered{}
	}
	a.answers[name] = answered{time.Now(), last.known}
	a.mu.Unlock()
	known, err := a.ask(ctx, profile, service)
	if err != nil {
		return last.known
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[name] = answered{time.Now(), known}
	return known
}
