package config

// Addresses, ports and prefixes as they stand in a profile.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// The forms of a backend's address and of a listen.
const (
	endpointForms = "ADDRESS:PORT, [IPV6]:PORT, ADDRESS, :PORT, NAME:PORT or srv:NAME"
	listenForms   = "ADDRESS:PORTS, [IPV6]:PORTS, PREFIX:PORTS or :PORTS"
)

// parseListen reads ADDRESS:PORTS, [IPV6]:PORTS, PREFIX:PORTS or :PORTS.
func parseListen(s string) (l lb.Listen, p *problem) {
	host, ports, found, p := splitPort(s, "listen")
	switch {
	case p != nil:
		p.Want = listenForms
		return l, p
	case !found && s != "" && strings.Trim(s, "0123456789,-*") == "":
		return l, &problem{
			Msg: "listen " + safe.Show(s) + " has no address", Want: listenForms,
			Hint: `in a list in [ ], a comma ends the item; with quotes it does not: "203.0.113.10:80,443"`,
		}
	}
	if host != "" {
		if l.Prefix, p = parseDestination(host); p != nil {
			return l, p
		}
	}
	if !found || ports == "" {
		hint := ""
		if l.Prefix.IsValid() {
			hint = "for port 80: " + lb.Listen{Prefix: l.Prefix, Ports: []lb.PortRange{{First: 80, Last: 80}}, Pos: lb.Pos{}}.String()
		}
		return l, &problem{Msg: "listen " + safe.Show(s) + " has no port", Want: listenForms, Hint: hint}
	}
	l.Ports, p = parsePorts(ports)
	return l, p
}

// parseDestination reads the address or prefix of a listen.
func parseDestination(host string) (netip.Prefix, *problem) {
	if !strings.Contains(host, "/") {
		a, p := parseAddr(host, "listen")
		if p != nil {
			p.Want = listenForms
			if a.IsValid() && a.IsUnspecified() {
				p.Hint = fmt.Sprintf(`":80" takes this host's own addresses, %q any address`,
					lb.Listen{Prefix: netip.PrefixFrom(a, 0), Ports: []lb.PortRange{{First: 80, Last: 80}}, Pos: lb.Pos{}}.String())
			}
			return netip.Prefix{}, p
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, p := parsePrefix(host, "listen")
	switch {
	case p != nil:
		p.Want = listenForms
	case prefix.IsSingleIP():
		_, p = parseAddr(prefix.Addr().String(), "listen")
	case prefix.Addr().IsMulticast():
		p = &problem{Msg: "listen " + safe.Show(host) + " is multicast", Want: "unicast addresses", Hint: ""}
	}
	return prefix, p
}

// parseBackend reads where connections to a backend go: an address, a name, or a port
// of this host, which is an endpoint without an address.
func parseBackend(s string) (h lb.Host, e lb.Endpoint, p *problem) {
	if port, own := strings.CutPrefix(s, ":"); own && !strings.Contains(port, ":") {
		e.Port, p = parseEndpointPort(s, port, "backend")
		return h, e, p
	}
	if name, srv := strings.CutPrefix(s, lb.SRVPrefix); srv {
		h = lb.Host{Name: strings.ToLower(name), SRV: true}
		if p = lb.CheckHost(h); p != nil && strings.Contains(name, ":") {
			p.Hint = "SRV records have the ports"
		}
		return h, e, p
	}
	if name, port, found := strings.Cut(s, ":"); hostName(name) && !strings.Contains(port, ":") {
		h = lb.Host{Name: strings.ToLower(name)}
		if p = lb.CheckHost(h); p == nil && found {
			e.Port, p = parseEndpointPort(s, port, "backend")
		}
		return h, e, p
	}
	e, p = parseEndpoint(s, "backend", endpointForms)
	return h, e, p
}

// parseEndpoint reads an address with a port or without, of a backend or of where
// it is checked. what begins the message, forms are what is wanted.
func parseEndpoint(s, what, forms string) (e lb.Endpoint, p *problem) {
	host, port, found, p := splitPort(s, what)
	if p != nil {
		p.Want = forms
		return e, p
	}
	if strings.Contains(host, "/") {
		return e, &problem{Msg: what + " " + safe.Show(host) + " is a prefix", Want: forms, Hint: "each backend is an address of its own"}
	}
	a, _ := netip.ParseAddr(host)
	if e.Addr = a; !e.OfHost() || what != "backend" {
		e.Addr, p = parseAddr(host, what)
	} else if !found {
		p = lb.CheckHostPort(e)
	}
	if p != nil {
		p.Want = forms
		return e, p
	}
	if found {
		e.Port, p = parseEndpointPort(s, port, what)
	}
	return e, p
}

func parseEndpointPort(s, port, what string) (uint16, *problem) {
	n, p := parsePort(port)
	if p != nil {
		p.Want = "1 to 65535"
		if port == "*" || strings.ContainsAny(port, ",-") {
			p.Msg = what + " " + safe.Show(s) + " has several ports"
			p.Hint = "without a port, the destination port stays as it was"
		}
	}
	return n, p
}

// splitPort parts an address from what follows it. found: there is a colon
// before the port.
func splitPort(s, what string) (host, port string, found bool, p *problem) {
	if strings.HasPrefix(s, "[") {
		host, rest, closed := strings.Cut(s[1:], "]")
		switch {
		case !closed:
			return "", "", false, &problem{Msg: what + " " + safe.Show(s) + " has [ without ]"}
		case !strings.Contains(host, ":"):
			return "", "", false, &problem{Msg: what + " " + safe.Show(s) + " has brackets around something that is not IPv6"}
		case rest == "":
			return host, "", false, nil
		case rest[0] == '/':
			return "", "", false, &problem{
				Msg:  what + " " + safe.Show(s) + " has its prefix length outside of the brackets",
				Hint: "as in [2001:db8::/32]:53",
			}
		case rest[0] != ':':
			return "", "", false, &problem{Msg: what + " " + safe.Show(s) + " has " + safe.Show(rest) + " after the brackets"}
		}
		return host, rest[1:], true, nil
	}
	first, last := strings.IndexByte(s, ':'), strings.LastIndexByte(s, ':')
	switch {
	case first < 0:
		return s, "", false, nil
	case first == last:
		return s[:first], s[first+1:], true, nil
	case what != "listen" && plainAddr(s):
		return s, "", false, nil
	case plainAddr(s[:last]):
		p = &problem{Hint: "write [" + safe.Show(s[:last]) + "]:" + safe.Show(s[last+1:])}
	case plainAddr(s):
		p = &problem{Hint: "write [" + safe.Show(s) + "]:80"}
	default:
		return "", "", false, &problem{Msg: what + " " + safe.Show(s) + " is not an address"}
	}
	p.Msg = what + " " + safe.Show(s) + " is IPv6 without brackets"
	return "", "", false, p
}

// plainAddr reports whether s is an address or a prefix.
func plainAddr(s string) bool {
	address, _, _ := strings.Cut(s, "/")
	_, err := netip.ParseAddr(address)
	return err == nil
}

// parseAddr reads an address that packets can be sent to. what begins the
// message: "backend".
func parseAddr(s, what string) (netip.Addr, *problem) {
	a, err := netip.ParseAddr(s)
	refuse := func(is, hint string) (netip.Addr, *problem) {
		return a, &problem{Msg: what + " " + safe.Show(s) + " " + is, Hint: hint}
	}
	switch {
	case err != nil && s == "":
		return a, &problem{Msg: what + " has no address"}
	case err != nil && hostName(s):
		return a, &problem{Msg: what + " takes addresses, not host names: " + safe.Show(s)}
	case err != nil && leadingZero(s):
		return refuse("is not an address", "no leading zeros: some read them as octal")
	case err != nil:
		return refuse("is not an address", "")
	}
	if is, hint := lb.CheckAddr(a); is != "" {
		return refuse(is, hint)
	}
	return a, nil
}

// hostName reports whether s looks like a name in the DNS: its last part begins
// with a letter. With a digit there, it looks like an address.
func hostName(s string) bool {
	name := strings.TrimSuffix(s, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last != "" && (last[0] >= 'a' && last[0] <= 'z' || last[0] >= 'A' && last[0] <= 'Z') &&
		!strings.ContainsFunc(s, func(r rune) bool { return !safe.NameRune(r) })
}

// leadingZero reports whether an IPv4 address is written like 10.0.0.01.
func leadingZero(s string) bool {
	return strings.Count(s, ".") == 3 && slices.ContainsFunc(strings.Split(s, "."), func(part string) bool {
		return len(part) > 1 && part[0] == '0'
	})
}

// parsePrefix reads a prefix that has no bits behind its length.
func parsePrefix(s, what string) (netip.Prefix, *problem) {
	address, bits, _ := strings.Cut(s, "/")
	a, err := netip.ParseAddr(address)
	if err != nil {
		_, p := parseAddr(address, what)
		return netip.Prefix{}, p
	}
	n, ok := number(bits)
	switch {
	case a.Zone() != "":
		return netip.Prefix{}, &problem{Msg: what + " " + safe.Show(s) + " has a zone"}
	case a.Is4In6():
		return netip.Prefix{}, &problem{Msg: what + " " + safe.Show(s) + " is IPv4 in an IPv6 form"}
	case !ok || n > uint64(a.BitLen()):
		return netip.Prefix{}, &problem{Msg: fmt.Sprintf("%s %s has no prefix length of 0 to %d", what, safe.Show(s), a.BitLen())}
	}
	prefix := netip.PrefixFrom(a, int(n))
	if is, hint := lb.CheckPrefix(prefix); is != "" {
		return prefix, &problem{Msg: fmt.Sprintf("%s %s %s", what, safe.Show(s), is), Hint: hint}
	}
	return prefix, nil
}

// parseClients reads a prefix, or an address as the prefix that holds only it.
func parseClients(s, what string) (netip.Prefix, *problem) {
	if strings.Contains(s, "/") {
		return parsePrefix(s, what)
	}
	a, p := parseAddr(s, what)
	if p != nil {
		return netip.Prefix{}, p
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// parsePorts reads 80, 8000-8010, 80,443 or *.
func parsePorts(s string) ([]lb.PortRange, *problem) {
	const forms = "80, 8000-8010, 80,443 or *"
	if s == "*" {
		return []lb.PortRange{lb.AllPorts}, nil
	}
	out := make([]lb.PortRange, 0, 1+strings.Count(s, ","))
	for part := range strings.SplitSeq(s, ",") {
		if part == "*" {
			return nil, &problem{Msg: "ports " + safe.Show(s) + " have * beside others", Want: forms, Hint: "* is all ports"}
		}
		first, last, isRange := strings.Cut(part, "-")
		var r lb.PortRange
		var p *problem
		if r.First, p = parsePort(first); p == nil {
			r.Last = r.First
			if isRange {
				r.Last, p = parsePort(last)
			}
		}
		if p != nil {
			p.Want = cmp.Or(p.Want, forms)
			return nil, p
		}
		if r.First > r.Last {
			return nil, &problem{Msg: "ports " + safe.Show(part) + " end before they begin", Want: fmt.Sprintf("%d-%d", r.Last, r.First), Hint: ""}
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b lb.PortRange) int { return int(a.First) - int(b.First) })
	for i := 1; i < len(out); i++ {
		if out[i].First <= out[i-1].Last {
			return nil, &problem{Msg: fmt.Sprintf("ports %s and %s overlap", out[i-1], out[i]), Want: "each port once", Hint: ""}
		}
	}
	return out, nil
}

func parsePort(s string) (uint16, *problem) {
	n, ok := number(s)
	switch {
	case s == "":
		return 0, &problem{Msg: "a port is missing"}
	case !ok:
		return 0, &problem{Msg: "port " + safe.Show(s) + " is not a number", Hint: numberHint(s)}
	case n < 1 || n > 65535:
		return 0, &problem{Msg: "port " + safe.Show(s) + " is out of range", Want: "1 to 65535"}
	}
	return uint16(n), nil
}

// canonical reports whether s is how e prints itself.
func canonical(e lb.Endpoint, s string) bool {
	var b [64]byte
	if e.Port == 0 {
		return string(e.Addr.AppendTo(b[:0])) == s
	}
	return string(netip.AddrPortFrom(e.Addr, e.Port).AppendTo(b[:0])) == s
}
