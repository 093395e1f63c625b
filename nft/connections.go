package nft

// Connections: what a plan changes for those that are open, and which of them go by flow
// tables; and limits that somebody else counts.

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// leaveMoving leaves out of a state what moves flows, while another nlb is at
// it. Otherwise an apply that did not come to its end has left it.
func (w *writer) leaveMoving(s *State) {
	left := slices.ContainsFunc(removeMoving(), s.objects.has)
	if !left || w.dry || !w.turn.Take(w.ctx, 0) {
		return
	}
	maps.DeleteFunc(s.objects.chains, func(name string, _ *haveChain) bool { return flows.IsMoving(name) })
	maps.DeleteFunc(s.objects.maps, func(name string, _ *haveMap) bool { return flows.IsMoving(name) })
}

// removeMoving takes away what moves flows.
func removeMoving() (ops []op) {
	for _, c := range flows.MovingChains() {
		ops = append(ops, op{verb: remove, chain: c})
	}
	for _, m := range flows.MovingMaps() {
		ops = append(ops, op{verb: remove, mapping: m})
	}
	return ops
}

// settle carries a cleanup out; nil: there is none.
func (w *writer) settle(cleanup *flows.Cleanup, result *Result) error {
	if cleanup == nil || cleanup.Idle() {
		return nil
	}
	if w.record != nil && w.record.generation == result.Generation { // else somebody has committed since
		cleanup.Amend = func(m *ruleset.Messages, generation uint32) { encode(m, amendRecord(*w.record, generation)) }
	}
	ended, err := cleanup.Run(w.ctx)
	result.Ended += ended
	result.Generation = cleanup.Generation
	return err
}

// endFlows makes conntrack forget the UDP flows of some numbers, and those of
// TCP and SCTP that are not answered, or all of them where they are to be cut.
func (w *writer) endFlows(gone map[uint32]flows.Change, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	c := &flows.Cleanup{Conn: w.conn, Numbers: gone, Kept: o.Keep, Cut: o.Cut, Datagrams: true}
	err := c.Forget()
	result.Ended += c.Ended()
	if err != nil {
		return &FlowsError{Err: err}
	}
	return nil
}

// retiredNumbers are those of backends that an earlier plan has retired and
// that nobody has now.
func (s *State) retiredNumbers(owners compile.Owners) map[uint32]flows.Change {
	out := map[uint32]flows.Change{}
	for n := range s.marked() {
		if _, owned := owners.Of(n); !owned {
			out[n] = flows.Stale
		}
	}
	for _, b := range s.backends {
		delete(out, b.mark&compile.NumberMask)
	}
	return out
}

// marked are the numbers of the backends that the kernel has elements for,
// those included that an earlier plan retired.
func (s *State) marked() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if s.last != nil {
			for _, r := range s.last.retired {
				for i := range r.count {
					if r.gone && !yield((r.first+i)&compile.NumberMask) {
						return
					}
				}
			}
			return
		}
		for _, f := range compile.Families {
			for _, name := range f.Servers() {
				for key := range s.elements(name) {
					if !yield(ruleset.MarkOf(key) & compile.NumberMask) {
						return
					}
				}
			}
		}
	}
}

// newCleanup compares what is there with what a plan leads to: whose connections
// it changes.
func newCleanup(have *State, p *plan, o Options) *flows.Cleanup {
	services := byChain(have.Profiles)
	c := &flows.Cleanup{
		Came: flows.Came(services, p.profiles), Table: p.table, Gone: p.owners.None(), Cut: o.Cut, Settle: o.Settle, Numbers: map[uint32]flows.Change{}, Owners: p.owners, Kept: have.kept, Flowtables: p.flowtables,
	}
	if len(have.backends) == 0 {
		return c
	}
	idle := p.idle()
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
	if err == nil && now == before+1 && t.memory != nil && t.memory.generation == before {
		t.memory.generation = now // the record holds for this one, too
	}
	return err
}

// readFlowtables reads the flow tables of a table.
func (o *objects) readFlowtables(c *wire.Conn, table string) error {
	return c.Dump(wire.MsgType(unix.NFT_MSG_GETFLOWTABLE), ruleset.Inet, wire.Named(table), func(b []byte) error {
		if of, f := ruleset.DecodeFlowtable(b); of == table {
			o.flowtables = append(o.flowtables, f)
		}
		return nil
	})
}

// offload is what of offload holds.
func (o *objects) offload() compile.Offload {
	var comments []string
	if c := o.chains[compile.ForwardChain]; c != nil {
		for _, r := range c.rules {
			comments = append(comments, r.comment)
		}
	}
	return compile.ReadOffload(comments, o.flowtables)
}

// Offload is what of the profiles' wishes to be offloaded holds.
func (s *State) Offload() compile.Offload { return s.objects.offload() }

// offloaded reports whether what holds of the profiles' wishes to be offloaded is what
// should.
func offloaded(c *wire.Conn, profiles []*lb.Profile, o Options) bool {
	if o.Offload == nil || !compile.Offloads(profiles) {
		return true
	}
	there := &objects{chains: map[string]*haveChain{compile.ForwardChain: {}}}
	err := there.readRules(c, o.Table, compile.ForwardChain)
	if err == nil {
		err = there.readFlowtables(c, o.Table)
	}
	have := there.offload()
	return err == nil && have.Equal(o.Offload(profiles, have))
}

// offload is what is to hold for profiles. A part of a table does not say who else
// wants what.
func (s *State) offload(profiles []*lb.Profile, o Options) compile.Offload {
	now := s.Offload()
	if o.Offload == nil || s.last != nil || !compile.Offloads(profiles) {
		return now
	}
	return o.Offload(profiles, now)
}

// Offloaded reports whether what holds of the wishes to be offloaded of the profiles that
// were applied is what should, as Options.Offload says it. An Apply brings it about.
// While flows move there may be no devices.
func (t *Table) Offloaded() bool {
	return t.isPending() || !compile.Offloads(t.profiles) || offloaded(t.conn, t.all(), t.options)
}
