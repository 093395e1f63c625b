package doctor

// Rivals: nat rules of others that take the same packets.

import (
	"fmt"
	"iter"
	"net/netip"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/lb"
)

// rivals looks for rules that translate the destination before nlb does, for
// those that translate a source that nlb leaves, and for those that nlb's backends
// would need and do not get.
func (e *exam) rivals() {
	for p, s := range lb.Services(e.Profiles) {
		e.rivalsOf(p.Name+"/"+s.Name, s)
	}
	for _, p := range e.paths {
		e.masquerades(p)
		e.shadowed(p)
	}
	e.fineIf(len(e.Profiles) > 0, "no rule of others takes these packets first")
}

func (e *exam) rivalsOf(title string, s *lb.Service) {
	hook := "prerouting"
	if s.Role == lb.RoleClient {
		hook = "output"
	}
	in, sure := entrances(e.Host, s)
	for _, l := range s.Listen {
		for _, f := range s.Families() {
			if l.Prefix.IsValid() && lb.FamilyOf(l.Prefix.Addr()) != f {
				continue
			}
			p := path{service: s, family: f, listens: []lb.Listen{l}, in: in, sure: sure}
			for _, proto := range s.Protocols {
				leaves := proto == lb.TCP && s.SYNProtection != nil // a SYN to the SYN proxy
				for _, r := range l.Ports {
					for _, link := range e.inOrAny(&p) {
						packet := firewall.Packet{V6: f == lb.IPv6, Protocol: uint8(proto)}
						packet.Dst, _, packet.Local = e.asked(&p)
						packet.DstPort = firewall.Ports{First: max(r.First, 1), Last: r.Last}
						e.enters(&packet, link)
						e.rivalsAt(title, l, hook, leaves, &packet)
					}
				}
			}
		}
	}
}

// rivalsAt judges a packet by the nat chains of others. Those of the same
// priority run in the order in which they were attached, the last one first:
// measured on Linux 6.18, and so it is in nf_hook_entries_grow. Where nlb leaves the
// packet as it is, those behind it meet it, too.
func (e *exam) rivalsAt(title string, l lb.Listen, hook string, leaves bool, packet *firewall.Packet) {
	for t, c := range e.natChains(hook, packet) {
		if c.Base.Priority > natPriority && !leaves {
			continue
		}
		j := t.Judge(c, packet)
		by, may := j.May[firewall.Translate]
		switch {
		case j.Action == firewall.Translate:
			by = j.By
		case !may:
			continue
		}
		e.rival(title, l, t, c, by, j.Action == firewall.Translate, leaves)
	}
}

// natChains are the nat chains of others at a hook that a packet comes to.
func (e *exam) natChains(hook string, packet *firewall.Packet) iter.Seq2[*firewall.Table, *firewall.Chain] {
	return func(yield func(*firewall.Table, *firewall.Chain) bool) {
		for _, t := range e.Tables {
			if !e.sees(t, hook, packet) {
				continue
			}
			for _, c := range t.Bases() {
				if c.Base.Hook == hook && c.Base.Type == "nat" && !yield(t, c) {
					return
				}
			}
		}
	}
}

func (e *exam) rival(title string, l lb.Listen, t *firewall.Table, c *firewall.Chain, by firewall.Cause, sure, leaves bool) {
	level, takes := Fail, "takes"
	if !sure {
		level, takes = Warn, "may take"
	}
	where := fmt.Sprintf("%s, chain %s", t, c.Name)
	if by.Chain != c.Name {
		where += " (a rule of " + by.Chain + ")"
	}
	why := fmt.Sprintf("it translates the destination at priority %d, before nlb at %d", c.Base.Priority, natPriority)
	switch {
	case leaves && c.Base.Priority >= natPriority:
		why = fmt.Sprintf("it translates the destination at priority %d, and with syn-protection a SYN comes there as the client sent it", c.Base.Priority)
	case c.Base.Priority == natPriority:
		level = Warn
		why = fmt.Sprintf("both translate it at priority %d; the chain that was attached last is the first, which cannot be seen", natPriority)
		switch {
		case t.Legacy || t.Handle == 0 || e.Ours.Handle == 0:
		case t.Handle > e.Ours.Handle:
			why += ": probably this one, since its table is the younger"
		default:
			why += ": probably nlb's, since its table is the younger; then this rule never meets them"
		}
	}
	e.add(level, title, fmt.Sprintf("%s %s what is for %s", where, takes, l), why, remove(t, by))
}

// masquerades finds rules that give a source that snat: none leaves another
// address.
func (e *exam) masquerades(p *path) {
	way := e.way(p)
	if p.backend.SNAT.Mode != lb.SNATNone || way.Way != Out {
		return
	}
	to := netip.PrefixFrom(p.at, p.at.BitLen())
	for _, in := range e.inOrAny(p) {
		packet := firewall.Packet{
			V6: p.family == lb.IPv6, Protocol: uint8(p.service.Protocols[0]), Local: firewall.False,
			Dst: firewall.AddrsOf(to), DstPort: target(p), Translated: true,
		}
		e.enters(&packet, in)
		e.leaves(&packet, way.Link)
		for t, c := range e.natChains("postrouting", &packet) {
			if j := t.Judge(c, &packet); j.Action == firewall.Translate {
				e.add(Warn, p.subject(), fmt.Sprintf("%s, chain %s translates the source of its connections", t, j.By.Chain),
					"with snat none the backend is to see the clients, and it sees this host instead", remove(t, j.By))
			}
		}
	}
}

// remove is the command that deletes a rule; where it is a part of a map, the
// one that shows it.
func remove(t *firewall.Table, by firewall.Cause) string {
	legacy := map[string]string{"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}[t.Family]
	switch {
	case t.Legacy:
		return fmt.Sprintf("%s -t %s -D %s %d", legacy, t.Name, by.Chain, by.Number)
	case by.Number == 0:
		return fmt.Sprintf("nft -a list chain %s %s %s", t.Family, t.Name, by.Chain)
	}
	return fmt.Sprintf("nft delete rule %s %s %s handle %d", t.Family, t.Name, by.Chain, by.Number)
}
