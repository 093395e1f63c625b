package lb

// Compare: what differs between what is there and what is wanted, in the words
// of the domain.

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Op says what becomes of a service or a backend.
type Op byte

// The operations.
const (
	Added   Op = '+'
	Changed Op = '~'
	Removed Op = '-'
)

// Change is a service or a backend that differs.
type Change struct {
	Op Op
	// Service is profile/service.
	Service string
	// Backend is the backend's name; empty: the service itself.
	Backend string
	// Detail says what it is, or what changes: "weight 1 -> 2".
	Detail string
}

// String is one line.
func (c Change) String() string {
	if c.Backend == "" {
		return strings.TrimSpace(fmt.Sprintf("%c service %s  %s", c.Op, c.Service, c.Detail))
	}
	return strings.TrimSpace(fmt.Sprintf("%c backend %s %s  %s", c.Op, c.Service, c.Backend, c.Detail))
}

// Compare returns the changes that lead from one set of profiles to another,
// sorted by service. What cannot be seen from outside (the order of backends,
// how a listen is spelled) does not differ.
func Compare(have, want []*Profile) []Change {
	old, new := byName(have), byName(want)
	names := slices.AppendSeq(make([]string, 0, len(old)+len(new)), maps.Keys(old))
	names = slices.AppendSeq(names, maps.Keys(new))
	slices.Sort(names)
	names = slices.Compact(names)
	out := make([]Change, 0, most(old, new))
	for _, name := range names {
		first := len(out)
		switch h, s := old[name], new[name]; {
		case s == nil:
			out = changes(out, Removed, name, h)
		case h == nil:
			out = changes(out, Added, name, s)
		default:
			out = append(out, compareService(name, h, s)...)
		}
		slices.SortStableFunc(out[first:], func(a, b Change) int { return strings.Compare(a.Backend, b.Backend) })
	}
	return out
}

// most is how many changes there are at most between services, about.
func most(old, new map[string]*Service) int {
	n := 0
	for name, s := range old {
		if new[name] == nil {
			n += 1 + len(s.Backends)
		}
	}
	for name, s := range new {
		if old[name] == nil {
			n += 1 + len(s.Backends)
		}
	}
	return n
}

func byName(profiles []*Profile) map[string]*Service {
	out := map[string]*Service{}
	for _, p := range profiles {
		for i := range p.Services {
			out[p.Name+"/"+p.Services[i].Name] = &p.Services[i]
		}
	}
	return out
}

// changes appends a service and its backends as a whole.
func changes(out []Change, op Op, name string, s *Service) []Change {
	out = append(out, Change{op, name, "", strings.Join(words(s), "  ")})
	for _, b := range s.Backends {
		out = append(out, Change{op, name, b.Name, backendWords(b)})
	}
	return out
}

// words describe a service: where it listens, and how it balances.
func words(s *Service) []string {
	return []string{strings.Join(texts(s.Listen), " "), strings.Join(texts(s.Protocols), ","), s.SchedulerText()}
}

func backendWords(b Backend) string {
	var parts []string
	if b.Name != b.Address.String() {
		parts = append(parts, b.Address.String())
	}
	parts = append(parts, fmt.Sprintf("weight %d", b.Weight), "snat "+b.EffectiveSNAT().String())
	return strings.Join(parts, "  ")
}

func compareService(name string, have, want *Service) []Change {
	var out []Change
	var details []string
	differ := func(what, a, b string) {
		if a != b {
			details = append(details, fmt.Sprintf("%s %s -> %s", what, a, b))
		}
	}
	differ("listen", destinations(have), destinations(want))
	differ("role", have.Role.String(), want.Role.String())
	differ("interface", orNone(have.Interface), orNone(want.Interface))
	differ("scheduler", have.SchedulerText(), want.SchedulerText())
	if have.Scheduler.Hashes() && want.Scheduler.Hashes() {
		differ("hash-seed", fmt.Sprint(have.HashSeed), fmt.Sprint(want.HashSeed))
	}
	differ("affinity", have.affinityText(), want.affinityText())
	differ("deny", listText(have.Deny), listText(want.Deny))
	differ("allow", listText(have.Allow), listText(want.Allow))
	differ("limit", have.Limit.String(), want.Limit.String())
	if want.anyEmpty() && have.anyEmpty() {
		differ("on-empty", have.OnEmpty.String(), want.OnEmpty.String())
	}
	if len(details) > 0 {
		out = append(out, Change{Changed, name, "", strings.Join(details, ", ")})
	}
	old := map[Endpoint]Backend{}
	for _, b := range have.Backends {
		old[b.Address] = b
	}
	for _, b := range want.Backends {
		h, ok := old[b.Address]
		delete(old, b.Address)
		if !ok {
			out = append(out, Change{Added, name, b.Name, backendWords(b)})
			continue
		}
		details = nil
		differ("name", h.Name, b.Name)
		differ("weight", fmt.Sprint(h.Weight), fmt.Sprint(b.Weight))
		differ("max-connections", orNone(countText(h.MaxConnections)), orNone(countText(b.MaxConnections)))
		differ("log", h.Log.String(), b.Log.String())
		differ("snat", h.EffectiveSNAT().String(), b.EffectiveSNAT().String())
		if len(details) > 0 {
			out = append(out, Change{Changed, name, b.Name, strings.Join(details, ", ")})
		}
	}
	for _, b := range have.Backends {
		if _, left := old[b.Address]; left {
			out = append(out, Change{Removed, name, b.Name, backendWords(b)})
		}
	}
	return out
}

func orNone(s string) string { return cmp.Or(s, "none") }

func countText(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// affinityText is the affinity of the families that the service has.
func (s *Service) affinityText() string {
	if s.Affinity == nil {
		return "none"
	}
	text := ""
	for _, f := range s.Families() {
		switch {
		case s.emptyOf(f): // there is nobody to stay with
		case f == IPv4:
			text += fmt.Sprintf("/%d", s.Affinity.Bits)
		default:
			text += fmt.Sprintf("/%d", s.Affinity.Bits6)
		}
	}
	if text == "" {
		return "none"
	}
	return timeText(s.Affinity.Timeout) + text
}

// listText tells lists of prefixes apart, and is short.
func listText(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "none"
	}
	h := fnv.New32a()
	outer := Outer(prefixes)
	for _, p := range outer {
		fmt.Fprintln(h, p)
	}
	if len(outer) <= 3 {
		return strings.Join(strings.Fields(fmt.Sprint(outer)), ",")
	}
	return fmt.Sprintf("%d prefixes (%08x)", len(outer), h.Sum32())
}

// String is what is limited, or none.
func (l Limit) String() string {
	var parts []string
	if l.ConnectionsPerSource > 0 {
		parts = append(parts, fmt.Sprintf("connections-per-source %d", l.ConnectionsPerSource))
	}
	if l.NewPerSource.Events > 0 {
		parts = append(parts, fmt.Sprintf("new-per-source %s burst %d", l.NewPerSource, l.Burst))
	}
	if l.New.Events > 0 {
		parts = append(parts, "new "+l.New.String())
	}
	return orNone(strings.Join(parts, ", "))
}

// String is how connections are logged, or none.
func (l *Log) String() string {
	if l == nil {
		return "none"
	}
	parts := []string{"level " + l.Level.String()}
	if l.Rate.Events > 0 {
		parts = append(parts, "rate "+l.Rate.String())
	}
	if l.Prefix != "" {
		parts = append(parts, fmt.Sprintf("prefix %q", l.Prefix))
	}
	return strings.Join(parts, ", ")
}

// anyEmpty reports whether a family has no backend that takes connections. Only
// then can on-empty be seen.
func (s *Service) anyEmpty() bool {
	return slices.ContainsFunc(s.Families(), s.emptyOf)
}

func (s *Service) emptyOf(f Family) bool {
	return !slices.ContainsFunc(s.Of(f), func(b Backend) bool { return b.Weight > 0 })
}

// destinations are what a service takes, in a form that is the same for
// however it is spelled.
func destinations(s *Service) string {
	var all []string
	for _, l := range s.Listen {
		for _, r := range l.Ports {
			one := Listen{Prefix: l.Prefix, Ports: []PortRange{r}}
			for _, p := range s.Protocols {
				all = append(all, one.String()+"/"+p.String())
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Outer returns the prefixes that do not lie in another one of them, sorted.
func Outer(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	var out []netip.Prefix
	for _, p := range sorted {
		// A prefix sorts right behind those that hold it.
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
