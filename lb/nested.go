package lb

// The keys of backends, affinity, limit, log and timeouts, which are mappings of their own.

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// backendsKey is the key with the backends, which are values of their own.
var backendsKey = Key{
	Path: "service.backends", Values: "ADDRESS:PORT, ADDRESS, :PORT, NAME:PORT, a mapping with address, or a list of them", Default: "required",
	Meaning: "the servers; without a port, the destination port stays as it was",
}

var backendKeys = []key[member]{
	{
		word: "address", Key: Key{
			Values: "ADDRESS:PORT, [IPV6]:PORT, ADDRESS, :PORT, NAME:PORT or srv:NAME", Default: "required",
			Meaning: "where connections go; without a port, the destination port stays as it was; without an address, to this host itself; " +
				"a name stands for all its addresses, with srv: for what its SRV records say",
		},
		value:  func(b *member) (any, bool) { return b.Where(), false },
		change: unseen[member],
		check:  func(b *member) *Problem { return b.checkAddress() },
	},
	{
		word: "name", Key: Key{Values: NameForm, Default: "the address", Meaning: "shown by nlb show"},
		value: func(b *member) (any, bool) { return b.Name, b.Name == b.Where() },
		check: func(b *member) *Problem {
			if b.Name == b.Where() {
				return nil
			}
			return checkName("name", b.Name)
		},
	},
	{
		word: "weight", Key: Key{Values: "0 to 1000", Default: "1", Meaning: "the share of the connections; 0: no new ones (drain)"},
		value: func(b *member) (any, bool) { return b.Weight, b.Weight == 1 },
		check: func(b *member) *Problem {
			if b.Host.SRV && b.Weight != 1 {
				return BesideSRV("weight")
			}
			return checkRange("weight", b.Weight, 0, MaxWeight)
		},
	},
	{
		word: "priority", Key: Key{
			Values: "1 to 100", Default: "1",
			Meaning: "1 first; the others get connections where fewer than min-up are up",
		},
		value:  func(b *member) (any, bool) { return b.priority(), b.priority() == 1 },
		change: func(b *member) (string, bool) { return strconv.Itoa(b.priority()), true },
		check: func(b *member) *Problem {
			if b.Host.SRV && b.Priority != 1 {
				return BesideSRV("priority")
			}
			return checkRange("priority", b.Priority, 1, MaxPriority)
		},
	},
	{
		word: "check-at", Key: Key{
			Values: "none, ADDRESS, ADDRESS:PORT or :PORT", Default: "the address",
			Meaning: "where the backend is checked instead; none: it is not, and counts as up",
		},
		value:  func(b *member) (any, bool) { return known(b.CheckAt.String()), false },
		check:  func(b *member) *Problem { return b.CheckAt.problem() },
		hidden: true,
	},
	{
		word: "max-connections", Key: Key{
			Values: countForm + ", or none", Default: "none",
			Meaning: "live connections at most; what is over goes to other backends, and is refused where they are full too",
		},
		value: func(b *member) (any, bool) { return known(b.MaxConnections), false },
	},
	{
		word: "snat", Key: Key{Values: snatForm, Default: "the service's", Meaning: "the source that this backend sees"},
		value: func(b *member) (any, bool) {
			if b.SNAT.same(b.service.SNAT) || b.Address.OfHost() {
				return nil, true
			}
			return Joined(b.SNAT.texts()), false
		},
		change: func(b *member) (string, bool) { return b.sourceText(), true },
		check: func(b *member) *Problem {
			if b.Address.OfHost() {
				return CheckHostSNAT(b.SNAT)
			}
			if b.SNAT.Equal(b.service.SNAT) {
				return nil
			}
			if p := checkSNAT(b.SNAT); p != nil || b.Named() {
				return p
			}
			return CheckPool(b.SNAT.Pool, FamilyOf(b.Address.Addr))
		},
	},
	{
		word: "log", Key: Key{
			Values: logForm, Default: "the service's",
			Meaning: "new connections to this backend are written to the kernel log",
		},
		value: func(b *member) (any, bool) {
			if own, all := b.Log, b.service.Log; own == all || own != nil && all != nil && *own == *all {
				return nil, true
			}
			if b.Log == nil {
				return Mapping{Short: "false"}, false
			}
			return logValue(b.Log, b.service), false
		},
		change: func(b *member) (string, bool) { return b.Log.String(), true },
		check:  func(b *member) *Problem { return checkKeys(logKeys, b.Log) },
	},
}

// affinityKeys leave out the length of networks of a family that the kernel has
// no affinity for: there it is 0.
var affinityKeys = []key[Affinity]{
	{
		word: "timeout", Key: Key{
			Values: TimeForm, Default: "required",
			Meaning: "ends the affinity of a client that has no open connection and has opened none for that long",
		},
		value: func(a *Affinity) (any, bool) { return a.TimeoutText(), false },
		check: func(a *Affinity) *Problem { return checkTimeout(a.Timeout) },
	},
	{
		word: "prefix", Key: Key{
			Values: "1 to 32", Default: "32",
			Meaning: "clients of one IPv4 network of this length share a backend",
		},
		value: func(a *Affinity) (any, bool) { return known(a.Bits), a.Bits == 32 },
		check: func(a *Affinity) *Problem { return checkRange("prefix", a.Bits, 1, 32) },
	},
	{
		word: "prefix6", Key: Key{
			Values: "1 to 128", Default: "128",
			Meaning: "clients of one IPv6 network of this length share a backend",
		},
		value: func(a *Affinity) (any, bool) { return known(a.Bits6), a.Bits6 == 128 },
		check: func(a *Affinity) *Problem { return checkRange("prefix6", a.Bits6, 1, 128) },
	},
	{
		word: "group", Key: Key{
			Values: NameForm, Default: "none",
			Meaning: "services of this profile with the same group and servers share the memory: a client meets the same server in all",
		},
		value: func(a *Affinity) (any, bool) { return known(a.Group), false },
		check: func(a *Affinity) *Problem {
			if a.Group == "" {
				return nil
			}
			return checkName("group", a.Group)
		},
	},
}

var limitKeys = []key[Limit]{
	{
		word: "connections-per-source", Key: Key{
			Values: countForm, Default: "none",
			Meaning: "live connections of one client address at most",
		},
		value: func(l *Limit) (any, bool) { return known(l.ConnectionsPerSource), false },
	},
	{
		word: "new-per-source", Key: Key{
			Values: rateForm, Default: "none",
			Meaning: "new connections of one client address at most",
		},
		value: func(l *Limit) (any, bool) { return known(l.NewPerSource.String()), false },
		check: func(l *Limit) *Problem { return checkRate("new-per-source", l.NewPerSource) },
	},
	{
		word: "burst", Key: Key{
			Values: countForm, Default: "the number of new-per-source",
			Meaning: "how many new connections of one client address may come at once",
		},
		value: func(l *Limit) (any, bool) { return known(l.Burst), uint64(l.Burst) == l.NewPerSource.Events },
		check: func(l *Limit) *Problem {
			if l.NewPerSource == (Rate{}) {
				return meaningless("burst", l.Burst > 0)
			}
			return checkRange("burst", l.Burst, 1, 1<<32-1)
		},
	},
	{
		word: "new", Key: Key{
			Values: rateForm, Default: "none",
			Meaning: "new connections of the service at most",
		},
		value: func(l *Limit) (any, bool) { return known(l.New.String()), false },
		check: func(l *Limit) *Problem { return checkRate("new", l.New) },
	},
	{
		word: "half-open", Key: Key{
			Values: "1 to 65536", Default: "none",
			Meaning: "TCP connections of the service that their clients have not completed at most; with syn-protection, others are answered by a cookie",
		},
		value: func(l *Limit) (any, bool) { return known(l.HalfOpen), false },
		check: func(l *Limit) *Problem { return checkRange("half-open", l.HalfOpen, 0, MaxHalfOpen) },
	},
	{
		word: "prefix", Key: Key{Values: "1 to 32", Default: "32", Meaning: "the addresses of one IPv4 network of this length count as one client"},
		value: func(l *Limit) (any, bool) { return known(l.Bits), false },
		check: func(l *Limit) *Problem { return l.checkPrefix("prefix", l.Bits, 31) },
	},
	{
		word: "prefix6", Key: Key{Values: "1 to 128", Default: "128", Meaning: "the addresses of one IPv6 network of this length count as one client"},
		value: func(l *Limit) (any, bool) { return known(l.Bits6), false },
		check: func(l *Limit) *Problem { return l.checkPrefix("prefix6", l.Bits6, 127) },
	},
}

var logKeys = []key[Log]{
	{
		word: "prefix", Key: Key{
			Values: `1 to 64 printable ASCII characters without ", \ and $`, Default: "the service's name and a space",
			Meaning: "begins each line",
		},
		value: func(l *Log) (any, bool) { return l.Prefix, false }, // a file says it even where it is the default
		check: func(l *Log) *Problem { return CheckLogPrefix(l.Prefix) },
	},
	{
		word: "level", Key: Key{Values: levelForm, Default: "info", Meaning: "the syslog level"},
		value: func(l *Log) (any, bool) { return l.Level.String(), l.Level == LogInfo },
		check: func(l *Log) *Problem { return checkEnum("level", l.Level) },
	},
	{
		word: "rate", Key: Key{Values: rateForm, Default: "none", Meaning: "lines at most"},
		value: func(l *Log) (any, bool) { return known(l.Rate.String()), false },
		check: func(l *Log) *Problem { return checkRate("rate", l.Rate) },
	},
}

func (l *Limit) checkPrefix(word string, bits, most int) *Problem {
	if !l.PerSource() {
		return meaningless(word, bits != 0)
	}
	return checkRange(word, bits, 0, most)
}

// PerSource reports whether something of the limit is about single clients.
func (l *Limit) PerSource() bool { return l.ConnectionsPerSource > 0 || l.NewPerSource.Events > 0 }

// Timeouts are how long conntrack remembers a connection from its last packet on, by
// its state; whole seconds, 1 s to MaxConnectionTimeout. 0: as the kernel has it
// (https://docs.kernel.org/networking/nf_conntrack-sysctl.html).
type Timeouts struct {
	// Established is of open TCP connections, CloseWait of those whose client or
	// server has sent its FIN and waits, HalfOpen of those whose handshake has begun,
	// and TimeWait of those that have ended.
	Established, CloseWait, HalfOpen, TimeWait time.Duration
	// UDP is of flows that go both ways, UDPIdle of those that do not, or have not
	// for two seconds.
	UDP, UDPIdle time.Duration
}

// MaxConnectionTimeout is what conntrack can count, in jiffies of 32 bits.
const MaxConnectionTimeout = 20 * 24 * time.Hour

const connectionTimeForm = "1s to 20d"

var timeoutKeys = []key[Timeouts]{
	timeoutKey("established", "5d in Linux", "an open TCP connection that is silent"),
	timeoutKey("close-wait", "1h", "a TCP connection of which one side has ended its part"),
	timeoutKey("half-open", "120s and 60s in Linux", "a TCP connection whose handshake is not complete"),
	timeoutKey("time-wait", "120s in Linux", "a TCP connection that has ended, and its port"),
	timeoutKey("udp", "120s in Linux", "a UDP flow that is answered, for more than two seconds"),
	timeoutKey("udp-idle", "30s in Linux", "a UDP flow that is not answered, or not for two seconds yet"),
}

func timeoutKey(word, usual, meaning string) key[Timeouts] {
	return key[Timeouts]{
		word: word, Key: Key{Values: connectionTimeForm, Default: usual, Meaning: meaning},
		value: func(t *Timeouts) (any, bool) { return spanValue(*t.Of(word)), false },
		check: func(t *Timeouts) *Problem {
			if *t.Of(word) == 0 {
				return nil
			}
			return CheckConnectionTimeout(word, *t.Of(word))
		},
	}
}

// Of is the timeout that a key says, nil where there is no such key.
func (t *Timeouts) Of(word string) *time.Duration {
	switch word {
	case "established":
		return &t.Established
	case "close-wait":
		return &t.CloseWait
	case "half-open":
		return &t.HalfOpen
	case "time-wait":
		return &t.TimeWait
	case "udp":
		return &t.UDP
	case "udp-idle":
		return &t.UDPIdle
	}
	return nil
}

// CheckConnectionTimeout is what is wrong with one of Timeouts.
func CheckConnectionTimeout(word string, t time.Duration) *Problem {
	if t < time.Second || t > MaxConnectionTimeout || t%time.Second != 0 {
		return &Problem{Msg: fmt.Sprintf("%s %s is out of range", word, spanText(t)), Want: connectionTimeForm}
	}
	return nil
}

const levelForm = "emerg, alert, crit, err, warn, notice, info or debug"

// affinityValue is an affinity, whose short form is the timeout alone.
func affinityValue(a *Affinity) any {
	if a == nil {
		return nil
	}
	m := Mapping{Values: valuesOf(affinityKeys, a)}
	if allDefault(m.Values[1:]) {
		m.Short = a.TimeoutText()
	}
	return m
}

// mappingValue is a mapping that says nothing where it is zero.
func mappingValue[T comparable](keys []key[T], v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return Mapping{Values: valuesOf(keys, &v)}
}

// logValue is a log of a service, whose short form is true where all is as it
// would be without keys.
func logValue(l *Log, s *Service) any {
	if l == nil {
		return nil
	}
	m := Mapping{Values: valuesOf(logKeys, l)}
	if l.Prefix == s.defaultPrefix() && allDefault(m.Values[1:]) {
		m.Short = "true"
	}
	return m
}

// defaultPrefix begins the lines of a log that does not say.
func (s *Service) defaultPrefix() string { return s.Name + " " }

// String is what is limited, or none.
func (l Limit) String() string {
	var parts []string
	if l.ConnectionsPerSource > 0 {
		parts = append(parts, fmt.Sprintf("connections-per-source %d", l.ConnectionsPerSource))
	}
	if l.NewPerSource.Events > 0 {
		parts = append(parts, fmt.Sprintf("new-per-source %s burst %d", l.NewPerSource, l.Burst))
	}
	if l.New.Events > 0 {
		parts = append(parts, "new "+l.New.String())
	}
	if l.HalfOpen > 0 {
		parts = append(parts, fmt.Sprintf("half-open %d", l.HalfOpen))
	}
	if l.Bits > 0 {
		parts = append(parts, fmt.Sprintf("prefix %d", l.Bits))
	}
	if l.Bits6 > 0 {
		parts = append(parts, fmt.Sprintf("prefix6 %d", l.Bits6))
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// String is how connections are logged, or none.
func (l *Log) String() string {
	if l == nil {
		return "none"
	}
	parts := []string{"level " + l.Level.String()}
	if l.Rate.Events > 0 {
		parts = append(parts, "rate "+l.Rate.String())
	}
	if l.Prefix != "" {
		parts = append(parts, fmt.Sprintf("prefix %q", l.Prefix))
	}
	return strings.Join(parts, ", ")
}
