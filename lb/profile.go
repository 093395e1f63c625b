// Package lb is the domain: profiles, services, backends, schedulers, and the
// arithmetic of balancing. It is pure: no files, no sockets, no kernel, no YAML.
// Validate says what a value may be; the packages that use what it accepts need
// no further checks.
package lb

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// Profile is a named set of services: one YAML file.
type Profile struct {
	// Name is 1 to 63 of letters, digits, '-', '_' and '.'.
	Name string
	// Pos is where its name stands in its file, or the file's beginning; zero
	// when it was read from the kernel.
	Pos Pos
	// Sysctl says what to do about kernel parameters that the profile needs.
	Sysctl SysctlPolicy
	// Announce has an agent give this host the addresses that services listen on,
	// for routing daemons to tell others of; nil: it does not.
	Announce *Announce
	// Services have distinct names.
	Services []Service
}

// Services are the services of profiles with their profiles, in order.
func Services(profiles []*Profile) iter.Seq2[*Profile, *Service] {
	return func(yield func(*Profile, *Service) bool) {
		for _, p := range profiles {
			for i := range p.Services {
				if !yield(p, &p.Services[i]) {
					return
				}
			}
		}
	}
}

// Service is what clients connect to.
type Service struct {
	// Name is unique in the profile; the same characters as Profile.Name.
	Name string
	// Pos is where the service begins in its file; zero when it was read from
	// the kernel.
	Pos Pos
	// Listen has at least one entry.
	Listen []Listen
	// Protocols are distinct, in the order tcp, udp, sctp.
	Protocols []Protocol
	// Interface limits the service to traffic that enters there: a name, or
	// a prefix and '*'. Empty: any.
	Interface string
	// Role says whose traffic is balanced.
	Role Role
	// Mode says how packets get to the backends, and answers to the clients.
	Mode Mode
	// Remember is how long a flow of DSR that is silent keeps its backend when the
	// backends change; whole seconds, 1 s to 1 day. 0: it does not.
	Remember time.Duration
	// Fleet is that of the profile: all of its services have the same.
	Fleet Fleet
	// Scheduler says how a new connection picks its backend.
	Scheduler Scheduler
	// HashBy is what Hash looks at, distinct, in the order of the HashField
	// constants; nil for the other schedulers.
	HashBy []HashField
	// HashSeed is mixed into the hash; 0 for the other schedulers.
	HashSeed uint32
	// Affinity keeps a client with its backend; nil: none.
	Affinity *Affinity
	// SNAT is the source address that backends see, unless they say otherwise.
	SNAT        SNAT
	RandomPorts bool // a source that SNAT changes has a port at random
	// Allow and Deny are prefixes of clients, masked, distinct, sorted. Deny
	// wins; a non-empty Allow refuses everybody else.
	Allow, Deny []netip.Prefix
	// Limit bounds connections; the zero value does not.
	Limit Limit
	// Log writes new connections into the kernel log; nil: no.
	Log *Log
	// OnEmpty is what a connection meets when no backend can take it.
	OnEmpty OnEmpty
	// OnRefuse is what a connection meets that allow, deny, a limit or
	// max-connections turns away.
	OnRefuse OnEmpty
	// Health is how the backends are checked, by at most 4 checks that all must
	// pass; nil: they are not.
	Health []Check
	// FailOpen says when health is ignored.
	FailOpen FailOpen
	// MinUp says when backends of a lower priority join.
	MinUp MinUp
	// OnDown is what becomes of connections of a backend that goes down.
	OnDown OnDown
	// SlowStart is how long a backend that comes up takes to have its whole
	// weight, 1 s to 1 h; 0: it has it at once.
	SlowStart time.Duration
	// Retry has the kernel draw again for a client whose backend refused it.
	Retry bool
	// Timeouts are how long connections that are silent are remembered.
	Timeouts      Timeouts
	SYNProtection *SYNProtection // has clients prove that they exist; nil: no
	// Offload has packets of live connections pass by all chains.
	Offload Offload
	// Devices are the interfaces that this is done on, sorted, at most MaxDevices; nil:
	// those of the routes to the backends and clients.
	Devices []string
	// Helper is the kernel's reader of the service's own protocol, for the connections
	// that this announces.
	Helper Helper
	// Balance says what is balanced.
	Balance Balance
	// Unserved is what becomes of other traffic for the addresses that it listens on.
	Unserved Unserved
	// Forward says what this host forwards for others.
	Forward Forward
	// Backends are in the order of the file, with distinct names and distinct
	// addresses.
	Backends []Backend
}

// Listen is a set of destinations that a service takes.
type Listen struct {
	// Prefix holds the destination addresses, masked: a single address for
	// most services. The zero Prefix stands for this host's own addresses.
	Prefix netip.Prefix
	// Ports are sorted, without overlap.
	Ports []PortRange
	// Pos is where it stands in its file; zero when it was read from the kernel.
	Pos Pos
}

// PortRange is First to Last, both included, 1 to 65535. AllPorts is the one
// range that starts at 0.
type PortRange struct{ First, Last uint16 }

// AllPorts is every port, written '*'.
var AllPorts = PortRange{0, 65535}

// Backend is a server that takes connections of a service.
type Backend struct {
	// Name is shown to people; Address.String() where the profile gives none.
	Name string
	// Host is a name in place of an address, whose servers are looked up. Address
	// has the port then, and no address; with SRV it has no port either. What
	// reaches the kernel has no names any more: package names resolves them.
	Host Host
	// Address is where connections go.
	Address Endpoint
	// Weight is the share of new connections, relative to the other backends
	// of the same family, 0 to MaxWeight. 0: no new ones (drain).
	Weight int
	// Priority is 1 to MaxPriority, 1 first. Those of 2 get connections where too
	// few of 1 are up, and so on.
	Priority int
	// CheckAt is where it is checked.
	CheckAt CheckAt
	// Standing is what is known of it, and State what follows from that: whether
	// it may have connections at all. Share is the part of its weight that it has
	// meanwhile, in parts of Shares, 1 to 2*Shares; 0: all of it. No keys of a
	// profile.
	Standing Standing
	State    BackendState
	Share    uint8
	// MaxConnections bounds live connections; 0: unbounded.
	MaxConnections uint32
	// SNAT is the service's, or the backend's own. Of this host itself it is SNATNone.
	SNAT SNAT
	// Log is the service's, or the backend's own; nil: no.
	Log *Log
}

// Endpoint is an address with a port. Port 0 leaves a connection's
// destination port as it was. The unspecified address of a family, with a port, is
// this host itself, whatever its addresses are.
type Endpoint struct {
	Addr netip.Addr
	Port uint16
}

// Host is a name in the DNS that stands for servers. The zero Host is none.
type Host struct {
	// Name is a host's, in lower case, or with SRV that of a service:
	// _http._tcp.example.com. With a dot at its end it is complete: no search list
	// applies.
	Name string
	// SRV: the servers, with their ports, weights and priorities, are in SRV
	// records (RFC 2782). Otherwise they are in A and AAAA records.
	SRV bool
}

// SRVPrefix goes before a name of SRV records, in a profile.
const SRVPrefix = "srv:"

// MaxHost is the length of the longest name of a host, in bytes (RFC 1035).
const MaxHost = 253

// String is the name as a profile has it.
func (h Host) String() string {
	if h.SRV {
		return SRVPrefix + h.Name
	}
	return h.Name
}

// Limits of the domain.
const (
	// MaxName is the length of the longest name, in bytes.
	MaxName = 63
	// MaxWeight is the largest weight of a backend.
	MaxWeight = 1000
	// MaxPriority is the largest priority of a backend, which comes last.
	MaxPriority = 100
	// MaxSlots is the largest number of slots of a service and family: the
	// sum of its weights divided by their greatest common divisor.
	MaxSlots = 65535
	// MaxLogPrefix is the length of the longest prefix of log lines, in bytes.
	// The kernel takes 127; this many fit beside the rest of what a rule's
	// comment says.
	MaxLogPrefix = 64
	// MaxDevices is how many devices a service may name: as many as fit a comment.
	MaxDevices = 6
	// MaxTimeout is the longest timeout of an affinity.
	MaxTimeout = 365 * 24 * time.Hour
	// MaxRate is the largest number of events of a rate. It keeps the kernel's
	// arithmetic exact: that counts in nanoseconds.
	MaxRate = 1_000_000_000
)

// SNAT is what a backend sees as the source of a connection.
type SNAT struct {
	Mode SNATMode
	// Pool has the addresses of SNATPool, distinct, in the order of the file;
	// nil for the other modes.
	Pool []netip.Addr
	// Auto has the host choose: a pool of one address where the way to the backend has
	// one that is fixed, else Masquerade, which also stands for what is not chosen yet.
	Auto bool
}

// Affinity keeps a client, or its network, with one backend.
type Affinity struct {
	// Timeout without a new connection ends the affinity; whole seconds,
	// 1 s to 365 days.
	Timeout time.Duration
	// Bits and Bits6 are the lengths of the client networks, 1 to 32 and
	// 1 to 128.
	Bits, Bits6 int
	// Group is what services of a profile have in common that share the memory: a
	// client meets the same server in all of them. It is a name like Profile.Name;
	// empty: the service has a memory of its own. Pos is where it stands in its file.
	Group string
	Pos   Pos
}

// Limit bounds the connections of a service. A zero field does not.
type Limit struct {
	// ConnectionsPerSource bounds the live connections of one client address.
	ConnectionsPerSource uint32
	// NewPerSource bounds the new connections of one client address.
	NewPerSource Rate
	// Burst is how many new connections of one client may exceed NewPerSource at once.
	Burst uint32
	// New bounds the new connections of the service.
	New Rate
	// HalfOpen bounds TCP connections that clients have not completed; up to MaxHalfOpen.
	HalfOpen uint32
	// Bits and Bits6: a network of this length is one client, 1 to 31 and 1 to 127; 0: an address.
	Bits, Bits6 int
}

// Rate is a number of events in a unit of time: a second, minute, hour or day.
// The zero Rate is no limit.
type Rate struct {
	Events uint64
	Per    time.Duration
}

// Log writes new connections into the kernel log.
type Log struct {
	// Prefix begins each line; at most MaxLogPrefix printable ASCII characters
	// without '"' and '\', which nft has no way to write, and '$', which begins a
	// variable there.
	Prefix string
	// Level is the syslog level, 0 (emerg) to 7 (debug).
	Level LogLevel
	// Rate bounds the lines; the zero Rate does not.
	Rate Rate
}

// Family is an IP version.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf is the family of a valid address that is not IPv4-mapped.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Families says which families the service listens on, IPv4 first. A listen on
// this host's own addresses takes the families of the backends, both where
// there are none, or names.
func (s *Service) Families() []Family {
	listens, backends, own := s.families()
	var out []Family
	for _, f := range []Family{IPv4, IPv6} {
		if listens[index(f)] || own && (backends[index(f)] || len(s.Backends) == 0) {
			out = append(out, f)
		}
	}
	return out
}

func index(f Family) int {
	if f == IPv6 {
		return 1
	}
	return 0
}

// Of returns the backends of one family, in order; the service's own where all
// of them are. A name is of none.
func (s *Service) Of(f Family) []Backend {
	n := 0
	for i := range s.Backends {
		if s.Backends[i].is(f) {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case len(s.Backends):
		return s.Backends
	}
	return slices.DeleteFunc(slices.Clone(s.Backends), func(b Backend) bool { return !b.is(f) })
}

// Named reports whether the backend is a name in place of an address.
func (b *Backend) Named() bool { return b.Host != (Host{}) }

// Where is where connections go, as it stands in a profile: an address, or a name,
// and a port.
func (b *Backend) Where() string {
	switch {
	case !b.Named():
		return b.Address.String()
	case b.Address.Port == 0:
		return b.Host.String()
	}
	return fmt.Sprintf("%s:%d", b.Host, b.Address.Port)
}

// Renamed reports whether the backend has another name than Where.
func (b *Backend) Renamed() bool {
	if b.Named() {
		return b.Name != b.Where()
	}
	var text [64]byte
	return b.Name != string(b.Address.appendTo(text[:0]))
}

// is reports whether the backend is of a family. A name may have both.
func (b *Backend) is(f Family) bool { return !b.Named() && FamilyOf(b.Address.Addr) == f }

// Of returns the addresses of one family, in order.
func (s SNAT) Of(f Family) []netip.Addr {
	var out []netip.Addr
	for _, a := range s.Pool {
		if FamilyOf(a) == f {
			out = append(out, a)
		}
	}
	return out
}

// EffectiveSNAT is the backend's SNAT with the addresses of its own family
// only: the others never meet it.
func (b Backend) EffectiveSNAT() SNAT {
	if b.Named() {
		return b.SNAT
	}
	return SNAT{Mode: b.SNAT.Mode, Pool: b.SNAT.Of(FamilyOf(b.Address.Addr)), Auto: b.SNAT.Auto}
}
