package doctor

// Kernel parameters: forwarding, and what it does to router advertisements;
// what is for this host alone; bridges.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/needs"
)

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
	bridge4  = "net/bridge/bridge-nf-call-iptables"
	bridge6  = "net/bridge/bridge-nf-call-ip6tables"
)

func (e *exam) forwarding() {
	needed := slices.DeleteFunc(needs.Of(e.Profiles), isTracking)
	for _, n := range needed {
		name := strings.ReplaceAll(n.Param, ".", "/")
		value, there := e.Params[name]
		switch {
		case n.Met(value):
		case !there:
			e.add(Fail, "", n.Param+" is not there", "this host has no IPv6 (ipv6.disable=1?): "+n.Why, "")
		case e.applied() || e.keeps() || e.Fixed:
			e.add(Fail, "", fmt.Sprintf("%s is %s", n.Param, value), n.Why, setParam(name, n.Value))
		default:
			e.add(Warn, "", fmt.Sprintf("%s is %s", n.Param, value), n.Why+"; an apply turns it on", e.apply())
		}
	}
	if e.Params[forward4] == "1" {
		e.forwardingLinks()
	}
	e.router(forward4, lb.IPv4)
	e.router(forward6, lb.IPv6)
	e.fineIf(len(needed) == 0, "not needed: no backend on another host")
	e.fine("on")
}

// router finds forwarding that nlb has turned on, and that everybody can use.
func (e *exam) router(param string, f lb.Family) {
	if e.Params[param] != "1" || e.Ours.Found[dotted(param)] != "0" || lb.BalancedOnly(e.Profiles) {
		return // it was on before, or only what is balanced passes
	}
	for _, p := range e.paths {
		way := e.way(p)
		if p.family != f || way.Way != Out {
			continue
		}
		packet := firewall.Packet{V6: f == lb.IPv6, Dst: firewall.AddrsOf(netip.PrefixFrom(p.at, p.at.BitLen())), Local: firewall.False}
		e.leaves(&packet, way.Link)
		if !e.forwards(&packet) {
			continue
		}
		e.add(Warn, "", fmt.Sprintf("this host forwards %s for everybody", f),
			fmt.Sprintf("it did not before nlb turned %s on, and no rule drops what is not balanced: a neighbour that routes by this host reaches all ports of %s, past allow, deny and limits; forward: balanced in the profile ends that, too", dotted(param), p.at),
			"nft 'table inet balanced { chain forward { type filter hook forward priority filter; policy drop; ct status dnat accept; ct state established,related accept; }; }'")
		return
	}
}

// keeps reports whether a profile wants kernel parameters left alone.
func (e *exam) keeps() bool {
	return slices.ContainsFunc(e.Profiles, func(p *lb.Profile) bool { return p.Sysctl == lb.SysctlKeep })
}

// forwardingLinks finds links that do not forward although the host does. The
// parameter is of the link that a packet comes by, IPv4 only: clients' and
// replies'.
func (e *exam) forwardingLinks() {
	for _, p := range e.paths {
		way := e.way(p)
		if p.family != lb.IPv4 || !p.fromNetwork() || way.Way != Out {
			continue
		}
		for _, link := range append(slices.Clone(p.in), way.Link) {
			name := "net/ipv4/conf/" + link + "/forwarding"
			if e.Params[name] == "0" {
				e.add(Fail, "", dotted(name)+" is 0", "what comes by "+link+" is not forwarded, although net.ipv4.ip_forward is 1", setParam(name, "1"))
			}
		}
	}
}

// advertisements finds links that learn their default route from a router, and
// no longer do once the host forwards.
func (e *exam) advertisements() {
	six := slices.ContainsFunc(needs.Of(e.Profiles), func(n needs.Need) bool { return strings.Contains(n.Param, "ipv6") })
	if !six {
		return
	}
	up := e.uplink(lb.IPv6)
	for i := range e.Links {
		l := &e.Links[i]
		name := "net/ipv6/conf/" + l.Name + "/accept_ra"
		if e.Params[name] != "1" || l.Loopback {
			continue
		}
		learned := up.Way == Out && up.Link == l.Name && up.Advertised
		lost := e.Params[forward6] == "1" && up.Way != Out && slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Advertised })
		switch {
		case lost:
			e.add(Fail, "", "there is no IPv6 default route any more",
				fmt.Sprintf("%s learned it from a router's advertisement; a host that forwards takes those only with accept_ra 2", l.Name), setParam(name, "2"))
		case learned && (e.Params[forward6] == "1" || e.keeps()):
			e.add(Warn, "", "the IPv6 default route will go",
				fmt.Sprintf("%s learned it from a router's advertisement; a host that forwards takes those only with accept_ra 2", l.Name), setParam(name, "2"))
		}
	}
	e.fine("the IPv6 default route does not depend on them, or accept_ra is 2")
}

// loopback looks at services that listen on a loopback address.
// Measured on Linux 6.18: IPv4 takes route_localnet on the link that the
// foreign packet comes by; IPv6 has no such thing.
func (e *exam) loopback() {
	for _, p := range e.paths {
		for _, l := range p.listens {
			if l.Prefix.IsValid() && l.Prefix.Addr().IsLoopback() && e.remote(p) {
				e.fromLoopback(p, l)
			}
		}
	}
}

// fromLoopback: this host connects to a loopback address, and the backend is
// elsewhere.
func (e *exam) fromLoopback(p *path, l lb.Listen) {
	name := "net/ipv4/conf/" + e.way(p).Link + "/route_localnet"
	switch {
	case p.family == lb.IPv6:
		e.add(Fail, p.subject(), "connections to "+l.String()+" do not reach it",
			"what has the source ::1 cannot leave the host; listen on another address", "")
	case p.backend.SNAT.Mode == lb.SNATNone || p.backend.SNAT.Mode == lb.SNATVIP:
		e.add(Fail, p.subject(), "connections to "+l.String()+" do not reach it",
			"with snat "+p.backend.SNAT.Mode.String()+" the backend would see a loopback address; snat: masquerade works", "")
	case e.Params["net/ipv4/conf/all/route_localnet"] != "1" && e.Params[name] != "1":
		e.add(Fail, p.subject(), "connections to "+l.String()+" get no answer from it",
			dotted(name)+" is 0: the kernel drops the replies as martian", setParam(name, "1"))
	}
}

// comeBy are the links that clients come by, or most probably do.
func (e *exam) comeBy(p *path) []string {
	if up := e.uplink(p.family); len(p.in) == 0 && !p.sure && up.Way == Out {
		return []string{up.Link}
	}
	return p.in
}

// bridges finds bridges of this host whose passing frames meet nlb's chains.
func (e *exam) bridges() {
	var names []string
	for _, l := range e.Links {
		if ports := slices.DeleteFunc(slices.Clone(e.Links), func(p Link) bool { return p.Master != l.Name }); l.Bridge && len(ports) > 1 {
			names = append(names, l.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	for _, v := range []struct {
		family lb.Family
		name   string
	}{{lb.IPv4, bridge4}, {lb.IPv6, bridge6}} {
		if e.Params[v.name] != "1" {
			continue
		}
		for _, p := range e.paths {
			if p.family != v.family || !p.fromNetwork() || p.service.Role == lb.RoleServer || p.sure {
				continue
			}
			for _, l := range p.listens {
				if l.Prefix.IsValid() && e.Routes[Question{To: l.Prefix.Addr()}].Way != Local {
					e.add(Warn, p.title(), fmt.Sprintf("frames that %s only passes on are balanced too", text.List(names)),
						fmt.Sprintf("%s is 1, and %s is not this host's own address: a neighbour's connection to it is taken here even on its way to another router", dotted(v.name), l),
						setParam(v.name, "0"))
				}
			}
		}
	}
	e.fine("bridged frames stay out of the way")
}

// span is a number of seconds as people say it: 120h, 1m30s.
func span(seconds int) string {
	s := (time.Duration(seconds) * time.Second).String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, none) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// setParam is the command that sets a kernel parameter.
func setParam(name, value string) string {
	if !strings.Contains(name, ".") {
		name = strings.ReplaceAll(name, "/", ".")
	}
	return "sysctl -w " + name + "=" + value
}

// dotted is the name of a kernel parameter as people know it.
func dotted(name string) string {
	if strings.Contains(name, ".") {
		return name // a link's name has a dot
	}
	return strings.ReplaceAll(name, "/", ".")
}
