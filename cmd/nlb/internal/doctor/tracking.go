package doctor

// Tracking: rules of others that keep conntrack from balanced packets.

import (
	"fmt"
	"net/netip"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/lb"
)

// trackPriority is where packets get their connection: behind it, notrack does
// nothing (NF_IP_PRI_CONNTRACK).
const trackPriority = -200

// untracked finds rules with notrack that what clients send meets, or what
// backends answer.
func (e *exam) untracked() {
	if len(e.Tables) > 0 {
		for i := range e.paths {
			e.untrackedOf(&e.paths[i])
		}
	}
	if len(e.paths) > 0 {
		e.fine("no rule of others keeps this traffic from being tracked")
	}
}

func (e *exam) untrackedOf(p *path) {
	type rule struct {
		table *firewall.Table
		firewall.Cause
	}
	found := map[rule]bool{} // sure
	var order []rule
	what := map[rule]string{}
	for _, s := range e.markStops(p) {
		if s.hook != "prerouting" && s.hook != "output" || s.hook == "prerouting" && !s.before {
			continue
		}
		for _, packet := range s.packets {
			switch {
			case s.what == answers:
				packet.Dst = e.seen(p)
			case s.hook == "output": // it is not translated yet
				packet.Dst, packet.DstPort, packet.Local = e.asked(p)
				packet.Translated = false
			}
			for _, t := range e.Tables {
				for _, u := range e.untrackedAt(t, s.hook, &packet) {
					r := rule{t, u.By}
					if sure, known := found[r]; !known {
						order = append(order, r)
					} else if sure || !u.Sure {
						continue
					}
					found[r], what[r] = u.Sure, s.what
				}
			}
		}
	}
	for _, r := range order {
		e.untracks(p, r.table, r.Cause, what[r], found[r])
	}
}

// untrackedAt are the rules of a table with notrack that a packet meets at a hook.
func (e *exam) untrackedAt(t *firewall.Table, hook string, packet *firewall.Packet) (out []firewall.Untrack) {
	for _, c := range t.Bases() {
		if c.Base.Hook == hook && c.Base.Priority < trackPriority && e.sees(t, hook, packet) && onDevice(c, packet.In) {
			out = append(out, t.Judge(c, packet).Untracks...)
		}
	}
	return out
}

// seen is the address that a backend answers to, where it can be one only.
func (e *exam) seen(p *path) firewall.Addrs {
	l := e.link(e.way(p).Link)
	if l == nil || p.backend.SNAT.Mode != lb.Masquerade {
		return firewall.Addrs{}
	}
	var own []netip.Addr
	for _, a := range l.Addrs {
		if lb.FamilyOf(a.Addr()) == p.family && !a.Addr().IsLinkLocalUnicast() {
			own = append(own, a.Addr())
		}
	}
	if len(own) != 1 {
		return firewall.Addrs{}
	}
	return firewall.Addrs{First: own[0], Last: own[0]}
}

func (e *exam) untracks(p *path, t *firewall.Table, by firewall.Cause, what string, sure bool) {
	if what != answers {
		what = "what clients send"
	}
	level, verb := Warn, "may leave"
	if sure {
		level, verb = Fail, "leaves"
	}
	e.add(level, p.title(), fmt.Sprintf("%s, chain %s %s %s untracked", t, by.Chain, verb, what),
		"a rule there says notrack: without a connection the kernel translates no address, so these packets are not balanced", remove(t, by))
}
