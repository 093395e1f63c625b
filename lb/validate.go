package lb

// What the values of a profile may be. Validate asks all of it; those who read
// profiles ask a rule where they know the place.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb/internal/dup"
	"nlb/lb/internal/safe"
)

// Validate reports whether a file could say the profile, and what is wrong where
// it could not: the first of its mistakes.
func (p *Profile) Validate() error {
	if bad := checkName("profile", p.Name); bad != nil {
		return bad
	}
	if bad := cmp.Or(checkEnum("sysctl", p.Sysctl), p.checkFleets()); bad != nil {
		return bad
	}
	for i := range p.Services {
		if err := p.Services[i].Validate(); err != nil {
			return fmt.Errorf("service %s: %w", safe.Show(p.Services[i].Name), err)
		}
	}
	var err error
	dup.Find(p.Services, func(s Service) string { return s.Name }, func(_, second int) {
		err = &Problem{Msg: fmt.Sprintf("service %s is here twice", p.Services[second].Name), Want: "a name for each service"}
	})
	if err != nil {
		return err
	}
	if errs := Conflicts([]*Profile{p}); len(errs) > 0 {
		return &Problem{Msg: errs[0].Msg, Want: errs[0].Want}
	}
	if _, bad := p.CheckRateProblem(); bad != nil {
		return bad
	}
	if _, bad := p.AnnounceProblem(); bad != nil {
		return bad
	}
	return nil
}

// Validate reports whether a file could say the service, and what is wrong where
// it could not: the first of its mistakes, a *Problem.
func (s *Service) Validate() error {
	if bad := checkKeys(serviceKeys, s); bad != nil {
		return bad
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if bad := checkKeys(backendKeys, &member{b, s}); bad != nil {
			return bad
		}
		if bad := b.checkStanding(); bad != nil {
			return bad
		}
	}
	if bad := s.twins(); bad != nil {
		return bad
	}
	for c := range s.Contradictions {
		return &c.Problem
	}
	return nil
}

// place is where connections to a backend go.
type place struct {
	Host
	Endpoint
}

// twins is what the service has twice.
func (s *Service) twins() (bad *Problem) {
	dup.Find(s.Backends, func(b Backend) place { return place{b.Host, b.Address} }, func(_, second int) {
		bad = cmp.Or(bad, &Problem{Msg: fmt.Sprintf("backend %s is here twice", s.Backends[second].Where()), Want: "each backend once"})
	})
	dup.Find(s.Backends, func(b Backend) string { return b.Name }, func(_, second int) {
		bad = cmp.Or(bad, &Problem{Msg: fmt.Sprintf("name %s is here twice", s.Backends[second].Name), Want: "another name for each backend"})
	})
	if bad != nil || len(s.Listen) == 1 { // a listen cannot have a port twice
		return bad
	}
	var c conflicts
	if c.search([]*Profile{{Services: []Service{*s}}}); len(c.found) > 0 {
		bad = &Problem{Msg: c.claimed(c.found[0]) + " is here twice", Want: "each address, port and protocol once"}
	}
	return bad
}

// checkKeys is what is wrong with the values of the keys of a mapping, if there
// is one.
func checkKeys[T any](keys []key[T], v *T) *Problem {
	if v == nil {
		return nil
	}
	for i := range keys {
		k := &keys[i]
		if k.check == nil {
			continue
		}
		if bad := k.check(v); bad != nil {
			bad.Want = cmp.Or(bad.Want, k.Values)
			return bad
		}
	}
	return nil
}

func checkEnum[T Enum](word string, v T) *Problem {
	if !worded(v) {
		return &Problem{Msg: fmt.Sprintf("unknown %s %d", word, v)}
	}
	return nil
}

func checkRange[T int | uint32](word string, v, least, most T) *Problem {
	if v < least || v > most {
		return &Problem{Msg: fmt.Sprintf("%s %d is out of range", word, v)}
	}
	return nil
}

// checkSet is for lists of words that have an order of their own.
func checkSet[T Enum](word string, values []T) *Problem {
	if len(values) == 0 {
		return &Problem{Msg: word + " is an empty list"}
	}
	for i, v := range values {
		switch {
		case !worded(v):
			return &Problem{Msg: fmt.Sprintf("unknown %s %d", word, v)}
		case i > 0 && v == values[i-1]:
			return &Problem{Msg: fmt.Sprintf("%s %v is here twice", word, v), Want: "each once"}
		case i > 0 && v < values[i-1]:
			return &Problem{Msg: word + " is not in order"}
		}
	}
	return nil
}

// checkSpan is for times of a whole number of milliseconds.
func checkSpan(word string, t, least, most time.Duration) *Problem {
	if t < least || t > most || t%time.Millisecond != 0 {
		return &Problem{Msg: fmt.Sprintf("%s %s is out of range", word, spanText(t)), Want: spanText(least) + " to " + spanText(most)}
	}
	return nil
}

func checkTimeout(t time.Duration) *Problem {
	if t < time.Second || t > MaxTimeout || t%time.Second != 0 {
		return &Problem{Msg: fmt.Sprintf("timeout %v is out of range", t), Want: "1s to 365d"}
	}
	return nil
}

func checkRate(word string, r Rate) *Problem {
	if r == (Rate{}) {
		return nil
	}
	for _, u := range Units {
		if u.Duration != r.Per {
			continue
		}
		if r.Events == 0 || r.Events > MaxRate {
			return &Problem{Msg: fmt.Sprintf("%s %v is out of range", word, r), Want: fmt.Sprintf("1 to %d per %s", MaxRate, u.Long)}
		}
		return nil
	}
	return &Problem{Msg: fmt.Sprintf("%s per %v is not a rate", word, r.Per)}
}

// noMeaning says what keys need that have no meaning alone.
var noMeaning = map[string]Problem{
	"hash-by":   {"hash-by has no meaning without a scheduler that hashes", "scheduler: hash or consistent beside it", ""},
	"hash-seed": {"hash-seed has no meaning without a scheduler that hashes", "scheduler: hash or consistent beside it", ""},
	"burst":     {"burst has no meaning without new-per-source", "new-per-source beside it", ""},
	"interface": {"interface has no meaning with role: client", "one of them", "what this host itself sends enters nowhere"},
	"prefix":    {Msg: "prefix has no meaning without a limit of single clients", Want: "new-per-source or connections-per-source beside it"},
	"prefix6":   {Msg: "prefix6 has no meaning without a limit of single clients", Want: "new-per-source or connections-per-source beside it"},
}

// NoMeaning is what is wrong with a key that has no meaning beside, or without,
// another one, such as hash-seed.
func NoMeaning(word string) *Problem {
	p := noMeaning[word]
	return &p
}

func meaningless(word string, is bool) *Problem {
	if is {
		return NoMeaning(word)
	}
	return nil
}

// CheckName says what is wrong with a name; empty: nothing.
func CheckName(s string) string {
	if s == "" {
		return "is empty"
	}
	for _, r := range s {
		if !safe.NameRune(r) {
			return "has the character " + strconv.QuoteRune(r)
		}
	}
	if len(s) > MaxName {
		return fmt.Sprintf("has %d characters", len(s))
	}
	return ""
}

func checkName(word, name string) *Problem {
	if is := CheckName(name); is != "" {
		return &Problem{Msg: fmt.Sprintf("%s %s %s", word, safe.Show(name), is), Want: NameForm}
	}
	return nil
}

// CheckInterface is what is wrong with the interface of a service: a name that
// the kernel accepts (dev_valid_name in net/core/dev.c), as far as nftables can
// write it, or the beginning of names and '*'.
func CheckInterface(s string) *Problem {
	name := strings.TrimSuffix(s, "*")
	switch {
	case s == "*":
		return &Problem{Msg: "interface * is any", Hint: "without the key, any interface will do"}
	case name == "" || name == "." || name == ".." || len(name) > 15 || !safe.Printable(name) || strings.ContainsAny(name, " /:*\"\\"):
		return &Problem{
			Msg:  "interface " + safe.Show(s) + " cannot be a name",
			Want: "1 to 15 characters without space, /, :, \", \\ and *",
		}
	}
	return nil
}

// CheckLogPrefix is what is wrong with the prefix of log lines.
func CheckLogPrefix(s string) *Problem {
	switch {
	case s == "":
		return &Problem{Msg: "prefix is empty", Hint: "without the key, it is the service's name"}
	case len(s) > MaxLogPrefix:
		return &Problem{Msg: fmt.Sprintf("prefix has %d characters", len(s))}
	case !safe.Printable(s) || strings.ContainsAny(s, `"\$`):
		return &Problem{Msg: "prefix " + safe.Show(s) + " has a character that a log line cannot have"}
	}
	return nil
}

// CheckAddr says why no packets can be sent to an address, "is multicast", and
// what helps; empty: they can.
func CheckAddr(a netip.Addr) (is, hint string) {
	switch {
	case !a.IsValid():
		return "is not an address", ""
	case a.Zone() != "":
		return "has a zone", "an address that needs one cannot be balanced"
	case a.Is4In6():
		return "is IPv4 in an IPv6 form", "write " + a.Unmap().String()
	case a.IsUnspecified():
		return "is not an address of a machine", ""
	case a.IsMulticast():
		return "is multicast", ""
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address", ""
	}
	return "", ""
}

func checkAddr(word string, a netip.Addr) *Problem {
	if is, hint := CheckAddr(a); is != "" {
		return &Problem{Msg: fmt.Sprintf("%s %s %s", word, a, is), Hint: hint}
	}
	return nil
}

// CheckPrefix says what is wrong with a prefix, and what helps; empty: nothing.
func CheckPrefix(p netip.Prefix) (is, hint string) {
	switch {
	case !p.IsValid():
		return "is not a prefix", ""
	case p.Addr().Is4In6():
		return "is IPv4 in an IPv6 form", ""
	case p != p.Masked():
		return "has bits behind its prefix length", fmt.Sprintf("the prefix is %s, the address %s", p.Masked(), p.Addr())
	}
	return "", ""
}

func checkPrefix(word string, p netip.Prefix) *Problem {
	if is, hint := CheckPrefix(p); is != "" {
		return &Problem{Msg: fmt.Sprintf("%s %s %s", word, p, is), Hint: hint}
	}
	return nil
}

func checkPrefixes(word string, prefixes []netip.Prefix) *Problem {
	for i, p := range prefixes {
		if bad := checkPrefix(word, p); bad != nil {
			return bad
		}
		if i == 0 {
			continue
		}
		switch c := prefixes[i-1].Compare(p); {
		case c == 0:
			return &Problem{Msg: fmt.Sprintf("%s %s is here twice", word, p), Want: "each once"}
		case c > 0:
			return &Problem{Msg: word + " is not in order"}
		}
	}
	return nil
}

func checkListens(s *Service) *Problem {
	if len(s.Listen) == 0 {
		return &Problem{Msg: "listen is an empty list"}
	}
	for _, l := range s.Listen {
		if l.Prefix != (netip.Prefix{}) {
			if bad := checkDestination(l.Prefix); bad != nil {
				return bad
			}
		}
		if bad := checkPorts(l.Ports); bad != nil {
			return bad
		}
	}
	return nil
}

func checkDestination(p netip.Prefix) *Problem {
	bad := checkPrefix("listen", p)
	switch {
	case bad != nil:
	case p.IsSingleIP():
		bad = checkAddr("listen", p.Addr())
	case p.Addr().IsMulticast():
		bad = &Problem{Msg: fmt.Sprintf("listen %s is multicast", p), Want: "unicast addresses"}
	}
	return bad
}

func checkPorts(ports []PortRange) *Problem {
	if len(ports) == 0 {
		return &Problem{Msg: "a port is missing"}
	}
	for i, r := range ports {
		switch {
		case r == AllPorts && len(ports) == 1:
		case r.First == 0:
			return &Problem{Msg: "port 0 is out of range", Want: "1 to 65535"}
		case r.First > r.Last:
			return &Problem{Msg: fmt.Sprintf("ports %s end before they begin", r), Want: fmt.Sprintf("%d-%d", r.Last, r.First)}
		case i > 0 && r.First <= ports[i-1].Last:
			return &Problem{Msg: fmt.Sprintf("ports %s and %s overlap, or are not in order", ports[i-1], r), Want: "each port once"}
		}
	}
	return nil
}

func checkSNAT(s SNAT) *Problem {
	switch {
	case s.Auto && s.Mode != Masquerade && (s.Mode != SNATPool || len(s.Pool) != 1):
		return &Problem{Msg: "snat auto is " + s.Mode.String()}
	case s.Mode > SNATPool:
		return checkEnum("snat", s.Mode)
	case s.Mode == SNATPool && len(s.Pool) == 0:
		return &Problem{Msg: "snat is an empty list"}
	case s.Mode != SNATPool && len(s.Pool) > 0:
		return &Problem{Msg: fmt.Sprintf("snat %s has addresses, too", s.Mode)}
	}
	var bad *Problem
	for _, a := range s.Pool {
		bad = cmp.Or(bad, checkAddr("snat", a))
	}
	dup.Find(s.Pool, func(a netip.Addr) netip.Addr { return a }, func(_, second int) {
		bad = cmp.Or(bad, &Problem{Msg: fmt.Sprintf("snat %s is here twice", s.Pool[second]), Want: "each once"})
	})
	return bad
}

// CheckPool is what is wrong with the SNAT addresses of a backend of a family.
func CheckPool(pool []netip.Addr, f Family) *Problem {
	if i := slices.IndexFunc(pool, func(a netip.Addr) bool { return FamilyOf(a) != f }); i >= 0 {
		return &Problem{Msg: fmt.Sprintf("snat has %s, and the backend is %s", pool[i], f), Want: "addresses of the backend's family"}
	}
	return nil
}
