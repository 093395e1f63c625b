package lb

// Announce and fleet: that an agent gives this host the addresses of services, for routing
// daemons to tell others of; what services cannot have whose addresses other balancers
// serve, too; and what a backend is that is this host itself.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nlb/lb/internal/safe"
)

// Announce says how an agent announces the addresses that services listen on.
type Announce struct {
	// Interface is the dummy device, or lo, that has them: 1 to 15 characters.
	Interface string
	// Delay is how long somebody must have been there to serve before an address is
	// announced, at most an hour; 0: not at all.
	Delay time.Duration
	// Drain is how long an agent that ends stays after it has taken the addresses
	// away, at most a minute; 0: it does not.
	Drain time.Duration
	// Track are interfaces that all have to be up for an address to be announced:
	// distinct, sorted, at most MaxDevices.
	Track []string
}

// AnnounceDefault holds where a profile that announces does not say otherwise.
var AnnounceDefault = Announce{Interface: "nlb0", Delay: 10 * time.Second, Drain: 5 * time.Second}

// Times are the delay and the drain as a file has them.
func (a *Announce) Times() (delay, drain string) {
	text := func(t time.Duration) string {
		if t == 0 {
			return "none"
		}
		return spanText(t)
	}
	return text(a.Delay), text(a.Drain)
}

// CheckDummy is what is wrong with the name of a device to announce by.
func CheckDummy(s string) *Problem {
	if strings.HasSuffix(s, "*") {
		return &Problem{Msg: "interface " + safe.Show(s) + " is more than one", Want: "the name of a dummy device, or lo"}
	}
	return CheckInterface(s)
}

// CheckDelay is what is wrong with a delay; 0: there is none.
func CheckDelay(t time.Duration) *Problem {
	return checkOptional("delay", t, 100*time.Millisecond, time.Hour)
}

// CheckDrain is that for a drain.
func CheckDrain(t time.Duration) *Problem {
	return checkOptional("drain", t, 100*time.Millisecond, time.Minute)
}

// CheckTracked is what is wrong with the name of an interface that has to be up.
func CheckTracked(s string) *Problem {
	if strings.HasSuffix(s, "*") {
		return &Problem{Msg: "interface " + safe.Show(s) + " is more than one", Want: "the whole name of an interface"}
	}
	return CheckInterface(s)
}

// AnnounceProblem is what is wrong with the announcing of a profile, and the listen that
// cannot be announced; no listen: it is the device or a time. Addresses that only this host
// itself uses are none to announce.
func (p *Profile) AnnounceProblem() (*Listen, *Problem) {
	a := p.Announce
	if a == nil {
		return nil, nil
	}
	if bad := cmp.Or(CheckDummy(a.Interface), CheckDelay(a.Delay), CheckDrain(a.Drain), checkNames("track", a.Track, CheckTracked)); bad != nil {
		return nil, bad
	}
	for i := range p.Services {
		s := &p.Services[i]
		for j := range s.Listen {
			l := &s.Listen[j]
			switch {
			case s.Role != RoleProxy:
			case s.Unserved == UnservedPass:
				return l, &Problem{Msg: fmt.Sprintf("service %s has unserved: pass, and is announced", s.Name)}
			case l.Prefix.IsValid() && !l.Prefix.IsSingleIP():
				return l, &Problem{
					Msg: fmt.Sprintf("listen %s is not a single address, so it cannot be announced", l), Want: "an address",
					Hint: "a profile of its own, without announce, can listen on it",
				}
			}
		}
	}
	return nil, nil
}

// GuardAnnounced has services that are announced refuse what none of them takes, where
// they would let it pass: it would reach the daemons of this host by an address that
// all the world knows.
func (p *Profile) GuardAnnounced() {
	for i := range p.Services {
		if s := &p.Services[i]; p.Announce != nil && s.Role == RoleProxy && s.Unserved == UnservedPass {
			s.Unserved = UnservedReject
		}
	}
}

// Fleet says what several balancers share that serve the same addresses.
type Fleet uint8

// The fleets.
const (
	FleetNone    Fleet = iota // this balancer is alone
	FleetPair                 // one serves, the other has its connections (conntrackd) and stands by
	FleetAnycast              // all serve, and share nothing but the profile
	FleetMesh                 // all serve, and all have the connections of all (conntrackd)
)

var fleetWords = []string{"none", "pair", "anycast", "mesh"}

func (f Fleet) String() string { return inWords(f) }
func (Fleet) words() []string  { return fleetWords }

// Fleet is that of the profile's services; FleetNone where it has none.
func (p *Profile) Fleet() Fleet {
	if len(p.Services) == 0 {
		return FleetNone
	}
	return p.Services[0].Fleet
}

// checkFleets finds services of different fleets: it is the profile that is of one.
func (p *Profile) checkFleets() *Problem {
	if slices.ContainsFunc(p.Services, func(s Service) bool { return s.Fleet != p.Fleet() }) {
		return &Problem{Msg: "services of one profile are of different fleets"}
	}
	return nil
}

// PicksUp reports whether a balancer takes a TCP connection in its middle that another
// one of the fleet has had so far.
func (s *Service) PicksUp() bool {
	return (s.Fleet == FleetAnycast || s.Fleet == FleetMesh) && s.Mode == NAT && s.Role == RoleProxy && slices.Contains(s.Protocols, TCP)
}

// checkFleet finds what would lose connections when they come to another balancer of
// the fleet. What this host itself sends never does, and datagrams that are balanced one by
// one do not mind.
func (s *Service) checkFleet(f *finder) {
	if s.Fleet == FleetNone || s.Role == RoleClient || s.Balance == Datagrams {
		return
	}
	if s.Fleet == FleetAnycast {
		s.checkAnycast(f)
	}
	s.checkSources(f)
}

const onHost = "connections end on this host, and another balancer has not got them"

// checkAnycast finds what a balancer that has only the profile and a packet cannot know.
func (s *Service) checkAnycast(f *finder) {
	for _, one := range []struct {
		is               bool
		key              string
		what, want, hint string
	}{
		{!s.Scheduler.Hashes(), "scheduler", "scheduler: " + s.Scheduler.String(), "scheduler: consistent", "every balancer has to draw the same backend, from the packet alone"},
		{s.Affinity != nil, "affinity", "affinity", "none of it", "one balancer remembers it; hash-by: source-address keeps a client with its backend on all of them"},
		{s.Retry, "retry", "retry", "none of it", "the other balancers do not know that a connection was drawn again"},
		{s.Helper != HelperNone, "helper", "helper: " + s.Helper.String(), "none of it", "one balancer has read which connections are to follow"},
		{s.Role == RoleServer, "role", "role: server", "role: proxy, and backends that all balancers reach", onHost},
	} {
		if one.is {
			f.add(Problem{one.what + " cannot be with fleet: anycast", one.want, one.hint}, "fleet", one.key)
		}
	}
	for i, l := range s.Listen {
		if !l.Prefix.IsValid() {
			f.addOf(i, Problem{
				Msg: fmt.Sprintf("listen %s cannot be with fleet: anycast", l), Want: "the address that all balancers serve",
				Hint: "the own addresses of each balancer are others",
			}, "listen")
		}
	}
	host := false
	for i := range s.Backends {
		switch b := &s.Backends[i]; {
		case b.Address.OfHost() && !host: // said once for both families
			host = true
			f.addOf(i, Problem{"a backend that is this host itself cannot be with fleet: anycast", "an address that all balancers reach", onHost}, "backends")
		case b.MaxConnections > 0:
			f.addOf(i, Problem{
				Msg: "max-connections cannot be with fleet: anycast", Want: "none of it",
				Hint: "each balancer counts its own, and where one is full, it draws another backend than the others",
			}, "backends")
		}
	}
}

// checkSources finds sources that one balancer of a fleet alone has, or keeps.
func (s *Service) checkSources(f *finder) {
	if s.Mode.Direct() || s.Role == RoleServer {
		return
	}
	refused := func(m SNATMode) bool { return m == Masquerade || s.Fleet == FleetAnycast && m != SNATNone }
	p := Problem{
		Want: "snat: none, or an address that moves with the service",
		Hint: "backends answer to the address of the balancer that is gone",
	}
	if s.Fleet == FleetAnycast {
		p.Want, p.Hint = "snat: none", "one balancer knows who is behind a source, and the answers come back to another one"
	}
	said := false
	for i := range s.Backends {
		b := &s.Backends[i]
		if !refused(b.SNAT.Mode) {
			continue
		}
		p.Msg = "snat: " + b.SNAT.String() + " cannot be with fleet: " + s.Fleet.String()
		if !b.SNAT.Equal(s.SNAT) {
			f.addOf(i, p, "backends")
		} else if !said {
			said = true
			f.addOf(i, p, "fleet", "snat")
		}
	}
}

// This host itself as a backend.

// OfHost reports whether the endpoint is this host itself.
func (e Endpoint) OfHost() bool { return e.Addr.IsUnspecified() }

// HostEndpoint is a port of this host itself, for connections of a family.
func HostEndpoint(f Family, port uint16) Endpoint {
	if f == IPv6 {
		return Endpoint{netip.IPv6Unspecified(), port}
	}
	return Endpoint{netip.IPv4Unspecified(), port}
}

// HostFamilies are those that a port of this host, written without an address, stands
// for: all that the service may take.
func (s *Service) HostFamilies() []Family {
	if slices.ContainsFunc(s.Listen, func(l Listen) bool { return !l.Prefix.IsValid() }) {
		return []Family{IPv4, IPv6}
	}
	return (&Service{Listen: s.Listen}).Families()
}

// CheckHostPort is what is wrong with a backend that is this host itself.
func CheckHostPort(e Endpoint) *Problem {
	if e.Port != 0 {
		return nil
	}
	return &Problem{Msg: fmt.Sprintf("backend %s has no port", e), Hint: `":8080" is port 8080 of this host itself`}
}

// CheckHostSNAT is what is wrong with the SNAT of a backend that is this host itself.
func CheckHostSNAT(s SNAT) *Problem {
	if s.Equal(SNAT{Mode: SNATNone}) {
		return nil
	}
	return &Problem{Msg: "snat " + s.String() + " of a backend that is this host itself", Want: "no snat", Hint: "this host sees the client"}
}

// MembersSNAT is that of the first backend on another host; the zero value where there is
// none.
func (s *Service) MembersSNAT() SNAT {
	for i := range s.Backends {
		if !s.Backends[i].Address.OfHost() {
			return s.Backends[i].SNAT
		}
	}
	return SNAT{}
}

// checkLoopback finds backends that are a loopback address, which connections from the
// network cannot reach (ip_route_input_slow in net/ipv4/route.c, RFC 4291 section 2.5.3).
func (s *Service) checkLoopback(f *finder) {
	far := func(l Listen) bool { return !l.Prefix.Addr().IsLoopback() }
	if s.Role == RoleClient || !slices.ContainsFunc(s.Listen, far) {
		return
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Address.Addr.IsLoopback() {
			f.addOf(i, Problem{
				Msg:  fmt.Sprintf("backend %s is a loopback address, and the kernel drops what comes to it from the network", b.Where()),
				Want: "another address, or role: client",
				Hint: fmt.Sprintf(`":%d" is this host itself, whose server then listens on any address`, cmp.Or(b.Address.Port, s.onlyPort(), 8080)),
			}, "backends", "role")
		}
	}
}

// checkRandomPorts finds services whose backends all see the client.
func (s *Service) checkRandomPorts(f *finder) {
	changed := func(b Backend) bool { return b.SNAT.Mode != SNATNone }
	if s.RandomPorts && s.SNAT.Mode == SNATNone && !slices.ContainsFunc(s.Backends, changed) {
		f.add(Problem{"random-ports has no meaning with snat: none", "one of them", "backends see the client's port"}, "random-ports", "snat")
	}
}
