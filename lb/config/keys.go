package config

// The keys of a profile: how each is read. What is said about them, and what they
// say of a service, is in lb; a test finds those that nobody reads.

import (
	"slices"

	"nlb/lb"
)

var topKeys = table[top]{what: "the profile", keys: []key[top]{
	{word: "profile", Key: lb.Key{
		Values: lb.NameForm, Default: "the file's name without its ending",
		Meaning: "the name of the profile",
	}, read: readProfileName},
	{word: "services", Key: lb.Key{
		Values: "a list of services", Default: "required",
		Meaning: "what clients connect to",
	}, read: func(_ *decoder, _ *lb.Key, v *node, t *top) { t.services = v }},
	{word: "defaults", Key: lb.Key{
		Values: "a mapping with keys of a service but name and listen", Default: "none",
		Meaning: "what holds for services that do not say otherwise",
	}, read: func(_ *decoder, _ *lb.Key, v *node, t *top) { t.defaults = v }},
	{word: "sysctl", Key: lb.Key{
		Values: "auto or keep", Default: "auto",
		Meaning: "kernel parameters that the profile needs: nlb turns them on, or refuses where one is missing",
	}, read: func(d *decoder, k *lb.Key, v *node, t *top) { readWord(d, k, v, &t.Sysctl) }},
	{word: "announce", Key: lb.Key{
		Values: "the name of a dummy device, {interface: nlb0, delay: 10s, drain: 5s}, or none", Default: "none",
		Meaning: "nlb run gives this host the addresses of listen while somebody is there to serve, for routing daemons to announce",
	}, read: readAnnounce},
	{word: "fleet", Key: lb.Key{
		Values: "none, pair, anycast or mesh", Default: "none",
		Meaning: "what several balancers share that serve the same addresses: nothing, for there is one; connections, and one of two serves; the profile alone; connections, and all serve",
	}, read: func(d *decoder, k *lb.Key, v *node, t *top) { readWord(d, k, v, &t.fleet) }},
}}

var serviceKeys = table[draft]{of: "service", what: "a service", keys: []key[draft]{
	{word: "name", read: readServiceName},
	{word: "listen", read: readListens},
	{word: "protocol", read: readProtocols},
	{word: "interface", read: readInterface},
	{word: "role", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		if readWord(d, k, v, &s.Role) {
			s.at.role = v
		}
	}},
	wordKey("mode", func(s *draft) (*lb.Mode, **node) { return &s.Mode, &s.at.mode }),
	{word: "remember", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		s.at.remember = v
		readOptionalSpan(d, k, v, &s.Remember, lb.CheckRemember)
	}},
	{word: "scheduler", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		s.at.scheduler, s.badScheduler = v, !readWord(d, k, v, &s.Scheduler)
	}},
	{word: "hash-by", read: readHashBy},
	{word: "hash-seed", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		if n, ok := readNumber(d, k, v, 0, 1<<32-1); ok {
			s.HashSeed, s.at.hashSeed = uint32(n), v
		}
	}},
	{word: "affinity", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		readAffinity(d, k, v, s)
		s.at.affinity = v
	}},
	{word: "snat", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		s.at.snat, s.badSNAT = v, !readSNAT(d, k, v, &s.SNAT)
	}},
	{word: "allow", read: func(d *decoder, k *lb.Key, v *node, s *draft) { s.at.allow = readPrefixes(d, k, v, &s.Allow) }},
	{word: "deny", read: func(d *decoder, k *lb.Key, v *node, s *draft) { s.at.deny = readPrefixes(d, k, v, &s.Deny) }},
	{word: "limit", read: readLimit},
	{word: "on-refuse", read: func(d *decoder, k *lb.Key, v *node, s *draft) { readWord(d, k, v, &s.OnRefuse) }},
	{word: "log", read: func(d *decoder, k *lb.Key, v *node, s *draft) { readLog(d, k, v, &s.Log) }},
	wordKey("on-empty", func(s *draft) (*lb.OnEmpty, **node) { return &s.OnEmpty, &s.at.onEmpty }),
	{word: "health", read: readHealth},
	{word: "fail-open", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		readOne(d, k, v, func(text string) error { return s.FailOpen.UnmarshalText([]byte(text)) }, s.FailOpen.Words)
		s.at.failOpen = v
	}},
	{word: "min-up", read: readMinUp},
	wordKey("on-down", func(s *draft) (*lb.OnDown, **node) { return &s.OnDown, &s.at.onDown }),
	{word: "slow-start", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		s.at.slowStart = v
		readOptionalSpan(d, k, v, &s.SlowStart, lb.CheckSlowStart)
	}},
	{word: "retry", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		readBool(d, k, v, &s.Retry)
		s.at.retry = v
	}},
	{word: "timeouts", read: readTimeouts},
	{word: "syn-protection", read: readSYNProtection},
	wordKey("offload", func(s *draft) (*lb.Offload, **node) { return &s.Offload, &s.at.offload }),
	{word: "devices", read: readDevices},
	wordKey("helper", func(s *draft) (*lb.Helper, **node) { return &s.Helper, &s.at.helper }),
	wordKey("balance", func(s *draft) (*lb.Balance, **node) { return &s.Balance, &s.at.balance }),
	wordKey("unserved", func(s *draft) (*lb.Unserved, **node) { return &s.Unserved, &s.at.unserved }),
	{word: "random-ports", read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		readBool(d, k, v, &s.RandomPorts)
		s.at.randomPorts = v
	}},
	{word: "forward", read: func(d *decoder, k *lb.Key, v *node, s *draft) { readWord(d, k, v, &s.Forward) }},
	{word: "backends", read: readBackends},
}}

// wordKey is a key that is a word and nothing else, with where its value and its place go.
func wordKey[E lb.Enum](word string, of func(*draft) (*E, **node)) key[draft] {
	return key[draft]{word: word, read: func(d *decoder, k *lb.Key, v *node, s *draft) {
		into, at := of(s)
		readWord(d, k, v, into)
		*at = v
	}}
}

// defaultKeys are those of a service that can hold for all.
var defaultKeys = table[draft]{what: "defaults"}

var backendKeys = table[backendDraft]{of: "backend", what: "a backend", keys: []key[backendDraft]{
	{word: "address", read: readBackendAddress},
	{word: "name", read: readBackendName},
	{word: "weight", read: readWeight},
	{word: "priority", read: func(d *decoder, k *lb.Key, v *node, b *backendDraft) {
		readInt(d, k, v, 1, lb.MaxPriority, &b.Priority)
		b.priority = v
	}},
	{word: "check-at", read: readCheckAt},
	{word: "max-connections", read: readMaxConnections},
	{word: "snat", read: func(d *decoder, k *lb.Key, v *node, b *backendDraft) {
		if readSNAT(d, k, v, &b.SNAT) {
			b.snat = v
		}
	}},
	{word: "log", read: func(d *decoder, k *lb.Key, v *node, b *backendDraft) {
		readLog(d, k, v, &b.Log)
		b.log = v
	}},
}}

var affinityKeys = table[lb.Affinity]{of: "affinity", what: "affinity", keys: []key[lb.Affinity]{
	{word: "timeout", read: readTimeout},
	{word: "prefix", read: func(d *decoder, k *lb.Key, v *node, a *lb.Affinity) { readInt(d, k, v, 1, 32, &a.Bits) }},
	{word: "prefix6", read: func(d *decoder, k *lb.Key, v *node, a *lb.Affinity) { readInt(d, k, v, 1, 128, &a.Bits6) }},
	{word: "group", read: func(d *decoder, k *lb.Key, v *node, a *lb.Affinity) {
		a.Group, _ = readName(d, k, v)
		a.Pos = d.pos(v)
	}},
}}

var limitKeys = table[limitDraft]{of: "limit", what: "limit", keys: []key[limitDraft]{
	{word: "connections-per-source", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) {
		readInt(d, k, v, 1, 1<<32-1, &l.ConnectionsPerSource)
	}},
	{word: "new-per-source", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) {
		l.NewPerSource = readRate(d, k, v)
		l.newPerSource = v
	}},
	{word: "burst", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) {
		readInt(d, k, v, 1, 1<<32-1, &l.Burst)
		l.burst = v
	}},
	{word: "new", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) { l.New = readRate(d, k, v) }},
	{word: "half-open", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) { readInt(d, k, v, 1, lb.MaxHalfOpen, &l.HalfOpen) }},
	{word: "prefix", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) {
		l.prefix = v
		readBits(d, k, v, 32, &l.Bits)
	}},
	{word: "prefix6", read: func(d *decoder, k *lb.Key, v *node, l *limitDraft) {
		l.prefix6 = v
		readBits(d, k, v, 128, &l.Bits6)
	}},
}}

var logKeys = table[lb.Log]{of: "log", what: "log", keys: []key[lb.Log]{
	{word: "prefix", read: readLogPrefix},
	{word: "level", read: func(d *decoder, k *lb.Key, v *node, l *lb.Log) { readWord(d, k, v, &l.Level) }},
	{word: "rate", read: func(d *decoder, k *lb.Key, v *node, l *lb.Log) { l.Rate = readRate(d, k, v) }},
}}

var timeoutKeys = table[lb.Timeouts]{of: "timeouts", what: "timeouts", keys: []key[lb.Timeouts]{
	{word: "established", read: readTimeoutOf},
	{word: "close-wait", read: readTimeoutOf},
	{word: "half-open", read: readTimeoutOf},
	{word: "time-wait", read: readTimeoutOf},
	{word: "udp", read: readTimeoutOf},
	{word: "udp-idle", read: readTimeoutOf},
}}

var synKeys = table[lb.SYNProtection]{of: "syn-protection", what: "syn-protection", keys: []key[lb.SYNProtection]{
	{word: "mss", read: func(d *decoder, k *lb.Key, v *node, p *lb.SYNProtection) { readInt(d, k, v, 536, 8960, &p.MSS) }},
	{word: "window-scale", read: func(d *decoder, k *lb.Key, v *node, p *lb.SYNProtection) { readInt(d, k, v, 0, 14, &p.WindowScale) }},
}}

var announceKeys = table[lb.Announce]{what: "announce", keys: []key[lb.Announce]{
	{word: "interface", Key: lb.Key{
		Path: "announce.interface", Values: "the name of a dummy device, or lo", Default: lb.AnnounceDefault.Interface,
		Meaning: "what has the addresses; nlb run makes the device, and takes lo where the kernel has none of this kind",
	}, read: readDevice},
	{word: "delay", Key: lb.Key{
		Path: "announce.delay", Values: "a time, 100ms to 1h, or none", Default: "10s",
		Meaning: "so long somebody must have been there to serve before an address is announced",
	}, read: func(d *decoder, k *lb.Key, v *node, a *lb.Announce) {
		readOptionalSpan(d, k, v, &a.Delay, lb.CheckDelay)
	}},
	{word: "drain", Key: lb.Key{
		Path: "announce.drain", Values: "a time, 100ms to 1m, or none", Default: "5s",
		Meaning: "so long nlb run stays when it is told to end, after it has taken the addresses away",
	}, read: func(d *decoder, k *lb.Key, v *node, a *lb.Announce) {
		readOptionalSpan(d, k, v, &a.Drain, lb.CheckDrain)
	}},
	{word: "track", Key: lb.Key{
		Path: "announce.track", Values: "the name of an interface, a list of them, or none", Default: "none",
		Meaning: "interfaces that have to be up, all of them, for an address to be announced",
	}, read: func(d *decoder, k *lb.Key, v *node, a *lb.Announce) {
		a.Track = readInterfaces(d, k, v, lb.CheckTracked)
	}},
}}

// Reference returns all keys that a profile may have, the outermost first.
func Reference() []lb.Key {
	var out []lb.Key
	for _, k := range topKeys.keys {
		out = append(out, k.Key)
	}
	out = append(out, lb.Keys()...)
	for _, k := range announceKeys.keys {
		out = append(out, k.Key)
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
	timeoutKeys.enroll()
	synKeys.enroll()
	healthKeys.enroll()
	for _, k := range serviceKeys.keys {
		if k.word != "name" && k.word != "listen" {
			defaultKeys.keys = append(defaultKeys.keys, k)
		}
	}
}

// enroll gives the keys of a table their paths, and what lb says of them.
func (t *table[T]) enroll() {
	known := lb.Keys()
	for i := range t.keys {
		k := &t.keys[i]
		k.Path = k.word
		if t.of != "" {
			path := t.of + "." + k.word
			at := slices.IndexFunc(known, func(k lb.Key) bool { return k.Path == path })
			if at < 0 {
				panic("lb/keys.go has no entry for " + path)
			}
			k.Key = known[at]
		}
		if _, ok := keyOwner[k.word]; !ok {
			keyOwner[k.word] = t.what
		}
	}
}
