package doctor

// Arrival: whether what clients send to a service comes to this host, and gets
// in.

import (
	"fmt"
	"net/netip"
	"slices"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// listens looks at the addresses that services listen on, and at the links
// that they name.
func (e *exam) listens() {
	services := 0
	for p, s := range lb.Services(e.Profiles) {
		services++
		e.listensOf(p.Name+"/"+s.Name, s)
	}
	e.fineIf(services > 0, "what services listen on is this host's, or may be routed to it")
}

func (e *exam) listensOf(title string, s *lb.Service) {
	if s.Interface != "" {
		e.entrance(title, s)
	}
	for _, l := range s.Listen {
		if !l.Prefix.IsValid() {
			continue
		}
		a := l.Prefix.Addr()
		route := e.Routes[Question{To: a}]
		switch {
		case s.Role == lb.RoleClient:
			e.ownConnections(title, l, route)
		case !l.Prefix.IsSingleIP():
		case route.Way == Local:
			e.held(title, a)
		case s.Role == lb.RoleServer:
			e.add(Fail, title, fmt.Sprintf("nothing is for %s here", a),
				"role: server takes what is for this host's own addresses, and it is none of them", e.addAddress(a))
		case s.SYNProtection != nil && route.Way != Out:
			level, what := Fail, "what comes"
			if s.Limit.HalfOpen > 0 {
				level, what = Warn, "what is over half-open, and comes"
			}
			e.add(level, title, fmt.Sprintf("nobody answers %s for %s", what, a),
				"it is on no interface, and "+way(route)+": with syn-protection, a SYN is answered where it would be forwarded", e.addAddress(a))
		default:
			e.elsewhere(title, a)
		}
	}
}

// ownConnections: a program of this host connects to a listen of role client.
// Without any route connect(2) fails before a packet is there.
func (e *exam) ownConnections(title string, l lb.Listen, route Route) {
	if route.Way == Out || route.Way == Local {
		return
	}
	e.add(Fail, title, fmt.Sprintf("programs of this host cannot connect to %s", l.Prefix.Addr()),
		way(route)+": their packets are balanced only where there is some route to the address, a default route for one",
		"ip route add "+host(l.Prefix.Addr())+" dev lo")
}

// held: the listen is this host's own. Is its link on?
func (e *exam) held(title string, a netip.Addr) {
	if l := e.holder(a); l != nil && !l.Up && !l.Loopback {
		e.add(Fail, title, fmt.Sprintf("%s cannot be reached over %s", a, l.Name), "the link is down, or has no carrier", "ip link set "+l.Name+" up")
	}
}

// elsewhere: a proxy's listen is not this host's own. It may be routed to it;
// but a neighbour asks for it, and nobody answers.
func (e *exam) elsewhere(title string, a netip.Addr) {
	l, network := e.neighbour(a)
	if l == nil && e.goesRound(a) {
		e.add(Warn, title, fmt.Sprintf("what is for %s, but for no service of it, leaves again", a),
			fmt.Sprintf("it is on no interface, and %s. If the router that sends it here is there, pings and packets to other ports loop until their hop limit ends them; unserved: reject in the profile ends that, too", way(e.Routes[Question{To: a}])), e.addAddress(a))
		return
	}
	if l == nil {
		e.add(OK, title, fmt.Sprintf("%s is on no interface: others have to route it here", a), "", "")
		return
	}
	proxy := "net/ipv4/conf/" + l.Name + "/proxy_arp"
	if a.Is6() {
		proxy = "net/ipv6/conf/" + l.Name + "/proxy_ndp"
	}
	if e.Params[proxy] == "1" || e.Params["net/ipv4/conf/all/proxy_arp"] == "1" && a.Is4() {
		e.add(OK, title, fmt.Sprintf("%s is on no interface; %s may answer for it (%s)", a, l.Name, dotted(proxy)), "", "")
		return
	}
	e.add(Warn, title, fmt.Sprintf("%s is not this host's", a),
		fmt.Sprintf("it is in the network %s of %s, where neighbours ask who has it, and this host does not answer", network, l.Name), e.addAddress(a))
}

// refused reports whether what no service takes of an address ends here.
func (e *exam) refused(a netip.Addr) bool {
	for _, s := range lb.Services(e.Profiles) {
		if s.Unserved != lb.UnservedPass && slices.ContainsFunc(s.Listen, func(l lb.Listen) bool { return l.Prefix.IsSingleIP() && l.Prefix.Addr() == a }) {
			return true
		}
	}
	return false
}

// goesRound reports whether this host forwards what is for an address that is
// routed to it.
func (e *exam) goesRound(a netip.Addr) bool {
	r := e.Routes[Question{To: a}]
	f := lb.FamilyOf(a)
	packet := firewall.Packet{V6: f == lb.IPv6, Dst: firewall.AddrsOf(netip.PrefixFrom(a, a.BitLen())), Local: firewall.False}
	e.leaves(&packet, r.Link)
	return r.Way == Out && !e.off(f, "") && e.forwards(&packet) && !lb.BalancedOnly(e.Profiles) && !e.refused(a)
}

// sockets finds programs of this host that wait where a service listens: they get
// nothing of that from the network.
func (e *exam) sockets() {
	for p, s := range lb.Services(e.Profiles) {
		if s.Role != lb.RoleClient {
			e.socketsUnder(p.Name+"/"+s.Name, s)
		}
	}
	e.fineIf(len(e.Profiles) > 0, "no program of this host waits where a service listens")
}

func (e *exam) socketsUnder(title string, s *lb.Service) {
	for _, socket := range e.Sockets {
		at, port := socket.At.Addr(), socket.At.Port()
		if !slices.Contains(s.Protocols, socket.Protocol) || at.IsLoopback() || e.leadsTo(s, socket) {
			continue
		}
		for _, l := range s.Listen {
			if !slices.ContainsFunc(l.Ports, func(r lb.PortRange) bool { return r.First <= port && port <= r.Last }) {
				continue
			}
			level := OK
			switch {
			case socket.Protocol == lb.UDP && port >= ephemeral:
				continue // as a rule, a client that waits for an answer
			case !l.Prefix.IsValid(), !at.IsUnspecified() && l.Prefix.Contains(at):
				level = Warn
			case at.IsUnspecified() && l.Prefix.IsSingleIP() && socket.takes(l.Prefix.Addr()) && e.Routes[Question{To: l.Prefix.Addr()}].Way == Local:
			default:
				continue
			}
			e.add(level, title, fmt.Sprintf("a program of this host waits at %s %s, too", socket.Protocol, socket.At),
				fmt.Sprintf("nlb takes what the network sends to %s, so that program gets none of it", l),
				fmt.Sprintf("ss -Hlnp --%s 'sport = :%d'", socket.Protocol, port))
		}
	}
}

// ephemeral is where the ports begin that the kernel gives to clients
// (net.ipv4.ip_local_port_range).
const ephemeral = 32768

// leadsTo reports whether a socket is a backend of the service.
func (e *exam) leadsTo(s *lb.Service, socket Socket) bool {
	return slices.ContainsFunc(s.Backends, func(b lb.Backend) bool {
		return b.Address.OfHost() && b.Address.Port == socket.At.Port() || (b.Address.Port == socket.At.Port() || b.Address.Port == 0) && socket.takes(b.Address.Addr) && e.Routes[Question{To: b.Address.Addr}].Way == Local
	})
}

// addAddress is the command that gives this host an address.
func (e *exam) addAddress(a netip.Addr) string {
	link := "lo"
	if l, _ := e.neighbour(a); l != nil {
		link = l.Name
	}
	return "ip address add " + host(a) + " dev " + link
}

func host(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// entrance looks at the link that a service names.
func (e *exam) entrance(title string, s *lb.Service) {
	in, _ := entrances(e.Host, s)
	if len(in) == 0 {
		e.add(Fail, title, fmt.Sprintf("there is no interface %s", s.Interface), "the service takes only what comes by it", "ip link show")
		return
	}
	if slices.ContainsFunc(in, func(name string) bool { return e.link(name).Up }) {
		return
	}
	e.add(Fail, title, fmt.Sprintf("interface %s is down", s.Interface), "the service takes only what comes by it", "ip link set "+in[0]+" up")
}

// reversePath finds packets that rp_filter drops.
func (e *exam) reversePath() {
	for _, p := range e.paths {
		if !p.fromNetwork() || p.family != lb.IPv4 {
			continue
		}
		for _, q := range p.arrivals() {
			if why := e.reversed(q); why != "" && e.told(p, q) {
				who := "clients such as " + q.From.String()
				if q.From == distant[p.family] {
					who = "clients beyond its own networks"
				}
				level := Fail
				if !p.sure {
					level = Warn
					why += "; that they come by " + q.In + " is likely, since " + p.service.Listen[0].String() + " is there"
				}
				e.add(level, p.title(), fmt.Sprintf("%s that come by %s are dropped", who, q.In), why+e.dropped(),
					setParam("net/ipv4/conf/"+q.In+"/rp_filter", "2"))
			}
		}
		e.reverseOfReplies(p)
	}
	e.fineIf(len(e.paths) > 0, "no route back is another than the one there")
}

// reversed says why rp_filter drops a packet; empty: it does not. The highest
// value of the link and of all holds (ip-sysctl.rst).
func (e *exam) reversed(q Question) string {
	if e.Routes[q].Way != Refused {
		return "" // the kernel says itself that it lets it in
	}
	strictest := max(e.Params["net/ipv4/conf/all/rp_filter"], e.Params["net/ipv4/conf/"+q.In+"/rp_filter"])
	back := e.Routes[Question{To: q.From}]
	switch {
	case strictest == "1" && (back.Way != Out || back.Link != q.In):
		return fmt.Sprintf("rp_filter is strict on %s, and of the way back, %s", q.In, way(back))
	case strictest == "2" && back.Way != Out:
		return fmt.Sprintf("rp_filter is on for %s, and of any way back, %s", q.In, way(back))
	}
	return ""
}

// told reports whether it is worth telling: that clients from far away come by
// a link is no guess where it has a private address.
func (e *exam) told(p *path, q Question) bool {
	if p.sure || q.From != distant[p.family] {
		return true
	}
	return e.uplink(p.family).Way == Out && slices.ContainsFunc(p.listens, func(l lb.Listen) bool {
		h := e.holder(l.Prefix.Addr())
		return h != nil && h.Name == q.In && !l.Prefix.Addr().IsPrivate()
	})
}

// reverseOfReplies: a backend in the networks of several links may answer by
// another one than it was asked by.
func (e *exam) reverseOfReplies(p *path) {
	way := e.way(p)
	if way.Way != Out || way.Gateway.IsValid() {
		return
	}
	for _, link := range e.others(p.at) {
		if link == way.Link || e.reversed(reply(p, link)) == "" {
			continue
		}
		e.add(Warn, p.subject(), fmt.Sprintf("its answers are dropped where they come by %s", link),
			fmt.Sprintf("it is in the networks of %s and %s, the way to it is %s, and rp_filter is strict on %s%s", way.Link, link, way.Link, link, e.dropped()),
			setParam("net/ipv4/conf/"+link+"/rp_filter", "2"))
	}
}

// dropped is what rp_filter has dropped so far.
func (e *exam) dropped() string {
	if e.ReverseDrops == 0 {
		return ""
	}
	return fmt.Sprintf("; %s dropped so far", text.Count(int(e.ReverseDrops), "packet"))
}

// way says what a route does.
func way(r Route) string {
	switch r.Way {
	case Out:
		if r.Gateway.IsValid() {
			return "the route goes by " + r.Gateway.String() + " on " + r.Link
		}
		return "the route goes out of " + r.Link
	case Local:
		return "it is this host's own"
	case Blackhole:
		return "a blackhole route drops it"
	case Unreachable:
		return "an unreachable route, or a host that does not answer"
	case Prohibited:
		return "a prohibit route forbids it"
	case Refused:
		return "the kernel does not let it in"
	}
	return "there is no route"
}
