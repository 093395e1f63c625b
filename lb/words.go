package lb

// The words of a profile: small enumerations that read and print themselves.

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// SysctlPolicy says what to do about kernel parameters that a profile needs.
type SysctlPolicy uint8

// The policies.
const (
	SysctlAuto SysctlPolicy = iota // turn on what is missing
	SysctlKeep                     // refuse where something is missing
)

// Protocol is a transport protocol, by its number in the IP header
// (https://www.iana.org/assignments/protocol-numbers).
type Protocol uint8

// The protocols.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// Role says whose traffic a service balances.
type Role uint8

// The roles.
const (
	RoleProxy  Role = iota // the network's and this host's
	RoleClient             // only this host's
	RoleServer             // only the network's, to this host's own addresses
)

// Scheduler says how a new connection picks its backend.
type Scheduler uint8

// The schedulers.
const (
	RoundRobin Scheduler = iota
	Random
	Hash
)

// HashField is a part of a connection that Hash looks at.
type HashField uint8

// The parts, in the order in which they are hashed.
const (
	SourceAddress HashField = iota
	SourcePort
	DestinationAddress
	DestinationPort
	ByProtocol
)

// SNATMode says what becomes of a connection's source address.
type SNATMode uint8

// The modes.
const (
	Masquerade SNATMode = iota // this host's address on the way to the backend
	SNATNone                   // unchanged
	SNATVIP                    // the address that the client connected to
	SNATPool                   // one of a list
)

// OnEmpty is what a connection meets when no backend can take it.
type OnEmpty uint8

// The answers.
const (
	Reject OnEmpty = iota // TCP reset, ICMP port unreachable
	Drop                  // silence
)

// LogLevel is a syslog severity (RFC 5424, 6.2.1).
type LogLevel uint8

// LogInfo is the level of a log that does not say.
const LogInfo LogLevel = 6

var (
	sysctlWords    = []string{"auto", "keep"}
	roleWords      = []string{"proxy", "client", "server"}
	schedulerWords = []string{"round-robin", "random", "hash"}
	hashWords      = []string{"source-address", "source-port", "destination-address", "destination-port", "protocol"}
	snatWords      = []string{"masquerade", "none", "vip", "addresses"}
	onEmptyWords   = []string{"reject", "drop"}
	levelWords     = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}
	protocolWords  = []string{"tcp", "udp", "sctp"}
	protocols      = []Protocol{TCP, UDP, SCTP}
)

func (p SysctlPolicy) String() string { return sysctlWords[p] }
func (r Role) String() string         { return roleWords[r] }
func (s Scheduler) String() string    { return schedulerWords[s] }
func (f HashField) String() string    { return hashWords[f] }
func (m SNATMode) String() string     { return snatWords[m] }
func (o OnEmpty) String() string      { return onEmptyWords[o] }
func (l LogLevel) String() string     { return levelWords[l] }

func (p Protocol) String() string {
	if i := slices.Index(protocols, p); i >= 0 {
		return protocolWords[i]
	}
	return strconv.Itoa(int(p))
}

func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// UnmarshalText reads what String writes, and nothing else.
func (p *SysctlPolicy) UnmarshalText(b []byte) error { return word(p, sysctlWords, b) }

// UnmarshalText reads what String writes, and nothing else.
func (r *Role) UnmarshalText(b []byte) error { return word(r, roleWords, b) }

// UnmarshalText reads what String writes, and nothing else.
func (s *Scheduler) UnmarshalText(b []byte) error { return word(s, schedulerWords, b) }

// UnmarshalText reads what String writes, and nothing else.
func (f *HashField) UnmarshalText(b []byte) error { return word(f, hashWords, b) }

// UnmarshalText reads what String writes, and nothing else.
func (o *OnEmpty) UnmarshalText(b []byte) error { return word(o, onEmptyWords, b) }

// UnmarshalText reads what String writes, and nothing else.
func (l *LogLevel) UnmarshalText(b []byte) error { return word(l, levelWords, b) }

// UnmarshalText reads tcp, udp or sctp.
func (p *Protocol) UnmarshalText(b []byte) error {
	var i uint8
	if err := word(&i, protocolWords, b); err != nil {
		return err
	}
	*p = protocols[i]
	return nil
}

func word[T ~uint8](v *T, words []string, b []byte) error {
	i := slices.Index(words, string(b))
	if i < 0 {
		return fmt.Errorf("unknown %q, want %s", b, strings.Join(words, ", "))
	}
	*v = T(i)
	return nil
}

// String is 80, 8000-8010 or *.
func (p PortRange) String() string {
	switch {
	case p == AllPorts:
		return "*"
	case p.First == p.Last:
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// String is as it stands in a profile: 203.0.113.10:80,443 or [2001:db8::1]:*.
func (l Listen) String() string {
	var b strings.Builder
	if p := l.Prefix; p.IsValid() {
		host := p.String()
		if p.IsSingleIP() {
			host = p.Addr().String()
		}
		if p.Addr().Is6() {
			host = "[" + host + "]"
		}
		b.WriteString(host)
	}
	b.WriteByte(':')
	for i, r := range l.Ports {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// String is as it stands in a profile: 10.0.0.11:8080, [2001:db8::1]:80, or an
// address alone.
func (e Endpoint) String() string {
	if e.Port == 0 {
		return e.Addr.String()
	}
	return netip.AddrPortFrom(e.Addr, e.Port).String()
}

// String is as it stands in a profile; a pool is its addresses, separated by
// commas.
func (s SNAT) String() string {
	if s.Mode != SNATPool {
		return s.Mode.String()
	}
	var b []byte
	for i, a := range s.Pool {
		if i > 0 {
			b = append(b, ',')
		}
		b = a.AppendTo(b)
	}
	return string(b)
}

// Equal reports whether both make the same of a source address.
func (s SNAT) Equal(t SNAT) bool { return s.Mode == t.Mode && slices.Equal(s.Pool, t.Pool) }

// String is 100/second, or empty for no limit.
func (r Rate) String() string { return rateText(r) }

// UnmarshalText reads what String writes.
func (r *Rate) UnmarshalText(b []byte) error {
	events, per, _ := strings.Cut(string(b), "/")
	n, err := strconv.ParseUint(events, 10, 64)
	if err != nil {
		return fmt.Errorf("rate %q: %w", b, err)
	}
	for _, u := range units {
		if per == u.long {
			*r = Rate{n, u.Duration}
			return nil
		}
	}
	return fmt.Errorf("rate %q: no unit", b)
}
