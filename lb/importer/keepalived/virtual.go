package keepalived

// Virtual servers: each becomes a service.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/ipvs"
	"nlb/lb/importer/words"
)

// silent are directives of virtual and real servers that are read elsewhere, or say
// nothing of where connections go.
var silent = importer.Words(`
	lvs_sched lb_algo lvs_method lb_kind flag-1 flag-2 flag-3 sh-port sh-fallback mh-port mh-fallback ops persistence_engine persistence_timeout
	persistence_granularity protocol ha_suspend smtp_alert virtualhost snmp_name alpha omega quorum ip_family sorry_server sorry_server_inhibit
	sorry_server_lvs_method connect_timeout retry delay_before_retry warmup delay_loop inhibit_on_failure real_server weight uthreshold lthreshold
	log_all_failures
`)

// unknown says what of a block is not translated.
func (r *reader) unknown(all []*words.Directive) {
	for _, d := range all {
		switch name := d.Name(); {
		case silent[name] || checkers[name]:
		case strings.HasPrefix(name, "notify_") || name == "quorum_up" || name == "quorum_down":
			r.Lost("scripts that run when a state changes are not in the profile", "nlb run shows changes as a stream of events", d.Place())
		default:
			r.Lost(name+" is not translated", "", d.Place())
		}
	}
}

func (r *reader) virtual(d *words.Directive) {
	v := &ipvs.Virtual{Place: d.Place(), Scheduler: "wlc"}
	listens, ok := r.listens(d, v)
	if !ok {
		return
	}
	var reals, settings []*words.Directive
	for _, one := range d.Block {
		if one.Name() != "real_server" {
			settings = append(settings, one)
		}
	}
	if !r.Spend(len(settings)*(1+len(d.Block)-len(settings)), v.Place) {
		return
	}
	r.scheduling(settings, listens, v)
	r.unknown(settings)
	there := map[lb.Endpoint]bool{}
	for one := range words.All(d.Block, "real_server") {
		s, ok := r.real(one, settings, v)
		if !ok {
			continue
		}
		at := lb.Endpoint{Addr: s.Addr, Port: s.Port}
		if there[at] {
			r.Note("this real_server stands here twice; keepalived goes by the first", "", one.Place())
			continue
		}
		there[at] = true
		v.Servers = append(v.Servers, s)
		reals = append(reals, one)
	}
	if len(v.Servers) == 0 {
		r.Lost("this virtual_server has no real_server, so it is left out", "", v.Place)
		return
	}
	s := v.Service(r.Draft)
	s.Protocols, s.Listen = []lb.Protocol{v.Protocol}, listens
	if len(s.Backends) == 0 {
		return // every server was said to be left out
	}
	r.health(&s, settings, v, reals)
	r.sorry(&s, settings, v)
	s.Name = cmp.Or(words.Last(settings, "snmp_name").Arg(1), importer.PortName(s.Protocols, listens[0].Ports, listens[0].Prefix.Addr().Is6()))
	if d.Arg(1) == "group" {
		s.Name = d.Arg(2)
	}
	r.services = append(r.services, service{s, v.Place, fmt.Sprintf("virtual_server, line %d: scheduler %s", v.Place.Line, v.Scheduler)})
}

// listens are where a virtual server listens.
func (r *reader) listens(d *words.Directive, v *ipvs.Virtual) ([]lb.Listen, bool) {
	var lines []*words.Directive
	switch d.Arg(1) {
	case "fwmark":
		r.Lost("a service of a firewall mark is not translated, so this virtual_server is left out", "what ipvsadm -S -n and iptables-save -t mangle print, in one text, is: nlb import ipvs", v.Place)
		return nil, false
	case "group":
		g := r.groups[d.Arg(2)]
		if g == nil {
			r.Fail(d.Words[1].Place, fmt.Sprintf("there is no virtual_server_group %q", d.Arg(2)), "a group of this name")
			return nil, false
		}
		lines = g.Block
	default:
		lines = []*words.Directive{{Words: d.Args()}}
		if len(d.Words) < 2 {
			r.Fail(v.Place, "virtual_server has no address", "virtual_server ADDRESS PORT")
			return nil, false
		}
	}
	var out []lb.Listen
	for _, l := range lines {
		if l.Name() == "fwmark" {
			r.Lost("a firewall mark in a group is not translated", "", l.Place())
			continue
		}
		first, end, ok := addressRange(l.Name())
		port, ok2 := r.port(l, 1)
		if !ok {
			r.Fail(l.Words[0].Place, fmt.Sprintf("%q is not an address", l.Name()), "ADDRESS, or ADDRESS-LAST")
		}
		if !ok || !ok2 {
			return nil, false
		}
		if len(out) == 0 {
			v.Addr, v.Port, v.IPv6 = first, port, first.Is6()
		} else if v.IPv6 != first.Is6() {
			r.Lost("an address of another family than the first of its group is not in the profile", "a service with backends of both families has both", l.Place())
			continue
		}
		for a := first; ; a = a.Next() {
			if !r.Spend(1, v.Place) {
				return nil, false
			}
			if out = append(out, lb.Listen{Prefix: netip.PrefixFrom(a, a.BitLen()), Ports: importer.Ports(port)}); a == end {
				break
			}
		}
	}
	return out, len(out) > 0
}

// maxRange is how many addresses a range of a group may have.
const maxRange = 256

// addressRange reads 192.0.2.1, 192.0.2.1-10, 192.0.2.1-192.0.2.10 and 192.0.2.0/29.
func addressRange(text string) (first, last netip.Addr, ok bool) {
	low, high, isRange := strings.Cut(text, "-")
	if p, ok := importer.Prefix(low); ok && !isRange {
		all, family := space.Prefix(p)[0], lb.FamilyOf(p.Addr())
		first, last = all.First.Addr(family), all.Last.Addr(family)
		return first, last, space.Between(first, last).Size() <= maxRange
	}
	if first, ok = importer.Addr(low); !ok {
		return first, last, false
	}
	if last, ok = importer.Addr(high); !ok {
		last, ok = importer.Addr(low[:strings.LastIndexAny(low, ".:")+1] + high)
	}
	return first, last, ok && !last.Less(first) && first.BitLen() == last.BitLen() && space.Between(first, last).Size() <= maxRange
}

// port is an argument that is a port; 0 where there is none.
func (r *reader) port(d *words.Directive, i int) (uint16, bool) {
	if d.Arg(i) == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(d.Arg(i), 10, 16)
	if err != nil {
		r.Fail(d.Words[i].Place, fmt.Sprintf("%q is not a port", d.Arg(i)), "0 to 65535")
	}
	return uint16(n), err == nil
}

// number is the argument of a directive; otherwise where there is none.
func (r *reader) number(all []*words.Directive, name string, otherwise uint32) uint32 {
	d := words.Last(all, name)
	if d == nil {
		return otherwise
	}
	n, err := strconv.ParseUint(d.Arg(1), 10, 31)
	if err != nil {
		r.Fail(d.Place(), fmt.Sprintf("%s %q is not a number", name, d.Arg(1)), "0 or more")
		return otherwise
	}
	return uint32(n)
}

// scheduling reads what IPVS has to know of a virtual server.
func (r *reader) scheduling(all []*words.Directive, listens []lb.Listen, v *ipvs.Virtual) {
	if s := words.Last(all, "lvs_sched", "lb_algo"); s != nil {
		if v.SchedulerAt = s.Place(); ipvs.Scheduled(s.Arg(1)) {
			v.Scheduler = s.Arg(1)
		} else {
			r.Lost("the scheduler "+s.Arg(1)+" is not known, so keepalived takes wlc, as does the profile", "", s.Place())
		}
	}
	for _, flag := range []string{"flag-1", "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback"} {
		if words.Last(all, flag) != nil {
			v.Flags = append(v.Flags, flag)
		}
	}
	v.OnePacket = words.Last(all, "ops") != nil
	v.Engine = words.Last(all, "persistence_engine").Arg(1)
	v.Netmask = words.Last(all, "persistence_granularity").Arg(1)
	const persistent = 360 // unless it is said, keepalived.conf(5)
	if timeout := words.Last(all, "persistence_timeout"); timeout != nil || v.Netmask != "" {
		v.Persistent = persistent
		if timeout.Arg(1) != "" {
			v.Persistent = r.number(all, "persistence_timeout", persistent)
		}
	} else if slices.ContainsFunc(listens, func(l lb.Listen) bool { return l.Ports[0] == lb.AllPorts }) {
		v.Persistent = persistent
		r.Note("a virtual_server of all ports is persistent, whether that is said or not", "", v.Place)
	}
	switch p := words.Last(all, "protocol"); {
	case p == nil:
		v.Protocol = lb.UDP
		r.Lost("this virtual_server has no protocol: keepalived balances UDP then, and so does the profile", "protocol: tcp, if that is meant", v.Place)
	case lb.Read(&v.Protocol, strings.ToLower(p.Arg(1))) != nil:
		r.Fail(p.Place(), fmt.Sprintf("protocol %q is not known", p.Arg(1)), "TCP, UDP or SCTP")
	}
}

// forwarding is how packets get to a server; of blocks, the first that says it.
func (r *reader) forwarding(blocks ...[]*words.Directive) byte {
	for _, b := range blocks {
		if d := words.Last(b, "lvs_method", "lb_kind"); d != nil {
			way, ok := map[string]byte{"NAT": 'm', "DR": 'g', "TUN": 'i'}[d.Arg(1)]
			if !ok {
				r.Fail(d.Place(), fmt.Sprintf("%q is no way to forward", d.Arg(1)), "NAT, DR or TUN")
			}
			return cmp.Or(way, 'm')
		}
	}
	return 'm'
}

// real reads a real server.
func (r *reader) real(d *words.Directive, around []*words.Directive, v *ipvs.Virtual) (*ipvs.Server, bool) {
	a, ok := importer.Addr(d.Arg(1))
	if !ok {
		r.Fail(d.Place(), fmt.Sprintf("real_server %q is not an address", d.Arg(1)), "real_server ADDRESS PORT")
		return nil, false
	}
	port, ok := r.port(d, 2)
	if !ok {
		return nil, false
	}
	way := r.forwarding(d.Block, around)
	if port == 0 {
		port = v.Port
	} else if port != v.Port && way != 'm' {
		r.Note("without NAT a packet keeps its port, so this real_server has that of its virtual_server, as with keepalived", "", d.Place())
		port = v.Port
	}
	r.unknown(d.Block)
	return &ipvs.Server{
		Place: d.Place(), Addr: a, Port: port, Forwarding: way,
		Weight: r.number(d.Block, "weight", r.number(around, "weight", 1)), Most: r.number(d.Block, "uthreshold", 0),
	}, true
}

// sorry reads the server that takes over where too few others are up.
func (r *reader) sorry(s *lb.Service, all []*words.Directive, v *ipvs.Virtual) {
	d := words.Last(all, "sorry_server")
	quorum := words.Last(all, "quorum")
	if d == nil {
		if quorum != nil && quorum.Arg(1) != "1" {
			r.Note("a quorum without a sorry_server changes nothing of where connections go", "", quorum.Place())
		}
		return
	}
	a, ok := importer.Addr(d.Arg(1))
	port, ok2 := r.port(d, 2)
	if !ok || !ok2 {
		r.Fail(d.Place(), fmt.Sprintf("sorry_server %q is not an address", d.Arg(1)), "sorry_server ADDRESS PORT")
		return
	}
	port = cmp.Or(port, v.Port)
	e := lb.Endpoint{Addr: a, Port: port}
	b := lb.Backend{Name: "sorry", Address: e, Weight: 1, Priority: 2, SNAT: s.SNAT, CheckAt: lb.CheckAt{None: true}}
	switch {
	case a.Is6() != v.IPv6:
		r.Lost("this sorry_server is of another family than the service, so it is left out", "", d.Place())
		return
	case slices.ContainsFunc(s.Backends, func(o lb.Backend) bool { return o.Address == e }):
		r.Lost("this sorry_server is a real_server, too, so it is left out", "", d.Place())
		return
	case s.Mode == lb.DSR && port != v.Port:
		r.Lost("this sorry_server has another port than the service, which mode: dsr cannot have, so it is left out", "", d.Place())
		return
	case s.Health == nil:
		r.Note("no real_server is checked, so the sorry_server is never used, here as there", "", d.Place())
		b.CheckAt = lb.CheckAt{}
	}
	s.Backends = append(s.Backends, b)
	n := r.number(all, "quorum", 1)
	if n < 2 {
		return
	}
	if slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Weight != 1 }) {
		r.Lost("a quorum of weights is not translated: the sorry_server takes over where no real_server is up", "min-up is a number of backends, or a part of them", quorum.Place())
		return
	}
	s.MinUp = lb.MinUp{Count: int(min(n, lb.MaxMinUp))}
	r.Note("below its quorum, keepalived puts the sorry_server in the place of all; in the profile it joins those that are up", "", quorum.Place())
	if h := words.Last(all, "hysteresis"); h != nil && h.Arg(1) != "0" {
		r.Lost("hysteresis is not translated", "", h.Place())
	}
}
