package names

// Resolving: each backend that is a name becomes a backend for each address.

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"nlb/lb"
)

// Note says what of an answer was not used as it is, and why.
type Note struct {
	Service string // profile/service
	Text    string
}

// String is the note with its service.
func (n Note) String() string { return n.Service + ": " + n.Text }

// Hosts are the names in profiles, each once, in their order.
func Hosts(profiles []*lb.Profile) []lb.Host {
	var out []lb.Host
	seen := map[lb.Host]bool{}
	for _, s := range lb.Services(profiles) {
		for i := range s.Backends {
			if h := s.Backends[i].Host; s.Backends[i].Named() && !seen[h] {
				seen[h] = true
				out = append(out, h)
			}
		}
	}
	return out
}

// Resolve is the profiles without names: each backend with one becomes a backend
// for each address that answer has, with all that the profile says of it; none
// where there is no answer. Weights and priorities are those of SRV records where
// the name is of such. An address is taken once in a service, one that the profile
// has itself first. What cannot be a backend of the service is left out, and said.
// The profiles are not changed; what is equal in both is shared.
func Resolve(profiles []*lb.Profile, answer func(lb.Host) []Record) ([]*lb.Profile, []Note) {
	out := slices.Clone(profiles)
	var notes []Note
	for i, p := range profiles {
		if len(Hosts(profiles[i:i+1])) == 0 {
			continue
		}
		copied := *p
		copied.Services = slices.Clone(p.Services)
		for j := range copied.Services {
			s := &copied.Services[j]
			r := resolution{s: s, answer: answer, note: func(format string, args ...any) {
				notes = append(notes, Note{p.Name + "/" + s.Name, fmt.Sprintf(format, args...)})
			}}
			r.resolve()
		}
		out[i] = &copied
	}
	return out, notes
}

// resolution is a service that loses its names.
type resolution struct {
	s      *lb.Service
	answer func(lb.Host) []Record
	note   func(format string, args ...any)
	// members become the backends.
	members []member
}

// member is a backend; of is the one with a name that it is from, or nil.
type member struct {
	lb.Backend
	of *lb.Backend
}

func (r *resolution) resolve() {
	backends := r.s.Backends
	if !slices.ContainsFunc(backends, func(b lb.Backend) bool { return b.Named() }) {
		return
	}
	taken := map[lb.Endpoint]bool{}
	for i := range backends {
		if !backends[i].Named() {
			taken[backends[i].Address] = true
		}
	}
	for i := range backends {
		b := &backends[i]
		if !b.Named() {
			r.members = append(r.members, member{*b, nil})
			continue
		}
		for _, one := range expand(r.s, b, r.answer(b.Host)) {
			switch why := unusable(&one, r.s); {
			case why != "":
				r.leftOut(b, why)
			case !taken[one.Address]:
				taken[one.Address] = true
				r.members = append(r.members, member{one, b})
			}
		}
	}
	r.agree()
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		r.fit(f)
	}
	r.name()
	r.s.Backends = r.backends()
}

func (r *resolution) leftOut(b *lb.Backend, why string) {
	r.note("%s: %s; it is left out", b.Host, why)
}

func (r *resolution) backends() []lb.Backend {
	out := make([]lb.Backend, len(r.members))
	for i := range r.members {
		out[i] = r.members[i].Backend
	}
	return out
}

// expand is a backend for each record.
func expand(s *lb.Service, b *lb.Backend, records []Record) []lb.Backend {
	records = Sort(slices.Clone(records))
	out := make([]lb.Backend, 0, len(records))
	for rank := 1; len(records) > 0; rank++ {
		n := 1
		for n < len(records) && records[n].Priority == records[0].Priority {
			n++
		}
		weights := scale(records[:n])
		for i, r := range records[:n] {
			one := *b
			one.Host, one.Address.Addr = lb.Host{}, r.Addr
			if b.Host.SRV {
				one.Address.Port, one.Weight, one.Priority = r.Port, weights[i], min(rank, lb.MaxPriority)
			}
			if !one.SNAT.Equal(s.SNAT) { // its own: of its own family
				one.SNAT.Pool = one.SNAT.Of(lb.FamilyOf(r.Addr))
			}
			out = append(out, one)
		}
		records = records[n:]
	}
	return out
}

// scale is the weights of SRV records of a priority, 0 to 65535, as those of
// backends. A weight of 0 beside others means a small share (RFC 2782), so it is 1
// beside 100.
func scale(records []Record) []int {
	most, zero := 0, false
	for _, r := range records {
		most = max(most, int(r.Weight))
		zero = zero || r.Weight == 0
	}
	top := min(most, lb.MaxWeight)
	if zero && most > 0 {
		top = max(top, 100)
	}
	out := make([]int, len(records))
	for i, r := range records {
		out[i] = max(1, int(math.Round(float64(r.Weight)*float64(top)/float64(max(most, 1)))))
	}
	return out
}

// unusable is why an address cannot be a backend; empty: it can.
func unusable(b *lb.Backend, s *lb.Service) string {
	if is, _ := lb.CheckAddr(b.Address.Addr); is != "" {
		return fmt.Sprintf("%s %s", b.Address.Addr, is)
	}
	if f := lb.FamilyOf(b.Address.Addr); b.SNAT.Mode == lb.SNATPool && len(b.SNAT.Of(f)) == 0 {
		return fmt.Sprintf("%s is %s, and snat has no address of that", b.Address.Addr, f)
	}
	return ""
}

// agree leaves out what does not agree with the rest of the service: addresses of
// a family that is not listened on, and those that it listens on itself.
func (r *resolution) agree() {
	s := *r.s
	s.Backends = r.backends()
	gone := map[int]bool{}
	for c := range s.Contradictions {
		if c.Keys[0] == "backends" && len(c.Keys) > 1 && r.members[c.Item].of != nil && !gone[c.Item] {
			gone[c.Item] = true
			r.leftOut(r.members[c.Item].of, c.Msg)
		}
	}
	r.drop(gone)
}

// drop leaves out members, by their numbers.
func (r *resolution) drop(gone map[int]bool) {
	i := -1
	r.members = slices.DeleteFunc(r.members, func(member) bool {
		i++
		return gone[i]
	})
}

// fit makes the cycle of a family short enough: by halving weights, and if that
// is not enough, by leaving out the last ones.
func (r *resolution) fit(f lb.Family) {
	rounded := 0
	for {
		var serving []lb.Backend // those of the family that have slots
		var last []int           // of these, the members that are from names
		for i := range r.members {
			m := &r.members[i]
			if lb.FamilyOf(m.Address.Addr) != f || m.Weight == 0 {
				continue
			}
			serving = append(serving, m.Backend)
			if m.of != nil {
				last = append(last, i)
			}
		}
		slots := r.s.CycleLength(serving)
		over := slots - lb.MaxSlots
		switch {
		case over <= 0 || len(last) == 0:
			return
		case slots > len(serving): // other weights need fewer
			if rounded++; rounded == 1 {
				r.note("the weights of the %s backends make %d slots; they are rounded", f, slots)
			}
			for i := range r.members {
				if m := &r.members[i]; lb.FamilyOf(m.Address.Addr) == f && m.Weight > 1 {
					m.Weight /= 2
				}
			}
		default:
			r.note("%d %s addresses are more than the %d slots; the last are left out", slots, f, lb.MaxSlots)
			gone := map[int]bool{}
			for _, i := range last[max(0, len(last)-over):] {
				gone[i] = true
			}
			r.drop(gone)
			return
		}
	}
}

// name gives backends their names: that of the profile where there is one address,
// that and the address where there are several, and the address where the profile
// has none.
func (r *resolution) name() {
	count := map[*lb.Backend]int{}
	taken := map[string]bool{}
	for i := range r.members {
		if m := &r.members[i]; m.of == nil {
			taken[m.Name] = true
		} else {
			count[m.of]++
		}
	}
	for i := range r.members {
		m := &r.members[i]
		if m.of == nil {
			continue
		}
		address := m.Address.String()
		name, suffix := m.of.Name, ""
		switch {
		case name == m.of.Where():
			name = address
		case count[m.of] > 1 && m.of.Host.SRV:
			suffix = "-" + spell(address)
		case count[m.of] > 1:
			suffix = "-" + spell(m.Address.Addr.String())
		}
		m.Name = name[:min(len(name), lb.MaxName-len(suffix))] + suffix
		for n := 2; taken[m.Name]; n++ { // somebody else has it
			suffix := fmt.Sprintf("-%d", n)
			m.Name = spell(name)[:min(len(spell(name)), lb.MaxName-len(suffix))] + suffix
		}
		taken[m.Name] = true
	}
}

// spell is an address in characters that a name may have.
func spell(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '[', ']':
			return -1
		case ':', '%':
			return '-'
		}
		return r
	}, s)
}
