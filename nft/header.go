package nft

// Header: which tables there are, whose they are and with which layout; and the
// kernel parameters that a table remembers.

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// A comment of a table cannot be changed. So one that was made with an older
// layout has an element in the set of the record that says which it has now.
var layoutKey = ruleset.MarkBytes(0xffffffff)

// readLayout reads the layout of a table; 0: there is no table. One that is not
// ours is an error.
func readLayout(c *wire.Conn, table string) (int, error) {
	b, err := c.Request(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, named(table))
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the table: %w", err)
	}
	n := compile.LayoutOf(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment))
	switch {
	case n == 0:
		return 0, fmt.Errorf("table inet %s: %w", table, ErrForeign)
	case n == compile.LayoutVersion:
		return n, nil
	}
	applied, err := readApplied(c, table)
	if err != nil {
		return 0, fmt.Errorf("read the layout: %w", err)
	}
	if e, ok := applied[layoutKey]; ok {
		n = compile.LayoutOf(e.More().Comment)
	}
	if n == 0 || n > compile.LayoutVersion {
		return n, fmt.Errorf("table inet %s: %w", table, ErrLayout)
	}
	return n, nil
}

// markLayout makes a plan say that a table that was made with an older layout has
// this one now.
func (p *plan) markLayout(have *State) {
	if !have.objects.exists || have.objects.unknown || have.objects.layout == compile.LayoutVersion {
		return
	}
	set := compile.NewRecordSet()
	if have.objects.maps[compile.RecordSet] == nil {
		p.add(op{verb: add, mapping: set})
	}
	e := ruleset.Element{Key: layoutKey, Extra: &ruleset.Extra{Comment: compile.TableComment}}
	if old, ok := have.elements(compile.RecordSet)[layoutKey]; ok {
		p.change(set, change{old: []ruleset.Element{old}, new: []ruleset.Element{e}})
	} else {
		p.change(set, change{fresh: []ruleset.Element{e}})
	}
}

// Tables are the names of the tables of family inet that nlb made.
func Tables(c *wire.Conn) ([]string, error) {
	var out []string
	err := c.Dump(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if compile.LayoutOf(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment)) > 0 {
			out = append(out, wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)))
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// Header is what a table is, besides what it holds. The zero Header is one that
// is not there.
type Header struct {
	// Handle grows with every new table of the namespace, of whatever family.
	Handle uint64
	// Dormant says that the table is turned off: its chains are there and not
	// attached.
	Dormant bool
}

// ReadHeader reads the header of a table of family inet.
func ReadHeader(c *wire.Conn, table string) (Header, error) {
	const dormant, handle = 1, 4 // NFT_TABLE_F_DORMANT, NFTA_TABLE_HANDLE
	var h Header
	err := c.Dump(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)) == table {
			h.Dormant = wire.Uint32(wire.Attr(b, unix.NFTA_TABLE_FLAGS))&dormant != 0
			h.Handle = wire.Uint64(wire.Attr(b, handle))
		}
		return nil
	})
	return h, err
}

// HasStandings reports whether a table says of any backend that it is down, or
// under an order.
func HasStandings(c *wire.Conn, table string) (bool, error) {
	elements, err := readSet(c, table, compile.NewVerdictsSet())
	return len(elements) > 0, err
}

// Param is a kernel parameter and its value.
type Param struct{ Name, Value string }

// addParams adds the kernel parameters that the table does not know.
func addParams(r *ruleset.Ruleset, have *State, params []Param) {
	known := map[string]bool{}
	for _, p := range paramsIn(have.elements(compile.ParamsSet)) {
		known[p.Name] = true
	}
	for _, m := range r.Maps {
		if m.Name != compile.ParamsSet {
			continue
		}
		for _, p := range params {
			if !known[p.Name] {
				known[p.Name] = true
				m.Elements = append(m.Elements, p.element())
			}
		}
	}
}

// element is how the table remembers a parameter.
func (p Param) element() ruleset.Element {
	h := fnv.New32a()
	h.Write([]byte(p.Name))
	return ruleset.Element{Key: ruleset.MarkBytes(h.Sum32()), Extra: &ruleset.Extra{Comment: p.Name + " was " + p.Value}}
}

// Params are the kernel parameters that the table remembers, with the values
// that were found, sorted by name.
func (s *State) Params() []Param { return append(paramsIn(s.elements(compile.ParamsSet)), s.params...) }

func paramsIn(elements map[string]ruleset.Element) []Param {
	var out []Param
	for _, e := range elements {
		var p Param
		if n, _ := fmt.Sscanf(e.More().Comment, "%s was %s", &p.Name, &p.Value); n == 2 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return out
}
