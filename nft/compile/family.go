package compile

// Families: the maps and chains of each IP version.

import (
	"net/netip"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// Family is an IP version with the names of its maps and chains.
type Family struct {
	lb.Family
	IP *ruleset.Family

	Endpoints string // map: backend's mark -> address and port
	Addresses string // map: backend's mark -> address, of backends that keep the port
	Ports     string // map: backend's mark -> port of this host itself
	Sources   string // map: number -> SNAT address
	Deliver   string // chain: translates to the backend in the mark

	// InlineEndpoints and InlineAddresses are the same maps for services that translate inline.
	InlineEndpoints, InlineAddresses string

	match ruleset.Statement // packets of this family
	pick  string            // chain: turns a slot into a backend
	goTo  ruleset.Statement // to pick, of the first shard: nearly every service has it
}

// Families are IPv4 and IPv6, in this order.
var Families = []*Family{newFamily(lb.IPv4, ruleset.IPv4), newFamily(lb.IPv6, ruleset.IPv6)}

func newFamily(version lb.Family, ip *ruleset.Family) *Family {
	named := func(name string) string { return name + ip.Digit }
	return &Family{
		Family: version, IP: ip, match: ip.Match(),
		Endpoints: named("endpoints"), Addresses: named("addresses"), Ports: named("ports"), Sources: named("sources"),
		InlineEndpoints: named("inline-endpoints"), InlineAddresses: named("inline-addresses"),
		pick: named("pick"), goTo: ruleset.Goto(named("pick")), Deliver: named("deliver"),
	}
}

// Servers are the maps that say where backends are. Each backend is in one of them.
func (f *Family) Servers() []string {
	return append(f.ServersBehind(SlotsMap), f.ServersBehind(InlineSlotsMap)...)
}

// ServersBehind are those that a map of slots leads to.
func (f *Family) ServersBehind(slots string) []string {
	if slots == InlineSlotsMap {
		return []string{f.InlineEndpoints, f.InlineAddresses}
	}
	return []string{f.Endpoints, f.Addresses, f.Ports}
}

// ReadServer reads where a backend is from its element in one of these maps.
func (f *Family) ReadServer(name, data string) lb.Endpoint {
	if name == f.Ports {
		return lb.HostEndpoint(f.Family, ruleset.PortOf(data))
	}
	var e lb.Endpoint
	e.Addr, _ = netip.AddrFromSlice([]byte(data[:f.IP.Addr.Size]))
	if name == f.Endpoints || name == f.InlineEndpoints {
		e.Port = ruleset.PortOf(data[f.IP.Addr.Size:])
	}
	return e
}

// server is the map that says where a backend is, and what it says.
func (f *Family) server(b *lb.Backend, inline bool) (name, data string) {
	addr, port := ruleset.AddrBytes(b.Address.Addr), ruleset.PortBytes(b.Address.Port)
	switch {
	case b.Address.OfHost():
		return f.Ports, port[:ruleset.InetService.Size]
	case b.Address.Port == 0 && inline:
		return f.InlineAddresses, addr
	case b.Address.Port == 0:
		return f.Addresses, addr
	case inline:
		return f.InlineEndpoints, addr + port
	}
	return f.Endpoints, addr + port
}

// FamilyOf is the family of an IP version.
func FamilyOf(f lb.Family) *Family {
	if f == lb.IPv6 {
		return Families[1]
	}
	return Families[0]
}

// gotoPick goes to where a slot of a shard becomes a backend.
func (f *Family) gotoPick(shard uint32) ruleset.Statement {
	if shard == 0 {
		return f.goTo
	}
	return ruleset.Goto(ofShard(f.pick, shard))
}

// HashFields are the parts of a packet that a scheduler looks at.
func (f *Family) HashFields(by []lb.HashField) []ruleset.Field {
	out := make([]ruleset.Field, len(by))
	for i, b := range by {
		switch b {
		case lb.SourceAddress:
			out[i] = f.IP.Source()
		case lb.SourcePort:
			out[i] = ruleset.SourcePort
		case lb.DestinationAddress:
			out[i] = f.IP.Destination()
		case lb.DestinationPort:
			out[i] = ruleset.DestinationPort
		case lb.ByProtocol:
			out[i] = ruleset.L4Protocol
		}
	}
	return out
}
