package nft

// Flows: what becomes of the connections of backends that are gone. Those of
// TCP and SCTP go on, unless they are to be cut. A UDP flow has to move: its
// next datagram is to go to a backend that is there.
//
// Conntrack sends the datagrams of a flow where the first one went, so it has to
// forget the flow. But an answer that is under way at that moment would be lost.
// So the flow moves first, and is forgotten later:
//
//  1. A chain ahead of conntrack puts what clients send in these flows into a
//     zone of their own, in the original direction only. There the datagram is
//     the first of a new connection, and draws a backend. An answer of the old
//     backend still finds the old connection.
//  2. After a while the old connections are deleted, and the chain.
//  3. The next datagram is the first of a connection again, without a zone. An
//     answer to the last one finds the connection in the zone. After a while
//     these are deleted, too.

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

const (
	movingChain  = "moving"
	movingOut    = "moving-out"
	movingZone   = 0x4e4c // nobody else's, it is to be hoped; no harm if it is
	settleTime   = 250 * time.Millisecond
	rawPriority  = -300 // NF_IP_PRI_RAW, before conntrack
	ctDirection  = 3    // NFTA_CT_DIRECTION
	originalWay  = "\x00"
	movingPrefix = "moving"
)

func (f *family) moving() string { return movingPrefix + f.digit }

// endFlows makes conntrack forget the flows of backends that are gone.
func (w *writer) endFlows(gone map[uint32]bool, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	flows, err := flowsOf(w.conn, gone, o.Cut)
	if err == nil {
		err = w.forget(flows, result)
	}
	if err != nil {
		return &FlowsError{err}
	}
	return nil
}

// cut ends all connections of backends that are gone, however long ago.
func (w *writer) cut(alive map[uint32]bool, o Options, result *Result) error {
	if o.DryRun {
		return nil
	}
	flows, err := keep(w.conn, tracked, func(f flow) bool { return !alive[f.mark&indexMask] })
	if err == nil {
		err = w.forget(flows, result)
	}
	if err != nil {
		return &FlowsError{err}
	}
	return nil
}

// moveFlows is endFlows for backends that may be answering still.
func (w *writer) moveFlows(gone map[uint32]bool, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	flows, err := flowsOf(w.conn, gone, o.Cut)
	if err != nil {
		return &FlowsError{err}
	}
	move := slices.DeleteFunc(slices.Clone(flows), func(f flow) bool { return f.protocol != lb.UDP || f.zoned || f.movingKey() == "" })
	if len(move) == 0 || w.setAside(move, result) != nil {
		// A kernel without zones loses the answers that are under way.
		return w.endFlows(gone, o, result)
	}
	settle := o.Settle
	if settle == 0 {
		settle = settleTime
	}
	w.pause(settle)
	// Those that came at the very end are among them now.
	err = w.endFlows(gone, o, result)
	if e := w.comeBack(result); e != nil && err == nil {
		err = &FlowsError{e}
	}
	w.pause(settle)
	if flows, e := zonedFlows(w.conn); e == nil {
		_ = w.forget(flows, &Result{}) // they would end by themselves
	}
	return err
}

func (w *writer) pause(d time.Duration) {
	select {
	case <-w.ctx.Done(): // what follows is done in any case
	case <-time.After(d):
	}
}

// flowsOf are the flows of backends that have to end.
func flowsOf(c *wire.Conn, gone map[uint32]bool, cut bool) ([]flow, error) {
	list := trackedUDP
	if cut {
		list = tracked
	}
	return keep(c, list, func(f flow) bool { return gone[f.mark&indexMask] && (cut || f.protocol == lb.UDP) })
}

// zonedFlows are those in the zone of flows that moved.
func zonedFlows(c *wire.Conn) ([]flow, error) {
	return keep(c, trackedUDP, func(f flow) bool {
		zone := wire.Attr(f.tuple, ctaTupleZone)
		return len(zone) == 2 && binary.BigEndian.Uint16(zone) == movingZone
	})
}

func keep(c *wire.Conn, list func(*wire.Conn, func(flow)) error, wanted func(flow) bool) ([]flow, error) {
	var out []flow
	err := list(c, func(f flow) {
		if wanted(f) {
			f.key, f.tuple = slices.Clone(f.key), slices.Clone(f.tuple)
			out = append(out, f)
		}
	})
	return out, err
}

func (w *writer) forget(flows []flow, result *Result) error {
	for _, f := range flows {
		switch err := w.conn.Do(ctDelete, f.family, 0, f.key); {
		case err == nil:
			result.Ended++
		case !errors.Is(err, unix.ENOENT): // else it ended by itself
			return err
		}
	}
	return nil
}

// movingKey is the flow as the maps of moving flows have it: source, port,
// destination, port.
func (f *flow) movingKey() string {
	ip, proto := wire.Attr(f.tuple, ctaTupleIP), wire.Attr(f.tuple, ctaTupleProto)
	first := uint16(ctaIPv4Src)
	fam := families[0]
	if f.family == unix.AF_INET6 {
		first, fam = ctaIPv6Src, families[1]
	}
	var key []byte
	for i := range uint16(2) {
		addr, port := wire.Attr(ip, first+i), wire.Attr(proto, ctaProtoNum+1+i)
		if len(addr) != fam.addr.size || len(port) != 2 {
			return ""
		}
		key = append(append(key, addr...), port[0], port[1], 0, 0)
	}
	return string(key)
}

// setAside puts what clients send in these flows into the zone.
func (w *writer) setAside(flows []flow, result *Result) error {
	var ops []op
	pre := &chain{name: movingChain, hook: &hook{"prerouting", unix.NF_INET_PRE_ROUTING, rawPriority, "raw"}, filter: true}
	out := &chain{name: movingOut, hook: &hook{"output", unix.NF_INET_LOCAL_OUT, rawPriority, "raw"}, filter: true}
	for _, f := range families {
		m := movingMap(f)
		seen := map[string]bool{}
		for i := range flows {
			key := flows[i].movingKey()
			if (flows[i].family == unix.AF_INET) == (f.Family == lb.IPv4) && !seen[key] {
				seen[key] = true
				m.elements = append(m.elements, element{key: key})
			}
		}
		if len(m.elements) == 0 {
			continue
		}
		ops = append(ops, op{verb: add, mapping: m}, op{verb: add, mapping: m, elements: m.elements})
		r := rule{statements: []statement{f.setAside()}}
		pre.rules, out.rules = append(pre.rules, r), append(out.rules, r)
	}
	for _, c := range []*chain{pre, out} {
		ops = append(ops, op{verb: add, chain: c})
		for i := range c.rules {
			ops = append(ops, op{verb: add, chain: c, rule: &c.rules[i]})
		}
	}
	w.aside = ops
	return w.now(ops, result)
}

func movingMap(f *family) *mapping {
	return &mapping{name: f.moving(), key: typ{f.addr, inetService, f.addr, inetService}}
}

// comeBack undoes setAside.
func (w *writer) comeBack(result *Result) error {
	var ops []op
	for _, o := range removeMoving() {
		if slices.ContainsFunc(w.aside, func(a op) bool { return a.adds(o) }) {
			ops = append(ops, o)
		}
	}
	if w.record != nil {
		ops = append(ops, amendRecord(*w.record, result.Generation+1)...)
	}
	return w.now(ops, result)
}

// adds reports whether an operation makes the object that another one removes.
func (o op) adds(r op) bool {
	if o.mapping != nil && r.mapping != nil {
		return o.mapping.name == r.mapping.name
	}
	return o.chain != nil && r.chain != nil && o.chain.name == r.chain.name
}

func removeMoving() []op {
	ops := []op{{verb: remove, chain: &chain{name: movingChain}}, {verb: remove, chain: &chain{name: movingOut}}}
	for _, f := range families {
		ops = append(ops, op{verb: remove, mapping: movingMap(f)})
	}
	return ops
}

// now commits operations that do not depend on what else the table holds.
func (w *writer) now(ops []op, result *Result) error {
	b, limit, err := w.batch(w.table, ops, wire.AnyGeneration)
	if err != nil {
		return err
	}
	if b.Size() > limit {
		return &wire.TooBigError{Size: b.Size(), Limit: limit}
	}
	generation, err := w.conn.Generation()
	if err != nil {
		return err
	}
	if generation, err = w.conn.Commit(b, generation); err != nil {
		return err
	}
	result.Generation = generation
	return nil
}

// setAside is the statement that gives moving flows the zone:
//
//	meta l4proto udp ip saddr . th sport . ip daddr . th dport @moving4 ct original zone set 20044
func (f *family) setAside() statement {
	width := uint32(f.addr.padded() / 4)
	exprs := append([]expr.Any{
		loadL4, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_UDP}},
	}, f.isFamily()...)
	exprs = append(exprs,
		&expr.Payload{DestRegister: reg32, Base: expr.PayloadBaseNetworkHeader, Offset: f.saddr, Len: uint32(f.addr.size)},
		&expr.Payload{DestRegister: reg32 + width, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Payload{DestRegister: reg32 + width + 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.daddr, Len: uint32(f.addr.size)},
		&expr.Payload{DestRegister: reg32 + 2*width + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg32, SetName: f.moving()},
		&expr.Immediate{Register: reg, Data: binary.NativeEndian.AppendUint16(nil, movingZone)})
	s := newStatement("meta l4proto udp "+f.word+" saddr . th sport . "+f.word+" daddr . th dport @"+f.moving()+" ct original zone set 20044", exprs...)
	s.exprs = append(s.exprs, setZone()...)
	return s
}

// setZone is an expression that the library cannot encode: for one direction.
func setZone() []byte {
	var e wire.Encoder
	item := e.Begin(unix.NFTA_LIST_ELEM)
	e.Text(unix.NFTA_EXPR_NAME, "ct")
	data := e.Begin(unix.NFTA_EXPR_DATA)
	e.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
	e.Data(ctDirection, originalWay)
	e.Uint32(unix.NFTA_CT_SREG, reg)
	e.End(data)
	e.End(item)
	return e.Bytes()
}
