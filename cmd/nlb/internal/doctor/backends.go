package doctor

// Backends that are no servers: a connection's destination is translated once, so
// nothing else that translates it is asked behind nlb. And backends that are clients of
// their own service.

import (
	"fmt"
	"net/netip"
	"slices"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// answered reports whether a program of this host waits at a backend's address, for
// one of the service's protocols; those of SCTP cannot be seen.
func (e *exam) answered(p *path) bool {
	ports := target(p)
	return slices.ContainsFunc(p.service.Protocols, func(proto lb.Protocol) bool {
		return proto == lb.SCTP || slices.ContainsFunc(e.Sockets, func(s Socket) bool {
			return s.Protocol == proto && ports.First <= s.At.Port() && s.At.Port() <= ports.Last && s.takes(p.at)
		})
	})
}

// shadowed finds nat rules of others for a backend's own address and port, as those
// that publish a port of a container.
func (e *exam) shadowed(p *path) {
	way := e.way(p)
	if way.Way != Out && way.Way != Local || way.Way == Local && e.answered(p) {
		return
	}
	hook := "prerouting"
	if p.fromHost() {
		hook = "output"
	}
	for _, in := range e.inOrAny(p) {
		packet := firewall.Packet{
			V6: p.family == lb.IPv6, Protocol: uint8(p.service.Protocols[0]), DstPort: target(p), SrcPort: clientPorts,
			Dst:   firewall.AddrsOf(netip.PrefixFrom(p.at, p.at.BitLen())),
			Local: map[bool]firewall.Tri{true: firewall.True, false: firewall.False}[way.Way == Local],
		}
		e.enters(&packet, in)
		other := packet
		other.Dst = firewall.AddrsOf(netip.PrefixFrom(distant[p.family], distant[p.family].BitLen()))
		for t, c := range e.natChains(hook, &packet) {
			j := t.Judge(c, &packet)
			// What is for all addresses of others is not about this one.
			if j.Action != firewall.Translate || way.Way == Out && t.Judge(c, &other).Action == firewall.Translate {
				continue
			}
			e.shadow(p, way, t, j.By)
		}
	}
}

func (e *exam) shadow(p *path, way Route, t *firewall.Table, by firewall.Cause) {
	level, there := Warn, "to that address itself"
	if way.Way == Local {
		level, there = Fail, "to this host itself, where no program waits for them"
	}
	e.add(level, p.subject(), fmt.Sprintf("%s, chain %s would translate what is for it, and is not asked", t, by.Chain),
		"a destination is translated once, and nlb has done that: connections go "+there+". The backend has to be what that rule leads to, such as the address of a container", list(t, by))
}

// list is the command that shows a chain.
func list(t *firewall.Table, by firewall.Cause) string {
	if t.Legacy {
		return fmt.Sprintf("%s -t %s -S %s", map[string]string{"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}[t.Family], t.Name, by.Chain)
	}
	return fmt.Sprintf("nft -a list chain %s %s %s", t.Family, t.Name, by.Chain)
}

// chained finds backends that are what a service listens on.
func (e *exam) chained() {
	for _, p := range e.paths {
		way := e.way(p)
		direct, _ := e.neighbour(p.at)
		if way.Way == Local && e.answered(p) || way.Way == Out && direct != nil || way.Way != Local && way.Way != Out {
			continue // a server is there, or there is another finding
		}
		for of, s := range lb.Services(e.Profiles) {
			if e.listensAt(s, p, way) {
				e.chain(p, way, of.Name+"/"+s.Name)
			}
		}
	}
	e.fineIf(len(e.paths) > 0, "no backend is what a service listens on")
}

// listensAt reports whether a service takes what is for a backend.
func (e *exam) listensAt(s *lb.Service, p *path, way Route) bool {
	ports := target(p)
	return slices.ContainsFunc(s.Protocols, func(proto lb.Protocol) bool { return slices.Contains(p.service.Protocols, proto) }) &&
		slices.ContainsFunc(s.Listen, func(l lb.Listen) bool {
			at := l.Prefix.IsValid() && l.Prefix.Contains(p.at) || !l.Prefix.IsValid() && way.Way == Local && !p.at.IsLoopback()
			return at && slices.ContainsFunc(l.Ports, func(r lb.PortRange) bool { return r.First <= ports.Last && ports.First <= r.Last })
		})
}

// hairpins finds backends that are clients of their own service, and get no answer from
// themselves, and those that would not get one.
func (e *exam) hairpins() {
	for _, p := range e.paths {
		use := e.Track.Uses[Key{p.profile, p.service.Name, p.backend.Address}]
		switch {
		case p.backend.SNAT.Mode != lb.SNATNone:
			e.bridged(p)
		case use.Own > 0 && use.Met == 0:
			e.add(Warn, p.subject(), fmt.Sprintf("%s that it made to its own service came to itself, and got no answer", text.Count(use.Own, "connection")),
				"with snat none they come to it from its own address, and its kernel drops that; snat: masquerade or vip works", "")
		}
	}
}

// bridged finds a backend behind a bridge of this host that translates frames: what it
// sends to itself would have to go back by the port that it came by. No connection
// becomes of that, so nothing says whether there are such clients.
func (e *exam) bridged(p *path) {
	bridge := e.link(e.way(p).Link)
	param := map[lb.Family]string{lb.IPv4: bridge4, lb.IPv6: bridge6}[p.family]
	if bridge == nil || !bridge.Bridge || e.Params[param] != "1" ||
		!slices.ContainsFunc(e.Links, func(l Link) bool { return l.Master == bridge.Name && !l.Hairpin }) {
		return
	}
	level := OK
	if slices.ContainsFunc(p.service.Allow, func(a netip.Prefix) bool { return a.Contains(p.at) }) {
		level = Warn
	}
	e.add(level, p.subject(), "it gets no answer from itself, where it is a client of its own service",
		fmt.Sprintf("%s is 1, so %s passes such a frame on, and back by the port that it came by only with hairpin, which is off", dotted(param), bridge.Name),
		fmt.Sprintf("ip -br link show master %s | while read -r p _; do bridge link set dev ${p%%@*} hairpin on; done", bridge.Name))
}

func (e *exam) chain(p *path, way Route, service string) {
	level, there := Warn, "they leave this host for that address"
	if way.Way == Local {
		level, there = Fail, "they end at this host itself, where no program waits for them"
	}
	e.add(level, p.subject(), "it is what "+service+" listens on",
		"a destination is translated once: connections to this backend are not balanced again, "+there+". The backends of one service have to be servers", "nlb show")
}
