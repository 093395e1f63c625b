// Package direct turns the services with mode: dsr or tunnel into a table of family netdev, which
// stands beside the table of all services and has its name. It knows no kernel.
//
// A packet is not translated. Its hash leads to a slot, that to the mark of a backend,
// and this to the backend's address and link. The kernel finds the MAC address; with
// mode: tunnel the link is a tunnel, which has none:
//
//	entry             at ingress: destination -> the service's chain
//	PROFILE/SERVICE/direct4  hash -> slot -> backend's mark
//	send4             mark -> neighbour and link
//
// Fragments but the first have no ports. They follow what fragments4 remembers of the
// first. ICMP errors carry a packet of a backend, whose destination is the client: its
// hash is that of the client's packets.
//
// With `remember`, a map of the service remembers the backends of flows, and is asked
// first. The map stays says who may keep its flows.
package direct

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// Names of maps and chains; those of services begin with the service's chain.
const (
	EntryChain = "entry" // the only base chain
	StaysMap   = "stays" // mark and protocol -> mark, of backends that keep their flows
	LinksMap   = "links" // mark -> number of an interface

	direct, errors, known, seen, slots = "/direct", "/errors", "/known", "/seen", "/slots"
	entering                           = "entering-"
)

const (
	// mostFlows bounds what the kernel remembers of the flows of a service and family,
	// and mostDatagrams the fragmented datagrams that it knows.
	mostFlows     = 1 << 20
	mostDatagrams = 1 << 16
	// fragmentTime is how long a datagram may take to arrive.
	fragmentTime = 5 * time.Second
)

// Backends names the map from the mark of a backend to its address.
func Backends(f *compile.Family) string { return "backends" + f.IP.Digit }

func fragments(f *compile.Family) string { return "fragments" + f.IP.Digit }
func send(f *compile.Family) string      { return "send" + f.IP.Digit }
func first(f *compile.Family) string     { return "first" + f.IP.Digit }
func errorsMap(f *compile.Family) string { return "errors" + f.IP.Digit }

// chainOf names what a service and family has for a role: seen is the map that remembers its flows.
func chainOf(of, role string, f *compile.Family) string { return of + role + f.IP.Digit }

// Has reports whether a profile has a service with mode: dsr or tunnel.
func Has(profiles []*lb.Profile) bool {
	return lb.AnyService(profiles, func(s *lb.Service) bool { return s.Mode.Direct() })
}

// ProfileOf is the profile that an element of a shared map belongs to.
func ProfileOf(m *ruleset.Map, e ruleset.Element) string {
	if m.Verdicts() {
		profile, _, _ := compile.OwnerOf(e.Data)
		return profile
	}
	profile, _, _ := strings.Cut(e.More().Comment, " ")
	return profile
}

// Left is what is known of a backend that its service has no more, while flows may
// remember it: how many packets it had at a time, in seconds since 1970, and for how
// many seconds flows are remembered.
type Left struct {
	Packets     uint64
	At, Seconds int64
}

// Note makes an element say it.
func (l Left) Note(m *ruleset.Map, e ruleset.Element) ruleset.Element {
	x := *e.More()
	x.Comment = fmt.Sprintf("%s left %d %d %d", ProfileOf(m, e), l.Packets, l.At, l.Seconds)
	e.Extra = &x
	return e
}

// ReadLeft reads what Note writes.
func ReadLeft(e ruleset.Element) (l Left, ok bool) {
	_, note, _ := strings.Cut(e.More().Comment, " left ")
	n, _ := fmt.Sscan(note, &l.Packets, &l.At, &l.Seconds)
	return l, n == 3
}

// Map is the map that has this name, empty; nil: there is none.
func Map(name string) *ruleset.Map {
	for _, f := range compile.Families {
		switch name {
		case Backends(f):
			return &ruleset.Map{Name: name, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.IP.Addr}, Counter: true}
		case fragments(f):
			return flowMap(name, mostDatagrams)
		case "services" + f.IP.Digit:
			return destinations(name, false, f.IP.Addr, ruleset.InetProto, ruleset.InetService)
		case "ranges" + f.IP.Digit:
			return destinations(name, true, f.IP.Addr, ruleset.InetProto, ruleset.InetService)
		case "entering" + f.IP.Digit:
			return destinations(name, true, ruleset.Ifname, f.IP.Addr, ruleset.InetProto, ruleset.InetService)
		case errorsMap(f):
			m := destinations(name, true, f.IP.Addr, ruleset.Byte, ruleset.Short)
			m.TypeOf, m.Udata = f.IP.CauseText(false)+" : verdict", f.IP.CauseUdata(false)
			return m
		case entering + errorsMap(f):
			m := destinations(name, true, ruleset.Ifname, f.IP.Addr, ruleset.Byte, ruleset.Short)
			m.TypeOf, m.Udata = f.IP.CauseText(true)+" : verdict", f.IP.CauseUdata(true)
			return m
		}
		if chain, ok := strings.CutSuffix(name, seen+f.IP.Digit); ok {
			m := flowMap(name, mostFlows)
			m.OfChain = chain
			return m
		}
	}
	switch name {
	case LinksMap:
		return &ruleset.Map{Name: name, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Link}}
	case StaysMap:
		return &ruleset.Map{Name: name, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark, ruleset.InetProto}, Data: ruleset.Type{ruleset.Mark}}
	}
	return compile.OwnSlots(name)
}

func flowMap(name string, size uint32) *ruleset.Map {
	return &ruleset.Map{
		Name: name, Key: ruleset.Type{ruleset.Integer}, Data: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: size,
		TypeOf: "numgen inc mod 2 : meta mark", Udata: ruleset.FlowUdata(),
	}
}

func destinations(name string, ranges bool, key ...ruleset.Datatype) *ruleset.Map {
	return &ruleset.Map{Name: name, Kind: ruleset.Destinations, Key: key, Data: ruleset.Type{ruleset.Verdict}, Interval: ranges}
}

// compiler is a ruleset while it is made.
type compiler struct {
	*ruleset.Ruleset
	numbers *compile.Numbers
	links   *Links
	chains  []*ruleset.Chain // of services
}

// Ruleset is the table for the services of profiles with mode: dsr; nil: there are none.
// n has their numbers. It has all shared maps that are there already. others are
// further profiles, of which the entry needs the devices.
func Ruleset(table string, profiles, others []*lb.Profile, n *compile.Numbers, links *Links, there func(name string) bool) *ruleset.Ruleset {
	if !Has(profiles) && !Has(others) {
		return nil
	}
	c := &compiler{Ruleset: &ruleset.Ruleset{Table: table, Family: ruleset.Netdev, Comment: compile.TableComment}, numbers: n, links: links}
	for _, name := range shared() {
		c.Maps = append(c.Maps, Map(name))
	}
	for p, s := range lb.Services(profiles) {
		if s.Mode.Direct() {
			c.service(compile.ChainOf(p.Name, s.Name), s)
		}
	}
	c.Maps = slices.DeleteFunc(c.Maps, func(m *ruleset.Map) bool {
		return m.Kind == ruleset.Destinations && len(m.Elements) == 0 && !there(m.Name)
	})
	for _, f := range compile.Families {
		c.Chains = append(c.Chains, fragmentsChain(f), firstChain(f), sendChain(f))
	}
	c.Chains = append(c.Chains, c.chains...)
	if devices := links.All(slices.Concat(profiles, others)); len(devices) > 0 {
		c.Chains = append(c.Chains, c.entry(devices))
	}
	return c.Ruleset
}

// shared are the maps that all services share, in the packet's order.
func shared() []string {
	var out []string
	for _, f := range compile.Families {
		out = append(out, "entering"+f.IP.Digit, "services"+f.IP.Digit, "ranges"+f.IP.Digit, entering+errorsMap(f), errorsMap(f), fragments(f))
	}
	out = append(out, StaysMap)
	for _, f := range compile.Families {
		out = append(out, Backends(f))
	}
	return append(out, LinksMap)
}

func (c *compiler) byName(name string) *ruleset.Map {
	if i := slices.IndexFunc(c.Maps, func(m *ruleset.Map) bool { return m.Name == name }); i >= 0 {
		return c.Maps[i]
	}
	return nil
}

func (c *compiler) add(name string, e ruleset.Element) {
	m := c.byName(name)
	m.Elements = append(m.Elements, e)
}

func (c *compiler) service(chain string, s *lb.Service) {
	for _, f := range s.Families() {
		f := compile.FamilyOf(f)
		drawn := c.backends(chain, s, f)
		c.chains = append(c.chains, c.serviceChains(chain, s, f, drawn)...)
	}
	for name, e := range compile.Destinations(chain, s) {
		f := compile.Families[1]
		if strings.HasSuffix(name, compile.Families[0].IP.Digit) {
			f = compile.Families[0]
		}
		e.Data = chainOf(chain, direct, f)
		c.add(name, e)
		e.Data = chainOf(chain, errors, f)
		if e.End == "" {
			e.End = e.Key
		}
		if name = errorsMap(f); s.Interface != "" {
			name = entering + name
		}
		c.add(name, e)
	}
}

// backends writes what leads to the backends of a service and family, and returns how
// many slots there are to draw from.
func (c *compiler) backends(chain string, s *lb.Service, f *compile.Family) uint32 {
	backends := s.Of(f.Family)
	profile, _, _ := compile.ServiceOf(chain)
	extra := &ruleset.Extra{Comment: profile}
	marks := make([]string, len(backends))
	for i := range backends {
		b := &backends[i]
		marks[i] = ruleset.MarkBytes(c.numbers.Mark(chain, b))
		c.add(Backends(f), ruleset.Element{Key: marks[i], Data: ruleset.AddrBytes(b.Address.Addr), Extra: extra})
		if link := c.links.to(s, b.Address.Addr); link != 0 {
			c.add(LinksMap, ruleset.Element{Key: marks[i], Data: ruleset.MarkBytes(link), Extra: extra})
		}
		for _, p := range s.Protocols {
			if s.Remember > 0 && stays(s, b, p) {
				c.add(StaysMap, ruleset.Element{Key: marks[i] + ruleset.ProtoBytes(byte(p)), Data: marks[i], Extra: extra})
			}
		}
	}
	m := Map(chainOf(chain, slots, f))
	for slot, i := range s.SlotsWith(backends, c.numbers.HeldSlots(compile.PoolKey{Chain: chain, Family: f.Family})) {
		m.Elements = append(m.Elements, ruleset.Element{Key: ruleset.MarkBytes(uint32(slot)), Data: marks[i]})
	}
	c.Maps = append(c.Maps, m)
	if s.Remember > 0 {
		c.Maps = append(c.Maps, Map(chainOf(chain, seen, f)))
	}
	return uint32(len(m.Elements))
}

// stays reports whether a backend keeps the flows of a protocol that are remembered. As
// with translation, those of UDP leave a server that is down, the others do where on-down
// says so.
func stays(s *lb.Service, b *lb.Backend, p lb.Protocol) bool {
	cut := s.OnDown == lb.CutConnections && b.Standing.Verdict == lb.VerdictDown && b.Standing.Order != lb.OrderDisable
	return b.State != lb.Down || p != lb.UDP && !cut
}

// serviceChains are those that packets, and errors, of a service and family come to.
func (c *compiler) serviceChains(chain string, s *lb.Service, f *compile.Family, drawn uint32) []*ruleset.Chain {
	packets := &ruleset.Chain{Name: chainOf(chain, direct, f)}
	failed := &ruleset.Chain{Name: chainOf(chain, errors, f)}
	out := []*ruleset.Chain{packets, failed}
	forward := f.IP.Forward(Backends(f), LinksMap)
	next := ruleset.Goto(send(f))
	cause := f.IP.Cause()
	seen := chainOf(chain, seen, f)
	flow := ruleset.FlowHash{Family: f.IP, Fields: []ruleset.Field{f.IP.Source(), ruleset.SourcePort}, Seed: s.HashSeed}
	if s.Remember > 0 {
		back := ruleset.FlowHash{Fields: []ruleset.Field{cause.Destination, cause.DestinationPort}, Seed: s.HashSeed}
		next = ruleset.Goto(chainOf(chain, known, f))
		packets.Rules = append(packets.Rules, ruleset.NewRule(flow.SetPacketMarkBy(seen), ruleset.SetPacketMarkByProtocol(StaysMap), next))
		failed.Rules = append(failed.Rules, ruleset.NewRule(back.SetPacketMarkBy(seen), forward))
		out = append(out, &ruleset.Chain{Name: chainOf(chain, known, f), Rules: []ruleset.Rule{
			// A map that is full takes no more. So this rule stands alone.
			ruleset.NewRule(flow.Learn(seen, s.Remember)),
			ruleset.NewRule(ruleset.Goto(send(f))),
		}})
	}
	if drawn > 0 {
		draw := ruleset.FlowHash{Fields: f.HashFields(s.HashBy), Seed: s.HashSeed, Modulus: drawn}
		if slices.Contains(s.HashBy, lb.SourceAddress) || slices.Contains(s.HashBy, lb.DestinationAddress) {
			draw.Family = f.IP
		}
		packets.Rules = append(packets.Rules, ruleset.NewRule(draw.SetPacketMark()), ruleset.NewRule(ruleset.SetPacketMarkByMap(chainOf(chain, slots, f))))
		if s.Remember > 0 { // it may remember a backend that keeps nothing
			packets.Rules = append(packets.Rules, ruleset.NewRule(flow.Unlearn(seen)))
		}
		packets.Rules = append(packets.Rules, ruleset.NewRule(next))
		draw.Fields, draw.Family = causeFields(cause, s.HashBy), nil
		failed.Rules = append(failed.Rules, ruleset.NewRule(draw.SetPacketMark()), ruleset.NewRule(ruleset.SetPacketMarkByMap(chainOf(chain, slots, f))), ruleset.NewRule(forward))
	} else {
		packets.Rules = append(packets.Rules, ruleset.NewRule(ruleset.Drop()))
	}
	failed.Rules = append(failed.Rules, ruleset.NewRule(ruleset.Drop()))
	return out
}

// causeFields are the fields of the packet in an error that are those which a scheduler
// looks at in the client's packets.
func causeFields(c ruleset.Cause, by []lb.HashField) []ruleset.Field {
	of := map[lb.HashField]ruleset.Field{
		lb.SourceAddress: c.Destination, lb.SourcePort: c.DestinationPort,
		lb.DestinationAddress: c.Source, lb.DestinationPort: c.SourcePort, lb.ByProtocol: c.Protocol,
	}
	out := make([]ruleset.Field, len(by))
	for i, b := range by {
		out[i] = of[b]
	}
	return out
}

// entry is where packets come in.
func (c *compiler) entry(devices []string) *ruleset.Chain {
	out := &ruleset.Chain{Name: EntryChain, Filter: true, Hook: ruleset.Ingress(0, devices...)}
	add := func(statements ...ruleset.Statement) { out.Rules = append(out.Rules, ruleset.NewRule(statements...)) }
	for _, f := range compile.Families {
		if c.byName(errorsMap(f)) == nil && c.byName(entering+errorsMap(f)) == nil {
			continue // no service is of this family
		}
		add(f.IP.IsLaterFragment(), ruleset.Goto(fragments(f)))
		key := func(name string, fields ...ruleset.Field) []ruleset.Field {
			if strings.HasPrefix(name, "entering") {
				fields = slices.Insert(fields, 0, ruleset.InputInterface)
			}
			return fields
		}
		for _, name := range []string{"entering" + f.IP.Digit, "services" + f.IP.Digit, "ranges" + f.IP.Digit} {
			if c.byName(name) != nil {
				add(f.IP.FrameVmap(name, key(name, f.IP.Destination(), ruleset.L4Protocol, ruleset.DestinationPort)...))
			}
		}
		cause := f.IP.Cause()
		for _, name := range []string{entering + errorsMap(f), errorsMap(f)} {
			if c.byName(name) == nil {
				continue
			}
			for _, s := range f.IP.ErrorVmaps(name, key(name, f.IP.Destination(), cause.Protocol, cause.SourcePort)...) {
				add(s)
			}
		}
	}
	return out
}

// sendChain sends a packet to the backend in its mark.
func sendChain(f *compile.Family) *ruleset.Chain {
	return &ruleset.Chain{Name: send(f), Rules: []ruleset.Rule{
		ruleset.NewRule(f.IP.IsFirstFragment(), ruleset.Goto(first(f))),
		ruleset.NewRule(f.IP.Forward(Backends(f), LinksMap)),
		ruleset.NewRule(ruleset.Drop()),
	}}
}

// firstChain does the same with the first fragment of a datagram, and remembers the
// backend.
func firstChain(f *compile.Family) *ruleset.Chain {
	datagram := datagramOf(f)
	return &ruleset.Chain{Name: first(f), Rules: []ruleset.Rule{
		ruleset.NewRule(datagram.Unlearn(fragments(f))), // an earlier datagram may have had the number
		ruleset.NewRule(datagram.Learn(fragments(f), fragmentTime)),
		ruleset.NewRule(f.IP.Forward(Backends(f), LinksMap)),
		ruleset.NewRule(ruleset.Drop()),
	}}
}

// fragmentsChain sends a later fragment where the first went. Those of other datagrams
// go their way.
func fragmentsChain(f *compile.Family) *ruleset.Chain {
	return &ruleset.Chain{Name: fragments(f), Rules: []ruleset.Rule{
		ruleset.NewRule(datagramOf(f).SetPacketMarkBy(fragments(f)), f.IP.Forward(Backends(f), LinksMap)),
	}}
}

func datagramOf(f *compile.Family) ruleset.FlowHash {
	return ruleset.FlowHash{Family: f.IP, Fields: f.IP.Datagram()}
}
