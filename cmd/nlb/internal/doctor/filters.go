package doctor

// Filters: base chains of others that drop what nlb sends through the host, and those
// that a flow table passes by.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// natPriority is where destinations are translated: before it, a chain sees
// what the client sent.
const natPriority = -100

// stop is a hook on a path, with the packet as it comes there.
type stop struct {
	hook string
	// before: the destination is not translated yet; so is what chains of a
	// lower priority see.
	before bool
	// packets are the same by each of the links that it may come by.
	packets []firewall.Packet
	what    string // what it is, for people
	// until is the priority at which the packets are taken: later chains see none of
	// them. 0: they are not taken.
	until int
}

// reaches reports whether packets of the stop come to a chain.
func (s *stop) reaches(c *firewall.Chain) bool {
	switch {
	case c.Base.Hook != s.hook, s.until != 0 && c.Base.Priority > s.until:
		return false
	case s.hook == "prerouting" && s.what != solicited:
		return (c.Base.Priority < natPriority) == s.before
	}
	return true
}

// filters looks for chains that drop, on the way of every path.
func (e *exam) filters() {
	if len(e.Tables) == 0 {
		e.fine("no rules of others")
		return
	}
	for _, p := range e.paths {
		said := map[*firewall.Chain]bool{}
		for _, s := range e.stops(p) {
			e.filtersAt(p, s, said)
		}
	}
	e.fine(fmt.Sprintf("%s of others: none drops this traffic", text.Count(len(e.Tables), "table")))
}

// stops are the hooks that a path goes by: the first packet of a connection,
// and an answer.
func (e *exam) stops(p *path) []stop {
	way := e.way(p)
	if way.Way != Out && way.Way != Local {
		return nil
	}
	to := firewall.AddrsOf(netip.PrefixFrom(p.at, p.at.BitLen()))
	var out []stop
	for _, proto := range p.service.Protocols {
		var asked, first, reply []firewall.Packet
		for _, in := range e.inOrAny(p) {
			a := firewall.Packet{V6: p.family == lb.IPv6, Protocol: uint8(proto)}
			r := a
			e.enters(&a, in)
			f := a
			a.Dst, a.DstPort, a.Local = e.asked(p)
			f.Dst, f.DstPort, f.Translated, f.Local = to, target(p), true, firewall.False
			r.Src, r.SrcPort, r.Established, r.Translated, r.Local = to, target(p), true, true, firewall.False
			switch {
			case way.Way == Local:
				f.Local = firewall.True
			default:
				e.leaves(&f, way.Link)
				e.enters(&r, way.Link)
				e.leaves(&r, in)
			}
			if p.fromHost() {
				r.Local = firewall.True
			}
			asked, first, reply = append(asked, a), append(first, f), append(reply, r)
		}
		if proto == lb.TCP && p.service.SYNProtection != nil && way.Way == Out {
			out = append(out, e.proven(asked, first, reply)...)
			if p.service.Limit.HalfOpen == 0 { // else those that it has room for begin as without
				continue
			}
		}
		comes := []stop{{"ingress", true, asked, "what comes in", 0}, {"prerouting", true, asked, "what comes in", 0}, {"prerouting", false, first, "what comes in", 0}}
		switch {
		case p.fromHost():
			const sent = "what this host sends"
			out = append(out, stop{"output", false, first, sent, 0}, stop{"postrouting", false, first, sent, 0}, stop{"input", false, reply, answers, 0})
		case way.Way == Local:
			out = append(append(out, comes...), stop{"input", false, first, "what comes in", 0})
		default:
			out = append(append(out, comes...), stop{"forward", false, first, "what is forwarded", 0},
				stop{"postrouting", false, first, "what is forwarded", 0}, stop{"forward", false, reply, answers, 0})
		}
	}
	return append(out, e.solicitations(p, way)...)
}

// solicitations are the questions of IPv6 neighbours for this host's address
// on the link: where they are dropped, nothing finds its way.
func (e *exam) solicitations(p *path, way Route) []stop {
	if p.family != lb.IPv6 {
		return nil
	}
	links := e.inOrAny(p)
	if way.Way == Out && !slices.Contains(links, way.Link) {
		links = append(slices.Clone(links), way.Link)
	}
	var out []stop
	for _, link := range links {
		ask := firewall.Packet{V6: true, Protocol: 58, Solicitation: true, Local: firewall.Maybe}
		e.enters(&ask, link)
		for _, hook := range []string{"ingress", "prerouting", "input"} {
			out = append(out, stop{hook, true, []firewall.Packet{ask}, solicited, 0})
		}
	}
	return out
}

// What some stops are, for people.
const (
	answers   = "answers"
	cookies   = "the kernel's answers to clients"
	solicited = "IPv6 neighbours' questions for this host's address"
)

// inOrAny are the links that clients come by; where they are not known, all
// that they may come by.
func (e *exam) inOrAny(p *path) []string {
	if p.fromHost() {
		return []string{""}
	}
	if in := e.comeBy(p); len(in) > 0 || p.sure {
		return in
	}
	back := e.way(p).Link
	var out []string
	for _, l := range e.Links {
		if l.Up && !l.Loopback && l.Master == "" && l.Name != back {
			out = append(out, l.Name)
		}
	}
	if len(out) == 0 {
		return []string{back}
	}
	return out
}

// asked is the destination as the client has it.
func (e *exam) asked(p *path) (firewall.Addrs, firewall.Ports, firewall.Tri) {
	l := p.listens[0]
	ports := firewall.Ports{First: l.Ports[0].First, Last: l.Ports[len(l.Ports)-1].Last}
	if !l.Prefix.IsValid() {
		return firewall.Addrs{}, ports, firewall.True
	}
	local := firewall.False
	switch {
	case !l.Prefix.IsSingleIP():
		local = firewall.Maybe
	case e.Routes[Question{To: l.Prefix.Addr()}].Way == Local:
		local = firewall.True
	}
	return firewall.AddrsOf(l.Prefix), ports, local
}

// target is the port of the backend.
func target(p *path) firewall.Ports {
	if port := p.backend.Address.Port; port != 0 {
		return firewall.Ports{First: port, Last: port}
	}
	ports := p.listens[0].Ports
	return firewall.Ports{First: ports[0].First, Last: ports[len(ports)-1].Last}
}

func (e *exam) enters(p *firewall.Packet, link string) {
	p.In, p.InIndex = link, 0
	if l := e.link(link); l != nil {
		p.InIndex = l.Index
	}
}

func (e *exam) leaves(p *firewall.Packet, link string) {
	p.Out, p.OutIndex = link, 0
	if l := e.link(link); l != nil {
		p.OutIndex = l.Index
	}
}

// filtersAt judges one stop by the chains of all tables. said has the chains
// that something was said of: if the first packet is dropped, so are answers.
func (e *exam) filtersAt(p *path, s stop, said map[*firewall.Chain]bool) {
	for _, t := range e.Tables {
		for _, c := range t.Bases() {
			if c.Base.Type == "nat" || said[c] || !s.reaches(c) {
				continue
			}
			var worst *firewall.Judgement
			dropped, all := 0, 0
			for i := range s.packets {
				packet := &s.packets[i]
				if !e.sees(t, s.hook, packet) || !onDevice(c, packet.In) {
					continue
				}
				all++
				j := t.Judge(c, packet)
				if j.Action == firewall.Drop {
					worst = &j
					dropped++
				}
			}
			if worst != nil {
				said[c] = true
				e.drops(p, s, t, c, worst, dropped == all)
			}
		}
	}
}

// forwards reports whether no chain of others drops a packet that is not balanced.
func (e *exam) forwards(p *firewall.Packet) bool {
	for _, t := range e.Tables {
		for _, c := range t.Bases() {
			if c.Base.Hook == "forward" && e.sees(t, "forward", p) && t.Judge(c, p).Action == firewall.Drop {
				return false
			}
		}
	}
	return true
}

// sees reports whether a table is for the family, or for the links, of a
// packet.
func (e *exam) sees(t *firewall.Table, hook string, p *firewall.Packet) bool {
	switch t.Family {
	case "inet":
		return true
	case "ip":
		return !p.V6
	case "ip6":
		return p.V6
	case "netdev":
		return hook == "ingress"
	case "bridge":
		// Frames for this host, and from it: those that it forwards leave and
		// come back to the bridge.
		link := p.In
		if hook == "output" || hook == "postrouting" {
			link = p.Out
		}
		l := e.link(link)
		return l != nil && l.Bridge && hook != "forward"
	}
	return false
}

// onDevice reports whether a chain that is attached to links is on this one.
func onDevice(c *firewall.Chain, link string) bool {
	return len(c.Base.Devices) == 0 || slices.Contains(c.Base.Devices, link)
}

func (e *exam) drops(p *path, s stop, t *firewall.Table, c *firewall.Chain, j *firewall.Judgement, always bool) {
	accepts, maybe := j.May[firewall.Accept]
	if _, unknown := j.May[firewall.Anything]; unknown {
		maybe = true
	}
	level, verb, why := Fail, "drops", "no rule of it lets these connections through"
	if maybe {
		level, verb, why = Warn, "may drop", "it has rules that let some through, by what cannot be told here"
		if accepts.Chain != "" && accepts.Chain != c.Name {
			why += ", in chain " + accepts.Chain
		}
	}
	if !always && level == Fail {
		level, verb, why = Warn, "may drop", "it depends on the link that clients come by, which is not known here"
	}
	by := "its policy is drop"
	switch {
	case j.By.Policy:
	case j.By.Chain != c.Name:
		by = "a rule of chain " + j.By.Chain + " drops"
	default:
		by = "a rule of it drops"
	}
	e.add(level, p.title(), fmt.Sprintf("%s, chain %s %s %s", t, c.Name, verb, s.what), by+", and "+why, e.letThrough(p, s, t, c))
}

// letThrough is the command that has a chain accept what nlb balances. Behind nlb, all
// packets of a connection, in both directions, have the status that its destination was
// translated.
func (e *exam) letThrough(p *path, s stop, t *firewall.Table, c *firewall.Chain) string {
	docker, ufw := t.Chains["DOCKER-USER"] != nil, t.Chains["ufw-before-forward"] != nil || t.Chains["ufw6-before-forward"] != nil
	iptables := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[t.Family]
	if t.Legacy {
		iptables += "-legacy"
	}
	lets, state := "ct status dnat", "DNAT"
	if s.what == cookies {
		lets, state = "ct state established", "ESTABLISHED"
	}
	switch {
	case s.what == solicited && iptables != "":
		return fmt.Sprintf("%s -I %s -p icmpv6 -j ACCEPT", iptables, c.Name)
	case s.what == solicited:
		return fmt.Sprintf("nft insert rule %s %s %s meta l4proto ipv6-icmp accept", t.Family, t.Name, c.Name)
	case !s.packets[0].Translated && s.what != cookies:
		l := p.listens[0]
		word := map[lb.Family]string{lb.IPv4: "ip", lb.IPv6: "ip6"}[p.family]
		if !l.Prefix.IsValid() {
			return fmt.Sprintf("nft insert rule %s %s %s meta l4proto %s accept", t.Family, t.Name, c.Name, p.service.Protocols[0])
		}
		return fmt.Sprintf("nft insert rule %s %s %s %s daddr %s accept", t.Family, t.Name, c.Name, word, l.Prefix)
	case docker && c.Name == "FORWARD":
		return iptables + " -I DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT"
	case ufw && c.Name == "FORWARD" && p.backend.Address.Port != 0:
		return fmt.Sprintf("ufw route allow proto %s to %s port %d", p.service.Protocols[0], p.at, p.backend.Address.Port)
	case iptables != "" && (t.Legacy || t.Name == "filter" && c.Name == strings.ToUpper(c.Base.Hook)):
		table := ""
		if t.Name != "filter" {
			table = " -t " + t.Name
		}
		return fmt.Sprintf("%s%s -I %s -m conntrack --ctstate %s -j ACCEPT", iptables, table, c.Name, state)
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s accept", t.Family, t.Name, c.Name, lets)
}

// Offload is what becomes of services that want to be offloaded.
type Offload struct {
	Services []Offloaded
	// Bypassed are the chains of others that packets in a flow table pass by.
	Bypassed []string
	// Left says which devices are left out, and why.
	Left []string
}

// Offloaded is a service that wants to be offloaded.
type Offloaded struct {
	Profile, Service string
	Way              lb.Offload
	By               string // the flow table; empty: it is not offloaded
	Note             string // on which devices, or why not
}

func (e *exam) offload() {
	for _, s := range e.Offload.Services {
		title := s.Profile + "/" + s.Service
		switch {
		case s.By == "" && s.Way == lb.OffloadAuto:
			e.add(OK, title, "it is not offloaded", s.Note, "")
		case s.By == "":
			e.add(Warn, title, "it is not offloaded", s.Note, "")
		}
		if s.By == "" || s.Way == lb.OffloadAuto { // auto is off where there are such chains, or soon will be
			continue
		}
		for _, chain := range e.Offload.Bypassed {
			e.add(Warn, title, "what is offloaded passes by "+chain,
				"its rules do not see packets of live connections; offload: auto keeps to the chains while there are some", "")
		}
	}
	for _, left := range e.Offload.Left {
		what, why, _ := strings.Cut(left, ": ")
		e.add(Warn, "", what, why, "")
	}
	e.fineIf(len(e.Offload.Services) > 0, "live connections go by a flow table")
}
