package nft

// The record: what was applied last, kept in the table. Where nobody has
// changed the ruleset since, it spares reading everything back to find that
// nothing changed. It travels as user data that nft does not print, so that a
// ruleset that was saved and loaded again has none.

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// appliedSet has one element, whose user data is the record.
const appliedSet = "applied"

// record is the digest of what was applied and the generation that it made.
type record struct {
	digest     string
	generation uint32
}

func (r record) element() element {
	value := string(binary.BigEndian.AppendUint32(nil, r.generation)) + r.digest
	return element{key: markBytes(0), extra: &extra{udata: udata(udataFingerprint, value)}}
}

// readRecord returns the record; a table without one gives none.
func readRecord(c *wire.Conn, table string) (record, error) {
	var r record
	err := c.Dump(msgType(unix.NFT_MSG_GETSETELEM), inet, named(table, appliedSet), func(b []byte) error {
		for _, v := range wire.Attrs(wire.Attr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			value := udataValue(wire.Attr(v, unix.NFTA_SET_ELEM_USERDATA), udataFingerprint)
			if len(value) > 4 {
				r = record{value[4:], binary.BigEndian.Uint32([]byte(value))}
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return r, err
}

// upToDate reports whether exactly this was applied last, and nobody has
// changed the ruleset since.
func upToDate(c *wire.Conn, o Options) (generation uint32, ok bool, err error) {
	if o.Digest == "" || len(o.Params) > 0 || o.Cut {
		return 0, false, nil
	}
	r, err := readRecord(c, o.Table)
	if err != nil || r.digest != o.Digest+tableComment {
		return 0, false, err
	}
	generation, err = c.Generation()
	return generation, generation == r.generation, err
}

// remember makes a plan leave a record of itself. A plan that leaves retired
// backends behind leaves none, so that the next apply looks after their flows.
func (p *plan) remember(have *State, digest string) {
	old := have.elements(appliedSet)
	if len(p.ops) == 0 || digest == "" && len(old) == 0 {
		return
	}
	set := recordSet()
	if have.objects.maps[appliedSet] == nil {
		p.add(op{verb: add, mapping: set})
	}
	for _, e := range old {
		p.add(op{verb: remove, mapping: set, elements: []element{e}})
	}
	if digest != "" && !have.anyGone(p.alive) {
		// Another version of the layout would have to write it anew.
		r := record{digest + tableComment, have.Generation + 1}
		p.add(op{verb: add, mapping: set, elements: []element{r.element()}})
	}
}

func recordSet() *mapping {
	return &mapping{name: appliedSet, key: typ{mark}, comment: "what nlb applied last"}
}
