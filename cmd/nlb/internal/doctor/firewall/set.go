package firewall

// Sets and maps that rules look into.

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft/listing"
	"nlb/nft/wire"
)

// maxElements bounds what is read of a set: a longer one is a list of clients,
// and of those nothing is known here.
const maxElements = 1 << 16

// set is what a set holds.
type set struct {
	keyLen   int
	elements []setElement
	// others is what becomes of what no element names (a catch-all element);
	// nil: there is none.
	others *setElement
	// complete says that all of it was read.
	complete bool
}

// setElement is a range of keys; in a map of verdicts, with one.
type setElement struct {
	Range
	action Action
	target string
}

// Flags of elements, and the last key of a range, which golang.org/x/sys/unix
// does not name.
const (
	elemIntervalEnd = 1  // NFT_SET_ELEM_INTERVAL_END
	elemCatchall    = 2  // NFT_SET_ELEM_CATCHALL
	elemKeyEnd      = 10 // NFTA_SET_ELEM_KEY_END
	setInterval     = 4  // NFT_SET_INTERVAL
	setConcat       = 0x80
)

// readSets reads the sets of a table.
func readSets(c *wire.Conn, family uint8, table string) (map[string]*set, error) {
	sets := map[string]*set{}
	open := map[string]bool{} // sets whose ranges end where an end of its own says
	var names []string
	err := c.Dump(nfTables(unix.NFT_MSG_GETSET), family, named(table), func(b []byte) error {
		if wire.Text(wire.Attr(b, unix.NFTA_SET_TABLE)) != table {
			return nil
		}
		name := wire.Text(wire.Attr(b, unix.NFTA_SET_NAME))
		names = append(names, name)
		sets[name] = &set{keyLen: int(wire.Uint32(wire.Attr(b, unix.NFTA_SET_KEY_LEN)))}
		open[name] = wire.Uint32(wire.Attr(b, unix.NFTA_SET_FLAGS))&(setInterval|setConcat) == setInterval
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the sets of %s: %w", table, err)
	}
	for _, name := range names {
		if err := sets[name].read(c, family, table, name, open[name]); err != nil {
			return nil, fmt.Errorf("read set %s of %s: %w", name, table, err)
		}
	}
	return sets, nil
}

func (s *set) read(c *wire.Conn, family uint8, table, name string, open bool) error {
	var ends [][]byte
	n := 0
	err := c.Dump(nfTables(unix.NFT_MSG_GETSETELEM), family, named(table, name), func(b []byte) error {
		for _, v := range wire.Attrs(wire.Attr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if n++; n > maxElements {
				continue
			}
			e, flags := decodeElement(v)
			switch {
			case flags&elemCatchall != 0:
				s.others = &e
			case flags&elemIntervalEnd != 0:
				ends = append(ends, e.Low)
			case len(e.Low) == s.keyLen:
				s.elements = append(s.elements, e)
			}
		}
		return nil
	})
	s.complete = n <= maxElements
	if open {
		s.close(ends)
	}
	for i := range s.elements {
		if e := &s.elements[i]; e.High == nil {
			e.High = e.Low
		}
	}
	return err
}

// close gives the ranges of an interval set their last keys: the one before
// the next end. Those that say it themselves keep it.
func (s *set) close(ends [][]byte) {
	for _, e := range s.elements {
		ends = append(ends, e.Low)
	}
	slices.SortFunc(ends, bytes.Compare)
	for i := range s.elements {
		if e := &s.elements[i]; e.High == nil {
			e.High = listing.Last(e.Low, ends)
		}
	}
}

func decodeElement(b []byte) (e setElement, flags uint32) {
	for t, v := range wire.Attrs(b) {
		switch t {
		case unix.NFTA_SET_ELEM_KEY:
			e.Low = bytes.Clone(dataValue(v))
		case elemKeyEnd:
			e.High = bytes.Clone(dataValue(v))
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = wire.Uint32(v)
		case unix.NFTA_SET_ELEM_DATA:
			if wire.Attr(v, unix.NFTA_DATA_VERDICT) != nil {
				e.action, e.target = verdict(v)
			}
		}
	}
	return e, flags
}
