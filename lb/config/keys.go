package config

// The keys of a profile. One entry is one key: how it is read, and what is
// said about it in messages and in the reference.

import (
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// Key describes a key of a profile.
type Key struct {
	// Path is the mapping and the key, "backend.weight"; a key of the top
	// level stands alone.
	Path string
	// Values says what is accepted, Default what holds without the key:
	// "required", "none", or a value.
	Values, Default string
	// Meaning is one line.
	Meaning string
}

// name is the key without its mapping.
func (k *Key) name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

const (
	nameValues     = "1 to 63 letters, digits, -, _ and ."
	prefixesValues = "addresses or prefixes of clients such as 10.0.0.0/8, or none"
	rateValues     = "a rate such as 100/second, or per minute, hour or day"
	logValues      = `true, false, or {prefix: "web ", level: info, rate: 10/second}`
	snatValues     = "masquerade, none, vip, an address or a list of addresses"
)

var topKeys = table[top]{what: "the profile", keys: []key[top]{
	{"profile", Key{
		Values: nameValues, Default: "the file's name without its ending",
		Meaning: "the name of the profile",
	}, readProfileName},
	{"services", Key{
		Values: "a list of services", Default: "required",
		Meaning: "what clients connect to",
	}, func(_ *decoder, _ *Key, v *node, t *top) { t.services = v }},
	{"defaults", Key{
		Values: "a mapping with keys of a service but name and listen", Default: "none",
		Meaning: "what holds for services that do not say otherwise",
	}, func(_ *decoder, _ *Key, v *node, t *top) { t.defaults = v }},
	{"sysctl", Key{
		Values: "auto or keep", Default: "auto",
		Meaning: "kernel parameters that the profile needs: nlb turns them on, or refuses where one is missing",
	}, func(d *decoder, k *Key, v *node, t *top) { readWord(d, k, v, &t.Sysctl) }},
}}

var serviceKeys = table[draft]{of: "service", what: "a service", keys: []key[draft]{
	{"name", Key{
		Values: nameValues, Default: "required",
		Meaning: "unique in the profile",
	}, readServiceName},
	{"listen", Key{
		Values: "ADDRESS:PORTS, [IPV6]:PORTS, PREFIX:PORTS, :PORTS or a list of them", Default: "required",
		Meaning: "where clients connect to; ports are 80, 8000-8010, 80,443 or *; " +
			"a prefix takes traffic to any address in it; without an address: this host's own addresses",
	}, readListens},
	{"protocol", Key{
		Values: "tcp, udp, sctp or a list of them", Default: "tcp",
		Meaning: "the transport protocols",
	}, readProtocols},
	{"interface", Key{
		Values: "the name of an interface, or the beginning of names and *", Default: "any",
		Meaning: "only traffic that enters here",
	}, readInterface},
	{"role", Key{
		Values: "proxy, client or server", Default: "proxy",
		Meaning: "whose traffic: the network's and this host's, only what this host sends, " +
			"or only what arrives for this host's own addresses",
	}, func(d *decoder, k *Key, v *node, s *draft) {
		if readWord(d, k, v, &s.Role) {
			s.at.role = v
		}
	}},
	{"scheduler", Key{
		Values: "round-robin, random or hash", Default: "round-robin",
		Meaning: "how a new connection picks its backend: in turn, at random, or by hash-by; all by weight",
	}, func(d *decoder, k *Key, v *node, s *draft) {
		s.badScheduler = !readWord(d, k, v, &s.Scheduler)
	}},
	{"hash-by", Key{
		Values:  "a list of source-address, source-port, destination-address, destination-port, protocol",
		Default: "[source-address]",
		Meaning: "what the scheduler hash looks at",
	}, readHashBy},
	{"hash-seed", Key{
		Values: "0 to 4294967295", Default: "fixed by the service's name",
		Meaning: "another seed, another choice of backends",
	}, func(d *decoder, k *Key, v *node, s *draft) {
		if n, ok := readNumber(d, k, v, 0, 1<<32-1); ok {
			s.HashSeed, s.at.hashSeed = uint32(n), v
		}
	}},
	{"affinity", Key{
		Values: "a time such as 10m, {timeout: 10m, prefix: 24, prefix6: 64}, or none", Default: "none",
		Meaning: "a client, or its network, stays with its backend until it has opened no new connection for that long",
	}, readAffinity},
	{"snat", Key{
		Values: snatValues, Default: "masquerade",
		Meaning: "the source that the backends see: this host's address, the client, the listen address, " +
			"or one of these addresses",
	}, func(d *decoder, k *Key, v *node, s *draft) {
		s.at.snat, s.badSNAT = v, !readSNAT(d, k, v, &s.SNAT)
	}},
	{"allow", Key{
		Values: prefixesValues, Default: "none",
		Meaning: "the only clients that are served",
	}, func(d *decoder, k *Key, v *node, s *draft) { s.at.allow = readPrefixes(d, k, v, &s.Allow) }},
	{"deny", Key{
		Values: prefixesValues, Default: "none",
		Meaning: "clients that are refused; wins over allow",
	}, func(d *decoder, k *Key, v *node, s *draft) { s.at.deny = readPrefixes(d, k, v, &s.Deny) }},
	{"limit", Key{
		Values:  "{connections-per-source: 50, new-per-source: 100/second, burst: 200, new: 5000/second}, or none",
		Default: "none",
		Meaning: "what is over is refused",
	}, readLimit},
	{"log", Key{
		Values: logValues, Default: "none",
		Meaning: "new connections are written to the kernel log",
	}, func(d *decoder, k *Key, v *node, s *draft) { readLog(d, k, v, &s.Log) }},
	{"on-empty", Key{
		Values: "reject or drop", Default: "reject",
		Meaning: "what a connection meets when no backend can take it",
	}, func(d *decoder, k *Key, v *node, s *draft) { readWord(d, k, v, &s.OnEmpty) }},
	{"backends", Key{
		Values: "ADDRESS:PORT, ADDRESS, a mapping with address, or a list of them", Default: "required",
		Meaning: "the servers; without a port, the destination port stays as it was",
	}, readBackends},
}}

// defaultKeys are those of a service that can hold for all.
var defaultKeys = table[draft]{what: "defaults"}

var backendKeys = table[backendDraft]{of: "backend", what: "a backend", keys: []key[backendDraft]{
	{"address", Key{
		Values: "ADDRESS:PORT, [IPV6]:PORT or ADDRESS", Default: "required",
		Meaning: "where connections go; without a port, the destination port stays as it was",
	}, readBackendAddress},
	{"name", Key{
		Values: nameValues, Default: "the address",
		Meaning: "shown by nlb show",
	}, readBackendName},
	{"weight", Key{
		Values: "0 to 1000", Default: "1",
		Meaning: "the share of the connections; 0: no new ones (drain)",
	}, readWeight},
	{"max-connections", Key{
		Values: "1 to 4294967295, or none", Default: "none",
		Meaning: "live connections at most; over it, a new one is refused",
	}, readMaxConnections},
	{"snat", Key{
		Values: snatValues, Default: "the service's",
		Meaning: "the source that this backend sees",
	}, func(d *decoder, k *Key, v *node, b *backendDraft) {
		if readSNAT(d, k, v, &b.SNAT) {
			b.snat = v
		}
	}},
	{"log", Key{
		Values: logValues, Default: "the service's",
		Meaning: "new connections to this backend are written to the kernel log",
	}, func(d *decoder, k *Key, v *node, b *backendDraft) {
		readLog(d, k, v, &b.Log)
		b.log = v
	}},
}}

var affinityKeys = table[lb.Affinity]{of: "affinity", what: "affinity", keys: []key[lb.Affinity]{
	{"timeout", Key{
		Values: timeValues, Default: "required",
		Meaning: "ends the affinity of a client that has opened no new connection for that long",
	}, readTimeout},
	{"prefix", Key{
		Values: "1 to 32", Default: "32",
		Meaning: "clients of one IPv4 network of this length share a backend",
	}, func(d *decoder, k *Key, v *node, a *lb.Affinity) { readInt(d, k, v, 1, 32, &a.Bits) }},
	{"prefix6", Key{
		Values: "1 to 128", Default: "128",
		Meaning: "clients of one IPv6 network of this length share a backend",
	}, func(d *decoder, k *Key, v *node, a *lb.Affinity) { readInt(d, k, v, 1, 128, &a.Bits6) }},
}}

var limitKeys = table[limitDraft]{of: "limit", what: "limit", keys: []key[limitDraft]{
	{"connections-per-source", Key{
		Values: "1 to 4294967295", Default: "none",
		Meaning: "live connections of one client address at most",
	}, func(d *decoder, k *Key, v *node, l *limitDraft) {
		readInt(d, k, v, 1, 1<<32-1, &l.ConnectionsPerSource)
	}},
	{"new-per-source", Key{
		Values: rateValues, Default: "none",
		Meaning: "new connections of one client address at most",
	}, func(d *decoder, k *Key, v *node, l *limitDraft) {
		l.NewPerSource = readRate(d, k, v)
		l.newPerSource = v
	}},
	{"burst", Key{
		Values: "1 to 4294967295", Default: "the number of new-per-source",
		Meaning: "how many new connections of one client address may come at once",
	}, func(d *decoder, k *Key, v *node, l *limitDraft) {
		readInt(d, k, v, 1, 1<<32-1, &l.Burst)
		l.burst = v
	}},
	{"new", Key{
		Values: rateValues, Default: "none",
		Meaning: "new connections of the service at most",
	}, func(d *decoder, k *Key, v *node, l *limitDraft) { l.New = readRate(d, k, v) }},
}}

var logKeys = table[lb.Log]{of: "log", what: "log", keys: []key[lb.Log]{
	{"prefix", Key{
		Values: `1 to 64 printable ASCII characters without ", \ and $`, Default: "the service's name and a space",
		Meaning: "begins each line",
	}, readLogPrefix},
	{"level", Key{
		Values: safe.OneOf(lb.LogLevel(0).Words()), Default: "info",
		Meaning: "the syslog level",
	}, func(d *decoder, k *Key, v *node, l *lb.Log) { readWord(d, k, v, &l.Level) }},
	{"rate", Key{
		Values: rateValues, Default: "none",
		Meaning: "lines at most",
	}, func(d *decoder, k *Key, v *node, l *lb.Log) { l.Rate = readRate(d, k, v) }},
}}

// Reference returns all keys that a profile may have, the outermost first.
func Reference() []Key {
	return slices.Concat(topKeys.reference(), serviceKeys.reference(), backendKeys.reference(),
		affinityKeys.reference(), limitKeys.reference(), logKeys.reference())
}

func (t *table[T]) reference() []Key {
	out := make([]Key, len(t.keys))
	for i := range t.keys {
		out[i] = t.keys[i].Key
	}
	return out
}

// keyOwner is the mapping that has a key, by the key's word, to tell who looks
// for it in another one.
var keyOwner = map[string]string{}

func init() {
	topKeys.enroll()
	serviceKeys.enroll()
	backendKeys.enroll()
	affinityKeys.enroll()
	limitKeys.enroll()
	logKeys.enroll()
	for _, k := range serviceKeys.keys {
		if k.word != "name" && k.word != "listen" {
			defaultKeys.keys = append(defaultKeys.keys, k)
		}
	}
}

// enroll gives the keys of a table their paths.
func (t *table[T]) enroll() {
	for i := range t.keys {
		k := &t.keys[i]
		k.Path = k.word
		if t.of != "" {
			k.Path = t.of + "." + k.word
		}
		if _, ok := keyOwner[k.word]; !ok {
			keyOwner[k.word] = t.what
		}
	}
}
