//go:build linux

// Package listing reads the ruleset of nftables as `nft -j list ruleset` prints it, by
// netlink: the objects of libnftables-json(5), as far as they say where connections
// go. What it does not know is an object that says so.
package listing

// Dumping: tables, chains, sets and rules in the order in which nft lists them.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// object is an object of JSON.
type object = map[string]any

// Attributes that golang.org/x/sys/unix does not name (linux/netfilter/nf_tables.h).
const (
	tableHandle  = 4 // NFTA_TABLE_HANDLE
	tableDormant = 1 // NFT_TABLE_F_DORMANT
	setConcat    = 0x80
	elemKeyEnd   = 10 // NFTA_SET_ELEM_KEY_END
	elemCatchall = 2  // NFT_SET_ELEM_CATCHALL
)

// tries bounds how often reading begins again because the ruleset changed.
const tries = 20

// Read lists the tables of IPv4 and IPv6 in the namespace that c talks to. Errors:
// wire.ErrInterrupted where somebody changes the ruleset all the time, *wire.Error.
func Read(c *wire.Conn) ([]json.RawMessage, error) {
	for try := 0; ; try++ {
		out, err := read(c)
		changed := errors.Is(err, wire.ErrInterrupted) || errors.Is(err, unix.ENOENT)
		if !changed || try == tries {
			return out, err
		}
	}
}

var families = []struct {
	name   string
	number uint8
}{{"ip", unix.NFPROTO_IPV4}, {"ip6", unix.NFPROTO_IPV6}, {"inet", unix.NFPROTO_INET}}

func read(c *wire.Conn) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for _, f := range families {
		l := &lister{conn: c, family: f.name, number: f.number}
		if err := l.read(); err != nil {
			return nil, fmt.Errorf("read the tables of %s: %w", f.name, err)
		}
		for _, o := range slices.Concat(l.tables, l.chains, l.rules) {
			b, err := json.Marshal(o)
			if err != nil {
				return nil, err
			}
			out = append(out, b)
		}
	}
	return out, nil
}

// lister lists the tables of one family.
type lister struct {
	conn                  *wire.Conn
	family                string
	number                uint8
	tables, chains, rules []object
	sets                  map[string]*set
}

func (l *lister) read() error {
	var names []string
	err := l.conn.Dump(wire.MsgType(unix.NFT_MSG_GETTABLE), l.number, nil, func(b []byte) error {
		name := wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME))
		names = append(names, name)
		t := object{"family": l.family, "name": name, "handle": wire.Uint64(wire.Attr(b, tableHandle))}
		if wire.Uint32(wire.Attr(b, unix.NFTA_TABLE_FLAGS))&tableDormant != 0 {
			t["flags"] = "dormant"
		}
		l.tables = append(l.tables, object{"table": t})
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.conn.Dump(wire.MsgType(unix.NFT_MSG_GETCHAIN), l.number, nil, l.chain); err != nil {
		return err
	}
	for _, name := range names {
		if err := l.readSets(name); err != nil {
			return err
		}
		err := l.conn.Dump(wire.MsgType(unix.NFT_MSG_GETRULE), l.number, wire.Named(name), func(b []byte) error {
			if wire.Text(wire.Attr(b, unix.NFTA_RULE_TABLE)) == name {
				l.rules = append(l.rules, l.rule(b, name))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) chain(b []byte) error {
	c := object{
		"family": l.family, "table": wire.Text(wire.Attr(b, unix.NFTA_CHAIN_TABLE)), "name": wire.Text(wire.Attr(b, unix.NFTA_CHAIN_NAME)),
		"handle": wire.Uint64(wire.Attr(b, unix.NFTA_CHAIN_HANDLE)),
	}
	if h := wire.Attr(b, unix.NFTA_CHAIN_HOOK); h != nil {
		hooks := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
		c["hook"] = hooks[min(int(wire.Uint32(wire.Attr(h, unix.NFTA_HOOK_HOOKNUM))), len(hooks)-1)]
		c["type"] = wire.Text(wire.Attr(b, unix.NFTA_CHAIN_TYPE))
		c["prio"] = int32(wire.Uint32(wire.Attr(h, unix.NFTA_HOOK_PRIORITY)))
		c["policy"] = "accept"
		if p := wire.Attr(b, unix.NFTA_CHAIN_POLICY); p != nil && wire.Uint32(p) == 0 {
			c["policy"] = "drop"
		}
	}
	l.chains = append(l.chains, object{"chain": c})
	return nil
}

// set is what a set or map holds, as bytes: what they mean is known where it is asked.
type set struct {
	keyLen   int
	elements []element
	dynamic  bool // rules write into it
}

type element struct {
	low, high []byte
	data      []byte
	verdict   any // nil: none
	others    bool
}

// readSets reads the sets of a table.
func (l *lister) readSets(table string) error {
	const dynamic = unix.NFT_SET_EVAL
	l.sets = map[string]*set{}
	open := map[string]bool{} // sets whose ranges end where an element of its own says
	var names []string
	err := l.conn.Dump(wire.MsgType(unix.NFT_MSG_GETSET), l.number, wire.Named(table), func(b []byte) error {
		if wire.Text(wire.Attr(b, unix.NFTA_SET_TABLE)) == table {
			name, flags := wire.Text(wire.Attr(b, unix.NFTA_SET_NAME)), wire.Uint32(wire.Attr(b, unix.NFTA_SET_FLAGS))
			names = append(names, name)
			l.sets[name] = &set{keyLen: int(wire.Uint32(wire.Attr(b, unix.NFTA_SET_KEY_LEN))), dynamic: flags&dynamic != 0}
			open[name] = flags&(unix.NFT_SET_INTERVAL|setConcat) == unix.NFT_SET_INTERVAL
		}
		return nil
	})
	for _, name := range names {
		if err == nil {
			err = l.readElements(table, name, open[name])
		}
	}
	return err
}

// readElements reads what a set holds. In an open one, ranges end where an element of
// its own says.
func (l *lister) readElements(table, name string, open bool) error {
	s := l.sets[name]
	var ends [][]byte
	err := l.conn.Dump(wire.MsgType(unix.NFT_MSG_GETSETELEM), l.number, wire.Named(table, name), func(b []byte) error {
		for _, v := range wire.Attrs(wire.Attr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e := element{low: bytes.Clone(dataValue(wire.Attr(v, unix.NFTA_SET_ELEM_KEY))), high: bytes.Clone(dataValue(wire.Attr(v, elemKeyEnd)))}
			flags := wire.Uint32(wire.Attr(v, unix.NFTA_SET_ELEM_FLAGS))
			if flags&unix.NFT_SET_ELEM_INTERVAL_END != 0 {
				ends = append(ends, e.low)
				continue
			}
			d := wire.Attr(v, unix.NFTA_SET_ELEM_DATA)
			e.data, e.others = bytes.Clone(dataValue(d)), flags&elemCatchall != 0
			if wire.Attr(d, unix.NFTA_DATA_VERDICT) != nil {
				e.verdict = verdict(d)
			}
			if e.high == nil && !open {
				e.high = e.low
			}
			s.elements = append(s.elements, e)
		}
		return nil
	})
	if open {
		for _, e := range s.elements {
			ends = append(ends, e.low)
		}
		slices.SortFunc(ends, bytes.Compare)
	}
	slices.SortFunc(s.elements, func(a, b element) int { return bytes.Compare(a.low, b.low) })
	for i := range s.elements {
		e := &s.elements[i]
		if e.high == nil && !e.others {
			e.high = Last(e.low, ends)
		}
	}
	return err
}

// Last is the last key of a range that begins at low, in an interval set whose elements
// begin a range, or end one: the key before the next element. ends are all of them, those
// that begin a range, too, sorted: a range that follows at once also ends the one before.
func Last(low []byte, ends [][]byte) []byte {
	i, _ := slices.BinarySearchFunc(ends, low, func(end, low []byte) int {
		if bytes.Compare(end, low) <= 0 {
			return -1
		}
		return 1
	})
	if i == len(ends) {
		return bytes.Repeat([]byte{0xff}, len(low))
	}
	return before(ends[i])
}

// before is the number before this one.
func before(v []byte) []byte {
	out := bytes.Clone(v)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]--
		if out[i] != 0xff {
			break
		}
	}
	return out
}

func dataValue(b []byte) []byte { return wire.Attr(b, unix.NFTA_DATA_VALUE) }

// verdict is a verdict as JSON has it.
func verdict(data []byte) any {
	v := wire.Attr(data, unix.NFTA_DATA_VERDICT)
	target := object{"target": wire.Text(wire.Attr(v, unix.NFTA_VERDICT_CHAIN))}
	switch int32(wire.Uint32(wire.Attr(v, unix.NFTA_VERDICT_CODE))) {
	case 0:
		return object{"drop": nil}
	case 1:
		return object{"accept": nil}
	case unix.NFT_JUMP:
		return object{"jump": target}
	case unix.NFT_GOTO:
		return object{"goto": target}
	case unix.NFT_RETURN:
		return object{"return": nil}
	case unix.NFT_CONTINUE:
		return object{"continue": nil}
	}
	return object{"queue": nil}
}
