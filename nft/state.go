package nft

// State: what the kernel holds, as objects with handles. The rest of Load
// reads services out of it.

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/direct"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Errors of Load.
var (
	// ErrForeign: there is a table of that name which nlb did not make.
	ErrForeign = errors.New("this table was not made by nlb")
	// ErrLayout: the table was made by a later version of nlb, with a layout that
	// this one does not know. An apply replaces it.
	ErrLayout = errors.New("this table was made by a later version of nlb")
)

// objects are the table's objects by name.
type objects struct {
	family uint8 // of the table: ruleset.Inet or ruleset.Netdev
	exists bool
	// unknown: it has a layout that we do not know, and nothing of it was read.
	unknown bool
	layout  int
	maps    map[string]*haveMap
	chains  map[string]*haveChain
	// flowtables are those of the table, with the devices that they are on.
	flowtables []ruleset.Flowtable
	// shared are all chains that a table with these maps may have beside those of services.
	shared []*ruleset.Chain
	// source has what was not read yet; nil: everything was.
	source *source
	// inline are the slots of compile.InlineSlotsMap, where a part of the table was read.
	inline map[string]ruleset.Element
	// direct is the table of family netdev beside this one; nil: there is none.
	direct *objects
}

type haveMap struct {
	spec     *ruleset.Map // nil: not one of this layout
	elements map[string]ruleset.Element
	whole    bool // a partial reading has read all of it
}

type haveChain struct {
	rules   []haveRule
	devices []string // of a base chain of family netdev
}

type haveRule struct {
	handle      uint64
	fingerprint string // empty: not written by this nlb
	comment     string
}

// read fetches the objects of a table. A table that is not ours is an error.
func read(c *wire.Conn, table string) (*objects, error) {
	o := newObjects(ruleset.Inet)
	var err error
	if o.direct, err = readDirect(c, table); err != nil {
		return nil, err
	}
	if o.layout, err = readLayout(c, table); err != nil || o.layout == 0 {
		return o, err
	}
	o.exists = true
	if err := o.readAll(c, table); err != nil {
		return nil, err
	}
	return o, nil
}

func newObjects(family uint8) *objects {
	return &objects{family: family, maps: map[string]*haveMap{}, chains: map[string]*haveChain{}}
}

// readAll reads the chains and maps.
func (o *objects) readAll(c *wire.Conn, table string) (err error) {
	if err = o.readChains(c, table); err != nil {
		err = fmt.Errorf("read the chains: %w", err)
	} else if err = o.readMaps(c, table); err != nil {
		err = fmt.Errorf("read the maps: %w", err)
	}
	if errors.Is(err, unix.ENOENT) {
		err = fmt.Errorf("%w: %w", wire.ErrInterrupted, err) // deleted meanwhile
	}
	return err
}

// elements are those of a map that were read.
func (o *objects) elements(name string) map[string]ruleset.Element {
	if m := o.maps[name]; m != nil {
		return m.elements
	}
	return nil
}

func (o *objects) readChains(c *wire.Conn, table string) error {
	// The kernel dumps the chains of all tables; it selects by table for the
	// others.
	err := c.Dump(wire.MsgType(unix.NFT_MSG_GETCHAIN), o.family, nil, func(b []byte) error {
		var of, name string
		var devices []string
		for t, v := range wire.Attrs(b) {
			switch t {
			case unix.NFTA_CHAIN_TABLE:
				of = wire.Text(v)
			case unix.NFTA_CHAIN_NAME:
				name = wire.Text(v)
			case unix.NFTA_CHAIN_HOOK:
				devices = ruleset.DevicesOf(v)
			}
		}
		if of == table {
			o.chains[name] = &haveChain{devices: devices}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return o.readRules(c, table)
}

// readRules reads the rules of all chains of the table, or of some of them.
func (o *objects) readRules(c *wire.Conn, table string, chain ...string) error {
	return c.Dump(wire.MsgType(unix.NFT_MSG_GETRULE), o.family, wire.Named(append([]string{table}, chain...)...), func(b []byte) error {
		var r haveRule
		var of, name string
		for t, v := range wire.Attrs(b) {
			switch t {
			case unix.NFTA_RULE_TABLE:
				of = wire.Text(v)
			case unix.NFTA_RULE_CHAIN:
				name = wire.Text(v)
			case unix.NFTA_RULE_HANDLE:
				r.handle = wire.Uint64(v)
			case unix.NFTA_RULE_USERDATA:
				r.comment = ruleset.UdataText(v, ruleset.UdataComment)
				r.fingerprint = ruleset.UdataValue(v, ruleset.UdataFingerprint)
			}
		}
		if ch := o.chains[name]; ch != nil && of == table {
			ch.rules = append(ch.rules, r)
		}
		return nil
	})
}

func (o *objects) readMaps(c *wire.Conn, table string) error {
	if err := o.readSpecs(c, table); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.maps)) {
		m := o.maps[name]
		if m.spec == nil || m.spec.Dynamic {
			continue // what packets fill is theirs
		}
		if err := m.read(c, o.family, table); err != nil {
			return err
		}
	}
	return nil
}

// read reads all elements.
func (m *haveMap) read(c *wire.Conn, family uint8, table string) error {
	ends := map[string]bool{}
	err := c.Dump(wire.MsgType(unix.NFT_MSG_GETSETELEM), family, wire.Named(table, m.spec.Name), func(b []byte) error {
		for e, end := range m.decoded(b) {
			if end {
				ends[e.Key] = true
			} else if m.spec.Holds(e) {
				m.elements[e.ID()] = e
			}
		}
		return nil
	})
	if err == nil && m.spec.Prefixes {
		m.close(ends)
	}
	return err
}

// readSpecs reads which maps and flow tables there are.
func (o *objects) readSpecs(c *wire.Conn, table string) error {
	var names []string
	err := c.Dump(wire.MsgType(unix.NFT_MSG_GETSET), o.family, wire.Named(table), func(b []byte) error {
		if wire.Text(wire.Attr(b, unix.NFTA_SET_TABLE)) == table {
			names = append(names, wire.Text(wire.Attr(b, unix.NFTA_SET_NAME)))
		}
		return nil
	})
	if err == nil {
		err = o.readFlowtables(c, table)
	}
	if err != nil {
		return err
	}
	specs := map[string]*ruleset.Map{}
	if o.family == ruleset.Netdev {
		for _, name := range names {
			o.maps[name] = &haveMap{spec: direct.Map(name), elements: map[string]ruleset.Element{}}
		}
		return nil
	}
	layout := compile.Layout(table, slices.Values(names))
	o.shared = layout.Chains
	for _, m := range layout.Maps {
		specs[m.Name] = m
	}
	for _, name := range names {
		spec := specs[name]
		for _, named := range []func(string) *ruleset.Map{compile.ClientSet, compile.OwnSlots, compile.Members, compile.ClientsMap} {
			spec = cmp.Or(spec, named(name))
		}
		o.maps[name] = &haveMap{spec: spec, elements: map[string]ruleset.Element{}}
	}
	return nil
}

// decoded are the elements of a message. end: it is the end of a prefix.
func (m *haveMap) decoded(attrs []byte) iter.Seq2[ruleset.Element, bool] {
	return func(yield func(e ruleset.Element, end bool) bool) {
		// The elements share the memory of one copy.
		for _, v := range wire.Attrs(string(wire.Attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS))) {
			if !yield(m.spec.Decode(v)) {
				return
			}
		}
	}
}

// close gives each range of a set of prefixes its last address: the one before
// the next end.
func (m *haveMap) close(ends map[string]bool) {
	sorted := slices.Sorted(maps.Keys(ends))
	for id, e := range m.elements {
		e.End = strings.Repeat("\xff", len(e.Key))
		if i := sort.SearchStrings(sorted, e.Key+"\x00"); i < len(sorted) {
			a, _ := netip.AddrFromSlice([]byte(sorted[i]))
			e.End = ruleset.AddrBytes(a.Prev())
		}
		m.elements[id] = e
	}
}

// slotsOf names the map that holds a block. An older layout has all in one.
func (o *objects) slotsOf(key compile.PoolKey, b compile.Block) (name string, moves bool) {
	if b.Own {
		return compile.OwnSlotsOf(key.Chain, compile.FamilyOf(key.Family)), false
	}
	name = compile.SlotMapOf(b.Base)
	o.fetch(name, b.All())
	if _, ok := o.element(name, ruleset.MarkBytes(b.Base)); ok || name == compile.SlotsMap {
		return name, false
	}
	if _, ok := o.element(compile.SlotsMap, ruleset.MarkBytes(b.Base)); ok {
		return compile.SlotsMap, true
	}
	return name, false
}

// kept are the bits of the connection mark that are somebody else's.
func (o *objects) kept() (kept uint32) {
	for _, f := range compile.Families {
		if c := o.chains[f.Deliver]; c != nil {
			for _, r := range c.rules {
				if bits, ok := compile.ReadKept(r.comment); ok {
					kept = bits
				}
			}
		}
	}
	return kept
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

// readOffload reads which way the service of a backend wants to be offloaded.
func (s *State) readOffload(chain string, b *lb.Backend, service *lb.Service) {
	mark := ruleset.MarkBytes(s.backends[compile.BackendKey{Chain: chain, Address: b.Address}].mark)
	for _, set := range compile.OffloadSets {
		if e, ok := s.own(chain, set, mark); ok {
			compile.ReadOffloadElement(set, e.More().Comment, service)
		}
	}
}

// Offloaded reports whether what holds of the wishes to be offloaded of the profiles that
// were applied is what should, as Options.Offload says it. An Apply brings it about.
// While flows move there may be no devices.
func (t *Table) Offloaded() bool {
	return t.isPending() || !compile.Offloads(t.profiles) || offloaded(t.conn, t.all(), t.options)
}

// Exists reports whether the table is there.
func (s *State) Exists() bool { return s.objects.exists }

// NotPermitted reports whether err says that the caller lacks CAP_NET_ADMIN.
func NotPermitted(err error) bool { return errors.Is(err, unix.EPERM) }

// stands reports whether backends have the states and standings that profiles say.
func (s *State) stands(profiles []*lb.Profile) bool {
	have := byChain(s.Profiles)
	for chain, w := range byChain(profiles) {
		find := finder(have[chain])
		for i := range w.Backends {
			b := &w.Backends[i]
			if h, ok := find(b.Address); ok && (h.State != b.State || h.Share != b.Share || h.Standing != b.Standing) {
				return false
			}
		}
	}
	return true
}
