package doctor

// Tracking: rules of others that keep conntrack from balanced packets, and the hooks of
// what has no connection yet.

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
	e.amongRules(e.untrackedOf, "no rule of others keeps this traffic from being tracked")
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

const (
	// proxyPriority is where the SYN proxy takes a segment, ahead of most filters.
	proxyPriority = -150
	syn, ack      = 2, 16 // flags of TCP
	loose         = "net/netfilter/nf_conntrack_tcp_loose"
)

// proven are the hooks of a connection with syn-protection: where a SYN is forwarded, or
// comes in, the kernel answers; the client's ACK is none of a connection that conntrack
// knows; and the SYN to the backend is one that this host sends. The packets are those of
// a connection without.
func (e *exam) proven(asked, first, reply []firewall.Packet) []stop {
	const asks, proof, sent = "what comes in", "clients' answers to cookies", "what the kernel sends for clients"
	var proofs, replies, sends, routed, later []firewall.Packet
	for i, a := range asked {
		replies = append(replies, firewall.Packet{
			V6: a.V6, Protocol: a.Protocol, Src: a.Dst, SrcPort: a.DstPort, Out: a.In, OutIndex: a.InIndex, Established: true, Flags: syn | ack, Local: firewall.False,
		})
		// It is translated in output, and only then looks for the way to the backend.
		f := first[i]
		f.In, f.InIndex, f.Flags = "", 0, syn
		routed = append(routed, f)
		e.leaves(&f, e.Routes[Question{To: a.Dst.First}].Link)
		sends = append(sends, f)
		a.Flags, a.Invalid = ack, e.Params[loose] == "0"
		proofs = append(proofs, a)
		l := first[i]
		l.Established = true
		later = append(later, l)
	}
	takes := "forward"
	if asked[0].Local == firewall.True {
		takes = "input"
	}
	return []stop{
		{"ingress", true, asked, asks, 0},
		{"prerouting", true, asked, asks, 0},
		{"prerouting", true, proofs, proof, 0},
		{"prerouting", false, asked, asks, 0},
		{"prerouting", false, proofs, proof, 0},
		{takes, true, asked, asks, proxyPriority},
		{takes, true, proofs, proof, proxyPriority},
		{"output", false, replies, cookies, 0},
		{"postrouting", false, replies, cookies, 0},
		{"output", false, sends, sent, 0},
		{"postrouting", false, routed, sent, 0},
		{"forward", false, later, "what is forwarded", 0},
		{"forward", false, reply, answers, 0},
	}
}
