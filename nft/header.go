package nft

// Headers: which tables there are, whose they are, and with which layout.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nlb/nft/ruleset"
	"nlb/nft/wire"

	"golang.org/x/sys/unix"
)

// tableComment tells people, and Load, whose table it is, and which layout it was
// made with.
const tableComment = ourTables + " see nlb show, nlb flush; layout " + layoutNumber

const (
	ourTables = "managed by nlb:"
	// layoutNumber is the version of the layout.
	//
	//	1  all slots in one map
	//	2  slots in shards
	//
	// Load reads all of them, and an apply brings an older one to this one.
	layoutNumber = "2"
)

// A comment of a table cannot be changed. So one that was made with an older
// layout has an element in the set of the record that says which it has now.
var layoutKey = ruleset.MarkBytes(0xffffffff)

// unknownLayout is later than every layout that we know.
const unknownLayout = 1 << 30

// layoutIn reads the number of a layout from the comment of a table, or of the
// element; 0: the comment is none of ours.
func layoutIn(comment string) int {
	if !strings.HasPrefix(comment, ourTables) {
		return 0
	}
	_, text, _ := strings.Cut(comment, "; layout ")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return unknownLayout
	}
	return n
}

// currentLayout is the number of the layout that Compile makes.
var currentLayout = layoutIn(tableComment)

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
	n := layoutIn(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment))
	switch {
	case n == 0:
		return 0, fmt.Errorf("table inet %s: %w", table, ErrForeign)
	case n == currentLayout:
		return n, nil
	}
	applied, err := readApplied(c, table)
	if err != nil {
		return 0, fmt.Errorf("read the layout: %w", err)
	}
	if e, ok := applied[layoutKey]; ok {
		n = layoutIn(e.More().Comment)
	}
	if n == 0 || n > currentLayout {
		return n, fmt.Errorf("table inet %s: %w", table, ErrLayout)
	}
	return n, nil
}

// markLayout makes a plan say that a table that was made with an older layout has
// this one now.
func (p *plan) markLayout(have *State) {
	if !have.objects.exists || have.objects.unknown || have.objects.layout == currentLayout {
		return
	}
	set := recordSet()
	if have.objects.maps[appliedSet] == nil {
		p.add(op{verb: add, mapping: set})
	}
	e := ruleset.Element{Key: layoutKey, Extra: &ruleset.Extra{Comment: tableComment}}
	if old, ok := have.elements(appliedSet)[layoutKey]; ok {
		p.change(set, change{old: []ruleset.Element{old}, new: []ruleset.Element{e}})
	} else {
		p.change(set, change{fresh: []ruleset.Element{e}})
	}
}

// Tables are the names of the tables of family inet that nlb made.
func Tables(c *wire.Conn) ([]string, error) {
	var out []string
	err := c.Dump(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if layoutIn(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment)) > 0 {
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
