package ipvs

// Translation: a virtual service as one of ours.

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/share"
)

func (t *table) translate(v *virtual, m *marks) {
	s := lb.Service{SNAT: lb.SNAT{Mode: lb.SNATNone}}
	t.scheduler(v, &s)
	t.affinity(v, &s)
	t.backends(v, &s)
	if v.onePacket {
		t.draft.Lost("--ops chooses a server for each packet; the profile does for each flow", "", v.place)
	}
	if len(s.Backends) == 0 && len(v.servers) > 0 {
		t.draft.Lost("no server of this service is left, so it is left out", "", v.place)
		return
	}
	lines := []int{v.place.Line}
	for _, server := range v.servers {
		lines = append(lines, server.place.Line)
	}
	slices.Sort(lines)
	note := importer.LineList(slices.Compact(lines)) + ": scheduler " + v.scheduler
	if v.mark == 0 {
		ports := []lb.PortRange{{First: v.port, Last: v.port}}
		if v.port == 0 {
			ports = []lb.PortRange{lb.AllPorts}
		}
		s.Protocols = []lb.Protocol{v.protocol}
		s.Listen = []lb.Listen{{Prefix: netip.PrefixFrom(v.addr, v.addr.BitLen()), Ports: ports}}
		s.Name = nameOf(s)
		t.draft.Add(s, v.place, note)
		return
	}
	for _, r := range m.resolve(t, v) {
		one := s
		one.Backends = slices.Clone(s.Backends)
		one.Protocols = []lb.Protocol{r.protocol}
		ports := r.ports
		if ports == nil {
			ports = []lb.PortRange{lb.AllPorts}
		}
		slices.SortFunc(ports, func(a, b lb.PortRange) int { return int(a.First) - int(b.First) })
		one.Listen = []lb.Listen{{Prefix: r.prefix, Ports: ports}}
		one.Name = nameOf(one)
		t.draft.Add(one, v.place, note, fmt.Sprintf("mark %d is set in line %d", v.mark, r.place.Line))
	}
}

// nameOf names a service by protocol and port.
func nameOf(s lb.Service) string {
	parts := []string{s.Protocols[0].String()}
	if p := s.Listen[0].Ports[0]; p != lb.AllPorts {
		parts = append(parts, p.String())
	}
	if s.Listen[0].Prefix.Addr().Is6() {
		parts = append(parts, "v6")
	}
	return strings.Join(parts, "-")
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

func (t *table) scheduler(v *virtual, s *lb.Service) {
	at := v.place
	if v.schedulerAt.Line != 0 {
		at = v.schedulerAt
	}
	k, ok := schedulers[v.scheduler]
	if !ok {
		t.draft.Lost("the scheduler "+v.scheduler+" is not known; the profile is round-robin by weight", "", at)
		return
	}
	s.Scheduler, s.HashBy = k.ours, slices.Clone(k.by)
	for _, f := range v.flags {
		switch {
		case (f == "sh-port" || f == "mh-port" || f == "flag-2") && s.Scheduler.Hashes():
			s.HashBy = []lb.HashField{lb.SourceAddress, lb.SourcePort}
		case f == "sh-fallback" || f == "mh-fallback" || f == "flag-1":
			t.draft.Note(f+" sends to another server where one has weight 0: the profile does so, too", "", at)
		default:
			t.draft.Lost("the flag "+f+" is not translated", "", at)
		}
	}
	if k.remark != "" && len(v.servers) > 1 {
		if k.level == importer.Lost {
			t.draft.Lost(k.remark, "", at)
		} else {
			t.draft.Note(k.remark, "", at)
		}
	}
}

func (t *table) affinity(v *virtual, s *lb.Service) {
	if v.engine != "" {
		t.draft.Lost("persistence by --pe "+v.engine+" is not translated", "", v.place)
	}
	if v.persistent == 0 {
		return
	}
	a := &lb.Affinity{Timeout: time.Duration(v.persistent) * time.Second, Bits: 32, Bits6: 128}
	if v.netmask != "" {
		bits, ok := maskBits(v.netmask, v.ipv6)
		if !ok {
			t.draft.Lost("the netmask "+v.netmask+" is not one that a prefix has; the profile keeps each client for itself", "", v.place)
		} else if v.ipv6 {
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
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || ipv6 {
		return 0, false
	}
	for bits := 1; bits <= 32; bits++ {
		all, _ := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(bits)
		if all.Addr() == a {
			return bits, true
		}
	}
	return 0, false
}

// backends fills in the servers that IPVS masquerades.
func (t *table) backends(v *virtual, s *lb.Service) {
	var kept []*server
	for _, server := range v.servers {
		switch {
		case server.addr.Is6() != v.ipv6:
			t.draft.Lost("this server is of another family than the service, so it is left out", "", server.place)
		default:
			kept = append(kept, server)
		}
		if how := map[byte]string{'g': "direct routing (-g)", 'i': "a tunnel (-i)"}[server.forwarding]; how != "" {
			t.draft.Lost(how+" is not translated: the profile reaches this server by NAT, and it sees this host in place of the client",
				"its replies come back through this host, which they did not before; the service's address on its loopback is not needed any more", server.place)
		}
	}
	equal := schedulers[v.scheduler].equal
	highest, lowest := uint32(0), ^uint32(0)
	var shares []*big.Rat
	for _, server := range kept {
		highest = max(highest, server.weight)
		if server.weight > 0 {
			lowest = min(lowest, server.weight)
		}
		w := server.weight
		if equal {
			w = min(w, 1)
		}
		shares = append(shares, new(big.Rat).SetInt64(int64(w)))
	}
	if equal && highest > lowest {
		t.draft.Note(v.scheduler+" does not look at weights, so the profile has none", "", v.place)
	}
	if v.scheduler == "fo" || v.scheduler == "ovf" {
		for i, server := range kept {
			if shares[i].SetInt64(0); server.weight == highest && highest > 0 {
				shares[i].SetInt64(1)
				highest = 0 // only the first
			}
		}
	}
	weights, off := share.Weights(shares)
	if rounded := fmt.Sprintf("the weights are rounded to at most %d: within %.2g %%", lb.MaxWeight, off*100); off > 0.01 {
		t.draft.Lost(rounded, "", v.place)
	} else if off > 0 {
		t.draft.Note(rounded, "", v.place)
	}
	if len(kept) > 0 && !slices.ContainsFunc(kept, func(o *server) bool { return o.forwarding == 'm' }) {
		s.SNAT = lb.SNAT{Mode: lb.Masquerade}
	}
	for i, server := range kept {
		e := lb.Endpoint{Addr: server.addr, Port: server.port}
		b := lb.Backend{Name: e.String(), Address: e, Weight: weights[i], Priority: 1, SNAT: s.SNAT}
		if server.forwarding != 'm' {
			b.SNAT = lb.SNAT{Mode: lb.Masquerade}
		}
		if server.most > 0 {
			b.MaxConnections = server.most
			t.draft.Note("a server over its threshold (-x) is passed over by IPVS; the profile draws up to four times, and refuses then", "", server.place)
		}
		s.Backends = append(s.Backends, b)
	}
}
