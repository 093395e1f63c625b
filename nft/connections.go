package nft

// Connections: what conntrack holds for backends, what a plan changes for it, and
// limits that somebody else counts.

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/direct"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

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

// newCleanup compares what is there with what a plan leads to: whose connections
// it changes.
func newCleanup(have *State, p *plan, o Options) *flows.Cleanup {
	idle, services := p.idle(), byChain(have.Profiles)
	c := &flows.Cleanup{
		Came: flows.Came(services, p.profiles), Table: p.table, Gone: p.owners.None(), Cut: o.Cut, Settle: o.Settle, Numbers: map[uint32]flows.Change{}, Owners: p.owners, Kept: have.kept, Flowtables: p.flowtables,
	}
	for key, b := range have.backends {
		if s := services[key.Chain]; s != nil && s.Mode.Direct() {
			continue // conntrack does not know of them
		}
		n := b.mark & compile.NumberMask
		owner, owned := p.owners.Of(n)
		if !owned || owner != key {
			c.Numbers[n] = flows.Stale
			if c.Servers == nil && p.serves(key.Address.Addr) {
				c.Servers = p.servers()
			}
		} else if change := idle[key]; change >= flows.Down && b.state != lb.Down {
			c.Numbers[n] = change
		} else if change != flows.Stays && b.drawn {
			c.Numbers[n] = flows.Drained
		}
		if s := services[key.Chain]; c.Numbers[n] >= flows.Down {
			c.Datagrams = c.Datagrams || s == nil || slices.Contains(s.Protocols, lb.UDP)
		}
	}
	return c
}

// idle are the backends that get no new connections any more, and what becomes of
// those that they have.
func (p *plan) idle() map[compile.BackendKey]flows.Change {
	out := map[compile.BackendKey]flows.Change{}
	for profile, s := range lb.Services(p.profiles) {
		for i := range s.Backends {
			b := &s.Backends[i]
			change := flows.Drained
			switch {
			case b.Effective() > 0:
				continue
			case b.State == lb.Down && s.OnDown == lb.CutConnections && b.Standing.Verdict == lb.VerdictDown && b.Standing.Order != lb.OrderDisable:
				change = flows.CutOff
			case b.State == lb.Down:
				change = flows.Down
			}
			out[compile.BackendKey{Chain: compile.ChainOf(profile.Name, s.Name), Address: b.Address}] = change
		}
	}
	return out
}

// serves reports whether a plan has a backend at an address.
func (p *plan) serves(a netip.Addr) bool {
	for at := range p.servers() {
		if at.Addr() == a {
			return true
		}
	}
	return false
}

// isPending reports whether a cleanup that was given away may still be running.
func (t *Table) isPending() bool {
	t.pending = slices.DeleteFunc(t.pending, func(c *flows.Cleanup) bool {
		done := c.Done()
		if done && t.watch != nil {
			t.watch.Forget(c.Conn)
		}
		return done
	})
	return len(t.pending) > 0
}

// spare takes the backends that a plan gives connections out of the cleanups that
// are under way.
func (t *Table) spare(p *plan) {
	if !t.isPending() {
		return
	}
	idle := p.idle()
	for _, c := range t.pending {
		c.Spare(func(number uint32, change flows.Change) bool {
			key, owned := p.owners.Of(number)
			return owned && (change == flows.Stale || idle[key] < change)
		})
	}
}

// sweeps reports whether what is retired can be swept without waiting.
func (t *Table) sweeps() bool {
	select {
	case <-t.quiesced:
		return !t.isPending()
	default:
		return t.quiesced == nil
	}
}

// Owner is the backend of what was applied that has the number of a mark.
func (t *Table) Owner(mark uint32) (id lb.BackendID, ok bool) {
	if t.owners == nil {
		profiles := t.all()
		if t.memory == nil || !t.memory.whole { // the numbers follow from all profiles
			if s, err := Load(t.conn, t.name); err == nil {
				profiles = s.Profiles
			}
		}
		owners := compile.NewNumbers(t.options.Keep, profiles).Owners
		t.owners = &owners
	}
	key, ok := t.owners.Of(mark & compile.NumberMask &^ t.owners.Kept)
	if !ok {
		return id, false
	}
	id.Address = key.Address
	id.Profile, id.Service, ok = compile.ServiceOf(key.Chain)
	return id, ok
}

// Countable reports whether Options.Counted leaves the limit of a backend to whoever
// applies.
func Countable(b lb.Backend) bool { return compile.Countable(b) }

// counted are the backends whose limits a plan leaves to whoever applies. Other
// profiles stay as they are.
func (s *State) counted(inScope func(profile string) bool, o Options) func(compile.BackendKey) bool {
	return func(key compile.BackendKey) bool {
		profile, _, _ := compile.ServiceOf(key.Chain)
		if o.asIs || !inScope(profile) {
			return s.backends[key].counted
		}
		return o.Counted
	}
}

// Saturate has new connections pass over the backends with these marks, and over no
// others that an agent counts, for so long or until the next call. It needs an Apply
// with Options.Counted. Errors are those of wire.Conn.Commit.
func (t *Table) Saturate(marks []uint32, d time.Duration) error {
	set := &ruleset.Map{Name: compile.SaturatedSet, Key: ruleset.Type{ruleset.Mark}, Timeout: true}
	for _, mark := range marks {
		set.Elements = append(set.Elements, ruleset.Element{Key: ruleset.MarkBytes(mark), Extra: &ruleset.Extra{Timeout: d, Expires: d}})
	}
	b := wire.NewBatch(wire.AnyGeneration)
	m := &ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: t.name, List: ruleset.MaxList}
	m.EmptyMap(set.Name)
	m.Elements(unix.NFT_MSG_NEWSETELEM, set, set.Elements)
	before, err := t.conn.Generation()
	if err != nil {
		return err
	}
	now, err := t.conn.Commit(b, before)
	if err == nil && t.memory != nil && t.memory.generation == before {
		t.memory.generation = now // the record holds for this one, too
	}
	return err
}
