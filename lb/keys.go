package lb

// The keys of services and backends. One entry is all that is known of one: what
// is said about it, what it says of a service, and which values it takes. How it
// is read is in config.

import (
	"fmt"
	"slices"
	"strings"
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

// Word is the key without its mapping.
func (k *Key) Word() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

// What names and times look like, in messages.
const (
	NameForm = "1 to 63 letters, digits, -, _ and ."
	TimeForm = "a time such as 30s, 10m, 1h or 7d"
)

const (
	prefixesForm = "addresses or prefixes of clients such as 10.0.0.0/8, or none"
	rateForm     = "a rate such as 100/second, or per minute, hour or day"
	logForm      = `true, false, or {prefix: "web ", level: info, rate: 10/second}`
	snatForm     = "masquerade, auto, none, vip, an address or a list of addresses"
	countForm    = "1 to 4294967295"
)

// key is a key of a mapping that becomes a T.
type key[T any] struct {
	word string
	Key
	// value is what the key says (see Value), and whether that holds without
	// the key, too.
	value func(*T) (value any, isDefault bool)
	// change is the value as a change names it. false: it cannot be seen from
	// outside, or another key's change names it. nil: the value as it is, but none
	// where it is hidden.
	change func(*T) (string, bool)
	// check is what is wrong with the value; nil where its type says it all.
	check func(*T) *Problem
	// hidden says that the kernel knows the value at times only, or never.
	hidden bool
	// ofFile says that it is a key of the file, which says it for all of its services.
	ofFile bool
}

// member is a backend with its service.
type member struct {
	*Backend
	service *Service
}

// unseen is for keys that a change does not name: who a service or backend is,
// and what other keys name with their own value.
func unseen[T any](*T) (string, bool) { return "", false }

var serviceKeys = []key[Service]{
	{
		word: "name", Key: Key{Values: NameForm, Default: "required", Meaning: "unique in the profile"},
		value:  func(s *Service) (any, bool) { return s.Name, false },
		change: unseen[Service],
		check:  func(s *Service) *Problem { return checkName("name", s.Name) },
	},
	{
		word: "listen", Key: Key{
			Values: "ADDRESS:PORTS, [IPV6]:PORTS, PREFIX:PORTS, :PORTS or a list of them", Default: "required",
			Meaning: "where clients connect to; ports are 80, 8000-8010, 80,443 or *; " +
				"a prefix takes traffic to any address in it; without an address: this host's own addresses",
		},
		value:  func(s *Service) (any, bool) { return texts(s.Listen), false },
		change: func(s *Service) (string, bool) { return destinations(s), true },
		check:  checkListens,
	},
	{
		word: "protocol", Key: Key{Values: "tcp, udp, sctp or a list of them", Default: "tcp", Meaning: "the transport protocols"},
		value:  func(s *Service) (any, bool) { return texts(s.Protocols), slices.Equal(s.Protocols, []Protocol{TCP}) },
		change: unseen[Service], // named with each listen
		check:  func(s *Service) *Problem { return checkSet("protocol", s.Protocols) },
	},
	{
		word: "interface", Key: Key{
			Values: "the name of an interface, or the beginning of names and *", Default: "any",
			Meaning: "only traffic that enters here",
		},
		value: func(s *Service) (any, bool) { return known(s.Interface), false },
		check: func(s *Service) *Problem {
			if s.Interface == "" {
				return nil
			}
			return CheckInterface(s.Interface)
		},
	},
	wordKey("role", roleWords, "whose traffic: the network's and this host's, only what this host sends, "+
		"or only what arrives for this host's own addresses", func(s *Service) *Role { return &s.Role }),
	wordKey("mode", modeWords, "how packets get to the backends: translated, with answers through this host, "+
		"or as they are, with answers past it, to the MAC address or by a tunnel", func(s *Service) *Mode { return &s.Mode }),
	{
		word: "remember", Key: Key{
			Values: "a time, 1s to 1d, or none", Default: "none",
			Meaning: "with mode: dsr or tunnel, flows keep their backend when backends change, until they have been silent for so long",
		},
		value: func(s *Service) (any, bool) { return spanValue(s.Remember), s.Remember == 0 },
		check: func(s *Service) *Problem { return CheckRemember(s.Remember) },
	},
	{
		word: "fleet", ofFile: true,
		value: func(s *Service) (any, bool) { return s.Fleet.String(), s.Fleet == FleetNone },
		check: func(s *Service) *Problem { return checkEnum("fleet", s.Fleet) },
	},
	wordKey("scheduler", schedulerWords, "how a new connection picks its backend: in turn, at random, by hash-by, "+
		"so that live connections are even, or by hash-by with few clients that move when backends come and go; all by weight",
		func(s *Service) *Scheduler { return &s.Scheduler }).
		named(func(s *Service) (string, bool) { return s.SchedulerText(), true }),
	{
		word: "hash-by", Key: Key{
			Values:  "a list of source-address, source-port, destination-address, destination-port, protocol",
			Default: "[source-address], with mode: dsr or tunnel [source-address, source-port]",
			Meaning: "what the schedulers hash and consistent look at",
		},
		value: func(s *Service) (any, bool) {
			if !s.Scheduler.Hashes() {
				return nil, true
			}
			return texts(s.HashBy), slices.Equal(s.HashBy, s.Mode.HashBy())
		},
		change: unseen[Service], // named with the scheduler
		check: func(s *Service) *Problem {
			if !s.Scheduler.Hashes() {
				return meaningless("hash-by", len(s.HashBy) > 0)
			}
			return checkSet("hash-by", s.HashBy)
		},
	},
	{
		word: "hash-seed", Key: Key{
			Values: "0 to 4294967295", Default: "fixed by the service's name",
			Meaning: "another seed, another choice of backends",
		},
		value: func(s *Service) (any, bool) {
			if !s.Scheduler.Hashes() {
				return nil, true
			}
			return s.HashSeed, s.HashSeed == DefaultSeed(s.Name)
		},
		change: func(s *Service) (string, bool) { return fmt.Sprint(s.HashSeed), s.Scheduler.Hashes() },
		check: func(s *Service) *Problem {
			return meaningless("hash-seed", s.HashSeed != 0 && !s.Scheduler.Hashes())
		},
	},
	{
		word: "affinity", Key: Key{
			Values: "a time such as 10m, {timeout: 10m, prefix: 24, prefix6: 64, group: web}, or none", Default: "none",
			Meaning: "a client, or its network, stays with its backend while it has an open connection, and until it has opened none for that long",
		},
		value:  func(s *Service) (any, bool) { return affinityValue(s.Affinity), s.Affinity == nil },
		change: func(s *Service) (string, bool) { return s.affinityText(), true },
		check:  func(s *Service) *Problem { return checkKeys(affinityKeys, s.Affinity) },
	},
	{
		word: "snat", Key: Key{
			Values: snatForm, Default: "masquerade, with mode: dsr or tunnel and balance: datagrams none",
			Meaning: "the source that the backends see: this host's address, the same by name where it is fixed, the client, the listen address, " +
				"or one of these addresses",
		},
		value: func(s *Service) (any, bool) {
			return Joined(s.SNAT.texts()), s.SNAT.Mode == s.source() && !s.SNAT.Auto
		},
		change: unseen[Service], // each backend names its own
		check:  func(s *Service) *Problem { return checkSNAT(s.SNAT) },
	},
	{
		word: "allow", Key: Key{Values: prefixesForm, Default: "none", Meaning: "the only clients that are served"},
		value:  func(s *Service) (any, bool) { return list(texts(s.Allow)), false },
		change: func(s *Service) (string, bool) { return listText(s.Allow), true },
		check:  func(s *Service) *Problem { return checkPrefixes("allow", s.Allow) },
	},
	{
		word: "deny", Key: Key{Values: prefixesForm, Default: "none", Meaning: "clients that are refused; wins over allow"},
		value:  func(s *Service) (any, bool) { return list(texts(s.Deny)), false },
		change: func(s *Service) (string, bool) { return listText(s.Deny), true },
		check:  func(s *Service) *Problem { return checkPrefixes("deny", s.Deny) },
	},
	{
		word: "limit", Key: Key{
			Values:  "{connections-per-source: 50, new-per-source: 100/second, burst: 200, new: 5000/second, prefix6: 64}, or none",
			Default: "none",
			Meaning: "what is over is refused",
		},
		value:  func(s *Service) (any, bool) { return mappingValue(limitKeys, s.Limit), s.Limit == Limit{} },
		change: func(s *Service) (string, bool) { return s.Limit.String(), true },
		check:  func(s *Service) *Problem { return checkKeys(limitKeys, &s.Limit) },
	},
	wordKey("on-refuse", onEmptyWords, "what a connection meets that allow, deny, limit or max-connections turns away",
		func(s *Service) *OnEmpty { return &s.OnRefuse }).unkept().
		named(func(s *Service) (string, bool) { return s.OnRefuse.String(), s.refuses() }),
	{
		word: "log", Key: Key{Values: logForm, Default: "none", Meaning: "new connections are written to the kernel log"},
		value:  func(s *Service) (any, bool) { return logValue(s.Log, s), s.Log == nil },
		change: func(s *Service) (string, bool) { return s.Log.String(), len(s.Backends) == 0 }, // each backend names its own
		check:  func(s *Service) *Problem { return checkKeys(logKeys, s.Log) },
	},
	{
		word: "on-empty", Key: Key{
			Values: "reject or drop", Default: "reject, with mode: dsr or tunnel drop",
			Meaning: "what a connection meets when no backend can take it",
		},
		value:  func(s *Service) (any, bool) { return s.OnEmpty.String(), s.OnEmpty == s.Mode.onEmpty() },
		change: func(s *Service) (string, bool) { return s.OnEmpty.String(), s.anyEmpty() },
		check:  func(s *Service) *Problem { return checkEnum("on-empty", s.OnEmpty) },
		hidden: true,
	},
	{
		word: "health", Key: Key{
			Values: "none, a kind (" + kindForm + "), {check: http, path: /ready}, or a list of at most 4 of them", Default: "none",
			Meaning: "how the backends are checked, by nlb run; of a list all must pass",
		},
		value:  func(s *Service) (any, bool) { return healthValue(s.Health), len(s.Health) == 0 },
		check:  checkHealth,
		hidden: true,
	},
	{
		word: "fail-open", Key: Key{
			Values: "all-down, none, or 1% to 100%", Default: "all-down",
			Meaning: "when health is ignored and all get connections: when no backend is up, never, or when less of the weight is up",
		},
		value:  func(s *Service) (any, bool) { return s.FailOpen.String(), s.FailOpen == 0 },
		check:  func(s *Service) *Problem { return checkRange("fail-open", int(s.FailOpen), int(NeverOpen), 100) },
		hidden: true,
	},
	{
		word: "min-up", Key: Key{
			Values: "1 to 1000, or 1% to 100%", Default: "1",
			Meaning: "with fewer backends up, those of the next priority join; a percentage is of the backends of priority 1",
		},
		value: func(s *Service) (any, bool) {
			if s.MinUp == (MinUp{}) {
				return nil, true
			}
			return s.MinUp.String(), false
		},
		check: func(s *Service) *Problem {
			if m := s.MinUp; m.Count < 0 || m.Count > MaxMinUp || m.Percent < 0 || m.Percent > 100 || m.Count > 0 && m.Percent > 0 {
				return &Problem{Msg: fmt.Sprintf("min-up %d or %d%% is out of range", m.Count, m.Percent)}
			}
			return nil
		},
		hidden: true,
	},
	wordKey("on-down", onDownWords, "what becomes of live TCP and SCTP connections of a backend that goes down; "+
		"its UDP flows and unanswered connections always move", func(s *Service) *OnDown { return &s.OnDown }).unkept(),
	{
		word: "slow-start", Key: Key{
			Values: "a time, 1s to 1h, or none", Default: "none",
			Meaning: "a backend that comes up gets its weight in steps over this time",
		},
		value:  func(s *Service) (any, bool) { return spanValue(s.SlowStart), s.SlowStart == 0 },
		check:  func(s *Service) *Problem { return CheckSlowStart(s.SlowStart) },
		hidden: true,
	},
	{
		word: "retry", Key: Key{
			Values: "true or false", Default: "false",
			Meaning: "a TCP backend that refuses is passed over for a moment, and the client that met it is balanced anew; needs no nlb run",
		},
		value: func(s *Service) (any, bool) { return s.Retry, !s.Retry },
	},
	{
		word: "timeouts", Key: Key{
			Values: "{established: 1h, half-open: 10s, udp: 5m}, or none", Default: "none",
			Meaning: "how long connections that are silent are remembered, where not as the kernel has it",
		},
		value: func(s *Service) (any, bool) { return mappingValue(timeoutKeys, s.Timeouts), s.Timeouts == Timeouts{} },
		check: func(s *Service) *Problem { return checkKeys(timeoutKeys, &s.Timeouts) },
	},
	synProtectionKey,
	wordKey("offload", offloadWords, "packets of live connections pass by all chains: never, where nothing speaks against it, "+
		"always, or in the network card", func(s *Service) *Offload { return &s.Offload }).
		named(func(s *Service) (string, bool) { return s.Offload.String(), len(s.Backends) > 0 }), // the table has it with the backends
	{
		word: "devices", Key: Key{
			Values: "the name of an interface, a list of them, or none", Default: "those of the routes to backends and clients",
			Meaning: "where packets are offloaded; both the clients' side and the backends'",
		},
		value:  func(s *Service) (any, bool) { return list(s.Devices), false },
		change: func(s *Service) (string, bool) { return strings.Join(s.Devices, ", "), true },
		check:  func(s *Service) *Problem { return checkNames("devices", s.Devices, CheckDevice) },
	},
	wordKey("helper", helperWords, "the protocol that the kernel reads, so that the connections which it announces are translated, too",
		func(s *Service) *Helper { return &s.Helper }),
	wordKey("balance", balanceWords, "what is balanced: connections, for UDP flows, or each datagram for itself, without answers",
		func(s *Service) *Balance { return &s.Balance }),
	wordKey("unserved", unservedWords, "what becomes of other traffic for the addresses that are listened on, which no service takes; "+
		"all: also where it came by the link that has the address", func(s *Service) *Unserved { return &s.Unserved }),
	wordKey("forward", forwardWords, "what this host forwards for others: whatever it is asked to, or, "+
		"where one service says so, balanced connections alone", func(s *Service) *Forward { return &s.Forward }),
	{
		word: "random-ports", Key: Key{
			Values: "true or false", Default: "false",
			Meaning: "where snat changes the source, its port is one at random; false: the client's, where that is free",
		},
		value: func(s *Service) (any, bool) { return s.RandomPorts, !s.RandomPorts },
	},
}

// Keys are the keys of services and backends, and of the mappings in them, the
// outermost first.
func Keys() []Key {
	return slices.Concat(described(serviceKeys), []Key{backendsKey}, described(backendKeys),
		described(affinityKeys), described(limitKeys), described(logKeys), described(timeoutKeys), described(synKeys), described(healthKeys))
}

func described[T any](keys []key[T]) []Key {
	out := make([]Key, 0, len(keys))
	for i := range keys {
		if !keys[i].ofFile {
			out = append(out, keys[i].Key)
		}
	}
	return out
}

func init() {
	enroll("service", serviceKeys)
	enroll("backend", backendKeys)
	enroll("affinity", affinityKeys)
	enroll("limit", limitKeys)
	enroll("log", logKeys)
	enroll("timeouts", timeoutKeys)
	enroll("syn-protection", synKeys)
	enroll("health", healthKeys)
}

// enroll gives the keys of a mapping their paths, and hides those from changes that
// the kernel does not keep.
func enroll[T any](mapping string, keys []key[T]) {
	for i := range keys {
		k := &keys[i]
		k.Path = mapping + "." + k.word
		if k.hidden && k.change == nil {
			k.change = unseen[T]
		}
	}
}
