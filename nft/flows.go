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
	"cmp"
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
	movingChain = "moving"
	movingOut   = "moving-out"
	movingZone  = 0x4e4c // of nobody else, it is to be hoped; no harm if it is
	movingText  = "ct original zone set 20044"
	// settleTime is how long answers that are under way may take.
	settleTime = 250 * time.Millisecond

	rawPriority = -300 // NF_IP_PRI_RAW, before conntrack
	ctDirection = 3    // NFTA_CT_DIRECTION
)

func (f *family) moving() string { return movingChain + f.digit }

// endFlows makes conntrack forget the flows of backends that are gone.
func (w *writer) endFlows(gone departed, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	flows, err := flowsOf(w.conn, gone, o.Cut)
	if err == nil {
		err = w.forget(flows, result)
	}
	return flowsError(err)
}

func flowsError(err error) error {
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
	var flows []flow
	err := tracked(w.conn, func(f flow) {
		if !alive[f.mark&indexMask] {
			flows = append(flows, f.clone())
		}
	})
	if err == nil {
		err = w.forget(flows, result)
	}
	return flowsError(err)
}

// moveFlows is endFlows for backends that may be answering still.
func (w *writer) moveFlows(gone departed, o Options, result *Result) error {
	if o.DryRun || len(gone) == 0 {
		return nil
	}
	flows, err := flowsOf(w.conn, gone, o.Cut)
	if err != nil {
		return flowsError(err)
	}
	flows = slices.DeleteFunc(flows, func(f flow) bool { return f.protocol != lb.UDP || f.zoned || f.movingKey() == "" })
	aside := setAside(flows)
	if len(aside) == 0 || w.now(aside, result) != nil {
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
	if e := w.now(removeMoving(adds(aside)), result); e != nil && err == nil {
		err = flowsError(e)
	}
	w.pause(settle)
	for i := range flows {
		flows[i].key = flows[i].zonedKey()
	}
	_ = w.forget(flows, &Result{}) // they would end by themselves
	return err
}

// pause lets time pass; what comes after a commit is done in any case.
func (w *writer) pause(d time.Duration) {
	select {
	case <-w.ctx.Done():
	case <-time.After(d):
	}
}

// flowsOf are the flows of backends that have to end.
func flowsOf(c *wire.Conn, gone departed, cut bool) ([]flow, error) {
	var out []flow
	protocol := lb.UDP
	if cut {
		protocol = 0 // all
	}
	err := trackedOf(c, gone, protocol, func(f flow) { out = append(out, f.clone()) })
	return out, err
}

func (f flow) clone() flow {
	f.key, f.tuple = slices.Clone(f.key), slices.Clone(f.tuple)
	return f
}

func (w *writer) forget(flows []flow, result *Result) error {
	orders := make([]wire.Order, len(flows))
	for i, f := range flows {
		orders[i] = wire.Order{Family: f.family, Attrs: f.key}
	}
	var failed error
	err := w.conn.DoAll(ctDelete, orders, func(_ int, err error) {
		switch {
		case err == nil:
			result.Ended++
		case !errors.Is(err, unix.ENOENT): // else it ended by itself
			failed = err
		}
	})
	return cmp.Or(err, failed)
}

// zonedKey is the key of the flow's connection in the zone.
func (f *flow) zonedKey() []byte {
	var e wire.Encoder
	tuple := e.Begin(ctaTupleOrig)
	e.Raw(f.tuple)
	e.Data(ctaTupleZone, string(binary.BigEndian.AppendUint16(nil, movingZone)))
	e.End(tuple)
	return e.Bytes()
}

// movingKey is the flow as the maps of moving flows have it: source, port,
// destination, port. It is empty where conntrack does not say.
func (f *flow) movingKey() string {
	ip, proto := wire.Attr(f.tuple, ctaTupleIP), wire.Attr(f.tuple, ctaTupleProto)
	fam, first := families[0], uint16(ctaIPv4Src)
	if f.family == unix.AF_INET6 {
		fam, first = families[1], ctaIPv6Src
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

// setAside is what puts what clients send in these flows into the zone.
func setAside(flows []flow) []op {
	var ops []op
	in := &chain{name: movingChain, hook: &hook{"prerouting", unix.NF_INET_PRE_ROUTING, rawPriority, "raw"}, filter: true}
	out := &chain{name: movingOut, hook: &hook{"output", unix.NF_INET_LOCAL_OUT, rawPriority, "raw"}, filter: true}
	for _, f := range families {
		m := movingMap(f)
		seen := map[string]bool{}
		for i := range flows {
			key := flows[i].movingKey()
			if len(key) == m.key.size() && !seen[key] {
				seen[key] = true
				m.elements = append(m.elements, element{key: key})
			}
		}
		if len(m.elements) == 0 {
			continue
		}
		ops = append(ops, op{verb: add, mapping: m}, op{verb: add, mapping: m, elements: m.elements})
		r := rule{statements: []statement{f.setZone()}}
		in.rules, out.rules = append(in.rules, r), append(out.rules, r)
	}
	if len(ops) == 0 {
		return nil
	}
	for _, c := range []*chain{in, out} {
		ops = append(ops, op{verb: add, chain: c})
		for i := range c.rules {
			ops = append(ops, op{verb: add, chain: c, rule: &c.rules[i]})
		}
	}
	return ops
}

func movingMap(f *family) *mapping {
	return &mapping{name: f.moving(), key: typ{f.addr, inetService, f.addr, inetService}}
}

// removeMoving undoes what setAside made, as far as it is there.
func removeMoving(there func(object string) bool) []op {
	var ops []op
	for _, name := range []string{movingChain, movingOut} {
		if there(name) {
			ops = append(ops, op{verb: remove, chain: &chain{name: name}})
		}
	}
	for _, f := range families {
		if there(f.moving()) {
			ops = append(ops, op{verb: remove, mapping: movingMap(f)})
		}
	}
	return ops
}

// adds tells the objects that operations make.
func adds(ops []op) func(object string) bool {
	made := map[string]bool{}
	for _, o := range ops {
		if o.mapping != nil {
			made[o.mapping.name] = true
		} else {
			made[o.chain.name] = true
		}
	}
	return func(object string) bool { return made[object] }
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

// setZone is the statement that gives moving flows the zone.
func (f *family) setZone() statement {
	width := uint32(f.addr.padded() / 4)
	exprs := append([]expr.Any{
		loadL4, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_UDP}},
	}, f.isFamily()...)
	s := newStatement("meta l4proto udp "+f.word+" saddr . th sport . "+f.word+" daddr . th dport @"+f.moving()+" "+movingText, append(exprs,
		&expr.Payload{DestRegister: reg32, Base: expr.PayloadBaseNetworkHeader, Offset: f.saddr, Len: uint32(f.addr.size)},
		&expr.Payload{DestRegister: reg32 + width, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Payload{DestRegister: reg32 + width + 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.daddr, Len: uint32(f.addr.size)},
		&expr.Payload{DestRegister: reg32 + 2*width + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg32, SetName: f.moving()},
		&expr.Immediate{Register: reg, Data: binary.NativeEndian.AppendUint16(nil, movingZone)})...)
	s.exprs = append(s.exprs, zoneOfOriginal()...)
	return s
}

// zoneOfOriginal sets the zone of one direction, which the library cannot
// encode.
//
//	LIST_ELEM: EXPR_NAME, EXPR_DATA [CT_KEY, CT_DIRECTION, CT_SREG]
func zoneOfOriginal() []byte {
	var e wire.Encoder
	item := e.Begin(unix.NFTA_LIST_ELEM)
	e.Text(unix.NFTA_EXPR_NAME, "ct")
	data := e.Begin(unix.NFTA_EXPR_DATA)
	e.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
	e.Data(ctDirection, "\x00") // IP_CT_DIR_ORIGINAL
	e.Uint32(unix.NFTA_CT_SREG, reg)
	e.End(data)
	e.End(item)
	return e.Bytes()
}
