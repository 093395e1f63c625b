package nft

// State: what the kernel holds, as objects with handles, read as a whole or one by one
// when it is asked for. The rest of Load reads services out of it.

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
		if wire.Text(wire.Attr(b, unix.NFTA_CHAIN_TABLE)) == table {
			o.chains[wire.Text(wire.Attr(b, unix.NFTA_CHAIN_NAME))] = &haveChain{devices: ruleset.DevicesOf(wire.Attr(b, unix.NFTA_CHAIN_HOOK))}
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
		in := o.chains[wire.Text(wire.Attr(b, unix.NFTA_RULE_CHAIN))]
		if in != nil && wire.Text(wire.Attr(b, unix.NFTA_RULE_TABLE)) == table {
			data := wire.Attr(b, unix.NFTA_RULE_USERDATA)
			in.rules = append(in.rules, haveRule{
				handle:      wire.Uint64(wire.Attr(b, unix.NFTA_RULE_HANDLE)),
				fingerprint: ruleset.UdataValue(data, ruleset.UdataFingerprint), comment: ruleset.UdataText(data, ruleset.UdataComment),
			})
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

// source is where objects that were not read yet come from.
type source struct {
	conn  *wire.Conn
	table string
	asked uint32
	most  uint32 // that it may ask for
	err   error  // the first one; what was read then is not to be relied on
}

// fail keeps the first error of a partial reading.
func (o *objects) fail(err error) {
	if o.source != nil && o.source.err == nil {
		o.source.err = err
	}
}

// element is an element of a map, by its key.
func (o *objects) element(name, key string) (e ruleset.Element, ok bool) {
	m := o.maps[name]
	if m == nil {
		return e, false
	}
	if e, ok = m.elements[key]; ok || m.whole || o.source == nil || o.source.err != nil {
		return e, ok
	}
	if err := o.ask(m, key); err != nil && !errors.Is(err, unix.ENOENT) {
		o.fail(err)
	}
	e, ok = m.elements[key]
	return e, ok
}

// mostAsked elements at once have answers that fit any socket.
const mostAsked = 32

// fetch has a partial reading read elements of a map in few requests, by their slots or
// marks. What is not there ends it; those behind that are read when they are asked for.
func (o *objects) fetch(name string, numbers iter.Seq[uint32]) {
	m := o.maps[name]
	if m == nil || m.whole || o.source == nil || o.source.err != nil {
		return
	}
	var keys []string
	for n := range numbers {
		key := ruleset.MarkBytes(n)
		if _, ok := m.elements[key]; !ok {
			keys = append(keys, key)
		}
	}
	for some := range slices.Chunk(keys, mostAsked) {
		if err := o.ask(m, some...); err != nil {
			return
		}
	}
}

// ask reads elements up to one that is not there.
func (o *objects) ask(m *haveMap, keys ...string) error {
	if o.source.asked += uint32(len(keys)); o.source.asked > o.source.most {
		return errNotPartial
	}
	var w wire.Encoder
	w.Raw(wire.Named(o.source.table, m.spec.Name))
	list := w.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, key := range keys {
		item := w.Nest(unix.NFTA_LIST_ELEM)
		data := w.Nest(unix.NFTA_SET_ELEM_KEY)
		w.Data(unix.NFTA_DATA_VALUE, key)
		w.Unnest(data)
		w.Unnest(item)
	}
	w.Unnest(list)
	return o.source.conn.Requests(wire.MsgType(unix.NFT_MSG_GETSETELEM), ruleset.Inet, w.Bytes(), len(keys), func(b []byte) error {
		for e := range m.decoded(b) {
			if m.spec.Holds(e) {
				m.elements[e.ID()] = e
			}
		}
		return nil
	})
}

// chain is a chain by its name. In a partial reading one without rules counts as
// absent: none of ours is.
func (o *objects) chain(name string) *haveChain {
	c := o.chains[name]
	if c != nil || name == "" || o.source == nil || o.source.err != nil {
		return c
	}
	c = &haveChain{}
	o.chains[name] = c
	if err := o.readRules(o.source.conn, o.source.table, name); err != nil {
		o.fail(err)
	}
	if len(c.rules) == 0 {
		delete(o.chains, name)
		return nil
	}
	return c
}

// readWhole reads all elements of some maps, as far as they are there, in a partial
// reading.
func (o *objects) readWhole(table string, names ...string) {
	for _, name := range names {
		if m := o.maps[name]; m != nil {
			o.fail(m.read(o.source.conn, ruleset.Inet, table))
			m.whole = true
		}
	}
}

// allSlots yields the elements of all maps of slots, with their maps' names.
func (o *objects) allSlots() iter.Seq2[string, ruleset.Element] {
	return func(yield func(string, ruleset.Element) bool) {
		for _, e := range o.inline {
			if !yield(compile.InlineSlotsMap, e) {
				return
			}
		}
		for name, m := range o.maps {
			if m.spec == nil || m.spec.Kind != ruleset.Slots {
				continue
			}
			for _, e := range m.elements {
				if !yield(name, e) {
					return
				}
			}
		}
	}
}

// countedFor reports whether an agent has counted connections of these profiles in the
// kernel's place.
func (s *State) countedFor(profiles []*lb.Profile) bool {
	for key, b := range s.backends {
		name, _, _ := compile.ServiceOf(key.Chain)
		if b.counted && slices.ContainsFunc(profiles, func(p *lb.Profile) bool { return p.Name == name }) {
			return true
		}
	}
	return false
}
