package lb

// Mode: what follows from how packets get to the backends, and from who answers a SYN:
// what a service has where it does not say, and what it cannot have.

import (
	"fmt"
	"slices"
	"strconv"
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
func (s *Service) checkDirect(f *finder) {
	if !s.Mode.Direct() {
		if s.Remember != 0 {
			f.add(Problem{
				Msg: "remember has no meaning without mode: dsr or tunnel", Want: "one of these beside it",
				Hint: "with mode: nat, connections keep their backend anyway",
			}, "remember", "mode")
		}
		return
	}
	mode := "mode: " + s.Mode.String()
	perPacket := mode + " sees packets, not connections"
	f.clashes("mode", mode, []clash{
		{!s.Scheduler.Hashes(), "scheduler", "scheduler: " + s.Scheduler.String(), "scheduler: hash or consistent sends all packets of a connection to one backend"},
		{s.Role != RoleProxy, "role", "role: " + s.Role.String(), "packets are taken where they enter, before anybody asks whose they are"},
		{s.Affinity != nil, "affinity", "affinity", "hash-by: source-address keeps a client with its backend"},
		{s.Limit != Limit{}, "limit", "limit", perPacket},
		{s.Log != nil, "log", "log", perPacket},
		{len(s.Allow)+len(s.Deny) > 0, "allow", "allow or deny", "a table of your own, of family netdev, can drop packets of clients before"},
		{s.Timeouts != Timeouts{}, "timeouts", "timeouts", perPacket},
		{s.Retry, "retry", "retry", "answers of the backends do not come by here"},
		{s.OnEmpty != Drop, "on-empty", "on-empty: " + s.OnEmpty.String(), "on-empty: drop, or without the key"},
	})
	f.clashes("snat", mode, []clash{{s.SNAT.Mode != SNATNone, "mode", "snat: " + s.SNAT.String(), "backends see the client"}})
	s.checkSingle(f, "mode", "the mode is "+s.Mode.String(), "an address that the backends have too")
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
		default:
			p = s.tracked(b, mode, "connections are not counted", "it sees packets, not connections")
		}
		if p.Msg != "" {
			f.addOf(i, p, "backends", "mode")
		}
	}
}

// checkSingle finds listens that are no single address, where a key does not allow that.
func (s *Service) checkSingle(f *finder, key, since, want string) {
	for i, l := range s.Listen {
		if !l.Prefix.IsSingleIP() {
			f.addOf(i, Problem{Msg: fmt.Sprintf("listen %s is not a single address, and %s", l, since), Want: want}, "listen", key)
		}
	}
}

// tracked is what a backend has of its own that needs connections to be tracked, where
// they are not; empty: nothing.
func (s *Service) tracked(b *Backend, with, counts, logs string) Problem {
	p := Problem{Want: "one of them"}
	switch {
	case b.MaxConnections > 0:
		p.Msg, p.Hint = "max-connections", counts
	case b.Log != nil && s.Log == nil:
		p.Msg, p.Hint = "log", logs
	case b.SNAT.Mode != SNATNone && s.SNAT.Mode == SNATNone:
		p.Msg, p.Hint = "snat: "+b.SNAT.String(), "backends see the client"
	default:
		return Problem{}
	}
	p.Msg += " cannot be with " + with
	return p
}

// checkOffload finds keys that only offload gives a meaning, and services whose
// connections no flow table takes.
func (s *Service) checkOffload(f *finder) {
	if s.Offload > OffloadAuto && !s.Offloadable() {
		f.add(Problem{
			Msg: "offload: " + s.Offload.String() + " has no meaning for this service", Want: "offload: auto or none",
			Hint: "only TCP and UDP that is forwarded for others is offloaded, not what this host itself sends",
		}, "offload", "role", "protocol")
	}
	if t := s.Timeouts; s.Offload != OffloadNone && (t.Established != 0 || t.UDP != 0) {
		f.add(Problem{
			Msg: "timeouts of live connections cannot be with offload: " + s.Offload.String(), Want: "offload: none beside it",
			Hint: "a flow table gives connections back with the timeouts of the kernel",
		}, "timeouts", "offload")
	}
	if len(s.Devices) > 0 && s.Offload == OffloadNone {
		f.add(Problem{Msg: "devices has no meaning without offload", Want: "offload: auto, software or hardware beside it"}, "devices", "offload")
	}
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

// checkNames is what is wrong with the interfaces that a key has, each by itself and in all.
func checkNames(key string, names []string, check func(string) *Problem) *Problem {
	for i, n := range names {
		if p := check(n); p != nil {
			return p
		}
		if i > 0 && names[i-1] >= n {
			return &Problem{Msg: key + " is not sorted, or not distinct"}
		}
	}
	return CheckNames(key, len(names))
}

// CheckNames is what is wrong with the number of interfaces that a key has.
func CheckNames(key string, n int) *Problem {
	if n > MaxDevices {
		return &Problem{Msg: fmt.Sprintf("%s has %d interfaces", key, n), Want: fmt.Sprintf("at most %d", MaxDevices)}
	}
	return nil
}

// checkDatagrams finds what cannot be where each datagram is balanced for itself: it is
// seen before anything is known of connections, and only written over.
func (s *Service) checkDatagrams(f *finder) {
	if s.Balance != Datagrams {
		return
	}
	const unknown = "each datagram is for itself: it is not known which ones belong together"
	f.clashes("balance", "balance: datagrams", []clash{
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
	})
	s.checkSingle(f, "balance", "the balance is of datagrams", "an address")
	for i := range s.Backends {
		b, p := &s.Backends[i], Problem{}
		switch {
		case b.Host.SRV, b.Address.Port != s.Backends[0].Address.Port:
			p.Msg, p.Want = "backend "+b.Where()+" may have another port than the others, and the balance is of datagrams", "one port for all backends, or none"
		case !b.Named() && (b.Address.OfHost() || b.Address.Addr.IsLoopback()):
			p.Msg, p.Want = "backend "+b.Where()+" is this host, and the balance is of datagrams", "a server on another host"
		default:
			p = s.tracked(b, "balance: datagrams", unknown, unknown)
		}
		if p.Msg != "" {
			f.addOf(i, p, "backends", "balance")
		}
	}
}

// checkHelper finds services whose connections no helper reads.
func (s *Service) checkHelper(f *finder) {
	over := map[Helper][]Protocol{FTP: {TCP}, SIP: {TCP, UDP}, TFTP: {UDP}}[s.Helper]
	other := func(p Protocol) bool { return !slices.Contains(over, p) }
	switch {
	case s.Helper == HelperNone:
	case slices.ContainsFunc(s.Protocols, other):
		f.add(Problem{
			Msg:  fmt.Sprintf("helper: %s is over %s, and service %s is over %s", s.Helper, strings.Join(texts(over), " and "), safe.Show(s.Name), strings.Join(texts(s.Protocols), ", ")),
			Want: "protocol: " + strings.Join(texts(over), " or "),
		}, "helper", "protocol")
	case !s.Tracked():
		f.add(Problem{
			Msg: "helper has no meaning where no connection is translated", Want: "mode: nat and balance: connections",
		}, "helper", "mode", "balance")
	}
}

// checkUnserved finds services whose addresses are others'.
func (s *Service) checkUnserved(f *finder) {
	if s.Unserved != UnservedPass && s.Role == RoleClient {
		f.add(Problem{
			Msg: "unserved has no meaning with role: client", Want: "one of them", Hint: "what this host itself connects to is somebody else's address",
		}, "unserved", "role")
	}
}

// BalancedOnly reports whether a service of profiles wants nothing but balanced
// connections to be forwarded.
func BalancedOnly(profiles []*Profile) bool {
	return AnyService(profiles, func(s *Service) bool { return s.Forward == ForwardBalanced })
}

// SYNProtection has the kernel answer a SYN by itself, with a cookie, and hand a client
// on that has sent it back: one that exists. So what is told to clients of the backends
// has to be known before (https://wiki.nftables.org/wiki-nftables/index.php/Synproxy).
type SYNProtection struct {
	// MSS is the largest segment that backends take, in bytes, 536 to 8960; over IPv6,
	// whose header is longer, 20 less.
	MSS int
	// WindowScale is the window scale of the backends (RFC 7323), 0 to 14.
	WindowScale int
}

// SYNProxy is a SYNProtection that does not say otherwise, and the word for it.
var SYNProxy = SYNProtection{MSS: 1460, WindowScale: 7}

const synproxyWord = "synproxy"

var synProtectionKey = key[Service]{
	word: "syn-protection", Key: Key{
		Values: "synproxy, {mss: 1460, window-scale: 7}, or none", Default: "none",
		Meaning: "a TCP client has to answer before anything is remembered of its connection, so forged ones cost nothing",
	},
	value:  func(s *Service) (any, bool) { return synValue(s.SYNProtection), s.SYNProtection == nil },
	change: func(s *Service) (string, bool) { return s.SYNProtection.String(), true },
	check:  func(s *Service) *Problem { return s.SYNProtection.Problem() },
}

var synKeys = []key[SYNProtection]{
	{
		word: "mss", Key: Key{
			Values: "536 to 8960", Default: strconv.Itoa(SYNProxy.MSS),
			Meaning: "the largest segment that clients are told to send, over IPv6 20 less; at most what the backends take",
		},
		value: func(p *SYNProtection) (any, bool) { return p.MSS, p.MSS == SYNProxy.MSS },
		check: func(p *SYNProtection) *Problem { return checkRange("mss", p.MSS, 536, 8960) },
	},
	{
		word: "window-scale", Key: Key{
			Values: "0 to 14", Default: strconv.Itoa(SYNProxy.WindowScale),
			Meaning: "the window scale that clients are told; at most that of the backends",
		},
		value: func(p *SYNProtection) (any, bool) { return p.WindowScale, p.WindowScale == SYNProxy.WindowScale },
		check: func(p *SYNProtection) *Problem { return checkRange("window-scale", p.WindowScale, 0, 14) },
	},
}

// String is what clients are told, or none.
func (p *SYNProtection) String() string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("mss %d window-scale %d", p.MSS, p.WindowScale)
}

// Problem is what is wrong with it, nil for nothing.
func (p *SYNProtection) Problem() *Problem { return checkKeys(synKeys, p) }

// synValue is a protection, whose short form is the word.
func synValue(p *SYNProtection) any {
	if p == nil {
		return nil
	}
	m := Mapping{Values: valuesOf(synKeys, p)}
	if allDefault(m.Values) {
		m.Short = synproxyWord
	}
	return m
}

// checkSYN finds what cannot be where the kernel answers for the backends, and begins the
// connections to them by itself.
func (s *Service) checkSYN(f *finder) {
	if s.SYNProtection == nil {
		return
	}
	prefix := slices.IndexFunc(s.Listen, func(l Listen) bool { return !l.Prefix.IsSingleIP() })
	host := slices.IndexFunc(s.Backends, func(b Backend) bool { return b.Address.OfHost() })
	f.clashes("syn-protection", "syn-protection", []clash{
		{!slices.Contains(s.Protocols, TCP), "protocol", "protocol: " + strings.Join(texts(s.Protocols), ", "), "only TCP begins with a SYN"},
		{s.Mode.Direct(), "mode", "mode: " + s.Mode.String(), "answers pass by this host, which has to translate their numbers"},
		{s.Role != RoleProxy, "role", "role: " + s.Role.String(), "it is for what comes from the network"},
		{s.Interface != "", "interface", "interface", "this host begins the connections to the backends, and what it sends enters nowhere"},
		{s.Retry, "retry", "retry", "the client has an open connection by then, and does not try again"},
		{s.Helper != HelperNone, "helper", "helper: " + s.Helper.String(), "both translate sequence numbers"},
		{s.Offload != OffloadNone, "offload", "offload: " + s.Offload.String(), "a flow table does not translate sequence numbers"},
		{s.Fleet == FleetAnycast || s.Fleet == FleetMesh, "fleet", "fleet: " + s.Fleet.String(), "the balancer that answers a client is the one that has to hear the server"},
		{prefix >= 0, "listen", "a listen that is no single address", "each address stands by itself in what looks at the answers of clients"},
		{host >= 0, "backends", "a backend that is this host itself", "its answers come from a loopback address, and do not leave"},
	})
}

// MaxHalfOpen is the largest limit of half-open connections.
const MaxHalfOpen = 1 << 16

// checkHalfOpen finds services without the connections that it counts.
func (s *Service) checkHalfOpen(f *finder) {
	switch {
	case s.Limit.HalfOpen == 0:
	case !slices.Contains(s.Protocols, TCP):
		f.add(Problem{"half-open has no meaning without TCP", "none of it", "only TCP begins with a SYN"}, "limit", "protocol")
	case s.Role == RoleClient:
		f.add(Problem{"half-open has no meaning with role: client", "none of it", "it is for what comes from the network"}, "limit", "role")
	}
}
