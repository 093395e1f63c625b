package nft

// State: what the kernel holds, as objects with handles. The rest of Load
// reads services out of it.

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Errors of Load.
var (
	// ErrForeign: there is a table of that name which nlb did not make.
	ErrForeign = errors.New("this table was not made by nlb")
	// ErrLayout: the table was made by a version of nlb with another layout.
	ErrLayout = errors.New("this table was made by another version of nlb; flush it and apply again")
)

// objects are the table's objects by name.
type objects struct {
	exists bool
	maps   map[string]*haveMap
	chains map[string]*haveChain
}

type haveMap struct {
	spec     *mapping // nil: not one of this layout
	elements map[string]element
}

type haveChain struct{ rules []haveRule }

type haveRule struct {
	handle      uint64
	fingerprint string // empty: not written by this nlb
	comment     string
}

// read fetches the objects of a table. A table that is not ours is an error.
func read(c *wire.Conn, table string) (*objects, error) {
	o := &objects{maps: map[string]*haveMap{}, chains: map[string]*haveChain{}}
	var err error
	if o.exists, err = tableIsOurs(c, table); err != nil || !o.exists {
		return o, err
	}
	if err = o.readChains(c, table); err != nil {
		err = fmt.Errorf("read the chains: %w", err)
	} else if err = o.readMaps(c, table); err != nil {
		err = fmt.Errorf("read the maps: %w", err)
	}
	if errors.Is(err, unix.ENOENT) {
		err = fmt.Errorf("%w: %w", wire.ErrInterrupted, err) // deleted meanwhile
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// named returns the attributes that select a table, and an object of it.
func named(names ...string) []byte {
	var e wire.Encoder
	for i, n := range names {
		e.Text(uint16(i+1), n)
	}
	return e.Bytes()
}

func tableIsOurs(c *wire.Conn, table string) (bool, error) {
	b, err := c.Request(msgType(unix.NFT_MSG_GETTABLE), inet, named(table))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the table: %w", err)
	}
	switch comment := udataText(wire.Attr(b, tableUserdata), udataComment); {
	case comment == tableComment:
		return true, nil
	case strings.HasPrefix(comment, tableComment[:strings.IndexByte(tableComment, ':')]):
		return false, fmt.Errorf("table inet %s: %w", table, ErrLayout)
	}
	return false, fmt.Errorf("table inet %s: %w", table, ErrForeign)
}

func (o *objects) readChains(c *wire.Conn, table string) error {
	// The kernel dumps the chains of all tables; it selects by table for the
	// others.
	err := c.Dump(msgType(unix.NFT_MSG_GETCHAIN), inet, nil, func(b []byte) error {
		var of, name string
		for t, v := range wire.Attrs(b) {
			switch t {
			case unix.NFTA_CHAIN_TABLE:
				of = wire.Text(v)
			case unix.NFTA_CHAIN_NAME:
				name = wire.Text(v)
			}
		}
		if of == table {
			o.chains[name] = &haveChain{}
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
	return c.Dump(msgType(unix.NFT_MSG_GETRULE), inet, named(append([]string{table}, chain...)...), func(b []byte) error {
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
				r.comment = udataText(v, udataComment)
				r.fingerprint = udataValue(v, udataFingerprint)
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
		if m.spec == nil || m.spec.dynamic {
			continue // what packets fill is theirs
		}
		ends := map[string]bool{}
		err := c.Dump(msgType(unix.NFT_MSG_GETSETELEM), inet, named(table, name), func(b []byte) error {
			for e, end := range m.decoded(b) {
				if end {
					ends[e.key] = true
				} else if m.spec.holds(e) {
					m.elements[e.id()] = e
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if m.spec.prefixes {
			m.close(ends)
		}
	}
	return nil
}

// readSpecs reads which maps there are.
func (o *objects) readSpecs(c *wire.Conn, table string) error {
	var names []string
	err := c.Dump(msgType(unix.NFT_MSG_GETSET), inet, named(table), func(b []byte) error {
		if wire.Text(wire.Attr(b, unix.NFTA_SET_TABLE)) == table {
			names = append(names, wire.Text(wire.Attr(b, unix.NFTA_SET_NAME)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	specs := map[string]*mapping{}
	for _, m := range layout(table, lengthsIn(slices.Values(names))).maps {
		specs[m.name] = m
	}
	for _, name := range names {
		spec := specs[name]
		for _, f := range families {
			if strings.HasPrefix(name, listPrefix+f.digit) {
				spec = &mapping{name: name, key: typ{f.addr}, prefixes: true}
			}
		}
		o.maps[name] = &haveMap{spec: spec, elements: map[string]element{}}
	}
	return nil
}

// decoded are the elements of a message. end: it is the end of a prefix.
func (m *haveMap) decoded(attrs []byte) iter.Seq2[element, bool] {
	return func(yield func(e element, end bool) bool) {
		// The elements share the memory of one copy.
		for _, v := range wire.Attrs(string(wire.Attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS))) {
			if !yield(m.spec.decode(v)) {
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
		e.end = strings.Repeat("\xff", len(e.key))
		if i := sort.SearchStrings(sorted, e.key+"\x00"); i < len(sorted) {
			a, _ := netip.AddrFromSlice([]byte(sorted[i]))
			e.end = addrBytes(a.Prev())
		}
		m.elements[id] = e
	}
}

// id tells the elements of a map apart.
func (e element) id() string { return e.key + e.end }

// holds reports whether an element is of the map's types.
func (m *mapping) holds(e element) bool {
	return len(e.key) == m.key.size() &&
		(e.end == "" || len(e.end) == len(e.key)) &&
		(m.verdicts() || len(e.data) == m.data.size())
}

// decode reads what messages.element writes. end: it is the end of a prefix.
func (m *mapping) decode(b string) (e element, end bool) {
	var x extra
	for t, v := range wire.Attrs(b) {
		switch t {
		case unix.NFTA_SET_ELEM_KEY:
			e.key = wire.Attr(v, unix.NFTA_DATA_VALUE)
		case elemKeyEnd:
			e.end = wire.Attr(v, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_DATA:
			if m.verdicts() {
				e.data = wire.Text(wire.Attr(wire.Attr(v, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN))
			} else {
				e.data = wire.Attr(v, unix.NFTA_DATA_VALUE)
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			end = wire.Uint32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_USERDATA:
			x.comment = udataText(v, udataComment)
			if f := udataValue(v, udataFingerprint); f != "" {
				x.udata = udata(udataFingerprint, string(f))
			}
		case unix.NFTA_SET_ELEM_EXPR:
			d := wire.Attr(v, unix.NFTA_EXPR_DATA)
			x.bytes = wire.Uint64(wire.Attr(d, unix.NFTA_COUNTER_BYTES))
			x.packets = wire.Uint64(wire.Attr(d, unix.NFTA_COUNTER_PACKETS))
		}
	}
	if x != noExtra {
		e.extra = &x
	}
	// A set of ranges gives a single key its own end.
	if m.interval && e.end == "" {
		e.end = e.key
	}
	return e, end
}

// udataText returns a text of user data, without its final NUL.
func udataText[B ~[]byte | ~string](b B, typ byte) string {
	return strings.TrimSuffix(udataValue(b, typ), "\x00")
}

// udataValue returns a value of user data, empty where there is none.
func udataValue[B ~[]byte | ~string](b B, typ byte) string {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return ""
		}
		if b[0] == typ {
			return string(b[2:n])
		}
		b = b[n:]
	}
	return ""
}
