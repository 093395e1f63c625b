package lb

// Mode: what follows from how packets get to the backends: what a service has where
// it does not say, what it cannot have, and what a backend is that is this host itself.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb/internal/safe"
)

// Direct reports whether packets go to the backends as they are, and answers past this
// host.
func (m Mode) Direct() bool { return m == DSR || m == Tunnel }

// What a mode has where a profile does not say.

func (s *Service) source() SNATMode {
	if s.Tracked() {
		return Masquerade
	}
	return SNATNone
}

func (m Mode) onEmpty() OnEmpty {
	if m.Direct() {
		return Drop
	}
	return Reject
}

// HashBy is what schedulers that hash look at where a profile does not say.
func (m Mode) HashBy() []HashField {
	if m.Direct() {
		return []HashField{SourceAddress, SourcePort}
	}
	return []HashField{SourceAddress}
}

// Preset gives a service what its mode has where a profile does not say.
func (s *Service) Preset() { s.SNAT, s.OnEmpty = SNAT{Mode: s.source()}, s.Mode.onEmpty() }

// checkDirect finds what cannot be where packets go to the backends as they are, and
// no connection is known.
func (s *Service) checkDirect(yield func(Contradiction) bool) bool {
	if !s.Mode.Direct() {
		return s.Remember == 0 || yield(Contradiction{Keys: []string{"remember", "mode"}, Problem: Problem{
			Msg: "remember has no meaning without mode: dsr or tunnel", Want: "one of these beside it",
			Hint: "with mode: nat, connections keep their backend anyway",
		}})
	}
	mode := "mode: " + s.Mode.String()
	perPacket := mode + " sees packets, not connections"
	for _, one := range []struct {
		is         bool
		keys       []string // that which is to be blamed first
		what, hint string
	}{
		{!s.Scheduler.Hashes(), []string{"mode", "scheduler"}, "scheduler: " + s.Scheduler.String(), "scheduler: hash or consistent sends all packets of a connection to one backend"},
		{s.Role != RoleProxy, []string{"mode", "role"}, "role: " + s.Role.String(), "packets are taken where they enter, before anybody asks whose they are"},
		{s.Affinity != nil, []string{"mode", "affinity"}, "affinity", "hash-by: source-address keeps a client with its backend"},
		{s.Limit != Limit{}, []string{"mode", "limit"}, "limit", perPacket},
		{s.Log != nil, []string{"mode", "log"}, "log", perPacket},
		{len(s.Allow)+len(s.Deny) > 0, []string{"mode", "allow"}, "allow or deny", "a table of your own, of family netdev, can drop packets of clients before"},
		{s.Timeouts != Timeouts{}, []string{"mode", "timeouts"}, "timeouts", perPacket},
		{s.Retry, []string{"mode", "retry"}, "retry", "answers of the backends do not come by here"},
		{s.OnEmpty != Drop, []string{"mode", "on-empty"}, "on-empty: " + s.OnEmpty.String(), "on-empty: drop, or without the key"},
		{s.SNAT.Mode != SNATNone, []string{"snat", "mode"}, "snat: " + s.SNAT.String(), "backends see the client"},
	} {
		if one.is && !yield(Contradiction{Keys: one.keys, Problem: Problem{
			Msg: one.what + " cannot be with " + mode, Want: "one of them", Hint: one.hint,
		}}) {
			return false
		}
	}
	return s.checkDirectListens(yield) && s.checkDirectBackends(yield)
}

func (s *Service) checkDirectListens(yield func(Contradiction) bool) bool {
	for i, l := range s.Listen {
		if !l.Prefix.IsSingleIP() && !yield(Contradiction{Keys: []string{"listen", "mode"}, Item: i, Problem: Problem{
			Msg: fmt.Sprintf("listen %s is not a single address, and the mode is %s", l, s.Mode), Want: "an address that the backends have too",
		}}) {
			return false
		}
	}
	return true
}

func (s *Service) checkDirectBackends(yield func(Contradiction) bool) bool {
	for i := range s.Backends {
		b, p := &s.Backends[i], Problem{}
		another := func(l Listen) bool {
			return len(l.Ports) != 1 || l.Ports[0] != PortRange{b.Address.Port, b.Address.Port}
		}
		switch {
		case b.Address.OfHost():
			p = Problem{
				Msg: fmt.Sprintf("backend %s is this host itself, and the mode is %s", b.Where(), s.Mode), Want: "other hosts",
				Hint: "packets go to other hosts as they are; what is to stay here needs no balancing",
			}
		case b.Host.SRV, b.Address.Port != 0 && slices.ContainsFunc(s.Listen, another):
			p = Problem{
				Msg:  fmt.Sprintf("backend %s may have another port than service %s listens on, and the mode is %s", b.Where(), safe.Show(s.Name), s.Mode),
				Want: "backends without a port", Hint: "packets keep their destination port, so the servers listen on that",
			}
		case b.MaxConnections > 0:
			p = Problem{Msg: "max-connections cannot be with mode: " + s.Mode.String(), Want: "one of them", Hint: "connections are not counted"}
		case b.Log != nil && s.Log == nil:
			p = Problem{Msg: "log cannot be with mode: " + s.Mode.String(), Want: "one of them", Hint: "it sees packets, not connections"}
		case b.SNAT.Mode != SNATNone && s.SNAT.Mode == SNATNone:
			p = Problem{Msg: "snat: " + b.SNAT.String() + " cannot be with mode: " + s.Mode.String(), Want: "one of them", Hint: "backends see the client"}
		default:
			continue
		}
		if !yield(Contradiction{Keys: []string{"backends", "mode"}, Item: i, Problem: p}) {
			return false
		}
	}
	return true
}

// checkOffload finds keys that only offload gives a meaning, and services whose
// connections no flow table takes.
func (s *Service) checkOffload(yield func(Contradiction) bool) bool {
	if s.Offload > OffloadAuto && !s.Offloadable() && !yield(Contradiction{Keys: []string{"offload", "role", "protocol"}, Problem: Problem{
		Msg: "offload: " + s.Offload.String() + " has no meaning for this service", Want: "offload: auto or none",
		Hint: "only TCP and UDP that is forwarded for others is offloaded, not what this host itself sends",
	}}) {
		return false
	}
	if t := s.Timeouts; s.Offload != OffloadNone && (t.Established != 0 || t.UDP != 0) && !yield(Contradiction{Keys: []string{"timeouts", "offload"}, Problem: Problem{
		Msg: "timeouts of live connections cannot be with offload: " + s.Offload.String(), Want: "offload: none beside it",
		Hint: "a flow table gives connections back with the timeouts of the kernel",
	}}) {
		return false
	}
	return len(s.Devices) == 0 || s.Offload != OffloadNone ||
		yield(Contradiction{Keys: []string{"devices", "offload"}, Problem: Problem{
			Msg: "devices has no meaning without offload", Want: "offload: auto, software or hardware beside it",
		}})
}

// Offloadable reports whether the service has connections that a flow table takes:
// TCP or UDP, that this host translates and forwards for others.
func (s *Service) Offloadable() bool {
	return s.Mode == NAT && s.Balance == Connections && s.Role != RoleClient && slices.ContainsFunc(s.Protocols, func(p Protocol) bool { return p == TCP || p == UDP })
}

// CheckDevice is what is wrong with the name of a device.
func CheckDevice(s string) *Problem {
	if p := CheckInterface(s); p != nil || strings.HasSuffix(s, "*") || s == "lo" {
		return &Problem{Msg: "device " + safe.Show(s) + " cannot be offloaded", Want: "the whole name of an interface other than lo"}
	}
	return nil
}

// checkDevices is what is wrong with the devices of a service.
func checkDevices(devices []string) *Problem {
	for i, d := range devices {
		if p := CheckDevice(d); p != nil {
			return p
		}
		if i > 0 && devices[i-1] >= d {
			return &Problem{Msg: "devices are not sorted, or not distinct"}
		}
	}
	return CheckDevices(len(devices))
}

// CheckDevices is what is wrong with the number of devices of a service.
func CheckDevices(n int) *Problem {
	if n > MaxDevices {
		return &Problem{Msg: fmt.Sprintf("devices has %d interfaces", n), Want: fmt.Sprintf("at most %d", MaxDevices)}
	}
	return nil
}

// checkDatagrams finds what cannot be where each datagram is balanced for itself: it is
// seen before anything is known of connections, and only written over.
func (s *Service) checkDatagrams(yield func(Contradiction) bool) bool {
	if s.Balance != Datagrams {
		return true
	}
	const unknown = "each datagram is for itself: it is not known which ones belong together"
	for _, one := range []struct {
		is               bool
		key, what, hints string
	}{
		{!slices.Equal(s.Protocols, []Protocol{UDP}), "protocol", "protocol: " + strings.Join(texts(s.Protocols), ", "), "protocol: udp"},
		{s.Mode.Direct(), "mode", "mode: " + s.Mode.String(), "there, packets go by their hash"},
		{s.Role != RoleProxy, "role", "role: " + s.Role.String(), "what comes from the network is balanced so"},
		{s.Interface != "", "interface", "interface", "what comes from the network is balanced so, by whatever interface"},
		{s.Scheduler != RoundRobin && s.Scheduler != Random, "scheduler", "scheduler: " + s.Scheduler.String(), "round-robin or random"},
		{s.Affinity != nil, "affinity", "affinity", unknown},
		{s.Limit != Limit{}, "limit", "limit", unknown},
		{s.Log != nil, "log", "log", unknown},
		{s.Retry, "retry", "retry", "it is for TCP"},
		{s.SNAT.Mode != SNATNone, "snat", "snat: " + s.SNAT.String(), "backends see the client"},
	} {
		if one.is && !yield(Contradiction{Keys: []string{"balance", one.key}, Problem: Problem{
			Msg: one.what + " cannot be with balance: datagrams", Want: "one of them", Hint: one.hints,
		}}) {
			return false
		}
	}
	for i, l := range s.Listen {
		if !l.Prefix.IsSingleIP() && !yield(Contradiction{Keys: []string{"listen", "balance"}, Item: i, Problem: Problem{
			Msg: fmt.Sprintf("listen %s is not a single address, and the balance is of datagrams", l), Want: "an address",
		}}) {
			return false
		}
	}
	for i := range s.Backends {
		b, p := &s.Backends[i], Problem{Want: "one of them"}
		switch {
		case b.Host.SRV, b.Address.Port != s.Backends[0].Address.Port:
			p.Msg, p.Want = "backend "+b.Where()+" may have another port than the others, and the balance is of datagrams", "one port for all backends, or none"
		case !b.Named() && (b.Address.OfHost() || b.Address.Addr.IsLoopback()):
			p.Msg, p.Want = "backend "+b.Where()+" is this host, and the balance is of datagrams", "a server on another host"
		case b.MaxConnections > 0:
			p.Msg, p.Hint = "max-connections cannot be with balance: datagrams", unknown
		case b.Log != nil && s.Log == nil:
			p.Msg, p.Hint = "log cannot be with balance: datagrams", unknown
		case b.SNAT.Mode != SNATNone && s.SNAT.Mode == SNATNone:
			p.Msg, p.Hint = "snat: "+b.SNAT.String()+" cannot be with balance: datagrams", "backends see the client"
		default:
			continue
		}
		if !yield(Contradiction{Keys: []string{"backends", "balance"}, Item: i, Problem: p}) {
			return false
		}
	}
	return true
}

// checkHelper finds services whose connections no helper reads.
func (s *Service) checkHelper(yield func(Contradiction) bool) bool {
	over := map[Helper][]Protocol{FTP: {TCP}, SIP: {TCP, UDP}, TFTP: {UDP}}[s.Helper]
	other := func(p Protocol) bool { return !slices.Contains(over, p) }
	switch {
	case s.Helper == HelperNone:
		return true
	case slices.ContainsFunc(s.Protocols, other):
		return yield(Contradiction{Keys: []string{"helper", "protocol"}, Problem: Problem{
			Msg:  fmt.Sprintf("helper: %s is over %s, and service %s is over %s", s.Helper, strings.Join(texts(over), " and "), safe.Show(s.Name), strings.Join(texts(s.Protocols), ", ")),
			Want: "protocol: " + strings.Join(texts(over), " or "),
		}})
	case !s.Tracked():
		return yield(Contradiction{Keys: []string{"helper", "mode", "balance"}, Problem: Problem{
			Msg: "helper has no meaning where no connection is translated", Want: "mode: nat and balance: connections",
		}})
	}
	return true
}

// checkUnserved finds services whose addresses are others'.
func (s *Service) checkUnserved(yield func(Contradiction) bool) bool {
	return s.Unserved == UnservedPass || s.Role != RoleClient || yield(Contradiction{Keys: []string{"unserved", "role"}, Problem: Problem{
		Msg: "unserved has no meaning with role: client", Want: "one of them", Hint: "what this host itself connects to is somebody else's address",
	}})
}

// BalancedOnly reports whether a service of profiles wants nothing but balanced
// connections to be forwarded.
func BalancedOnly(profiles []*Profile) bool {
	for _, s := range Services(profiles) {
		if s.Forward == ForwardBalanced {
			return true
		}
	}
	return false
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
func (s *Service) checkLoopback(yield func(Contradiction) bool) bool {
	far := func(l Listen) bool { return !l.Prefix.Addr().IsLoopback() }
	if s.Role == RoleClient || !slices.ContainsFunc(s.Listen, far) {
		return true
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Address.Addr.IsLoopback() && !yield(Contradiction{
			Keys: []string{"backends", "role"}, Item: i, Problem: Problem{
				Msg:  fmt.Sprintf("backend %s is a loopback address, and the kernel drops what comes to it from the network", b.Where()),
				Want: "another address, or role: client",
				Hint: fmt.Sprintf(`":%d" is this host itself, whose server then listens on any address`, cmp.Or(b.Address.Port, s.onlyPort(), 8080)),
			},
		}) {
			return false
		}
	}
	return true
}
