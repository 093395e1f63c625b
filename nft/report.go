package nft

// Report: what a table tells about itself. Drift is what is in it that nlb did not put
// there, or that it put there otherwise: what packets fill, and what waits to be swept, is
// none. Figures are what conntrack and the table have counted for backends.

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/direct"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Drift is a difference between a table and what nlb made of it.
type Drift struct {
	// Object is a chain or a map: "chain prerouting".
	Object string
	// What is the matter: "a rule is not of nlb".
	What string
	// Foreign says that the object itself is not of nlb, so that an apply
	// leaves it alone.
	Foreign bool
	// Handles are those of rules that are not of nlb.
	Handles []uint64
}

// Drift is what an apply of the profiles that the state holds would change.
func (s *State) Drift() []Drift {
	if !s.objects.exists || s.isLeftover() {
		return nil
	}
	p := s.planTo(goal{profiles: s.Profiles, inScope: func(string) bool { return true }, Options: Options{Table: s.Table, Keep: s.kept, asIs: true}})
	var out []Drift
	if s.objects.layout == compile.LayoutVersion { // an older one has other objects
		for _, d := range s.tallies(p) {
			out = append(out, d.drift()...)
		}
	}
	fixed := map[string]bool{}
	for _, c := range compile.Layout(s.Table, maps.Keys(s.objects.maps)).Chains {
		fixed[c.Name] = true
	}
	served := byChain(s.Profiles)
	for _, name := range slices.Sorted(maps.Keys(s.objects.chains)) {
		_, _, owned := compile.OwnerOf(name)
		_, _, service := compile.ServiceOf(name)
		switch {
		case service && served[name] == nil:
			out = append(out, Drift{Object: "chain " + name, What: "nothing leads to it"})
		case !fixed[name] && !owned && !compile.IsPool(name) && !flows.IsMoving(name):
			out = append(out, Drift{Object: "chain " + name, What: "it is not of nlb", Foreign: true})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.objects.maps)) {
		out = append(out, s.strayElements(s.objects.maps[name])...)
		if _, _, service := compile.OwnerOf(name); !service && s.objects.maps[name].spec == nil && !flows.IsMoving(name) {
			out = append(out, Drift{Object: "map " + name, What: "it is not of nlb", Foreign: true})
		}
	}
	return out
}

// strayElements are those of a map of services that lead to no service. An
// apply leaves them alone.
func (s *State) strayElements(m *haveMap) []Drift {
	if m.spec == nil || m.spec.Kind != ruleset.Destinations {
		return nil
	}
	var out []Drift
	for _, id := range slices.Sorted(maps.Keys(m.elements)) {
		e := m.elements[id]
		if _, _, ok := compile.ServiceOf(e.Data); !ok {
			out = append(out, Drift{
				Object: fmt.Sprintf("element %s { %s }", m.spec.Name, m.spec.KeyText(e)), What: "it is not of nlb", Foreign: true,
			})
		}
	}
	return out
}

// tally counts the differences of one object.
type tally struct {
	object                           string
	absent                           bool
	foreign, missing, other, changed int
	noun                             string
	handles                          []uint64
}

// tallies sorts the operations of a plan by their objects. The order of slots
// follows that of a profile, which the state does not know, so what they lead
// to is passed over; so are operations that sweep.
func (s *State) tallies(p *plan) []*tally {
	var out []*tally
	of := func(object, noun string) *tally {
		i := slices.IndexFunc(out, func(t *tally) bool { return t.object == object })
		if i < 0 {
			out, i = append(out, &tally{object: object, noun: noun}), len(out)
		}
		return out[i]
	}
	ops := p.ops()
	for i, o := range ops {
		switch {
		case o.table, o.flowtable != nil: // devices come and go by themselves
		case o.mapping != nil && o.elements == nil, o.chain != nil && o.rule == nil && o.handle == 0:
			if o.verb != add {
				continue // swept
			}
			if o.mapping != nil {
				of("map "+o.mapping.Name, "element").absent = true
			} else {
				of("chain "+o.chain.Name, "rule").absent = true
			}
		case o.mapping != nil:
			if o.mapping.Kind == ruleset.Slots || o.mapping.Kind == ruleset.Before || o.mapping.Kind == ruleset.Record {
				continue
			}
			replaced := i+1 < len(ops) && ops[i+1].joined && ops[i+1].mapping != nil
			tallyElements(o, replaced, of)
		default:
			s.tallyRule(o, of("chain "+o.chain.Name, "rule"))
		}
	}
	return out
}

// tallyElements counts the elements of an operation. What is removed from maps
// that packets do not come to first is swept.
func tallyElements(o op, replaced bool, of func(object, noun string) *tally) {
	m := o.mapping
	switch {
	case o.verb == add && o.joined:
		of("map "+m.Name, "element").changed += len(o.elements)
	case o.verb == add:
		of("map "+m.Name, "element").missing += len(o.elements)
	case !replaced && (m.Kind == ruleset.Destinations || m.Kind == ruleset.Exemptions || m.Kind == ruleset.Addresses || m.Kind == ruleset.Backends || m.Kind == ruleset.OwnSlots || m.Kind == ruleset.Members):
		of("map "+m.Name, "element").foreign += len(o.elements)
	}
}

func (s *State) tallyRule(o op, t *tally) {
	c := s.objects.chains[o.chain.Name]
	if c == nil || t.absent {
		return // it says so already
	}
	i := slices.IndexFunc(c.rules, func(r haveRule) bool { return r.handle == o.handle })
	switch {
	case o.verb == add:
		t.missing++
	case i >= 0 && c.rules[i].fingerprint == "":
		t.foreign++
		t.handles = append(t.handles, o.handle)
	default:
		t.other++
	}
}

func (t *tally) drift() []Drift {
	if t.absent {
		return []Drift{{Object: t.object, What: "it is missing"}}
	}
	var out []Drift
	for _, d := range []struct {
		n    int
		what string
	}{{t.foreign, "not of nlb"}, {t.missing, "missing"}, {t.changed, "changed"}, {t.other, "not as nlb made it"}} {
		switch {
		case d.n == 1:
			out = append(out, Drift{Object: t.object, What: map[string]string{"element": "an element", "rule": "a rule"}[t.noun] + " is " + d.what})
		case d.n > 1:
			out = append(out, Drift{Object: t.object, What: fmt.Sprintf("%d %ss are %s", d.n, t.noun, d.what)})
		}
	}
	if t.foreign > 0 {
		out[0].Handles = t.handles
	}
	return out
}

// Use is what conntrack holds for a backend.
type Use struct {
	// Entries counts by protocol, those of connections that have ended
	// included: each of them holds its port.
	Entries map[lb.Protocol]int
	// Live counts connections that have not ended.
	Live map[lb.Protocol]int
	// Unanswered counts live TCP and SCTP connections that the backend has not
	// answered, Silent such UDP flows. Own are the TCP and SCTP connections that it has
	// begun itself, those that have ended included; it has answered Met of them.
	// HalfOpen counts TCP connections whose clients have not completed them.
	Unanswered, Silent, Own, Met, HalfOpen int
	// Left is of the established TCP connection that has been without a packet for
	// longest: in how many seconds it is forgotten. 0: there is none.
	Left int
}

// Usage is what conntrack holds for backends, by their numbers.
type Usage map[uint32]*Use

func newUse() *Use { return &Use{Entries: map[lb.Protocol]int{}, Live: map[lb.Protocol]int{}} }

func (u *Use) add(f *conntrack.Flow) {
	p := lb.Protocol(f.Protocol)
	if p != lb.UDP && p != lb.SCTP {
		p = lb.TCP
	}
	u.Entries[p]++
	if p != lb.UDP && f.OfItself() {
		u.Own++
		if f.Answered {
			u.Met++
		}
	}
	if f.Ended {
		return
	}
	u.Live[p]++
	if f.HalfOpen {
		u.HalfOpen++
	}
	if left := int(f.Left); left > 0 && (u.Left == 0 || left < u.Left) {
		u.Left = left
	}
	switch {
	case f.Answered:
	case p == lb.UDP:
		u.Silent++
	default:
		u.Unanswered++
	}
}

// ReadUsage lists the connections with a mark of ours, once; the kernel
// filters. A number that none of the states has may be one that another
// machine or an older profile gave: such a connection counts for the backend
// that it is translated to.
func ReadUsage(c *wire.Conn, states ...*State) (Usage, error) {
	out, known, kept := Usage{}, numbersIn(states), uint32(0)
	for _, s := range states {
		kept |= s.kept
	}
	var all flows.Servers
	err := conntrack.List(c, flows.Ours, func(f *conntrack.Flow) {
		n := f.Mark & compile.NumberMask
		if !known[n] && known[n&^kept] {
			n &^= kept
		}
		if !known[n] && len(known) > 0 {
			if all == nil {
				all = flows.Servers{}
				for _, s := range states {
					all.Add(s.Profiles, func(chain string, b *lb.Backend) uint32 {
						return s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark
					})
				}
			}
			if mark, ok := all.Of(f); ok {
				n = mark & compile.NumberMask
			}
		}
		if out[n] == nil {
			out[n] = newUse()
		}
		out[n].add(f)
	})
	return out, err
}

// Use is what conntrack holds for a backend of the state.
func (s *State) Use(u Usage, profile, service string, address lb.Endpoint) Use {
	b, known := s.backends[compile.BackendKey{Chain: compile.ChainOf(profile, service), Address: address}]
	if use := u[b.mark&compile.NumberMask]; known && use != nil {
		return *use
	}
	return Use{}
}

// Orphans sums up what is there for backends that none of the states has. Each
// table of nlb in a namespace has its own.
func Orphans(u Usage, states ...*State) Use {
	known, sum := numbersIn(states), newUse()
	for number, use := range u {
		if known[number] {
			continue
		}
		for p, n := range use.Entries {
			sum.Entries[p] += n
		}
		for p, n := range use.Live {
			sum.Live[p] += n
		}
		sum.Unanswered += use.Unanswered
	}
	return *sum
}

// numbersIn are those of the backends of states.
func numbersIn(states []*State) map[uint32]bool {
	out := map[uint32]bool{}
	for _, s := range states {
		for _, b := range s.backends {
			out[b.mark&compile.NumberMask] = true
		}
	}
	return out
}

// Stats are the figures of a backend.
type Stats struct {
	// Connections counts new connections since the backend came.
	Connections uint64
	// Live is what conntrack holds now, without what has ended.
	Live int
	// Packets counts the packets of a service with mode: dsr, in place of these two.
	Packets uint64
}

// Stats returns the figures of a backend of the state.
func (s *State) Stats(profile, service string, address lb.Endpoint, u Usage) Stats {
	b := s.backends[compile.BackendKey{Chain: compile.ChainOf(profile, service), Address: address}]
	out := Stats{Connections: b.connections, Packets: b.packets}
	for _, n := range s.Use(u, profile, service, address).Live {
		out.Live += n
	}
	return out
}

// ReadStats reads the figures of all backends of a table, by a mark of each
// (Table.Owner). It reads nothing else, and lists the connections once.
func ReadStats(c *wire.Conn, table string) (map[uint32]Stats, error) {
	out := map[uint32]Stats{}
	for _, f := range compile.Families {
		for _, name := range f.Servers() {
			// One that is retired has counted no more than the one that goes on.
			if err := readPackets(c, ruleset.Inet, table, name, func(mark uint32, n uint64) { out[mark] = Stats{Connections: max(n, out[mark].Connections)} }); err != nil {
				return nil, err
			}
		}
		err := readPackets(c, ruleset.Netdev, table, direct.Backends(f), func(mark uint32, n uint64) {
			s := out[mark]
			s.Packets = n
			out[mark] = s
		})
		if err != nil {
			return nil, err
		}
	}
	err := conntrack.List(c, flows.Ours, func(f *conntrack.Flow) {
		if !f.Ended {
			s := out[f.Mark]
			s.Live++
			out[f.Mark] = s
		}
	})
	return out, err
}

// ReadRefused reads what guarded services (compile.Numbers.Guard) and full backends
// (compile.FullMark) have turned away, by their marks.
func ReadRefused(c *wire.Conn, table string) (map[uint32]uint64, error) {
	out := map[uint32]uint64{}
	return out, readPackets(c, ruleset.Inet, table, compile.RefusedSet, func(mark uint32, n uint64) { out[mark] = n })
}

// readPackets reads the counters of a map of marks, which need not be there.
func readPackets(c *wire.Conn, family uint8, table, name string, each func(mark uint32, packets uint64)) error {
	m := haveMap{spec: &ruleset.Map{Name: name, Key: ruleset.Type{ruleset.Mark}}}
	err := c.Dump(wire.MsgType(unix.NFT_MSG_GETSETELEM), family, wire.Named(table, name), func(b []byte) error {
		for e := range m.decoded(b) {
			if len(e.Key) == ruleset.Mark.Size {
				each(ruleset.MarkOf(e.Key), e.More().Packets)
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) || family == ruleset.Netdev && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
		return nil
	}
	return err
}
