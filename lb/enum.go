package lb

// The small enumerations of a profile, which read and print their words.

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb/internal/near"
	"nlb/lb/internal/safe"
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

// Mode says how packets get to the backends, and answers to the clients.
type Mode uint8

// The modes.
const (
	NAT    Mode = iota // by translation of addresses, both ways through this host
	DSR                // unchanged to the backend's MAC address; answers go past this host
	Tunnel             // the same, but in packets to the backend's address, IP in IP
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

// Offload says whether packets of live connections take the short way through a flow
// table, past all chains: https://docs.kernel.org/networking/nf_flowtable.html
type Offload uint8

// The ways of offloading.
const (
	OffloadNone     Offload = iota // no
	OffloadAuto                    // where the kernel can, and no filter of others would be passed by
	OffloadSoftware                // in the kernel
	OffloadHardware                // in the network cards, where they can; in the kernel elsewhere
)

// Unserved is what becomes of traffic for an address that no service takes: for another
// port, or of another protocol. The stricter ones come later.
type Unserved uint8

// What may become of it.
const (
	UnservedPass      Unserved = iota // it goes on as without a service
	UnservedReject                    // refused, unless it came by the link that has the address
	UnservedDrop                      // dropped, with the same exception
	UnservedRejectAll                 // refused
	UnservedDropAll                   // dropped
)

// Forward says what this host forwards for others.
type Forward uint8

// What it forwards.
const (
	ForwardOpen     Forward = iota // whatever it is asked to
	ForwardBalanced                // connections that are balanced
)

// Helper is a protocol in which connections announce further ones, and which the kernel
// reads to translate these, too (nf_conntrack_ftp and its like).
type Helper uint8

// The helpers.
const (
	HelperNone Helper = iota
	FTP               // RFC 959, RFC 2428
	SIP               // RFC 3261
	TFTP              // RFC 1350
)

// Balance says what a service balances.
type Balance uint8

// What it balances.
const (
	Connections Balance = iota // connections; for UDP, flows
	Datagrams                  // each datagram for itself, and no answers
)

// LogLevel is a syslog severity (RFC 5424, 6.2.1).
type LogLevel uint8

// LogInfo is the level of a log that does not say.
const LogInfo LogLevel = 6

var (
	sysctlWords   = []string{"auto", "keep"}
	roleWords     = []string{"proxy", "client", "server"}
	modeWords     = []string{"nat", "dsr", "tunnel"}
	hashWords     = []string{"source-address", "source-port", "destination-address", "destination-port", "protocol"}
	snatWords     = []string{"masquerade", "none", "vip", "addresses"}
	onEmptyWords  = []string{"reject", "drop"}
	offloadWords  = []string{"none", "auto", "software", "hardware"}
	helperWords   = []string{"none", "ftp", "sip", "tftp"}
	balanceWords  = []string{"connections", "datagrams"}
	unservedWords = []string{"pass", "reject", "drop", "reject-all", "drop-all"}
	forwardWords  = []string{"open", "balanced"}
	levelWords    = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}
	protocolWords = []string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}
)

func (p SysctlPolicy) String() string { return inWords(p) }
func (r Role) String() string         { return inWords(r) }
func (m Mode) String() string         { return inWords(m) }
func (f HashField) String() string    { return inWords(f) }
func (m SNATMode) String() string     { return inWords(m) }
func (o OnEmpty) String() string      { return inWords(o) }
func (o Offload) String() string      { return inWords(o) }
func (h Helper) String() string       { return inWords(h) }
func (b Balance) String() string      { return inWords(b) }
func (u Unserved) String() string     { return inWords(u) }
func (f Forward) String() string      { return inWords(f) }
func (l LogLevel) String() string     { return inWords(l) }
func (p Protocol) String() string     { return inWords(p) }

func (SysctlPolicy) words() []string { return sysctlWords }
func (Role) words() []string         { return roleWords }
func (Mode) words() []string         { return modeWords }
func (HashField) words() []string    { return hashWords }
func (SNATMode) words() []string     { return snatWords }
func (OnEmpty) words() []string      { return onEmptyWords }
func (Offload) words() []string      { return offloadWords }
func (Helper) words() []string       { return helperWords }
func (Balance) words() []string      { return balanceWords }
func (Unserved) words() []string     { return unservedWords }
func (Forward) words() []string      { return forwardWords }
func (LogLevel) words() []string     { return levelWords }
func (Protocol) words() []string     { return protocolWords }

func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// families says which IP versions something has, IPv4 first.
type families [2]bool

func (f families) has(a netip.Addr) bool { return f[index(FamilyOf(a))] }

func (f *families) add(a netip.Addr) { f[index(FamilyOf(a))] = true }

// families says which families the listens and the backends have, names both, and
// whether the service listens on this host's own addresses.
func (s *Service) families() (listens, backends families, own bool) {
	for _, l := range s.Listen {
		if l.Prefix.IsValid() {
			listens.add(l.Prefix.Addr())
		} else {
			own = true
		}
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Named() {
			backends = families{true, true}
		} else {
			backends.add(b.Address.Addr)
		}
	}
	return listens, backends, own
}

// texts are the words of a profile: the mode, or the addresses of a pool.
func (s SNAT) texts() []string {
	switch {
	case s.Auto:
		return []string{SNATAuto}
	case s.Mode != SNATPool:
		return []string{s.Mode.String()}
	}
	return texts(s.Pool)
}

// SNATAuto is the word for a source that the host chooses.
const SNATAuto = "auto"

// String is as it stands in a profile; a pool is its addresses, separated by
// commas.
func (s SNAT) String() string { return strings.Join(s.texts(), ",") }

// Equal reports whether both make the same of a source address.
func (s SNAT) Equal(t SNAT) bool {
	return s.Mode == t.Mode && slices.Equal(s.Pool, t.Pool) && s.Auto == t.Auto
}

// same reports whether a profile says the same of both, whatever the host has chosen.
func (s SNAT) same(t SNAT) bool { return s.Auto && t.Auto || s.Equal(t) }

// sourceText is the source that the backend sees, with the one that the host has chosen.
func (b *Backend) sourceText() string {
	is := b.EffectiveSNAT()
	if is.Auto && is.Mode == SNATPool {
		return SNATAuto + " " + Joined(texts(is.Pool)).String()
	}
	return is.String()
}

// Enum is a type whose values are words.
type Enum interface {
	~uint8
	fmt.Stringer
	// words has the word of each value at its number, empty where there is none.
	words() []string
}

// Words are all words of a type, in the order of its constants.
func Words[T Enum]() []string {
	return slices.DeleteFunc(slices.Clone(T(0).words()), func(w string) bool { return w == "" })
}

// Read reads what String writes, and nothing else.
func Read[T Enum](v *T, text string) error {
	i := slices.Index((*v).words(), text)
	if i < 0 || text == "" {
		return fmt.Errorf("unworded %q, want %s", text, strings.Join(Words[T](), ", "))
	}
	*v = T(i)
	return nil
}

// worded reports whether a value has a word.
func worded[T Enum](v T) bool { return int(v) < len(v.words()) && v.words()[v] != "" }

// inWords is the word of a value; its number where it has none.
func inWords[T Enum](v T) string {
	if worded(v) {
		return v.words()[v]
	}
	return strconv.Itoa(int(v))
}

// wordKey is a key that is such a word and nothing else: by default the first.
func wordKey[E Enum](word string, words []string, meaning string, of func(*Service) *E) key[Service] {
	return key[Service]{
		word: word, Key: Key{Values: safe.OneOf(words), Default: words[0], Meaning: meaning},
		value: func(s *Service) (any, bool) { return (*of(s)).String(), *of(s) == 0 },
		check: func(s *Service) *Problem { return checkEnum(word, *of(s)) },
	}
}

// named is the key with another value as a change names it.
func (k key[T]) named(change func(*T) (string, bool)) key[T] {
	k.change = change
	return k
}

// unkept is the key as one whose value the kernel knows at times only, or never.
func (k key[T]) unkept() key[T] {
	k.hidden = true
	return k
}

// Nearest is the word that was probably meant by s: one that differs in few
// letters, or the one that s begins or that begins s. Empty where none is near.
func Nearest(s string, words []string) string { return near.Word(s, words) }
