package doctor

// Routes: to the backends, and from them back to here; and backends of services with
// mode: dsr, which have the address of the service and must not say so.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// routes looks at the ways to backends.
func (e *exam) routes() {
	for _, p := range e.paths {
		r := e.way(p)
		if p.backend.Address.OfHost() {
			e.redirected(p)
			continue
		}
		switch r.Way {
		case Local:
		case Out:
			e.out(p, r)
		case Nowhere:
			if l, _ := e.neighbour(p.at); l != nil && !l.Up {
				e.add(Fail, p.subject(), "there is no route to it", "its network is that of "+l.Name+", which is down", "ip link set "+l.Name+" up")
				continue
			}
			e.add(Fail, p.subject(), "there is no route to it", e.nearest(p.at), "ip route add "+host(p.at)+" via GATEWAY")
		default:
			e.add(Fail, p.subject(), "it cannot be reached", way(r), "ip route show match "+p.at.String())
		}
	}
	e.fineIf(len(e.paths) > 0, "to "+text.Count(len(e.paths), "backend"))
}

// redirected looks at a backend that is this host itself: whether there is an address to
// redirect to, and a program that waits there.
func (e *exam) redirected(p *path) {
	port := p.backend.Address.Port
	switch {
	case !p.at.IsValid():
		e.add(Fail, p.subject(), fmt.Sprintf("there is no %s address where its clients come in", p.family),
			"the kernel redirects to the address of the link where a packet enters, and drops it where there is none", "ip address show "+strings.Join(p.in, " "))
	case e.answered(p):
	case slices.ContainsFunc(e.Sockets, func(s Socket) bool { return s.At.Port() == port && s.At.Addr().IsLoopback() }):
		e.add(Fail, p.subject(), fmt.Sprintf("a program waits at port %d of a loopback address alone", port),
			fmt.Sprintf("what the network sends is redirected to %s: the program has to wait there, or at any address", p.at), fmt.Sprintf("ss -Hlnp 'sport = :%d'", port))
	default:
		e.add(Warn, p.subject(), fmt.Sprintf("no program of this host waits at port %d", port), "connections to it are refused", fmt.Sprintf("ss -Hlnp 'sport = :%d'", port))
	}
}

// nearest says what networks there are, where there is no route.
func (e *exam) nearest(a netip.Addr) string {
	var networks []string
	for _, l := range e.Links {
		for _, own := range l.Addrs {
			if own.Addr().Is4() == a.Is4() && !l.Loopback && !own.Addr().IsLinkLocalUnicast() {
				networks = append(networks, own.Masked().String()+" on "+l.Name)
			}
		}
	}
	if len(networks) == 0 {
		return "no link has an address of its family"
	}
	return "it is in none of " + strings.Join(networks, ", ") + ", and no default route leads to it"
}

// out looks at a route that leaves the host.
func (e *exam) out(p *path, r Route) {
	a := p.at
	if l := e.link(r.Link); l != nil && !l.Up {
		e.add(Fail, p.subject(), "the way to it is down", "the route goes out of "+r.Link+", which has no carrier", "ip link set "+r.Link+" up")
		return
	}
	if direct, network := e.neighbour(a); direct != nil && direct.Name != r.Link && direct.Up && !slices.Contains(e.others(a), r.Link) {
		e.add(Warn, p.subject(), "the way to it is another than its network's",
			fmt.Sprintf("%s, although %s has an address in %s", way(r), direct.Name, network), "ip route get "+a.String())
	}
	// What comes from clients may be routed otherwise than what the host sends
	// itself.
	for _, q := range p.arrivals() {
		switch in, asked := e.Routes[q]; {
		case !asked || e.off(p.family, q.In) || e.reversed(q) != "":
		case in.Way == Out && (in.Link != r.Link || in.Gateway != r.Gateway):
			e.add(Warn, p.subject(), fmt.Sprintf("what comes by %s takes another way to it", q.In),
				way(in)+"; for what this host sends itself, "+way(r)+": a rule of the routing policy", "ip rule show")
		case in.Way != Out && in.Way != Local:
			e.add(Fail, p.subject(), fmt.Sprintf("what comes by %s does not get to it", q.In), way(in)+"; what this host sends itself gets there: a rule of the routing policy",
				fmt.Sprintf("ip route get %s from %s iif %s", q.To, q.From, q.In))
		}
	}
}

// off reports whether what comes by a link is not forwarded: then the kernel
// refuses every such packet.
func (e *exam) off(f lb.Family, in string) bool {
	if f == lb.IPv6 {
		return e.Params[forward6] != "1"
	}
	return e.Params[forward4] != "1" || e.Params["net/ipv4/conf/"+in+"/forwarding"] == "0"
}

// returns looks for backends whose answers do not come back through here.
func (e *exam) returns() {
	for _, p := range e.paths {
		r := e.way(p)
		if r.Way != Out || !p.fromNetwork() {
			continue
		}
		switch p.backend.SNAT.Mode {
		case lb.SNATNone:
			e.returnsOfNone(p, r)
		case lb.SNATVIP:
			for _, l := range p.listens {
				if l.Prefix.IsValid() && l.Prefix.IsSingleIP() {
					e.unanswered(p, r, l.Prefix.Addr())
				}
			}
		case lb.SNATPool:
			for _, a := range p.backend.SNAT.Of(p.family) {
				e.unanswered(p, r, a)
			}
		}
	}
	e.fineIf(len(e.paths) > 0, "nothing says that answers take another way")
}

// returnsOfNone: the backend answers the client itself, by its own routes,
// which cannot be seen from here. How certain it is depends on what is shared.
func (e *exam) returnsOfNone(p *path, r Route) {
	up := e.uplink(p.family)
	gateway := "ip route replace default via " + e.own(r.Link, p.at)
	if r.Gateway.IsValid() {
		if up.Way == Out && up.Link == r.Link && up.Gateway == r.Gateway {
			e.add(Warn, p.subject(), "its answers may not come back through here",
				fmt.Sprintf("with snat none it answers the clients themselves; the way to it is the default route, by %s, which may know a shorter way to them. Cannot be seen from here; snat: masquerade needs no such thing", r.Gateway), "")
		}
		return
	}
	l, network := e.neighbour(p.at)
	if l == nil || l.Bridge && e.Params[bridge4] == "1" {
		return // frames of such a bridge pass through netfilter: answers that are only switched are seen, too
	}
	inside, outside := split(p.clients, network)
	vip := slices.ContainsFunc(p.listens, func(l lb.Listen) bool { return l.Prefix.IsValid() && network.Contains(l.Prefix.Addr()) })
	switch {
	case len(inside) > 0 && len(outside) == 0:
		e.add(Fail, p.subject(), "its answers do not come back through here",
			fmt.Sprintf("with snat none it answers the clients themselves, and they are in its own network %s. This is certain; snat: masquerade or vip works", network), "")
	case len(inside) > 0 || vip || slices.Contains(p.in, l.Name):
		e.add(Warn, p.subject(), fmt.Sprintf("answers to clients in %s do not come back through here", network),
			fmt.Sprintf("with snat none it answers the clients themselves, and these are its neighbours on %s. Certain for them; others need this host as the backend's gateway (there: %s). snat: masquerade works for all", l.Name, gateway), "")
	case up.Way == Out && up.Link == l.Name && up.Gateway.IsValid():
		e.add(Warn, p.subject(), "its answers do not come back through here",
			fmt.Sprintf("with snat none it answers the clients themselves, by its own gateway, which is probably %s, as this host's is, in the same network %s. Likely, not certain. It needs this host as its gateway (there: %s), or snat: masquerade", up.Gateway, network, gateway), "")
	}
}

// sources finds backends to which masquerading gives another source than the route says.
func (e *exam) sources() {
	some := false
	for _, p := range e.paths {
		r := e.way(p)
		if p.backend.SNAT.Mode != lb.Masquerade || p.backend.SNAT.Auto || r.Way != Out || !r.Source.IsValid() {
			continue
		}
		some = true
		if given := e.masqueraded(p, r); given.IsValid() && given != r.Source {
			e.add(Warn, p.subject(), fmt.Sprintf("it sees %s, and the route to it says %s", given, r.Source),
				fmt.Sprintf("masquerade takes an address of %s, whatever src a route has: answers go to that one, where it may not be known. snat: auto takes the route's", r.Link), "ip route get "+p.at.String())
		}
	}
	e.fineIf(some, "masquerade gives the sources that the routes say")
}

// masqueraded is the source that masquerading gives what goes by a route (inet_select_addr
// in net/ipv4/devinet.c): of the link's addresses the first in the network of the next
// host, else the first. IPv6 prefers an address of the link, too; which one is certain only
// where there is one, and the route has none of them. Not valid: it cannot be told.
func (e *exam) masqueraded(p *path, r Route) netip.Addr {
	next := p.at
	if r.Gateway.IsValid() {
		next = r.Gateway
	}
	var of []netip.Addr
	if l := e.link(r.Link); l != nil {
		for _, a := range l.Addrs {
			switch {
			case a.Second || lb.FamilyOf(a.Addr()) != p.family:
			case p.family == lb.IPv4 && a.Contains(next):
				return a.Addr()
			default:
				of = append(of, a.Addr())
			}
		}
	}
	if len(of) == 0 || p.family == lb.IPv6 && len(of) > 1 {
		return netip.Addr{}
	}
	return of[0]
}

// split parts clients by whether they are in a network.
func split(clients []netip.Addr, network netip.Prefix) (inside, outside []netip.Addr) {
	for _, c := range clients {
		if network.Contains(c) {
			inside = append(inside, c)
		} else {
			outside = append(outside, c)
		}
	}
	return inside, outside
}

// own is an address of this host in the network of a neighbour.
func (e *exam) own(link string, neighbour netip.Addr) string {
	if l := e.link(link); l != nil {
		for _, a := range l.Addrs {
			if a.Contains(neighbour) {
				return a.Addr().String()
			}
		}
	}
	return "THIS-HOST"
}

// unanswered: the backend answers to an address in its own network. It asks
// its neighbours who has it; is it this host?
func (e *exam) unanswered(p *path, r Route, source netip.Addr) {
	l, network := e.neighbour(source)
	if l == nil || l.Name != r.Link || r.Gateway.IsValid() || e.Routes[Question{To: source}].Way == Local {
		return
	}
	if source.Is4() && e.Params["net/ipv4/conf/"+l.Name+"/proxy_arp"] == "1" {
		return
	}
	e.add(Fail, p.subject(), "its answers get lost",
		fmt.Sprintf("it sees %s, in its own network %s, and asks there who has it: this host does not answer", source, network), e.addAddress(source))
}

// Neighbour is an address that is asked for on a link.
type Neighbour struct {
	Link string
	Addr netip.Addr
}

// Neighbours are those that survey has to ask for: the backends of services with mode:
// dsr, and the addresses of these services where the backends are.
func Neighbours(h *Host, profiles []*lb.Profile) []Neighbour {
	var out []Neighbour
	seen := map[Neighbour]bool{}
	add := func(n Neighbour) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	for _, s := range lb.Services(profiles) {
		for i := range s.Backends {
			a := s.Backends[i].Address.Addr
			r := h.Routes[Question{To: a}]
			if s.Mode != lb.DSR || r.Way != Out || r.Gateway.IsValid() {
				continue
			}
			add(Neighbour{r.Link, a})
			for _, l := range listensOf(s, lb.FamilyOf(a)) {
				add(Neighbour{r.Link, l.Prefix.Addr()})
			}
		}
	}
	return out
}

// direct looks at the services with mode: dsr, and who has their addresses, and at those
// with mode: tunnel.
func (e *exam) direct() {
	backends := map[lb.Mode]int{}
	for p, s := range lb.Services(e.Profiles) {
		examine := map[lb.Mode]func(string, *lb.Service, netip.Addr){lb.DSR: e.directBackend, lb.Tunnel: e.tunnelBackend}[s.Mode]
		if examine == nil {
			continue
		}
		e.comesBy(p.Name+"/"+s.Name, s)
		for i := range s.Backends {
			backends[s.Mode]++
			examine(p.Name+"/"+s.Name+" "+s.Backends[i].Name, s, s.Backends[i].Address.Addr)
		}
	}
	for _, m := range []lb.Mode{lb.DSR, lb.Tunnel} {
		e.fineIf(backends[m] > 0, text.Count(backends[m], "backend")+" of mode: "+m.String())
	}
}

// comesBy finds listens of which nothing says by which interface their packets come.
func (e *exam) comesBy(subject string, s *lb.Service) {
	for _, l := range s.Listen {
		a := l.Prefix.Addr()
		holder, r := e.holder(a), e.Routes[Question{To: a}]
		if s.Interface == "" && (holder == nil && r.Way != Out || holder != nil && holder.Loopback) {
			e.add(Fail, subject, fmt.Sprintf("nothing that comes for %s is balanced", a),
				fmt.Sprintf("with mode: %s it is taken where it comes in, and neither an interface that has the address nor a route to it says where that is: say interface: in the profile", s.Mode), "")
		}
	}
}

// tunnelBackend looks at the way to a backend, and at how large packets may be there.
func (e *exam) tunnelBackend(subject string, s *lb.Service, a netip.Addr) {
	r := e.Routes[Question{To: a}]
	if r.Way != Out {
		why := way(r)
		if r.Way == Nowhere {
			why = e.nearest(a)
		}
		e.add(Fail, subject, "no tunnel can reach it", why, "")
		return
	}
	header := map[bool]int{true: 20, false: 40}[a.Is4()] // RFC 791, RFC 8200
	out := e.link(r.Link)
	in, _ := entrances(e.Host, s)
	for _, name := range in {
		if from := e.link(name); out != nil && from != nil && from.MTU > out.MTU-header {
			e.add(OK, subject, fmt.Sprintf("its tunnel takes packets of %d bytes, and %s lets in those of %d", out.MTU-header, name, from.MTU),
				fmt.Sprintf("larger ones are lost without a word. Either %s and its network have an MTU of %d, or the servers ask for smaller segments: ip route change default via ROUTER advmss %d",
					r.Link, from.MTU+header, out.MTU-header-header-20), "")
			return
		}
	}
}

func (e *exam) directBackend(subject string, s *lb.Service, a netip.Addr) {
	r := e.Routes[Question{To: a}]
	why := way(r)
	if r.Way == Nowhere {
		why = e.nearest(a)
	}
	switch {
	case r.Way != Out || r.Gateway.IsValid():
		e.add(Fail, subject, "it is on no network of this host", why+"; mode: dsr sends to its MAC address", "")
		return
	case e.Blind[e.check]:
		return
	}
	word := map[bool]string{true: "ARP", false: "neighbour discovery"}[a.Is4()]
	mac := e.MACs[Neighbour{r.Link, a}]
	if mac == "" {
		e.add(Fail, subject, "it does not answer "+word, "nobody on "+r.Link+" says that it has "+a.String(), "")
		return
	}
	for _, l := range listensOf(s, lb.FamilyOf(a)) {
		if vip := l.Prefix.Addr(); e.MACs[Neighbour{r.Link, vip}] == mac {
			e.add(Fail, subject, fmt.Sprintf("it answers %s for %s", word, vip),
				fmt.Sprintf("%s on %s says so, and may take all packets of the service. There: %s on lo alone, and sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2", mac, r.Link, vip), "")
		}
	}
}
