package nginx

// Servers of stream: where they listen, and what they do with connections.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/relay"
	"nlb/lb/importer/words"
)

// server adds the services of a block `server`: one for TCP, one for UDP.
func (r *reader) server(d *words.Directive, stream []*words.Directive, used map[*upstream]bool) {
	own := r.block(d.Block)
	all := slices.Concat(stream, own)
	at := d.Place()
	if !r.Spend(len(stream)+len(own), at) {
		return
	}
	binds := r.binds(own)
	pass := words.Last(own, "proxy_pass")
	switch {
	case pass == nil:
		r.Note("this server sends no connections anywhere, so it is left out", "", at)
		return
	case len(binds) == 0:
		r.Lost("this server listens nowhere that a profile can have, so it is left out", "", at)
		return
	case words.Last(all, "proxy_ssl").Arg(1) == "on":
		r.Lost("TLS to the servers is not translated, so this server is left out", "nlb passes TLS of clients on, and makes none", words.Last(all, "proxy_ssl").Place())
		return
	}
	for _, o := range own {
		r.known(o)
	}
	u := r.target(pass)
	if u == nil {
		return
	}
	if used[u] = true; !r.Spend(len(u.members), at) {
		return
	}
	s := lb.Service{}
	r.guards(&s, own, all)
	r.source(&s, words.Last(all, "proxy_bind"))
	if p := words.Last(all, "proxy_protocol"); p.Arg(1) == "on" {
		r.Lost("the servers wait for the header of the PROXY protocol, which the profile does not send", "turn it off at the servers; with snat: none they see the client itself", p.Place())
	}
	if p := words.Last(all, "proxy_timeout"); p != nil {
		r.Note("nginx ends connections that are silent for this time; the profile does not", "", p.Place())
	}
	note := "server, line " + strconv.Itoa(at.Line)
	if u.directive != nil {
		note += "; upstream " + u.directive.Arg(1) + ", line " + strconv.Itoa(u.directive.Place().Line)
	}
	next := words.Last(all, "proxy_next_upstream")
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
		if len(binds[p]) == 0 {
			continue
		}
		one := s
		one.Protocols = []lb.Protocol{p}
		one.Name = cmp.Or(u.directive.Arg(1), fmt.Sprintf("%s-%d", p, binds[p][0].Ports.First))
		servers := r.balance(&one, u, words.Last(own, "health_check"), next == nil || next.Arg(1) == "on")
		relay.Add(r.Draft, one, binds[p], servers, at, note)
	}
}

// binds are where it listens, by protocol.
func (r *reader) binds(own []*words.Directive) map[lb.Protocol][]relay.Bind {
	out := map[lb.Protocol][]relay.Bind{}
	for d := range words.All(own, "listen") {
		text := d.Arg(1)
		if text != "" && strings.Trim(text, "0123456789-") == "" {
			text = "*:" + text
		}
		e, ok := relay.Parse(text, false)
		if !ok || e.Host != "" || e.Ports.First == 0 {
			r.Lost("listen "+text+" is not translated: it is no address with a port", "", d.Place())
			continue
		}
		b := relay.Bind{Endpoint: e, V4: !e.Addr.IsValid() || e.Addr.Is4(), V6: e.Addr.IsValid() && e.Addr.Is6(), Place: d.Place()}
		p := lb.TCP
		for _, w := range d.Words[2:] {
			name, value, _ := strings.Cut(w.Text, "=")
			switch name {
			case "udp":
				p = lb.UDP
			case "ssl":
				r.Lost("TLS that ends here is not translated, so this listen is left out", "nlb passes TLS on to servers that end it", w.Place)
				ok = false
			case "proxy_protocol":
				r.Lost("proxy_protocol reads the client's address from the connection, which nlb does not, so this listen is left out", "", w.Place)
				ok = false
			case "ipv6only":
				b.V4 = b.V4 || value == "off"
			case "reuseport", "bind", "backlog", "so_keepalive", "rcvbuf", "sndbuf", "fastopen", "deferred", "default_server", "multipath":
			default:
				r.Lost(name+" of listen is not translated", "", w.Place)
			}
		}
		if ok {
			out[p] = append(out[p], b)
		}
	}
	return out
}

// target is the upstream that connections go to. Where an address stands in its
// place, that is its only server.
func (r *reader) target(pass *words.Directive) *upstream {
	to := pass.Arg(1)
	if u := r.upstreams[to]; u != nil {
		return u
	}
	at := pass.Place()
	if len(pass.Words) > 1 {
		at = pass.Words[1].Place
	}
	e, ok := relay.Parse(to, false)
	if !ok || e.Any || e.Ports.First == 0 || e.Ports.First != e.Ports.Last {
		msg := "proxy_pass " + to + " is not translated, so this server is left out"
		if strings.Contains(to, "$") {
			msg = "a target that is chosen by what a connection says is not translated, so this server is left out"
		} else if e.Host != "" {
			msg = "there is no upstream " + to + " in this text, so this server is left out"
		}
		r.Lost(msg, "", at)
		return nil
	}
	return &upstream{members: []member{{Server: relay.Server{Backend: e.Backend(), Place: at}}}}
}

// source reads proxy_bind: what servers see.
func (r *reader) source(s *lb.Service, d *words.Directive) {
	a, ok := importer.Addr(d.Arg(1))
	host, _, _ := strings.Cut(d.Arg(1), ":")
	switch {
	case d == nil || d.Arg(1) == "off":
	case ok:
		s.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{a}}
	case host == "$remote_addr" && d.Arg(2) == "transparent":
		s.SNAT = lb.SNAT{Mode: lb.SNATNone}
	default:
		r.Lost("proxy_bind "+d.Arg(1)+" is not translated; servers see this host", "", d.Place())
	}
}

// guards reads allow and deny, of which the first counts that a client matches, and
// limit_conn.
func (r *reader) guards(s *lb.Service, own, all []*words.Directive) {
	level := own
	if words.Last(own, "allow", "deny") == nil {
		level = all
	}
	closed := false
	for d := range words.All(level, "allow", "deny") {
		if closed {
			break
		}
		allow := d.Name() == "allow"
		list, ok := importer.Prefix(d.Arg(1))
		switch {
		case d.Arg(1) == "all":
			closed, ok = true, true
			if allow {
				s.Allow = nil
			} else if s.Allow == nil {
				s.Deny = slices.Clone(everybody)
			}
		case ok && allow:
			s.Allow = append(s.Allow, list)
		case ok && s.Allow == nil:
			s.Deny = append(s.Deny, list)
		default:
			ok = false
		}
		if !ok {
			r.Lost("this "+d.Name()+" is not translated: deny wins in a profile, whatever the order", "", d.Place())
		}
	}
	if !closed {
		s.Allow = nil // all others are let in, too
	}
	s.Deny, s.Allow = importer.Prefixes(s.Deny), importer.Prefixes(s.Allow)
	if d := words.Last(all, "limit_conn"); d != nil {
		n, err := strconv.ParseUint(d.Arg(2), 10, 32)
		if key := r.zones[d.Arg(1)]; err == nil && n > 0 && (key == "$binary_remote_addr" || key == "$remote_addr") {
			s.Limit.ConnectionsPerSource = uint32(n)
		} else {
			r.Lost("this limit_conn is not translated", "connections-per-source is by the client's address", d.Place())
		}
	}
}

var everybody = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
