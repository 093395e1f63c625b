package lb

// The keys of affinity, limit and log, which are mappings of their own.

// affinityKeys leave out the length of networks of a family that the kernel has
// no affinity for: there it is 0.
var affinityKeys = []key[Affinity]{
	{
		word: "timeout", Key: Key{
			Values: TimeForm, Default: "required",
			Meaning: "ends the affinity of a client that has opened no new connection for that long",
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
		check: func(l *Log) *Problem { return checkEnum("level", l.Level, LogLevel(len(levelWords)-1)) },
	},
	{
		word: "rate", Key: Key{Values: rateForm, Default: "none", Meaning: "lines at most"},
		value: func(l *Log) (any, bool) { return known(l.Rate.String()), false },
		check: func(l *Log) *Problem { return checkRate("rate", l.Rate) },
	},
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
