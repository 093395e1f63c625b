package ipvs

// Translation: a virtual service as one of ours.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
)

// Service is the service without name, listen and protocols.
func (v *Virtual) Service(d *importer.Draft) lb.Service {
	s := lb.Service{SNAT: lb.SNAT{Mode: lb.SNATNone}}
	v.schedule(d, &s)
	v.affinity(d, &s)
	v.backends(d, &s)
	if v.OnePacket {
		d.Lost("--ops chooses a server for each packet; the profile does for each flow", "", v.Place)
	}
	return s
}

func (t *table) translate(v *Virtual) {
	s := v.Service(t.Draft)
	if len(s.Backends) == 0 && len(v.Servers) > 0 {
		t.Lost("no server of this service is left, so it is left out", "", v.Place)
		return
	}
	lines := []int{v.Place.Line}
	for _, server := range v.Servers {
		lines = append(lines, server.Place.Line)
	}
	note := importer.LineList(lines) + ": scheduler " + v.Scheduler
	if v.mark == 0 {
		s.Protocols = []lb.Protocol{v.Protocol}
		s.Listen = []lb.Listen{{Prefix: netip.PrefixFrom(v.Addr, v.Addr.BitLen()), Ports: importer.Ports(v.Port)}}
		s.Name = importer.PortName(s.Protocols, s.Listen[0].Ports, v.IPv6)
		t.Add(s, v.Place, note)
		return
	}
	for _, r := range t.resolve(v) {
		one := s
		one.Backends = slices.Clone(s.Backends)
		one.Protocols = []lb.Protocol{r.protocol}
		ports := r.ports
		if ports == nil {
			ports = importer.Ports(0)
		}
		slices.SortFunc(ports, func(a, b lb.PortRange) int { return int(a.First) - int(b.First) })
		one.Listen = []lb.Listen{{Prefix: r.prefix, Ports: ports}}
		one.Name = importer.PortName(one.Protocols, ports, r.prefix.Addr().Is6())
		t.Add(one, v.Place, note, fmt.Sprintf("mark %d is set in line %d", v.mark, r.place.Line))
	}
}

// schedulers says what is nearest to those of IPVS (ipvsadm(8)). The level is
// Note where connections are spread in a like manner, and Lost where not.
var schedulers = map[string]struct {
	ours   lb.Scheduler
	by     []lb.HashField
	equal  bool // weights make no difference
	level  importer.Level
	remark string
}{
	"rr":    {equal: true},
	"wrr":   {},
	"lc":    {ours: lb.LeastConnections, equal: true, remark: "lc chooses the server with the fewest connections; the profile makes live connections even, each second and under nlb run only"},
	"wlc":   {ours: lb.LeastConnections, remark: "wlc chooses the server with the fewest connections for its weight; the profile makes live connections even, each second and under nlb run only"},
	"sed":   {ours: lb.LeastConnections, remark: "sed chooses the server with the shortest expected delay; the profile makes live connections even, each second and under nlb run only"},
	"nq":    {ours: lb.LeastConnections, remark: "nq chooses an idle server, or as sed does; the profile makes live connections even, each second and under nlb run only"},
	"twos":  {ours: lb.Random, remark: "twos chooses the less loaded of two random servers; the profile is random by weight"},
	"sh":    {ours: lb.Hash, by: []lb.HashField{lb.SourceAddress}, remark: "sh hashes the source as the profile does, but a client may meet another server than before"},
	"mh":    {ours: lb.Consistent, by: []lb.HashField{lb.SourceAddress}, remark: "mh hashes the source and moves few clients when servers change, as the profile does, but a client may meet another server than before"},
	"dh":    {ours: lb.Hash, by: []lb.HashField{lb.DestinationAddress}, remark: "dh hashes the destination as the profile does, but a client may meet another server than before"},
	"lblc":  {ours: lb.Hash, by: []lb.HashField{lb.DestinationAddress}, remark: "lblc keeps a destination with a server while that is not overloaded; the profile always does"},
	"lblcr": {ours: lb.Hash, by: []lb.HashField{lb.DestinationAddress}, remark: "lblcr keeps a destination with a set of servers; the profile with one"},
	"fo":    {level: importer.Lost, remark: "fo sends all to the server with the highest weight, and to the next where that is gone; the profile has no such order"},
	"ovf":   {level: importer.Lost, remark: "ovf fills the server with the highest weight before the next; the profile has no such order"},
}

// Scheduled reports whether IPVS has a scheduler of this name.
func Scheduled(name string) bool { _, ok := schedulers[name]; return ok }

func (v *Virtual) schedule(d *importer.Draft, s *lb.Service) {
	at := cmp.Or(v.SchedulerAt, v.Place)
	k, ok := schedulers[v.Scheduler]
	if !ok {
		d.Lost("the scheduler "+v.Scheduler+" is not known; the profile is round-robin by weight", "", at)
		return
	}
	s.Scheduler, s.HashBy = k.ours, slices.Clone(k.by)
	for _, f := range v.Flags {
		switch {
		case (f == "sh-port" || f == "mh-port" || f == "flag-2") && s.Scheduler.Hashes():
			s.HashBy = []lb.HashField{lb.SourceAddress, lb.SourcePort}
		case f == "sh-fallback" || f == "mh-fallback" || f == "flag-1":
			d.Note(f+" sends to another server where one has weight 0: the profile does so, too", "", at)
		default:
			d.Lost("the flag "+f+" is not translated", "", at)
		}
	}
	if k.remark != "" && len(v.Servers) > 1 {
		d.Tell(k.level, k.remark, "", at)
	}
}

func (v *Virtual) affinity(d *importer.Draft, s *lb.Service) {
	if v.Engine != "" {
		d.Lost("persistence by --pe "+v.Engine+" is not translated", "", v.Place)
	}
	if v.Persistent == 0 {
		return
	}
	a := &lb.Affinity{Timeout: time.Duration(v.Persistent) * time.Second, Bits: 32, Bits6: 128}
	if v.Netmask != "" {
		bits, ok := maskBits(v.Netmask, v.IPv6)
		if !ok {
			d.Lost("the netmask "+v.Netmask+" is not one that a prefix has; the profile keeps each client for itself", "", v.Place)
		} else if v.IPv6 {
			a.Bits6 = bits
		} else {
			a.Bits = bits
		}
	}
	s.Affinity = a
}

// maskBits is the length of a netmask, or of a prefix for IPv6.
func maskBits(s string, ipv6 bool) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil && ipv6 && n >= 1 && n <= 128 {
		return n, true
	}
	a, _ := importer.Addr(s)
	bits, ok := importer.MaskBits(a)
	return bits, ok && bits > 0 && a.Is4() && !ipv6
}

// backends fills in the servers.
func (v *Virtual) backends(d *importer.Draft, s *lb.Service) {
	var kept []*Server
	for _, server := range v.Servers {
		if server.Addr.Is6() != v.IPv6 {
			d.Lost("this server is of another family than the service, so it is left out", "", server.Place)
			continue
		}
		kept = append(kept, server)
	}
	if v.direct(kept) {
		v.asDirect(d, s)
	} else if len(kept) > 0 && !slices.ContainsFunc(kept, func(o *Server) bool { return o.Forwarding == 'm' }) {
		s.SNAT = lb.SNAT{Mode: lb.Masquerade}
	}
	weights := v.weights(d, kept)
	for i, server := range kept {
		e := lb.Endpoint{Addr: server.Addr, Port: server.Port}
		b := lb.Backend{Name: e.String(), Address: e, Weight: weights[i], Priority: 1, SNAT: s.SNAT}
		if how := map[byte]string{'g': "direct routing (-g)", 'i': "a tunnel (-i)"}[server.Forwarding]; how != "" && s.Mode == lb.NAT {
			b.SNAT = lb.SNAT{Mode: lb.Masquerade}
			d.Lost(how+" is not translated: the profile reaches this server by NAT, and it sees this host in place of the client",
				"its replies come back through this host, which they did not before; the service's address on its loopback is not needed any more", server.Place)
		}
		switch {
		case server.Most > 0 && s.Mode == lb.DSR:
			d.Lost("a threshold (-x) is not in the profile: with mode: dsr, connections are not known", "", server.Place)
		case server.Most > 0:
			b.MaxConnections = server.Most
			d.Note("a server over its threshold (-x) is passed over by IPVS; the profile draws up to four times, and refuses then", "", server.Place)
		}
		s.Backends = append(s.Backends, b)
	}
}

// direct reports whether mode: dsr can do what the servers have: all are reached by
// direct routing, on the port of the service.
func (v *Virtual) direct(servers []*Server) bool {
	return v.mark == 0 && len(servers) > 0 && !slices.ContainsFunc(servers, func(o *Server) bool { return o.Forwarding != 'g' || o.Port != v.Port })
}

// remembered is how long IPVS keeps a connection that is silent, by default
// (net/netfilter/ipvs/ip_vs_proto_tcp.c, ip_vs_proto_udp.c).
var remembered = map[lb.Protocol]time.Duration{lb.TCP: 15 * time.Minute, lb.UDP: 5 * time.Minute, lb.SCTP: 15 * time.Minute}

// asDirect makes the service one of mode: dsr, which draws by a hash alone.
func (v *Virtual) asDirect(d *importer.Draft, s *lb.Service) {
	s.Mode, s.OnEmpty, s.Remember = lb.DSR, lb.Drop, remembered[v.Protocol]
	hint := "the servers are on a network of this host, without a router between, and keep the service's address on their loopback interface"
	switch {
	case s.Affinity != nil:
		s.Scheduler, s.HashBy = lb.Consistent, []lb.HashField{lb.SourceAddress}
		d.Lost("direct routing is mode: dsr, where the scheduler is a hash: persistence is a hash of the client's address", hint, v.Place)
		s.Affinity = nil
	case s.Scheduler.Hashes():
		d.Note("direct routing is mode: dsr", hint, v.Place)
	case len(v.Servers) > 1:
		s.Scheduler, s.HashBy = lb.Consistent, []lb.HashField{lb.SourceAddress, lb.SourcePort}
		d.Lost("direct routing is mode: dsr, where the scheduler is a hash: "+v.Scheduler+" becomes a hash of the client's address and port, so shares are right on the average", hint, v.Place)
	default:
		s.Scheduler, s.HashBy = lb.Consistent, []lb.HashField{lb.SourceAddress, lb.SourcePort}
		d.Note("direct routing is mode: dsr", hint, v.Place)
	}
}

// weights are those of the servers that get connections.
func (v *Virtual) weights(d *importer.Draft, servers []*Server) []int {
	equal := schedulers[v.Scheduler].equal
	highest, lowest := uint32(0), ^uint32(0)
	shares := make([]int64, len(servers))
	for i, server := range servers {
		highest = max(highest, server.Weight)
		if server.Weight > 0 {
			lowest = min(lowest, server.Weight)
		}
		if shares[i] = int64(server.Weight); equal {
			shares[i] = min(shares[i], 1)
		}
	}
	if equal && highest > lowest {
		d.Note(v.Scheduler+" does not look at weights, so the profile has none", "", v.Place)
	}
	if v.Scheduler == "fo" || v.Scheduler == "ovf" {
		for i, server := range servers {
			if shares[i] = 0; server.Weight == highest && highest > 0 {
				shares[i] = 1
				highest = 0 // only the first
			}
		}
	}
	return d.Weights(shares, v.Place)
}
