package lb

// What is wrong with a profile, and where; and what the keys of a service have
// to do with each other.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb/internal/safe"
)

// Pos is a place in a file. Line and Column count from 1, Column in
// characters; the zero Pos is no place.
type Pos struct {
	File         string
	Line, Column int
}

// String is file:line:column.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Error is one mistake in a profile.
type Error struct {
	Pos Pos
	// Msg says what is wrong.
	Msg string
	// Line is the text of the line, Width the number of its characters that
	// are wrong, from Pos.Column on; 0 where there is nothing to point at.
	Line  string
	Width int
	// Want says what would be right; may be empty.
	Want string
	// Hint helps further; may be empty.
	Hint string
}

// Error is the mistake in one line.
func (e *Error) Error() string {
	s := e.Pos.String() + ": " + e.Msg
	if e.Want != "" {
		s += ", want " + e.Want
	}
	return s
}

// Errors are all mistakes of a profile, in the order of the file; never empty.
type Errors []*Error

// Error is one line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Problem is a rule that a value breaks: what is wrong, what would be right, and
// what helps further; Want and Hint may be empty.
type Problem struct{ Msg, Want, Hint string }

// Error is what is wrong, and what would be right.
func (p *Problem) Error() string {
	if p.Want == "" {
		return p.Msg
	}
	return p.Msg + ", want " + p.Want
}

// Contradiction is keys of a service that do not agree.
type Contradiction struct {
	// Keys are the keys, the one that is to be blamed first.
	Keys []string
	// Item is the number of the listen, check or backend that is to be blamed,
	// where the first key is one of these or is a backend's.
	Item int
	Problem
}

// Contradictions yields what keys of the service, valid by themselves, contradict
// in each other.
func (s *Service) Contradictions(yield func(Contradiction) bool) {
	f := &finder{yield: yield}
	for _, check := range checks {
		if check(s, f); f.enough {
			return
		}
	}
}

var checks = []func(*Service, *finder){
	(*Service).checkRole, (*Service).checkDirect, (*Service).checkClients, (*Service).checkLoopback, (*Service).checkFamilies,
	(*Service).checkPool, (*Service).checkLoops, (*Service).checkCycle, (*Service).checkChecks, (*Service).checkUnhealthy,
	(*Service).checkPriorities, (*Service).checkOffload, (*Service).checkUnserved, (*Service).checkDatagrams, (*Service).checkHelper,
	(*Service).checkSYN, (*Service).checkHalfOpen, (*Service).checkRandomPorts, (*Service).checkFleet,
}

// finder passes contradictions on as they are found, until no more are wanted. Whoever
// gets one may change the service before the next is looked for.
type finder struct {
	yield  func(Contradiction) bool
	enough bool
}

// add finds a contradiction, addOf one of a listen, check or backend.
func (f *finder) add(p Problem, keys ...string) { f.addOf(0, p, keys...) }

func (f *finder) addOf(item int, p Problem, keys ...string) {
	f.enough = f.enough || !f.yield(Contradiction{Keys: keys, Item: item, Problem: p})
}

// clash is what cannot be beside a key, why, and the key that says it.
type clash struct {
	is              bool
	key, what, hint string
}

// clashes finds those that are there, to blame the key that they cannot be beside.
func (f *finder) clashes(key, with string, all []clash) {
	for _, one := range all {
		if one.is {
			f.add(Problem{Msg: one.what + " cannot be with " + with, Want: "one of them", Hint: one.hint}, key, one.key)
		}
	}
}

func (s *Service) checkRole(f *finder) {
	if s.Role == RoleClient && s.Interface != "" {
		f.add(*NoMeaning("interface"), "interface", "role")
	}
}

func (s *Service) checkClients(f *finder) {
	for _, p := range s.Allow {
		if _, found := slices.BinarySearchFunc(s.Deny, p, netip.Prefix.Compare); found {
			f.add(Problem{Msg: fmt.Sprintf("%s is in both allow and deny", p), Want: "it in one of them"}, "deny", "allow")
		}
	}
}

// checkFamilies finds backends that no listen is for, and listens that no backend
// is for.
func (s *Service) checkFamilies(f *finder) {
	listens, backends, own := s.families()
	for i := range s.Backends {
		if b := &s.Backends[i]; !b.Named() && !own && !listens.has(b.Address.Addr) {
			f.addOf(i, Problem{
				Msg:  fmt.Sprintf("backend %s is %s, and no listen is", b.Address, FamilyOf(b.Address.Addr)),
				Want: "a listen of each family that has backends",
			}, "backends", "listen")
		}
	}
	for i, l := range s.Listen {
		if l.Prefix.IsValid() && len(s.Backends) > 0 && !backends.has(l.Prefix.Addr()) {
			f.addOf(i, Problem{
				Msg:  fmt.Sprintf("listen %s is %s, and no backend is", l, FamilyOf(l.Prefix.Addr())),
				Want: "a backend of each family that is listened on",
			}, "listen", "backends")
		}
	}
}

// checkPool finds out whether the addresses for SNAT are of the families of the
// service, and whether there are some for each backend that uses them.
func (s *Service) checkPool(f *finder) {
	if s.SNAT.Mode != SNATPool {
		return
	}
	served := s.Families()
	blame := func(msg, want string) { f.add(Problem{Msg: msg, Want: want}, "snat", "listen", "backends") }
	var pool families
	for _, a := range s.SNAT.Pool {
		pool.add(a)
		if !slices.Contains(served, FamilyOf(a)) {
			blame(fmt.Sprintf("snat has %s, and the service has no %s", a, FamilyOf(a)), "addresses of the families that are listened on")
			return
		}
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; !b.Named() && !pool.has(b.Address.Addr) && b.SNAT.Equal(s.SNAT) {
			blame(fmt.Sprintf("snat has no %s address, and there are %[1]s backends", FamilyOf(b.Address.Addr)),
				"an address of each family that has backends")
			return
		}
	}
}

// checkLoops finds backends that are what the service listens on: a connection
// would be sent to where it came from.
func (s *Service) checkLoops(f *finder) {
	own := make(map[Endpoint]bool, len(s.Listen))
	for _, l := range s.Listen {
		if l.Prefix.IsSingleIP() {
			own[Endpoint{Addr: l.Prefix.Addr()}] = true
			if r := l.Ports[0]; len(l.Ports) == 1 && r.First == r.Last {
				own[Endpoint{l.Prefix.Addr(), r.First}] = true
			}
		}
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; !b.Named() && own[b.Address] {
			f.addOf(i, Problem{Msg: fmt.Sprintf("backend %s is what the service listens on", b.Address), Want: "another address or port"}, "backends", "listen")
		}
	}
}

// checkCycle finds scheduling cycles that are too long, of each family. It is the
// wanted weights that count: any of them may become effective.
func (s *Service) checkCycle(f *finder) {
	for _, family := range []Family{IPv4, IPv6} {
		slots := s.CycleLength(s.Of(family))
		if slots <= MaxSlots {
			continue
		}
		first := slices.IndexFunc(s.Backends, func(b Backend) bool { return b.is(family) })
		f.addOf(first, Problem{
			Msg:  fmt.Sprintf("the weights of the %s backends make %d slots", family, slots),
			Want: fmt.Sprintf("at most %d", MaxSlots),
			Hint: "slots are the sum of the weights over their greatest common divisor: round the weights",
		}, "backends")
	}
}

// checkChecks finds checks that do not know what to ask.
func (s *Service) checkChecks(f *finder) {
	for i := range s.Health {
		c := &s.Health[i]
		if c.Port != 0 || !c.Kind.Takes("port") {
			continue
		}
		if needs := c.Kind.protocols(); !slices.ContainsFunc(s.Protocols, func(p Protocol) bool { return slices.Contains(needs, p) }) {
			f.addOf(i, Problem{
				Msg:  fmt.Sprintf("check: %s is over %s, and service %s is not", c.Kind, strings.Join(texts(needs), " or "), safe.Show(s.Name)),
				Want: "port beside it, or another check",
				Hint: "health: none in the service takes away what defaults say",
			}, "health", "protocol")
		}
		portless := func(b Backend) bool { return s.Checked(&b) && !b.Host.SRV && s.CheckTarget(c, &b).Port() == 0 }
		if j := slices.IndexFunc(s.Backends, portless); j >= 0 {
			f.addOf(i, Problem{
				Msg:  fmt.Sprintf("backend %s has no port, and service %s listens on several", s.Backends[j].Where(), safe.Show(s.Name)),
				Want: "port: the one to ask",
			}, "health", "listen", "backends")
		}
	}
}

// protocols are those over which a check of a kind that has a port is made.
func (k CheckKind) protocols() []Protocol {
	switch k {
	case CheckUDP:
		return []Protocol{UDP}
	case CheckDNS:
		return []Protocol{TCP, UDP}
	}
	return []Protocol{TCP}
}

// checkUnhealthy finds keys that only checks give a meaning.
func (s *Service) checkUnhealthy(f *finder) {
	if s.SlowStart != 0 && s.Scheduler.Hashes() {
		f.add(Problem{
			Msg: "slow-start has no meaning with scheduler: " + s.Scheduler.String(), Want: "one of them",
			Hint: "clients that come by a hash stay with their backend",
		}, "slow-start", "scheduler")
	}
	if len(s.Health) > 0 {
		return
	}
	for _, one := range []struct {
		word  string
		given bool
	}{{"fail-open", s.FailOpen != 0}, {"on-down", s.OnDown != KeepConnections}, {"slow-start", s.SlowStart != 0}} {
		if one.given {
			f.add(unhealthy(one.word), one.word, "health")
		}
	}
	for i := range s.Backends {
		if s.Backends[i].CheckAt != (CheckAt{}) {
			f.addOf(i, unhealthy("check-at"), "check-at", "health", "backends")
		}
	}
}

func unhealthy(word string) Problem {
	return Problem{Msg: word + " has no meaning without health", Want: "health of the service beside it"}
}

// checkPriorities finds out whether there is a first priority, and whether min-up
// can be reached.
func (s *Service) checkPriorities(f *finder) {
	first, several, open := [2]int{}, false, false
	for i := range s.Backends {
		b := &s.Backends[i]
		switch {
		case b.Named(): // nobody knows how many it will be
			open = open || b.priority() == 1
			several = several || b.Host.SRV
		case b.priority() == 1:
			first[index(FamilyOf(b.Address.Addr))]++
		}
		several = several || b.priority() != s.Backends[0].priority()
	}
	most := max(first[0], first[1])
	if len(s.Backends) > 0 && most == 0 && !open {
		f.add(Problem{
			Msg: "no backend has priority 1", Want: "priority 1 for those that serve at first", Hint: "1 is the default",
		}, "priority", "backends")
	}
	switch {
	case s.MinUp == MinUp{}, open && several:
	case !several:
		f.add(Problem{
			Msg: "min-up has no meaning without two priorities", Want: "priority: 2 for the backends that are to join",
		}, "min-up", "backends")
	case most > 0 && s.MinUp.Count > most:
		f.add(Problem{
			Msg:  fmt.Sprintf("min-up %s is more than the %d backends of priority 1", s.MinUp, most),
			Want: fmt.Sprintf("at most %d, or a percentage", most),
			Hint: "priority 1 for all that are to serve at first",
		}, "min-up", "backends")
	}
}

// CheckHost is what is wrong with a name: it is made of labels of 1 to 63 letters,
// digits, '-' and '_'. The last one begins with a letter, so that no misspelt
// address is a name.
func CheckHost(h Host) *Problem {
	labels := strings.Split(strings.TrimSuffix(h.Name, "."), ".")
	last := cmp.Or(labels[len(labels)-1], "-")[0]
	bad := ""
	for _, l := range labels {
		switch {
		case l == "":
			bad = cmp.Or(bad, "has an empty part")
		case len(l) > 63:
			bad = cmp.Or(bad, fmt.Sprintf("has a part of %d characters", len(l)))
		case strings.ContainsFunc(l, func(r rune) bool { return !safe.NameRune(r) }):
			bad = cmp.Or(bad, "has a character that a name cannot have")
		case l != strings.ToLower(l):
			bad = cmp.Or(bad, "is not in lower case")
		}
	}
	switch {
	case len(h.Name) > MaxHost:
		bad = fmt.Sprintf("has %d characters", len(h.Name))
	case bad == "" && (last < 'a' || last > 'z'):
		bad = "is not a name"
	}
	if bad == "" {
		return nil
	}
	return &Problem{
		Msg:  fmt.Sprintf("host %s %s", safe.Show(h.String()), bad),
		Want: fmt.Sprintf("at most %d characters, in parts of 1 to 63 letters, digits, - and _", MaxHost),
	}
}

// checkAddress is what is wrong with where connections to a backend go.
func (b *Backend) checkAddress() *Problem {
	switch {
	case !b.Named() && b.Address.OfHost():
		return CheckHostPort(b.Address)
	case !b.Named():
		return checkAddr("backend", b.Address.Addr)
	case b.Address.Addr.IsValid():
		return &Problem{Msg: fmt.Sprintf("backend %s has an address, too", b.Host)}
	case b.Host.SRV && b.Address.Port != 0:
		return &Problem{Msg: fmt.Sprintf("backend %s has a port", b.Where()), Hint: "SRV records have the ports"}
	}
	return CheckHost(b.Host)
}

// BesideSRV is a key that SRV records speak for.
func BesideSRV(word string) *Problem {
	return &Problem{Msg: word + " is here, and SRV records have it", Want: "one of them"}
}
