package lb

// What the keys of a service have to do with each other.

import (
	"fmt"
	"net/netip"
	"slices"
)

// Contradiction is keys of a service that do not agree.
type Contradiction struct {
	// Keys are the keys, the one that is to be blamed first.
	Keys []string
	// Item is the number of the listen or backend that is to be blamed, where
	// the first key is one of these.
	Item int
	Problem
}

// Contradictions yields what keys of the service, valid by themselves, contradict
// in each other.
func (s *Service) Contradictions(yield func(Contradiction) bool) {
	_ = s.checkRole(yield) && s.checkClients(yield) && s.checkFamilies(yield) && s.checkPool(yield) &&
		s.checkLoops(yield) && s.checkCycle(yield)
}

// The checks return false where no more is wanted.

func (s *Service) checkRole(yield func(Contradiction) bool) bool {
	return s.Role != RoleClient || s.Interface == "" ||
		yield(Contradiction{Keys: []string{"interface", "role"}, Problem: *NoMeaning("interface")})
}

func (s *Service) checkClients(yield func(Contradiction) bool) bool {
	for _, p := range s.Allow {
		if _, found := slices.BinarySearchFunc(s.Deny, p, netip.Prefix.Compare); found && !yield(Contradiction{
			Keys:    []string{"deny", "allow"},
			Problem: Problem{Msg: fmt.Sprintf("%s is in both allow and deny", p), Want: "it in one of them"},
		}) {
			return false
		}
	}
	return true
}

// families says which IP versions something has.
type families [2]bool

func (f families) has(a netip.Addr) bool { return f[index(FamilyOf(a))] }

func (f *families) add(a netip.Addr) { f[index(FamilyOf(a))] = true }

// checkFamilies finds backends that no listen is for, and listens that no backend
// is for.
func (s *Service) checkFamilies(yield func(Contradiction) bool) bool {
	var listens, backends families
	own := false
	for _, l := range s.Listen {
		if l.Prefix.IsValid() {
			listens.add(l.Prefix.Addr())
		} else {
			own = true
		}
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		backends.add(b.Address.Addr)
		if !own && !listens.has(b.Address.Addr) && !yield(Contradiction{
			Keys: []string{"backends", "listen"}, Item: i, Problem: Problem{
				Msg:  fmt.Sprintf("backend %s is %s, and no listen is", b.Address, FamilyOf(b.Address.Addr)),
				Want: "a listen of each family that has backends",
			},
		}) {
			return false
		}
	}
	for i, l := range s.Listen {
		if l.Prefix.IsValid() && len(s.Backends) > 0 && !backends.has(l.Prefix.Addr()) && !yield(Contradiction{
			Keys: []string{"listen", "backends"}, Item: i, Problem: Problem{
				Msg:  fmt.Sprintf("listen %s is %s, and no backend is", l, FamilyOf(l.Prefix.Addr())),
				Want: "a backend of each family that is listened on",
			},
		}) {
			return false
		}
	}
	return true
}

// checkPool finds out whether the addresses for SNAT are of the families of the
// service, and whether there are some for each backend that uses them.
func (s *Service) checkPool(yield func(Contradiction) bool) bool {
	if s.SNAT.Mode != SNATPool {
		return true
	}
	served := s.Families()
	blame := func(msg, want string) bool {
		return yield(Contradiction{Keys: []string{"snat", "listen", "backends"}, Problem: Problem{Msg: msg, Want: want}})
	}
	var pool families
	for _, a := range s.SNAT.Pool {
		pool.add(a)
		if !slices.Contains(served, FamilyOf(a)) {
			return blame(fmt.Sprintf("snat has %s, and the service has no %s", a, FamilyOf(a)),
				"addresses of the families that are listened on")
		}
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; !pool.has(b.Address.Addr) && b.SNAT.Equal(s.SNAT) {
			return blame(fmt.Sprintf("snat has no %s address, and there are %[1]s backends", FamilyOf(b.Address.Addr)),
				"an address of each family that has backends")
		}
	}
	return true
}

// checkLoops finds backends that are what the service listens on: a connection
// would be sent to where it came from.
func (s *Service) checkLoops(yield func(Contradiction) bool) bool {
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
		if b := &s.Backends[i]; own[b.Address] && !yield(Contradiction{
			Keys: []string{"backends", "listen"}, Item: i,
			Problem: Problem{Msg: fmt.Sprintf("backend %s is what the service listens on", b.Address), Want: "another address or port"},
		}) {
			return false
		}
	}
	return true
}

// checkCycle finds scheduling cycles that are too long, of each family. It is the
// wanted weights that count: any of them may become effective.
func (s *Service) checkCycle(yield func(Contradiction) bool) bool {
	var sum, divisor [2]int
	for i := range s.Backends {
		f := index(FamilyOf(s.Backends[i].Address.Addr))
		sum[f] += s.Backends[i].Weight
		divisor[f] = gcd(divisor[f], s.Backends[i].Weight)
	}
	for f, family := range []Family{IPv4, IPv6} {
		slots := sum[f] / max(divisor[f], 1)
		if slots <= MaxSlots {
			continue
		}
		first := slices.IndexFunc(s.Backends, func(b Backend) bool { return FamilyOf(b.Address.Addr) == family })
		if !yield(Contradiction{Keys: []string{"backends"}, Item: first, Problem: Problem{
			Msg:  fmt.Sprintf("the weights of the %s backends make %d slots", family, slots),
			Want: fmt.Sprintf("at most %d", MaxSlots),
			Hint: "slots are the sum of the weights over their greatest common divisor: round the weights",
		}}) {
			return false
		}
	}
	return true
}
