//go:build linux

package listing

// Rules: expressions become statements. They load values into registers and compare
// what is there.

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// program is a rule while it is read.
type program struct {
	*lister
	registers map[uint32]operand
	out       []any
	comment   string
}

// rule reads a rule of a table.
func (l *lister) rule(b []byte, table string) object {
	p := &program{lister: l, registers: map[uint32]operand{}, out: []any{}}
	for _, e := range wire.Attrs(wire.Attr(b, unix.NFTA_RULE_EXPRESSIONS)) {
		p.expression(wire.Text(wire.Attr(e, unix.NFTA_EXPR_NAME)), wire.Attr(e, unix.NFTA_EXPR_DATA))
	}
	r := object{
		"family": l.family, "table": table, "chain": wire.Text(wire.Attr(b, unix.NFTA_RULE_CHAIN)),
		"handle": wire.Uint64(wire.Attr(b, unix.NFTA_RULE_HANDLE)), "expr": p.out,
	}
	// Type, length and text: the first kind is a comment (libnftnl/udata.h).
	if u := wire.Attr(b, unix.NFTA_RULE_USERDATA); len(u) > 2 && u[0] == 0 && len(u) >= 2+int(u[1]) {
		p.comment = wire.Text(u[2 : 2+int(u[1])])
	}
	if p.comment != "" {
		r["comment"] = p.comment
	}
	return object{"rule": r}
}

func (p *program) say(name string, v any) { p.out = append(p.out, object{name: v}) }

// lost says that a part is not known.
func (p *program) lost(what string) {
	p.say("match", object{"op": "==", "left": object{what: nil}, "right": 0})
}

// at is the number of the 32-bit register where a register begins.
func at(reg uint32) uint32 {
	if reg >= unix.NFT_REG32_00 {
		return reg - unix.NFT_REG32_00
	}
	return 4 * (reg - unix.NFT_REG_1)
}

func (p *program) load(reg uint32, o operand) { p.registers[at(reg)] = o }

// words that are the same in netlink and in JSON, by their numbers.
var (
	metas = map[uint32]operand{
		unix.NFT_META_IIFNAME: {expr: "iifname", kind: name, n: 16}, unix.NFT_META_OIFNAME: {expr: "oifname", kind: name, n: 16},
		unix.NFT_META_NFPROTO: {expr: "nfproto", kind: family, n: 1}, unix.NFT_META_PROTOCOL: {expr: "protocol", kind: etherType, n: 2},
		unix.NFT_META_L4PROTO: {expr: "l4proto", kind: own, n: 1}, unix.NFT_META_MARK: {expr: "mark", kind: own, n: 4},
	}
	cts = map[uint32]operand{
		unix.NFT_CT_STATE: {expr: "state", kind: state, n: 4}, unix.NFT_CT_STATUS: {expr: "status", kind: status, n: 4},
		unix.NFT_CT_MARK: {expr: "mark", kind: own, n: 4}, unix.NFT_CT_DIRECTION: {expr: "direction", kind: own, n: 1},
	}
)

func keyed(kind string, o operand) operand {
	if o.expr != nil {
		o.expr = object{kind: object{"key": o.expr}}
	}
	return o
}

// headers are fields of headers, by base, offset and length.
var headers = map[[3]uint32]operand{
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4}:  field("ip", "saddr", address),
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4}:  field("ip", "daddr", address),
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 9, 1}:   field("ip", "protocol", own),
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16}:  field("ip6", "saddr", address),
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16}: field("ip6", "daddr", address),
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 1}:   field("ip6", "nexthdr", own),
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2}: field("th", "sport", big),
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2}: field("th", "dport", big),
}

func field(protocol, name string, k kind) operand {
	return operand{expr: object{"payload": object{"protocol": protocol, "field": name}}, kind: k}
}

// header is a field of a header.
func header(base, offset, n uint32) operand {
	o, known := headers[[3]uint32{base, offset, n}]
	// A prefix that ends at a byte is compared by its bytes.
	switch {
	case known, base != unix.NFT_PAYLOAD_NETWORK_HEADER:
	case (offset == 12 || offset == 16) && n < 4:
		o = header(base, offset, 4)
	case (offset == 8 || offset == 24) && n > 1 && n < 16:
		o = header(base, offset, 16)
	}
	o.n = int(n)
	return o
}

func (p *program) expression(name string, b []byte) {
	num := func(typ uint16) uint32 { return wire.Uint32(wire.Attr(b, typ)) }
	has := func(typ uint16) bool { return wire.Attr(b, typ) != nil }
	switch name {
	case "meta":
		if has(unix.NFTA_META_DREG) {
			p.load(num(unix.NFTA_META_DREG), keyed("meta", metas[num(unix.NFTA_META_KEY)]))
		} else if num(unix.NFTA_META_KEY) == unix.NFT_META_MARK {
			p.mark("meta", num(unix.NFTA_META_SREG))
		}
	case "ct":
		if has(unix.NFTA_CT_DREG) {
			o := keyed("ct", cts[num(unix.NFTA_CT_KEY)])
			if has(unix.NFTA_CT_DIRECTION) {
				o = operand{}
			}
			p.load(num(unix.NFTA_CT_DREG), o)
		} else if num(unix.NFTA_CT_KEY) == unix.NFT_CT_MARK {
			p.mark("ct", num(unix.NFTA_CT_SREG))
		}
	case "payload":
		if has(unix.NFTA_PAYLOAD_DREG) {
			p.load(num(unix.NFTA_PAYLOAD_DREG), header(num(unix.NFTA_PAYLOAD_BASE), num(unix.NFTA_PAYLOAD_OFFSET), num(unix.NFTA_PAYLOAD_LEN)))
		}
	case "fib":
		o := operand{}
		side := map[uint32]string{unix.NFTA_FIB_F_SADDR: "saddr", unix.NFTA_FIB_F_DADDR: "daddr"}[num(unix.NFTA_FIB_FLAGS)]
		if num(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_ADDRTYPE && side != "" {
			o = operand{expr: object{"fib": object{"result": "type", "flags": []string{side}}}, kind: local, n: 4}
		}
		p.load(num(unix.NFTA_FIB_DREG), o)
	case "bitwise":
		p.bitwise(b)
	case "cmp":
		op := map[uint32]string{unix.NFT_CMP_EQ: "==", unix.NFT_CMP_NEQ: "!=", unix.NFT_CMP_LT: "<", unix.NFT_CMP_LTE: "<=", unix.NFT_CMP_GT: ">", unix.NFT_CMP_GTE: ">="}[num(unix.NFTA_CMP_OP)]
		p.compare(op, num(unix.NFTA_CMP_SREG), dataValue(wire.Attr(b, unix.NFTA_CMP_DATA)))
	case "range":
		o := p.registers[at(num(unix.NFTA_RANGE_SREG))]
		op := map[bool]string{true: "!=", false: "=="}[num(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ]
		p.match(op, o, between(o.kind, dataValue(wire.Attr(b, unix.NFTA_RANGE_FROM_DATA)), dataValue(wire.Attr(b, unix.NFTA_RANGE_TO_DATA))))
	case "byteorder":
		o := p.registers[at(num(unix.NFTA_BYTEORDER_SREG))]
		o.kind = map[kind]kind{own: big, big: own}[o.kind]
		if num(unix.NFTA_BYTEORDER_LEN) != uint32(o.n) || o.mask != nil || o.kind == unknown {
			o = operand{}
		}
		p.load(num(unix.NFTA_BYTEORDER_DREG), o)
	case "lookup":
		p.lookup(b)
	case "immediate":
		d := wire.Attr(b, unix.NFTA_IMMEDIATE_DATA)
		if num(unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
			p.out = append(p.out, verdict(d))
		} else {
			p.load(num(unix.NFTA_IMMEDIATE_DREG), operand{kind: immediate, data: bytes.Clone(dataValue(d))})
		}
	case "numgen":
		mode := map[uint32]string{unix.NFT_NG_INCREMENTAL: "inc", unix.NFT_NG_RANDOM: "random"}[num(unix.NFTA_NG_TYPE)]
		p.load(num(unix.NFTA_NG_DREG), operand{expr: object{"numgen": object{"mode": mode, "mod": num(unix.NFTA_NG_MODULUS), "offset": num(unix.NFTA_NG_OFFSET)}}, kind: own, n: 4})
	case "hash":
		p.hash(b)
	case "nat":
		p.nat(b)
	case "masq":
		p.say("masquerade", object{"flags": natFlags(wire.Uint32(wire.Attr(b, unix.NFTA_MASQ_FLAGS)))})
	case "redir":
		r := object{}
		if has(unix.NFTA_REDIR_REG_PROTO_MIN) {
			r["port"] = p.ports(num(unix.NFTA_REDIR_REG_PROTO_MIN), num(unix.NFTA_REDIR_REG_PROTO_MAX))
		}
		p.say("redirect", r)
	case "log":
		l := object{"prefix": wire.Text(wire.Attr(b, unix.NFTA_LOG_PREFIX))}
		levels := []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}
		if n := num(unix.NFTA_LOG_LEVEL); has(unix.NFTA_LOG_LEVEL) && int(n) < len(levels) {
			l["level"] = levels[n]
		}
		p.say("log", l)
	case "limit":
		per := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day"}[wire.Uint64(wire.Attr(b, unix.NFTA_LIMIT_UNIT))]
		p.say("limit", object{"rate": wire.Uint64(wire.Attr(b, unix.NFTA_LIMIT_RATE)), "per": per})
	case "reject":
		p.say("reject", nil)
	case "notrack":
		p.say("notrack", nil)
	case "counter", "last":
	case "match":
		p.xtMatch(wire.Text(wire.Attr(b, 1)), num(2), wire.Attr(b, 3)) // NFTA_MATCH_NAME, _REV, _INFO
	case "target":
		p.xtTarget(wire.Text(wire.Attr(b, 1)), num(2), wire.Attr(b, 3))
	case "dynset":
		p.say("set", nil)
	default:
		p.lost(name)
	}
}

// match adds a condition; nil is a value that is not known.
func (p *program) match(op string, o operand, right any) {
	if o.expr == nil || right == nil {
		p.lost("of this kind")
		return
	}
	p.say("match", object{"op": op, "left": o.expr, "right": right})
}

// compare adds the condition that a register has a value.
func (p *program) compare(op string, reg uint32, v []byte) {
	o := p.registers[at(reg)]
	switch {
	case o.mask != nil && o.kind == address:
		p.match(op, o, prefix(v, o.mask, o.n))
	case o.kind == address && len(v) == o.n && o.n != 4 && o.n != 16:
		size := 4
		if strings.Contains(fmt.Sprint(o.expr), "ip6") {
			size = 16
		}
		p.match(op, o, prefix(append(bytes.Clone(v), make([]byte, size-len(v))...), append(bytes.Repeat([]byte{0xff}, len(v)), make([]byte, size-len(v))...), size))
	case o.mask != nil && (o.kind == state || o.kind == status):
		n, _ := number(own, v)
		mask, _ := number(own, o.mask)
		if n != 0 {
			p.match("", operand{}, nil)
			return
		}
		p.match(map[string]string{"!=": "in", "==": "!="}[op], o, flags(o.kind, mask))
	case o.mask != nil && o.kind == own:
		mask, _ := number(own, o.mask)
		p.match(op, operand{expr: object{"&": []any{o.expr, mask}}}, value(own, v))
	case o.mask != nil:
		p.match(op, operand{}, nil)
	default:
		p.match(op, o, value(o.kind, v))
	}
}

// prefix is an address with a mask.
func prefix(v, mask []byte, n int) any {
	ones := 0
	for ones < 8*len(mask) && mask[ones/8]>>(7-ones%8)&1 == 1 {
		ones++
	}
	for i := ones; i < 8*len(mask); i++ {
		if mask[i/8]>>(7-i%8)&1 == 1 {
			return nil
		}
	}
	a := value(address, v)
	if a == nil || len(v) != n || len(mask) != n {
		return nil
	}
	return object{"prefix": object{"addr": a, "len": ones}}
}

// bitwise masks a register; what else it does is not known.
func (p *program) bitwise(b []byte) {
	const op = 6 // NFTA_BITWISE_OP; 0 is mask and xor
	o := p.registers[at(wire.Uint32(wire.Attr(b, unix.NFTA_BITWISE_SREG)))]
	xor := dataValue(wire.Attr(b, unix.NFTA_BITWISE_XOR))
	if wire.Uint32(wire.Attr(b, op)) != 0 || o.mask != nil || len(bytes.Trim(xor, "\x00")) > 0 || o.elements != nil {
		o = operand{}
	}
	o.mask = bytes.Clone(dataValue(wire.Attr(b, unix.NFTA_BITWISE_MASK)))
	p.load(wire.Uint32(wire.Attr(b, unix.NFTA_BITWISE_DREG)), o)
}

// fields are those that fill n bytes from a register on, each padded to 4 bytes; nil
// where one is not known.
func (p *program) fields(reg uint32, n int) (out []operand, expr any) {
	var exprs []any
	for i, have := at(reg), 0; have < n; {
		o, ok := p.registers[i]
		if !ok || o.expr == nil || o.n == 0 || o.mask != nil {
			return nil, nil
		}
		out, exprs = append(out, o), append(exprs, o.expr)
		words := (o.n + 3) / 4
		i, have = i+uint32(words), have+4*words
	}
	if len(exprs) == 1 {
		return out, exprs[0]
	}
	return out, object{"concat": exprs}
}

// lookup asks a set or a map.
func (p *program) lookup(b []byte) {
	const inverted = 1 // NFT_LOOKUP_F_INV
	s := p.sets[wire.Text(wire.Attr(b, unix.NFTA_LOOKUP_SET))]
	dreg := wire.Attr(b, unix.NFTA_LOOKUP_DREG)
	var fields []operand
	var key any
	if s != nil && !s.dynamic {
		fields, key = p.fields(wire.Uint32(wire.Attr(b, unix.NFTA_LOOKUP_SREG)), s.keyLen)
	}
	if fields == nil {
		p.lost("of this kind")
		return
	}
	verdicts := dreg != nil && wire.Uint32(dreg) == unix.NFT_REG_VERDICT
	if dreg != nil && !verdicts {
		p.load(wire.Uint32(dreg), operand{key: key, fields: fields, elements: s.elements})
		return
	}
	list := []any{}
	for i := range s.elements {
		k, verdict := s.elements[i].keys(fields), s.elements[i].verdict
		if k == nil || verdicts && verdict == nil {
			p.lost("of this kind")
			return
		}
		if verdicts {
			k = []any{k, verdict}
		}
		list = append(list, k)
	}
	if verdicts {
		p.say("vmap", object{"key": key, "data": object{"set": list}})
		return
	}
	op := map[bool]string{true: "!=", false: "=="}[wire.Uint32(wire.Attr(b, unix.NFTA_LOOKUP_FLAGS))&inverted != 0]
	p.say("match", object{"op": op, "left": key, "right": object{"set": list}})
}

// hash reads jhash and symhash.
func (p *program) hash(b []byte) {
	num := func(typ uint16) uint32 { return wire.Uint32(wire.Attr(b, typ)) }
	h := object{"mod": num(unix.NFTA_HASH_MODULUS), "offset": num(unix.NFTA_HASH_OFFSET)}
	kind := "symhash"
	if num(unix.NFTA_HASH_TYPE) == unix.NFT_HASH_JENKINS {
		kind = "jhash"
		_, h["expr"] = p.fields(num(unix.NFTA_HASH_SREG), int(num(unix.NFTA_HASH_LEN)))
	}
	p.load(num(unix.NFTA_HASH_DREG), operand{expr: object{kind: h}, kind: own, n: 4})
}

// mark sets the mark of a packet or a connection.
func (p *program) mark(kind string, reg uint32) {
	o := p.registers[at(reg)]
	var v any
	switch {
	case o.kind == immediate:
		v = value(own, o.data)
	case o.elements != nil:
		v = o.mapped(func(data []byte) any { return value(own, data) })
	case o.mask == nil:
		v = o.expr
	}
	p.say("mangle", object{"key": object{kind: object{"key": "mark"}}, "value": v})
}
