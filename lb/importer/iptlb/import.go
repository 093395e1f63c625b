// Package iptlb turns the state of IPTLB (github.com/ulfox/iptlb) into a
// profile.
package iptlb

// Import: a map of profile names to what each of them balances.

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/document"
)

// Import reads a state file, YAML or JSON. Each of its profiles becomes a
// service. The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, root, err := document.Read(file, "iptlb", data, false)
	if err != nil {
		return nil, err
	}
	r := &reader{draft}
	if root.Kind != document.Mapping {
		r.Fail(root.Place, "the state is "+root.Kind.String(), "a mapping of profiles")
	}
	for _, e := range root.Entries {
		r.profile(e)
	}
	return r.Import()
}

type reader struct{ *importer.Draft }

// profile reads one profile of IPTLB. Its rules are a cascade of random
// matches that gives all destinations the same share, to 5 decimals.
func (r *reader) profile(e document.Entry) {
	if e.Value.Kind != document.Mapping {
		r.Fail(e.Value.Place, fmt.Sprintf("profile %q is %s", e.Key, e.Value.Kind), "a mapping with source and destination")
		return
	}
	s := lb.Service{Name: e.Key, Role: lb.RoleClient, Scheduler: lb.Random, Protocols: []lb.Protocol{lb.TCP}, SNAT: lb.SNAT{Mode: lb.SNATNone}}
	said := r.Count()
	for _, key := range e.Value.Entries {
		switch key.Key {
		case "source":
			if e, ok := r.endpoint(key.Value); ok {
				s.Listen = []lb.Listen{{Prefix: netip.PrefixFrom(e.Addr, e.Addr.BitLen()), Ports: importer.Ports(e.Port)}}
			}
		case "destination":
			r.destinations(key.Value, &s)
		case "protocol":
			r.protocol(key.Value, &s)
		case "rulesBackend":
			r.role(key.Value, &s)
		case "logEnabled", "logLevel":
			// together, below
		default:
			r.Lost("key "+key.Key+" is not translated", "", key.At)
		}
	}
	r.log(e, &s)
	if len(s.Backends) == 1 {
		s.Scheduler = lb.RoundRobin // there is nothing to choose
	}
	switch {
	case r.Count() > said:
	case s.Listen == nil:
		r.Fail(e.At, fmt.Sprintf("profile %q has no source", e.Key), "source: ADDRESS:PORT")
	case len(s.Backends) == 0:
		r.Fail(e.At, fmt.Sprintf("profile %q has no destination", e.Key), "destination: a list of ADDRESS:PORT")
	default:
		r.Add(s, e.At, "profile "+e.Key+", line "+strconv.Itoa(e.At.Line))
	}
}

// text is a scalar that must be there.
func (r *reader) text(n *document.Node, want string) (string, bool) {
	if n.Kind != document.Scalar || n.Null {
		r.Fail(n.Place, "a value is missing", want)
		return "", false
	}
	return n.Text, true
}

// endpoint reads ADDRESS:PORT. IPTLB knows IPv4 only.
func (r *reader) endpoint(n *document.Node) (e lb.Endpoint, ok bool) {
	text, ok := r.text(n, "ADDRESS:PORT")
	if !ok {
		return e, false
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.Addr().Zone() != "" || a.Port() == 0 {
		r.Fail(n.Place, fmt.Sprintf("%q is not an address with a port", text), "ADDRESS:PORT")
		return e, false
	}
	return lb.Endpoint{Addr: a.Addr(), Port: a.Port()}, true
}

func (r *reader) destinations(n *document.Node, s *lb.Service) {
	if n.Kind != document.List {
		r.Fail(n.Place, "destination is "+n.Kind.String(), "a list of ADDRESS:PORT")
		return
	}
	there := map[lb.Endpoint]int{}
	for _, item := range n.Items {
		e, ok := r.endpoint(item)
		if !ok {
			continue
		}
		if i, ok := there[e]; ok { // it has as many rules, and shares
			s.Backends[i].Weight++
			continue
		}
		there[e] = len(s.Backends)
		s.Backends = append(s.Backends, lb.Backend{Name: e.String(), Address: e, Weight: 1, Priority: 1, SNAT: s.SNAT})
	}
}

func (r *reader) protocol(n *document.Node, s *lb.Service) {
	text, ok := r.text(n, "tcp, udp or sctp")
	if !ok {
		return
	}
	var p lb.Protocol
	if err := lb.Read(&p, strings.ToLower(text)); err != nil {
		r.Fail(n.Place, fmt.Sprintf("protocol %q is not known", text), "tcp, udp or sctp")
		return
	}
	s.Protocols = []lb.Protocol{p}
	if p != lb.TCP {
		r.Note("the rules that IPTLB makes for this profile are all for TCP, so they never matched; the profile balances "+p.String(), "", n.Place)
	}
}

func (r *reader) role(n *document.Node, s *lb.Service) {
	text, ok := r.text(n, "client, proxy or server")
	if !ok {
		return
	}
	if err := lb.Read(&s.Role, text); err != nil {
		r.Fail(n.Place, fmt.Sprintf("rulesBackend %q is not known", text), "client, proxy or server")
		return
	}
	switch s.Role {
	case lb.RoleServer:
		r.Note("no kernel takes the rules that IPTLB makes for this profile, DNAT in chain INPUT; the profile does what they were for", "", n.Place)
	case lb.RoleProxy:
		r.Note("IPTLB balances what comes from the network only; the profile also what this host itself sends to the same address", "", n.Place)
	}
}

// log reads logEnabled and logLevel.
func (r *reader) log(e document.Entry, s *lb.Service) {
	enabled, level := e.Value.Get("logEnabled"), e.Value.Get("logLevel")
	chain := "IPTLB_NAT_" + strings.ReplaceAll(strings.ToUpper(importer.Name(e.Key)), "-", "_")
	l := &lb.Log{Prefix: chain + ":ACCEPT:", Level: 4} // warning is IPTLB's default
	if level != nil {
		text, ok := r.text(level, "0 to 7")
		var err error
		if l.Level, err = importer.LogLevel(text); ok && err != nil {
			r.Fail(level.Place, fmt.Sprintf("logLevel %q is not a level", text), "0 to 7")
		}
	}
	if enabled == nil {
		return
	}
	text, ok := r.text(enabled, "true or false")
	switch {
	case !ok:
	case strings.EqualFold(text, "true"):
		s.Log = l
		for i := range s.Backends {
			s.Backends[i].Log = l
		}
	case strings.EqualFold(text, "false") || text == "":
	default:
		r.Fail(enabled.Place, fmt.Sprintf("logEnabled %q is neither true nor false", text), "true or false")
	}
}
