package firewall

// Decoding: the expressions of an nftables rule become conditions and an
// action (linux/netfilter/nf_tables.h). Expressions load values into registers
// and compare what is there; the value itself is not known here, so a register
// holds the field that it was loaded from.

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// decoder reads the rules of one table.
type decoder struct {
	sets map[string]*set
}

// register is what a 32-bit register holds: a field, or the rest of one that
// began before it.
type register struct {
	field     Field
	mask, xor []byte
	rest      bool
}

// program is a rule while it is read. Rules that branch become several.
type program struct {
	registers map[uint32]register
	rule      Rule
	branches  []Rule
}

// rule reads a rule. A look-up of verdicts gives a rule for each of them.
func (d *decoder) rule(attrs []byte) []Rule {
	p := &program{registers: map[uint32]register{}}
	p.rule.Number = wire.Uint64(wire.Attr(attrs, unix.NFTA_RULE_HANDLE))
	for _, e := range wire.Attrs(wire.Attr(attrs, unix.NFTA_RULE_EXPRESSIONS)) {
		d.expression(p, wire.Text(wire.Attr(e, unix.NFTA_EXPR_NAME)), wire.Attr(e, unix.NFTA_EXPR_DATA))
		if p.rule.Action != Pass || p.branches != nil {
			break // what follows a verdict is never reached
		}
	}
	if p.branches != nil {
		return p.branches
	}
	return []Rule{p.rule}
}

func (d *decoder) expression(p *program, name string, b []byte) {
	num := func(typ uint16) uint32 { return wire.Uint32(wire.Attr(b, typ)) }
	has := func(typ uint16) bool { return wire.Attr(b, typ) != nil }
	switch name {
	case "meta":
		switch {
		case has(unix.NFTA_META_DREG):
			p.load(num(unix.NFTA_META_DREG), metaFields[num(unix.NFTA_META_KEY)])
		case num(unix.NFTA_META_KEY) == unix.NFT_META_MARK:
			kept, _ := p.fromConnMark(num(unix.NFTA_META_SREG))
			p.rule.Mark.Restores |= kept
		}
	case "ct":
		switch {
		case has(unix.NFTA_CT_DREG):
			p.load(num(unix.NFTA_CT_DREG), ctFields[num(unix.NFTA_CT_KEY)])
		case num(unix.NFTA_CT_KEY) == unix.NFT_CT_MARK:
			kept, set := p.fromConnMark(num(unix.NFTA_CT_SREG))
			p.rule.Mark.Sets |= ^kept | set
		}
	case "payload":
		if has(unix.NFTA_PAYLOAD_DREG) {
			f := Field{payloadKinds[num(unix.NFTA_PAYLOAD_BASE)], int(num(unix.NFTA_PAYLOAD_OFFSET)), int(num(unix.NFTA_PAYLOAD_LEN))}
			p.load(num(unix.NFTA_PAYLOAD_DREG), f)
		}
	case "fib":
		p.load(num(unix.NFTA_FIB_DREG), fibField(num(unix.NFTA_FIB_RESULT), num(unix.NFTA_FIB_FLAGS)))
	case "bitwise":
		p.bitwise(b)
	case "cmp":
		p.compare(num(unix.NFTA_CMP_SREG), num(unix.NFTA_CMP_OP), dataValue(wire.Attr(b, unix.NFTA_CMP_DATA)))
	case "range":
		r := Range{dataValue(wire.Attr(b, unix.NFTA_RANGE_FROM_DATA)), dataValue(wire.Attr(b, unix.NFTA_RANGE_TO_DATA))}
		p.within(num(unix.NFTA_RANGE_SREG), num(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ, r)
	case "lookup":
		d.lookup(p, b)
	case "immediate":
		if num(unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
			p.rule.Action, p.rule.Target = verdict(wire.Attr(b, unix.NFTA_IMMEDIATE_DATA))
		} else {
			p.load(num(unix.NFTA_IMMEDIATE_DREG), Field{})
		}
	case "nat", "masq", "redir", "tproxy":
		p.rule.Action = Translate
	case "reject":
		p.rule.Action = Drop
	case "queue", "synproxy", "fwd":
		p.rule.Action = Anything
	case "match":
		p.add(xtMatch(wire.Text(wire.Attr(b, nftaMatchName)), num(nftaMatchRev), bytes.Clone(wire.Attr(b, nftaMatchInfo)))...)
	case "target":
		name := wire.Text(wire.Attr(b, nftaMatchName))
		p.rule.Action, p.rule.Mark = xtTarget(name), xtMark(name, num(nftaMatchRev), wire.Attr(b, nftaMatchInfo))
		p.rule.Untracks = xtUntracks(name, wire.Attr(b, nftaMatchInfo))
	case "notrack":
		p.rule.Untracks = true
	case "counter", "log", "objref", "last", "dup":
	case "numgen", "hash", "byteorder":
		clear(p.registers) // what they write is not known; they always go on
	default: // limit, quota, connlimit, socket, exthdr, rt, osf, dynset, ...
		clear(p.registers)
		p.add(unknown)
	}
}

// Attributes of the expressions that iptables-nft makes (enum
// nft_target_attributes, nft_match_attributes).
const (
	nftaMatchName = 1
	nftaMatchRev  = 2
	nftaMatchInfo = 3
)

func (p *program) add(c ...Condition) { p.rule.Conditions = append(p.rule.Conditions, c...) }

// at is the number of the 32-bit register where a register begins.
func at(reg uint32) uint32 {
	if reg >= unix.NFT_REG32_00 {
		return reg - unix.NFT_REG32_00
	}
	return 4 * (reg - unix.NFT_REG_1)
}

func (p *program) load(reg uint32, f Field) {
	const all = 64 // bytes of all registers
	if f.Len > all {
		f = Field{}
	}
	p.registers[at(reg)] = register{field: f}
	for i := 1; i < (f.Len+3)/4; i++ {
		p.registers[at(reg)+uint32(i)] = register{rest: true}
	}
}

// bitwise masks a register; what shifts is not known.
func (p *program) bitwise(b []byte) {
	const opAttr, opMask = 6, 0 // NFTA_BITWISE_OP, NFT_BITWISE_MASK_XOR
	from, to := wire.Uint32(wire.Attr(b, unix.NFTA_BITWISE_SREG)), wire.Uint32(wire.Attr(b, unix.NFTA_BITWISE_DREG))
	r := p.registers[at(from)]
	if wire.Uint32(wire.Attr(b, opAttr)) != opMask || r.mask != nil || r.rest {
		p.load(to, Field{})
		return
	}
	p.load(to, r.field)
	r.mask = bytes.Clone(dataValue(wire.Attr(b, unix.NFTA_BITWISE_MASK)))
	r.xor = bytes.Clone(dataValue(wire.Attr(b, unix.NFTA_BITWISE_XOR)))
	p.registers[at(to)] = r
}

// fromConnMark says what of a register was read from the connection mark: the
// bits that are kept as they were, and those that are set, or flipped, since.
func (p *program) fromConnMark(reg uint32) (kept, set uint32) {
	r := p.registers[at(reg)]
	switch {
	case r.field.Kind != ConnMark || r.rest:
		return 0, 0
	case len(r.mask) < 4 || len(r.xor) < 4:
		return 1<<32 - 1, 0
	}
	return host.Uint32(r.mask), host.Uint32(r.xor)
}

// compare adds the condition that a register has a value, or is less or more.
func (p *program) compare(reg, op uint32, v []byte) {
	v = bytes.Clone(v)
	low, high := make([]byte, len(v)), bytes.Repeat([]byte{0xff}, len(v))
	r := single(v)
	switch op {
	case unix.NFT_CMP_EQ, unix.NFT_CMP_NEQ:
		p.within(reg, op == unix.NFT_CMP_NEQ, r)
	case unix.NFT_CMP_LTE:
		p.within(reg, false, Range{low, v})
	case unix.NFT_CMP_GT:
		p.within(reg, true, Range{low, v})
	case unix.NFT_CMP_GTE:
		p.within(reg, false, Range{v, high})
	case unix.NFT_CMP_LT:
		p.within(reg, true, Range{v, high})
	}
}

// within adds the condition that a register is in one of some ranges.
func (p *program) within(reg uint32, not bool, ranges ...Range) {
	r, ok := p.registers[at(reg)]
	if !ok || r.field.Kind == Other || r.rest {
		p.add(unknown)
		return
	}
	for i := range ranges {
		ranges[i] = Range{bytes.Clone(ranges[i].Low), bytes.Clone(ranges[i].High)}
	}
	p.add(Condition{Fields: []Field{r.field}, Mask: r.mask, Xor: r.xor, Not: not, Ranges: ranges})
}

// fields are those that fill n bytes from a register on, each padded to 4
// bytes; nil where one is not known.
func (p *program) fields(reg uint32, n int) ([]Field, register) {
	first := p.registers[at(reg)]
	var out []Field
	for i, have := at(reg), 0; have < n; {
		r, ok := p.registers[i]
		if !ok || r.rest || r.field.Kind == Other || r.field.Len == 0 || len(out) > 0 && (r.mask != nil || first.mask != nil) {
			return nil, first
		}
		out = append(out, r.field)
		words := (r.field.Len + 3) / 4
		i, have = i+uint32(words), have+4*words
	}
	return out, first
}

// lookup asks a set. A map of verdicts makes a rule of each element.
func (d *decoder) lookup(p *program, b []byte) {
	const inverted = 1 // NFT_LOOKUP_F_INV
	s := d.sets[wire.Text(wire.Attr(b, unix.NFTA_LOOKUP_SET))]
	verdicts := wire.Attr(b, unix.NFTA_LOOKUP_DREG) != nil && wire.Uint32(wire.Attr(b, unix.NFTA_LOOKUP_DREG)) == unix.NFT_REG_VERDICT
	var fields []Field
	var first register
	if s != nil && s.complete {
		fields, first = p.fields(wire.Uint32(wire.Attr(b, unix.NFTA_LOOKUP_SREG)), s.keyLen)
	}
	if fields == nil {
		p.add(unknown)
		if verdicts {
			p.rule.Action = Anything
		}
		return
	}
	within := func(not bool, ranges ...Range) Condition {
		return Condition{Fields: fields, Mask: first.mask, Xor: first.xor, Not: not, Ranges: ranges}
	}
	if verdicts {
		p.branches = []Rule{}
		for _, e := range s.elements {
			c := append(slices.Clone(p.rule.Conditions), within(false, e.Range))
			p.branches = append(p.branches, Rule{Conditions: c, Action: e.action, Target: e.target, Mark: p.rule.Mark, Untracks: p.rule.Untracks})
		}
		if s.others != nil {
			p.branches = append(p.branches, Rule{Conditions: slices.Clone(p.rule.Conditions), Action: s.others.action, Target: s.others.target, Mark: p.rule.Mark, Untracks: p.rule.Untracks})
		}
		return
	}
	ranges := make([]Range, len(s.elements))
	for i, e := range s.elements {
		ranges[i] = e.Range
	}
	if s.others == nil {
		p.add(within(wire.Uint32(wire.Attr(b, unix.NFTA_LOOKUP_FLAGS))&inverted != 0, ranges...))
	}
	if dreg := wire.Attr(b, unix.NFTA_LOOKUP_DREG); dreg != nil {
		p.load(wire.Uint32(dreg), Field{})
	}
}

func dataValue(b []byte) []byte { return wire.Attr(b, unix.NFTA_DATA_VALUE) }

// verdict reads a verdict (linux/netfilter.h, linux/netfilter/nf_tables.h).
func verdict(b []byte) (Action, string) {
	const nfDrop, nfAccept = 0, 1
	v := wire.Attr(b, unix.NFTA_DATA_VERDICT)
	target := wire.Text(wire.Attr(v, unix.NFTA_VERDICT_CHAIN))
	switch code := int32(wire.Uint32(wire.Attr(v, unix.NFTA_VERDICT_CODE))); code {
	case nfDrop:
		return Drop, ""
	case nfAccept:
		return Accept, ""
	case unix.NFT_JUMP:
		return Jump, target
	case unix.NFT_GOTO:
		return Goto, target
	case unix.NFT_RETURN:
		return Return, ""
	case unix.NFT_CONTINUE:
		return Pass, ""
	}
	return Anything, ""
}

var metaFields = map[uint32]Field{
	unix.NFT_META_IIFNAME:  {Kind: InName, Len: unix.IFNAMSIZ},
	unix.NFT_META_OIFNAME:  {Kind: OutName, Len: unix.IFNAMSIZ},
	unix.NFT_META_IIF:      {Kind: InIndex, Len: 4},
	unix.NFT_META_OIF:      {Kind: OutIndex, Len: 4},
	unix.NFT_META_NFPROTO:  {Kind: NFProto, Len: 1},
	unix.NFT_META_PROTOCOL: {Kind: EtherType, Len: 2},
	unix.NFT_META_L4PROTO:  {Kind: L4Proto, Len: 1},
}

var ctFields = map[uint32]Field{
	unix.NFT_CT_STATE:  {Kind: State, Len: 4},
	unix.NFT_CT_STATUS: {Kind: Status, Len: 4},
	unix.NFT_CT_MARK:   {Kind: ConnMark, Len: 4},
}

var payloadKinds = map[uint32]Kind{unix.NFT_PAYLOAD_NETWORK_HEADER: Network, unix.NFT_PAYLOAD_TRANSPORT_HEADER: Transport}

func fibField(result, flags uint32) Field {
	if result == unix.NFT_FIB_RESULT_ADDRTYPE && flags&unix.NFTA_FIB_F_DADDR != 0 {
		return Field{Kind: TypeOfDst, Len: 4}
	}
	return Field{Len: 4}
}
