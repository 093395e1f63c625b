package nft

// Encode: objects of a ruleset become nf_tables messages
// (linux/netfilter/nf_tables.h). The attribute tree is drawn above each.

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

const (
	inet = unix.NFPROTO_INET

	// Flags and attributes that golang.org/x/sys/unix does not name.
	setConcat     = 0x80 // NFT_SET_CONCAT
	setDescConcat = 2    // NFTA_SET_DESC_CONCAT
	setFieldLen   = 1    // NFTA_SET_FIELD_LEN
	setExpr       = 0x11 // NFTA_SET_EXPR
	elemKeyEnd    = 10   // NFTA_SET_ELEM_KEY_END
	tableUserdata = 6    // NFTA_TABLE_USERDATA

	// What nft keeps in user data (libnftnl, udata.h): type, length, value.
	udataComment       = 0 // of tables, rules and elements
	udataElemFlags     = 1 // 1: the range has no end
	udataKeyOrder      = 0
	udataDataOrder     = 1
	udataSetComment    = 7
	udataFingerprint   = 0x6e // ours: nft passes over types that it does not know
	orderHost, orderBE = 1, 2

	// A list of elements fits an attribute; room for one more element.
	maxList = wire.MaxAttr - 1024
)

func msgType(m uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | m }

// messages writes the objects of one table into a batch.
type messages struct {
	*wire.Batch
	table string
	ids   uint32 // of sets, within the batch
	list  int    // how many bytes of elements go into one message
}

func (m *messages) open(typ, flags uint16, what string) {
	m.Begin(msgType(typ), inet, flags, what)
	m.Text(1, m.table) // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, ... are all 1
}

// NFTA_TABLE_NAME, FLAGS, USERDATA
func (m *messages) newTable() {
	m.open(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "table "+m.table)
	m.Uint32(unix.NFTA_TABLE_FLAGS, 0)
	m.Data(tableUserdata, udata(udataComment, tableComment+"\x00"))
	m.End()
}

func (m *messages) deleteTable() {
	m.open(unix.NFT_MSG_DELTABLE, 0, "table "+m.table)
	m.End()
}

// NFTA_SET_TABLE, NAME, FLAGS, KEY_TYPE, KEY_LEN, [DATA_TYPE, DATA_LEN], ID,
// [DESC [CONCAT [LIST_ELEM [FIELD_LEN]] ...]], USERDATA, [EXPR [counter]]
func (m *messages) newMap(s *mapping) {
	m.ids++
	m.open(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "map "+s.name)
	m.Text(unix.NFTA_SET_NAME, s.name)
	m.Uint32(unix.NFTA_SET_FLAGS, s.flags())
	m.Uint32(unix.NFTA_SET_KEY_TYPE, s.key.id())
	m.Uint32(unix.NFTA_SET_KEY_LEN, uint32(s.key.size()))
	if s.data != nil {
		m.Uint32(unix.NFTA_SET_DATA_TYPE, s.data.id())
		m.Uint32(unix.NFTA_SET_DATA_LEN, uint32(s.data.size()))
	}
	m.Uint32(unix.NFTA_SET_ID, m.ids)
	if s.dynamic {
		desc := m.Nest(unix.NFTA_SET_DESC)
		m.Uint32(unix.NFTA_SET_DESC_SIZE, maxClients)
		m.Unnest(desc)
	}
	if s.interval {
		desc := m.Nest(unix.NFTA_SET_DESC)
		concat := m.Nest(setDescConcat)
		for _, d := range s.key {
			elem := m.Nest(unix.NFTA_LIST_ELEM)
			m.Uint32(setFieldLen, uint32(d.size))
			m.Unnest(elem)
		}
		m.Unnest(concat)
		m.Unnest(desc)
	}
	m.Data(unix.NFTA_SET_USERDATA, s.userdata())
	if s.counter {
		at := m.Nest(setExpr)
		m.Text(unix.NFTA_EXPR_NAME, "counter")
		m.Unnest(at)
	}
	m.End()
}

func (s *mapping) flags() uint32 {
	var flags uint32
	if s.data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if s.interval {
		flags |= unix.NFT_SET_INTERVAL | setConcat
	}
	if s.prefixes {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.timeout {
		flags |= unix.NFT_SET_TIMEOUT
	}
	return flags
}

func (s *mapping) userdata() string {
	u := udata(udataKeyOrder, order(s.key)) + udata(udataDataOrder, order(s.data))
	if s.udata != "" {
		u += s.udata
	}
	if s.comment != "" {
		u += udata(udataSetComment, s.comment+"\x00")
	}
	return u
}

// order tells nft how to print a single number; concatenations have their own.
func order(t typ) string {
	switch {
	case len(t) != 1 || t[0].id == verdict.id:
		return "\x00\x00\x00\x00"
	case t[0].host:
		return string(binary.NativeEndian.AppendUint32(nil, orderHost))
	}
	return string(binary.NativeEndian.AppendUint32(nil, orderBE))
}

func (m *messages) deleteMap(name string) {
	m.open(unix.NFT_MSG_DELSET, 0, "map "+name)
	m.Text(unix.NFTA_SET_NAME, name)
	m.End()
}

// elements adds (or, with NFT_MSG_DELSETELEM, deletes) elements, in as many
// messages as they need: one list holds less than 64 KiB.
//
//	NFTA_SET_ELEM_LIST_TABLE, SET, ELEMENTS
//	  LIST_ELEM: KEY [VALUE], [KEY_END [VALUE]], [DATA], [USERDATA], [EXPR]
func (m *messages) elements(typ uint16, s *mapping, elements []element) {
	for len(elements) > 0 {
		flags := uint16(0)
		if typ == unix.NFT_MSG_NEWSETELEM {
			flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
		}
		m.open(typ, flags, "map "+s.name)
		m.Text(unix.NFTA_SET_ELEM_LIST_SET, s.name)
		list := m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(elements) && m.Len()-list < m.list {
			m.element(typ, s, &elements[n])
			n++
		}
		m.Unnest(list)
		m.End()
		elements = elements[n:]
	}
}

func (m *messages) element(typ uint16, s *mapping, e *element) {
	if s.prefixes {
		m.prefix(e)
		return
	}
	at := m.Nest(unix.NFTA_LIST_ELEM)
	m.value(unix.NFTA_SET_ELEM_KEY, e.key)
	if e.end != "" {
		m.value(elemKeyEnd, e.end)
	}
	if typ == unix.NFT_MSG_NEWSETELEM {
		switch {
		case s.data == nil:
		case s.verdicts():
			data := m.Nest(unix.NFTA_SET_ELEM_DATA)
			v := m.Nest(unix.NFTA_DATA_VERDICT)
			m.Uint32(unix.NFTA_VERDICT_CODE, uint32(e.verdict().code))
			if e.data != "" {
				m.Text(unix.NFTA_VERDICT_CHAIN, e.data)
			}
			m.Unnest(v)
			m.Unnest(data)
		default:
			m.value(unix.NFTA_SET_ELEM_DATA, e.data)
		}
		more := e.more()
		u := more.udata
		if more.comment != "" {
			u = udata(udataComment, more.comment+"\x00") + u
		}
		if u != "" {
			m.Data(unix.NFTA_SET_ELEM_USERDATA, u)
		}
		if more.packets != 0 || more.bytes != 0 {
			x := m.Nest(unix.NFTA_SET_ELEM_EXPR)
			m.Text(unix.NFTA_EXPR_NAME, "counter")
			d := m.Nest(unix.NFTA_EXPR_DATA)
			m.Uint64(unix.NFTA_COUNTER_BYTES, more.bytes)
			m.Uint64(unix.NFTA_COUNTER_PACKETS, more.packets)
			m.Unnest(d)
			m.Unnest(x)
		}
	}
	m.Unnest(at)
}

// prefix writes a range of single addresses: where it begins, and where the
// next begins that is not in it. The last range has no such end.
//
//	LIST_ELEM: KEY [VALUE], [USERDATA]
//	LIST_ELEM: KEY [VALUE], FLAGS
func (m *messages) prefix(e *element) {
	a, _ := netip.AddrFromSlice([]byte(e.end))
	next := a.Next()
	at := m.Nest(unix.NFTA_LIST_ELEM)
	m.value(unix.NFTA_SET_ELEM_KEY, e.key)
	if !next.IsValid() {
		m.Data(unix.NFTA_SET_ELEM_USERDATA, udata(udataElemFlags, "\x01\x00\x00\x00"))
	}
	m.Unnest(at)
	if next.IsValid() {
		at = m.Nest(unix.NFTA_LIST_ELEM)
		m.value(unix.NFTA_SET_ELEM_KEY, addrBytes(next))
		m.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		m.Unnest(at)
	}
}

func (m *messages) value(typ uint16, b string) {
	at := m.Nest(typ)
	m.Data(unix.NFTA_DATA_VALUE, b)
	m.Unnest(at)
}

// NFTA_CHAIN_TABLE, NAME, [HOOK [HOOKNUM, PRIORITY], POLICY, TYPE]
func (m *messages) newChain(c *chain) {
	m.open(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "chain "+c.name)
	m.Text(unix.NFTA_CHAIN_NAME, c.name)
	if h := c.hook; h != nil {
		at := m.Nest(unix.NFTA_CHAIN_HOOK)
		m.Uint32(unix.NFTA_HOOK_HOOKNUM, h.num)
		m.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))
		m.Unnest(at)
		m.Uint32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		m.Text(unix.NFTA_CHAIN_TYPE, c.kind())
	}
	m.End()
}

func (m *messages) deleteChain(name string) {
	m.open(unix.NFT_MSG_DELCHAIN, 0, "chain "+name)
	m.Text(unix.NFTA_CHAIN_NAME, name)
	m.End()
}

// NFTA_RULE_TABLE, CHAIN, [HANDLE], EXPRESSIONS [LIST_ELEM ...], USERDATA
func (m *messages) rule(chain string, r rule, replace uint64) {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_APPEND)
	if replace != 0 {
		flags = unix.NLM_F_REPLACE
	}
	m.open(unix.NFT_MSG_NEWRULE, flags, "chain "+chain)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	if replace != 0 {
		m.Uint64(unix.NFTA_RULE_HANDLE, replace)
	}
	at := m.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, s := range r.statements {
		m.Raw(s.exprs)
	}
	m.Unnest(at)
	var u string
	if r.comment != "" {
		u = udata(udataComment, r.comment+"\x00")
	}
	m.Data(unix.NFTA_RULE_USERDATA, u+udata(udataFingerprint, r.fingerprint()))
	m.End()
}

func (m *messages) deleteRule(chain string, handle uint64) {
	m.open(unix.NFT_MSG_DELRULE, 0, "chain "+chain)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	m.Uint64(unix.NFTA_RULE_HANDLE, handle)
	m.End()
}

// fingerprint is 8 bytes that tell rules apart. It travels with the rule, since
// what the kernel gives back of the rule itself is not what it was given.
func (r rule) fingerprint() string {
	h := fnv.New64a()
	for _, s := range r.statements {
		h.Write([]byte(s.text))
		h.Write([]byte{0})
		h.Write(s.exprs)
	}
	h.Write([]byte(r.comment))
	return string(h.Sum(nil))
}

func udata(typ byte, value string) string {
	return string([]byte{typ, byte(len(value))}) + value
}

// sourcesUdata is nft's description of `typeof numgen inc mod 2 : ip saddr`:
// without it a listing could not be loaded again, since numgen's numbers have
// a type of their own (nftables, src/numgen.c and payload.c).
func (f *family) sourcesUdata() string {
	num := func(typ byte, v uint32) string {
		return udata(typ, string(binary.NativeEndian.AppendUint32(nil, v)))
	}
	const (
		keyTypeof, dataTypeof = 3, 4
		exprID, exprData      = 0, 1
		numgenExpr            = 23 // EXPR_NUMGEN
		payloadExpr           = 7  // EXPR_PAYLOAD
	)
	numgen := num(exprID, numgenExpr) + udata(exprData, num(0, 0)+num(1, 2)+num(2, 0)) // incremental, mod 2, offset 0
	payload := num(exprID, payloadExpr) + udata(exprData, num(0, f.protoDesc)+num(1, f.saddrField))
	return strings.Join([]string{udata(keyTypeof, numgen), udata(dataTypeof, payload)}, "")
}
