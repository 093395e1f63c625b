//go:build linux

package lab

// Judging: what became of a trial's calls, beside what was due.

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// What is due to a connection.
const (
	DueBalanced = "balanced"
	DueRefused  = "refused"
	DueSilence  = "silence"
)

func (t *trial) due() string {
	switch {
	case t.usable():
		return DueBalanced
	case t.service.OnEmpty == lb.Drop:
		return DueSilence
	}
	return DueRefused
}

// judge compares calls with what is due to them. Alpha is the probability of a
// false alarm that may be spent on each backend.
func (s *site) judge(t *trial, calls []traffic.Call, alpha float64) Trial {
	r := Trial{
		Family: t.family.String(), Protocol: t.protocol.String(), From: "network",
		Due: t.due(), Connections: len(calls), Clients: max(1, len(t.clients)), Failures: map[string]int{},
	}
	if t.fromHost {
		r.From = "host"
	}
	byBackend := make([][]*traffic.Call, len(t.backends()))
	stray := map[string]int{}
	var first error
	for i := range calls {
		c := &calls[i]
		if c.Err != nil {
			r.Failures[traffic.Way(c.Err)]++
			if first == nil {
				first = c.Err
			}
			continue
		}
		r.Answered++
		if b := t.answeredBy(c); b >= 0 {
			byBackend[b] = append(byBackend[b], c)
		} else {
			stray[c.Reply.Local.String()]++
		}
	}
	for _, at := range slices.Sorted(maps.Keys(stray)) {
		r.problem("%s answered by %s, which is no backend of the service", times(stray[at], "connection was", "connections were"), at)
	}
	r.judgeFailures(len(calls), first)
	if r.Due == DueBalanced {
		r.Backends = s.shares(t, byBackend, r.Answered, alpha, &r)
		r.judgeKept(t, byBackend)
	}
	return r
}

// answeredBy is the index of the backend that a call reached; -1: none.
func (t *trial) answeredBy(c *traffic.Call) int {
	at := c.Reply.Local
	if t.service.Mode.Direct() {
		return slices.IndexFunc(t.backends(), func(b lb.Backend) bool { return b.Address.String() == c.Reply.Backend && at == c.To })
	}
	exact := slices.IndexFunc(t.backends(), func(b lb.Backend) bool {
		return b.Address.Addr == at.Addr() && b.Address.Port == at.Port() || b.Address.OfHost() && b.Address.String() == c.Reply.Backend
	})
	if exact >= 0 {
		return exact
	}
	return slices.IndexFunc(t.backends(), func(b lb.Backend) bool {
		return b.Address.Addr == at.Addr() && b.Address.Port == 0 && at.Port() == c.To.Port()
	})
}

// reached reports whether a call was answered by a backend.
func (t *trial) reached(c *traffic.Call, b lb.Backend) bool {
	i := t.answeredBy(c)
	return c.Err == nil && i >= 0 && t.backends()[i].Address == b.Address
}

func (r *Trial) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// dueFailure is the way in which connections fail that are due to.
var dueFailure = map[string]string{DueRefused: traffic.Way(traffic.ErrRefused), DueSilence: traffic.Way(traffic.ErrTimeout)}

func (r *Trial) judgeFailures(calls int, first error) {
	way := dueFailure[r.Due]
	if r.Due != DueBalanced && r.Answered > 0 {
		r.problem("%d of %d connections were answered, due is: %s", r.Answered, calls, r.Due)
	}
	for _, w := range slices.Sorted(maps.Keys(r.Failures)) {
		if w == way {
			continue
		}
		due := ""
		if way != "" {
			due = ", due is: " + r.Due
		}
		r.problem("%d of %d connections failed: %s%s (%v)", r.Failures[w], calls, w, due, first)
	}
}

// shares compares what each backend got with its share, and the sources that
// it saw with those that it was to see.
func (s *site) shares(t *trial, calls [][]*traffic.Call, answered int, alpha float64, r *Trial) []Backend {
	// Draws are what chance, or the cycle, decides on: calls that must meet the
	// same backend count once.
	draws := make([]int, len(calls))
	total := 0
	for b := range calls {
		draws[b] = t.draws(calls[b])
		total += draws[b]
	}
	per := float64(answered) / float64(max(total, 1))
	bounds := t.intervals(total, alpha)
	var out []Backend
	for i, b := range t.backends() {
		share := t.share(b)
		d := Backend{
			Name: b.Name, Address: b.Address.String(), Weight: b.Weight, Share: share,
			Connections: len(calls[i]), Due: share * float64(answered),
			Least: int(math.Floor(float64(bounds[i].least) * per)), Most: int(math.Ceil(float64(bounds[i].most) * per)),
		}
		if !bounds[i].holds(draws[i]) {
			r.problem("%s got %s", b.Name, shortfall(d, draws[i], bounds[i], total == answered))
		}
		d.Sources, d.SourcesDue = s.sources(t, b, calls[i], alpha, r)
		out = append(out, d)
	}
	return out
}

func shortfall(d Backend, draws int, i interval, each bool) string {
	bounds := fmt.Sprintf("%d to %d", i.least, i.most)
	if i.least == i.most {
		bounds = fmt.Sprint(i.least)
	}
	if each {
		return fmt.Sprintf("%d connections, due were %s", d.Connections, bounds)
	}
	return fmt.Sprintf("%d clients, due were %s", draws, bounds)
}

func (t *trial) draws(calls []*traffic.Call) int {
	if !t.keeps() {
		return len(calls)
	}
	keys := map[any]bool{}
	for _, c := range calls {
		keys[t.key(c)] = true
	}
	return len(keys)
}

func (r *Trial) judgeKept(t *trial, calls [][]*traffic.Call) {
	if !t.keeps() {
		return
	}
	met := map[any]int{}
	for _, of := range calls {
		seen := map[any]bool{}
		for _, c := range of {
			if k := t.key(c); !seen[k] {
				seen[k] = true
				met[k]++
			}
		}
	}
	r.Kept = &Kept{Of: len(met)}
	for _, n := range met {
		if n == 1 {
			r.Kept.Kept++
		}
	}
	if lost := r.Kept.Of - r.Kept.Kept; lost > 0 {
		why := "the " + strings.Replace(t.service.SchedulerText(), " by ", " is by ", 1)
		if t.sticky() > 0 {
			why = "the affinity is to keep them"
		}
		r.problem("%d of %d clients met several backends, although %s", lost, r.Kept.Of, why)
	}
}

// sources are those that a backend saw, sorted, and in words those that it was to
// see. Others are a problem.
func (s *site) sources(t *trial, b lb.Backend, calls []*traffic.Call, alpha float64, r *Trial) (out []string, due string) {
	due, isDue := s.sourceDue(t, b)
	seen := map[netip.Addr]bool{}
	wrong := map[netip.Addr]int{}
	kept := 0 // ports of clients
	for _, c := range calls {
		a := c.Reply.Seen.Addr()
		seen[a] = true
		if !isDue(a, c) {
			wrong[a]++
		}
		if c.Reply.Seen.Port() == c.Reply.From.Port() {
			kept++
		}
	}
	if t.service.RandomPorts && b.SNAT.Mode != lb.SNATNone && !s.local(b.Address.Addr) && 2*kept > len(calls) {
		r.problem("%s saw %d of %d connections with the client's port, due is one at random", b.Name, kept, len(calls))
	}
	if len(wrong) > 0 {
		all := slices.SortedFunc(maps.Keys(wrong), netip.Addr.Compare)
		text := all[0].String()
		if len(all) > 1 {
			text += fmt.Sprintf(" and %d others", len(all)-1)
		}
		r.problem("%s saw %s, due is %s", b.Name, text, due)
	}
	// A pool is used in turn, or at random: then one is left out with a
	// probability of k (1-1/k)^n.
	pool := b.SNAT.Of(t.family)
	if k := float64(len(pool)); k*math.Pow(1-1/k, float64(len(calls))) < alpha {
		for _, a := range pool {
			if !seen[a] && !s.local(b.Address.Addr) {
				r.problem("%s never saw %s, one of its snat addresses", b.Name, a)
			}
		}
	}
	out = []string{}
	for _, a := range slices.SortedFunc(maps.Keys(seen), netip.Addr.Compare) {
		out = append(out, a.String())
	}
	return out, due
}

// sourceDue says in words which source a backend is to see, and tells of one that it saw
// whether it is that.
func (s *site) sourceDue(t *trial, b lb.Backend) (words string, is func(seen netip.Addr, c *traffic.Call) bool) {
	local, near := s.local(b.Address.Addr), s.servers.near[t.family].Addr()
	client := func(seen netip.Addr, c *traffic.Call) bool { return seen == c.Reply.From.Addr() }
	switch {
	case local && !t.fromHost: // it never leaves the balancer
		return "the client, since the backend is on the balancer itself", client
	case b.SNAT.Mode == lb.SNATNone:
		return "the client", client
	case b.SNAT.Mode == lb.SNATVIP:
		return "the address that the client connected to", func(seen netip.Addr, c *traffic.Call) bool { return seen == c.To.Addr() }
	case b.SNAT.Mode == lb.SNATPool:
		return b.SNAT.String(), func(seen netip.Addr, _ *traffic.Call) bool { return slices.Contains(b.SNAT.Pool, seen) }
	case local:
		return "an address of the balancer", func(seen netip.Addr, _ *traffic.Call) bool { return s.local(seen) }
	}
	return "the balancer, " + near.String(), func(seen netip.Addr, _ *traffic.Call) bool { return seen == near }
}

func times(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
