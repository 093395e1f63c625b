package haproxy

// Frontends: where they listen, and whom they let in.

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/relay"
	"nlb/lb/importer/words"
)

// bindValues are parameters of bind that have a value, and say nothing of where
// connections go.
var bindValues = importer.Words(`
	name backlog mss nice process thread id uid gid user group mode level severity-output tcp-ut shards proto guid-prefix expose-fd cc
`)

// binds are where it listens.
func (p *proxy) binds(s *lb.Service) []relay.Bind {
	var out []relay.Bind
	interfaces := map[string]bool{}
	for d := range words.All(p.lines, "bind") {
		if len(d.Words) < 2 {
			p.Fail(d.Place(), "bind has no address", "ADDRESS:PORT")
			continue
		}
		params, ok := p.bindParams(d)
		if !ok {
			continue
		}
		interfaces[params["interface"]] = true
		s.Interface = params["interface"]
		for text := range strings.SplitSeq(d.Arg(1), ",") {
			plain, v6 := strings.CutPrefix(text, "ipv6@")
			plain = strings.TrimPrefix(plain, "ipv4@")
			v4 := !v6
			e, ok := relay.Parse(plain, true)
			switch {
			case !ok || e.Host != "" || e.Ports.First == 0:
				p.Lost("bind "+text+" is not translated: it is no address with a port", "", d.Words[1].Place)
				continue
			case e.Any && e.Addr.IsValid(): // *:80 is IPv4
				v4, v6 = e.Addr.Is4() || params["v4v6"] != "", e.Addr.Is6()
			}
			out = append(out, relay.Bind{Endpoint: e, V4: v4, V6: v6, Place: d.Place()})
		}
	}
	if len(interfaces) > 1 {
		s.Interface = ""
		p.Lost("these binds have different interfaces; the profile takes what enters anywhere", "", p.at)
	}
	return out
}

// bindParams reads what stands behind the address. It is false where a service
// cannot take connections as this does.
func (p *proxy) bindParams(d *words.Directive) (map[string]string, bool) {
	given := map[string]string{}
	for i := 2; i < len(d.Words); i++ {
		w := d.Words[i]
		given[w.Text] = w.Text
		switch w.Text {
		case "ssl":
			p.Lost("TLS that ends here is not translated, so this bind is left out", "nlb passes TLS on to servers that end it", w.Place)
			return nil, false
		case "accept-proxy", "accept-netscaler-cip":
			p.Lost(w.Text+" reads the client's address from the connection, which nlb does not, so this bind is left out", "", w.Place)
			return nil, false
		case "interface":
			i++
			given["interface"] = d.Arg(i)
		case "maxconn":
			p.Lost("a limit of all connections of a service is not in the profile", "max-connections limits those of a backend", w.Place)
			i++
		case "v4v6", "v6only", "transparent", "defer-accept", "tfo", "allow-0rtt", "quic-force-retry":
		default:
			if !bindValues[w.Text] {
				p.Lost(w.Text+" of bind is not translated", "", w.Place)
				continue
			}
			i++
		}
	}
	return given, true
}

// guards reads rules that let clients in by their address.
func (p *proxy) guards(s *lb.Service) {
	named, other := map[string][]netip.Prefix{}, map[string]bool{} // ACLs: by addresses alone, or not
	for d := range words.All(p.lines, "acl") {
		if len(d.Words) < 3 {
			continue
		}
		list, ok := prefixes(d.Words[3:])
		named[d.Arg(1)] = append(named[d.Arg(1)], list...)
		other[d.Arg(1)] = other[d.Arg(1)] || !ok || d.Arg(2) != "src"
	}
	maps.DeleteFunc(named, func(name string, _ []netip.Prefix) bool { return other[name] })
	closed := false // all others are refused
	for d := range words.All(p.lines, "tcp-request") {
		if d.Arg(1) == "inspect-delay" {
			continue
		}
		list, not, ok := condition(d, named)
		if !p.Spend(len(list), d.Place()) {
			return
		}
		reject := d.Arg(2) == "reject"
		switch {
		case !slices.Contains([]string{"connection", "content", "session"}, d.Arg(1)) || !ok || d.Arg(2) != "accept" && !reject || closed:
			ok = false
		case list == nil && !reject: // everybody else
			s.Allow, closed = nil, true
		case list == nil && s.Allow == nil:
			ok = false
		case list == nil: // accept if ..., and then reject
			closed = true
		case reject && !not && s.Allow == nil:
			s.Deny = append(s.Deny, list...)
		case reject && not && s.Allow == nil:
			s.Allow, closed = list, true
		case !reject && !not:
			s.Allow = append(s.Allow, list...)
		default:
			ok = false
		}
		if !ok {
			p.Lost("this tcp-request is not translated", "deny: and allow: are by the client's address", d.Place())
		}
	}
	if !closed && s.Allow != nil { // accepted, as everybody else was
		s.Allow = nil
	}
	s.Deny, s.Allow = importer.Prefixes(s.Deny), importer.Prefixes(s.Allow)
}

// condition is that of a rule: for which clients it holds, or not. Without a
// condition, the list is nil.
func condition(d *words.Directive, named map[string][]netip.Prefix) (list []netip.Prefix, not, ok bool) {
	if len(d.Words) == 3 {
		return nil, false, true
	}
	if word := d.Arg(3); word != "if" && word != "unless" {
		return nil, false, false
	}
	not = d.Arg(3) == "unless"
	rest := slices.Clone(d.Words[4:])
	if len(rest) > 0 && strings.HasPrefix(rest[0].Text, "!") {
		not = !not
		if rest[0].Text = rest[0].Text[1:]; rest[0].Text == "" {
			rest = rest[1:]
		}
	}
	switch {
	case len(rest) == 1:
		list, ok = named[rest[0].Text]
	case len(rest) > 3 && rest[0].Text == "{" && rest[1].Text == "src" && rest[len(rest)-1].Text == "}":
		list, ok = prefixes(rest[2 : len(rest)-1])
	}
	return list, not, ok
}

// prefixes reads addresses and prefixes of clients.
func prefixes(ws []words.Word) ([]netip.Prefix, bool) {
	var out []netip.Prefix
	for _, w := range ws {
		prefix, ok := importer.Prefix(w.Text)
		if !ok {
			return nil, false
		}
		out = append(out, prefix)
	}
	return out, len(out) > 0
}
