package ruleset

// Encode: objects of a ruleset become nf_tables messages
// (linux/netfilter/nf_tables.h). The attribute tree is drawn above each.

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

const (
	// Families of tables (linux/netfilter.h).
	Inet   = unix.NFPROTO_INET
	Netdev = unix.NFPROTO_NETDEV

	// Flags and attributes that golang.org/x/sys/unix does not name.
	setConcat     = 0x80 // NFT_SET_CONCAT
	hookDevices   = 4    // NFTA_HOOK_DEVS
	deviceName    = 1    // NFTA_DEVICE_NAME
	setDescConcat = 2    // NFTA_SET_DESC_CONCAT
	setFieldLen   = 1    // NFTA_SET_FIELD_LEN
	setExpr       = 0x11 // NFTA_SET_EXPR
	elemKeyEnd    = 10   // NFTA_SET_ELEM_KEY_END
	TableUserdata = 6    // NFTA_TABLE_USERDATA

	// What nft keeps in user data (libnftnl, udata.h): type, length, value.
	UdataComment       = 0 // of tables, rules and elements
	udataElemFlags     = 1 // 1: the range has no end
	udataKeyOrder      = 0
	udataDataOrder     = 1
	udataSetComment    = 7
	UdataFingerprint   = 0x6e // ours: nft passes over types that it does not know
	orderHost, orderBE = 1, 2

	// A list of elements fits an attribute; room for one more element.
	MaxList = wire.MaxAttr - 1024
)

// Messages writes the objects of one table into a batch. A batch may have the
// messages of several tables.
type Messages struct {
	*wire.Batch
	Family uint8 // of the table: Inet or Netdev
	Table  string
	ids    uint32 // of sets, within the batch
	List   int    // how many bytes of elements go into one message
	// Together keeps the messages of one call in one batch.
	Together bool
}

func (m *Messages) open(typ, flags uint16, kind, name string) {
	m.Begin(wire.MsgType(typ), m.Family, flags, kind, name)
	m.Text(1, m.Table) // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, ... are all 1
}

// NewTable makes the table.
//
//	NFTA_TABLE_NAME, FLAGS, USERDATA
func (m *Messages) NewTable(comment string) {
	m.open(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "table", m.Table)
	m.Uint32(unix.NFTA_TABLE_FLAGS, 0)
	m.Data(TableUserdata, Udata(UdataComment, comment+"\x00"))
	m.End()
}

// DeleteTable deletes the table with all that is in it.
func (m *Messages) DeleteTable() {
	m.open(unix.NFT_MSG_DELTABLE, 0, "table", m.Table)
	m.End()
}

// NewMap makes a map, empty.
//
//	NFTA_SET_TABLE, NAME, FLAGS, KEY_TYPE, KEY_LEN, [DATA_TYPE, DATA_LEN], ID,
//	[DESC [SIZE]], [GC_INTERVAL], [DESC [CONCAT [LIST_ELEM [FIELD_LEN]] ...]], USERDATA, [EXPR [counter]]
func (m *Messages) NewMap(s *Map) {
	m.ids++
	m.open(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "map", s.Name)
	m.Text(unix.NFTA_SET_NAME, s.Name)
	m.Uint32(unix.NFTA_SET_FLAGS, s.flags())
	m.Uint32(unix.NFTA_SET_KEY_TYPE, s.Key.id())
	m.Uint32(unix.NFTA_SET_KEY_LEN, uint32(s.Key.size()))
	if s.Data != nil {
		m.Uint32(unix.NFTA_SET_DATA_TYPE, s.Data.id())
		m.Uint32(unix.NFTA_SET_DATA_LEN, uint32(s.Data.size()))
	}
	m.Uint32(unix.NFTA_SET_ID, m.ids)
	if s.Size > 0 {
		desc := m.Nest(unix.NFTA_SET_DESC)
		m.Uint32(unix.NFTA_SET_DESC_SIZE, s.Size)
		m.Unnest(desc)
	}
	if s.Collect > 0 {
		m.Uint32(unix.NFTA_SET_GC_INTERVAL, uint32(s.Collect.Milliseconds()))
	}
	if s.Interval {
		desc := m.Nest(unix.NFTA_SET_DESC)
		concat := m.Nest(setDescConcat)
		for _, d := range s.Key {
			elem := m.Nest(unix.NFTA_LIST_ELEM)
			m.Uint32(setFieldLen, uint32(d.Size))
			m.Unnest(elem)
		}
		m.Unnest(concat)
		m.Unnest(desc)
	}
	m.Data(unix.NFTA_SET_USERDATA, s.userdata())
	if s.Counter {
		at := m.Nest(setExpr)
		m.Text(unix.NFTA_EXPR_NAME, "counter")
		m.Unnest(at)
	}
	m.End()
}

func (s *Map) flags() uint32 {
	var flags uint32
	if s.Data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL | setConcat
	}
	if s.Prefixes {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.Timeout {
		flags |= unix.NFT_SET_TIMEOUT
	}
	return flags
}

func (s *Map) userdata() string {
	u := Udata(udataKeyOrder, order(s.Key)) + Udata(udataDataOrder, order(s.Data)) + s.Udata
	if s.Comment != "" {
		u += Udata(udataSetComment, s.Comment+"\x00")
	}
	return u
}

// order tells nft how to print a single number; concatenations have their own.
func order(t Type) string {
	switch {
	case len(t) != 1 || t[0].id == Verdict.id:
		return "\x00\x00\x00\x00"
	case t[0].host:
		return string(binary.NativeEndian.AppendUint32(nil, orderHost))
	}
	return string(binary.NativeEndian.AppendUint32(nil, orderBE))
}

// DeleteMap deletes a map with its elements.
func (m *Messages) DeleteMap(name string) {
	m.open(unix.NFT_MSG_DELSET, 0, "map", name)
	m.Text(unix.NFTA_SET_NAME, name)
	m.End()
}

// EmptyMap deletes all elements of a map.
func (m *Messages) EmptyMap(name string) {
	m.open(unix.NFT_MSG_DELSETELEM, 0, "map", name)
	m.Text(unix.NFTA_SET_ELEM_LIST_SET, name)
	m.End()
}

// Elements adds (or, with NFT_MSG_DELSETELEM, deletes) elements, in as many
// messages as they need: one list holds less than 64 KiB. A batch may be cut
// between two of them, unless m.Together.
//
//	NFTA_SET_ELEM_LIST_TABLE, SET, ELEMENTS
//	  LIST_ELEM: KEY [VALUE], [KEY_END [VALUE]], [DATA], [USERDATA], [EXPR]
func (m *Messages) Elements(typ uint16, s *Map, elements []Element) {
	for first := true; len(elements) > 0; first = false {
		if !first && !m.Together {
			m.Cut()
		}
		flags := uint16(0)
		if typ == unix.NFT_MSG_NEWSETELEM {
			flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
		}
		m.open(typ, flags, "map", s.Name)
		m.Text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		list := m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(elements) && m.Len()-list < m.List {
			m.element(typ, s, &elements[n])
			n++
		}
		m.Unnest(list)
		m.End()
		elements = elements[n:]
	}
}

func (m *Messages) element(typ uint16, s *Map, e *Element) {
	if s.Prefixes {
		m.prefix(e)
		return
	}
	at := m.Nest(unix.NFTA_LIST_ELEM)
	m.value(unix.NFTA_SET_ELEM_KEY, e.Key)
	if e.End != "" {
		m.value(elemKeyEnd, e.End)
	}
	if typ == unix.NFT_MSG_NEWSETELEM {
		switch {
		case s.Data == nil:
		case s.Verdicts():
			data := m.Nest(unix.NFTA_SET_ELEM_DATA)
			v := m.Nest(unix.NFTA_DATA_VERDICT)
			m.Uint32(unix.NFTA_VERDICT_CODE, uint32(s.verdict(e).code))
			if e.Data != "" {
				m.Text(unix.NFTA_VERDICT_CHAIN, e.Data)
			}
			m.Unnest(v)
			m.Unnest(data)
		default:
			m.value(unix.NFTA_SET_ELEM_DATA, e.Data)
		}
		more := e.More()
		u := more.Udata
		if more.Comment != "" {
			u = Udata(UdataComment, more.Comment+"\x00") + u
		}
		if u != "" {
			m.Data(unix.NFTA_SET_ELEM_USERDATA, u)
		}
		if more.Timeout > 0 {
			m.Uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(more.Timeout.Milliseconds()))
			m.Uint64(unix.NFTA_SET_ELEM_EXPIRATION, uint64(more.Expires.Milliseconds()))
		}
		if more.Packets != 0 || more.Bytes != 0 {
			x := m.Nest(unix.NFTA_SET_ELEM_EXPR)
			m.Text(unix.NFTA_EXPR_NAME, "counter")
			d := m.Nest(unix.NFTA_EXPR_DATA)
			m.Uint64(unix.NFTA_COUNTER_BYTES, more.Bytes)
			m.Uint64(unix.NFTA_COUNTER_PACKETS, more.Packets)
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
func (m *Messages) prefix(e *Element) {
	a, _ := netip.AddrFromSlice([]byte(e.End))
	next := a.Next()
	at := m.Nest(unix.NFTA_LIST_ELEM)
	m.value(unix.NFTA_SET_ELEM_KEY, e.Key)
	if !next.IsValid() {
		m.Data(unix.NFTA_SET_ELEM_USERDATA, Udata(udataElemFlags, "\x01\x00\x00\x00"))
	}
	m.Unnest(at)
	if next.IsValid() {
		at = m.Nest(unix.NFTA_LIST_ELEM)
		m.value(unix.NFTA_SET_ELEM_KEY, AddrBytes(next))
		m.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		m.Unnest(at)
	}
}

func (m *Messages) value(typ uint16, b string) {
	at := m.Nest(typ)
	m.Data(unix.NFTA_DATA_VALUE, b)
	m.Unnest(at)
}

// NewChain makes a chain, empty.
//
//	NFTA_CHAIN_TABLE, NAME, [HOOK [HOOKNUM, PRIORITY, [DEVS [NAME ...]]], POLICY, TYPE]
func (m *Messages) NewChain(c *Chain) {
	m.open(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "chain", c.Name)
	m.Text(unix.NFTA_CHAIN_NAME, c.Name)
	if h := c.Hook; h != nil {
		at := m.Nest(unix.NFTA_CHAIN_HOOK)
		m.Uint32(unix.NFTA_HOOK_HOOKNUM, h.Num)
		m.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))
		if len(h.Devices) > 0 {
			devices := m.Nest(hookDevices)
			for _, d := range h.Devices {
				m.Text(deviceName, d)
			}
			m.Unnest(devices)
		}
		m.Unnest(at)
		m.Uint32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		m.Text(unix.NFTA_CHAIN_TYPE, c.kind())
	}
	m.End()
}

// DeleteChain deletes a chain with its rules.
func (m *Messages) DeleteChain(name string) {
	m.open(unix.NFT_MSG_DELCHAIN, 0, "chain", name)
	m.Text(unix.NFTA_CHAIN_NAME, name)
	m.End()
}

// Rule appends a rule to a chain, or puts it in the place of the one with a handle.
// What it refers to goes ahead.
//
//	NFTA_RULE_TABLE, CHAIN, [HANDLE], EXPRESSIONS [LIST_ELEM ...], USERDATA
func (m *Messages) Rule(chain string, r Rule, replace uint64) {
	for _, s := range r.Statements {
		if s.Object != nil {
			m.newObject(s.Object)
		}
	}
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_APPEND)
	if replace != 0 {
		flags = unix.NLM_F_REPLACE
	}
	m.open(unix.NFT_MSG_NEWRULE, flags, "chain", chain)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	if replace != 0 {
		m.Uint64(unix.NFTA_RULE_HANDLE, replace)
	}
	at := m.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, s := range r.Statements {
		m.Raw(s.Exprs)
	}
	m.Unnest(at)
	u := Udata(UdataFingerprint, r.Fingerprint())
	if r.Comment != "" {
		u = Udata(UdataComment, r.Comment+"\x00") + u
	}
	m.Data(unix.NFTA_RULE_USERDATA, u)
	m.End()
}

// DeleteRule deletes a rule by its handle.
func (m *Messages) DeleteRule(chain string, handle uint64) {
	m.open(unix.NFT_MSG_DELRULE, 0, "chain", chain)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	m.Uint64(unix.NFTA_RULE_HANDLE, handle)
	m.End()
}

// Udata is an entry of user data: type, length, value.
func Udata(typ byte, value string) string {
	return string([]byte{typ, byte(len(value))}) + value
}

// What nft writes into user data of `typeof` (nftables, src/numgen.c and payload.c).
const (
	keyTypeof, dataTypeof = 3, 4
	exprID, exprData      = 0, 1
	numgenExpr            = 23   // EXPR_NUMGEN
	payloadExpr           = 7    // EXPR_PAYLOAD
	tcpHeader             = 8    // PROTO_DESC_TCP
	tcpSeq, tcpAck        = 3, 4 // TCPHDR_SEQ, TCPHDR_ACKSEQ
)

// SourcesUdata is nft's description of `typeof numgen inc mod 2 : ip saddr`:
// without it a listing could not be loaded again, since numgen's numbers have
// a type of their own.
func (f *Family) SourcesUdata() string {
	numgen := udataNumber(exprID, numgenExpr) + Udata(exprData, udataNumber(0, 0)+udataNumber(1, 2)+udataNumber(2, 0)) // incremental, mod 2, offset 0
	return Udata(keyTypeof, numgen) + Udata(dataTypeof, payloadUdata(f.protoDesc, f.saddrField))
}

// payloadUdata describes a field of a header, by nft's numbers for both.
func payloadUdata(header, field uint32) string {
	return udataNumber(exprID, payloadExpr) + Udata(exprData, udataNumber(0, header)+udataNumber(1, field))
}

func udataNumber(typ byte, v uint32) string {
	return Udata(typ, string(binary.NativeEndian.AppendUint32(nil, v)))
}
