package lb

// The keys of health: what they say of a check, and which values they take.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nlb/lb/internal/safe"
)

const kindForm = "tcp, tls, http, https, grpc, dns, udp, icmp, exec or agent"

// keyKinds are the kinds that a key of health has a meaning for; a key that is not
// here has one for all.
var keyKinds = map[string][]CheckKind{
	"port":    {CheckTCP, CheckTLS, CheckHTTP, CheckHTTPS, CheckGRPC, CheckDNS, CheckUDP, CheckAgent},
	"passive": {CheckTCP, CheckTLS, CheckHTTP, CheckHTTPS, CheckGRPC},
	"source":  {CheckTCP, CheckTLS, CheckHTTP, CheckHTTPS, CheckGRPC, CheckDNS, CheckUDP, CheckICMP, CheckAgent},
	"path":    {CheckHTTP, CheckHTTPS},
	"host":    {CheckTLS, CheckHTTP, CheckHTTPS, CheckGRPC},
	"status":  {CheckHTTP, CheckHTTPS},
	"body":    {CheckHTTP, CheckHTTPS},
	"verify":  {CheckTLS, CheckHTTPS, CheckGRPC},
	"send":    {CheckTCP, CheckUDP},
	"expect":  {CheckTCP, CheckUDP},
	"query":   {CheckDNS},
	"type":    {CheckDNS},
	"service": {CheckGRPC},
	"tls":     {CheckGRPC},
	"command": {CheckExec},
}

// Takes reports whether a key of health has a meaning for a check of the kind.
func (k CheckKind) Takes(word string) bool {
	kinds, some := keyKinds[word]
	return !some || slices.Contains(kinds, k)
}

// Refusal is what is wrong with a key of health that has no meaning for a check of
// the kind.
func (k CheckKind) Refusal(word string) *Problem {
	p := &Problem{Msg: fmt.Sprintf("%s has no meaning with check: %s", word, k), Want: "it with " + safe.OneOf(texts(keyKinds[word]))}
	if word == "port" && k == CheckICMP {
		p.Hint = "a ping has no port"
	}
	if word == "port" && k == CheckExec {
		p.Hint = "the command has NLB_PORT in its environment"
	}
	return p
}

// What a check does where its keys do not say.
const (
	defaultInterval = 2 * time.Second
	defaultTimeout  = time.Second // or the interval, where that is less
	defaultRise     = 2
	defaultFall     = 3
)

// DefaultCheck is a check of a kind that says nothing else.
func DefaultCheck(k CheckKind) Check {
	c := Check{Kind: k, Interval: defaultInterval, Rise: defaultRise, Fall: defaultFall, Passive: k.Takes("passive")}
	c.Timeout = c.DefaultTimeout()
	if k.Takes("path") {
		c.Path, c.Status = "/", defaultStatus()
	}
	if k.Takes("query") {
		c.Query, c.QueryType = ".", "SOA"
	}
	return c
}

// DefaultTimeout is the timeout of a check that does not say.
func (c *Check) DefaultTimeout() time.Duration { return min(defaultTimeout, c.Interval) }

func defaultStatus() []StatusRange { return []StatusRange{{200, 399}} }

var queryTypes = []string{"A", "AAAA", "NS", "SOA", "TXT"}

var healthKeys = []key[Check]{
	{
		word: "check", Key: Key{Values: kindForm, Default: "required", Meaning: "what a check does"},
		value: func(c *Check) (any, bool) { return c.Kind.String(), false },
		check: func(c *Check) *Problem { return checkEnum("check", c.Kind) },
	},
	{
		word: "port", Key: Key{
			Values: "1 to 65535", Default: "the backend's; required for agent",
			Meaning: "the port that is asked; not of icmp and exec",
		},
		value: func(c *Check) (any, bool) { return known(int(c.Port)), false },
		check: func(c *Check) *Problem {
			if c.Kind == CheckAgent && c.Port == 0 {
				return &Problem{Msg: "check: agent has no port", Want: "port beside it", Hint: "an agent answers on a port of its own"}
			}
			return nil
		},
	},
	{
		word: "interval", Key: Key{
			Values: "100ms to 1h", Default: "2s",
			Meaning: "from the beginning of one check to that of the next",
		},
		value: func(c *Check) (any, bool) { return spanText(c.Interval), c.Interval == defaultInterval },
		check: func(c *Check) *Problem { return checkSpan("interval", c.Interval, 100*time.Millisecond, time.Hour) },
	},
	{
		word: "timeout", Key: Key{
			Values: "10ms to interval", Default: "the smaller of 1s and interval",
			Meaning: "the deadline of a whole check",
		},
		value: func(c *Check) (any, bool) { return spanText(c.Timeout), c.Timeout == c.DefaultTimeout() },
		check: func(c *Check) *Problem {
			if bad := checkSpan("timeout", c.Timeout, 10*time.Millisecond, time.Hour); bad != nil {
				return bad
			}
			if c.Timeout > c.Interval {
				return &Problem{
					Msg:  fmt.Sprintf("timeout %s is above the interval of %s", spanText(c.Timeout), spanText(c.Interval)),
					Want: "10ms to " + spanText(c.Interval), Hint: "a check ends before the next one begins",
				}
			}
			return nil
		},
	},
	{
		word: "rise", Key: Key{Values: "1 to 100", Default: "2", Meaning: "so many good checks in a row bring a backend up"},
		value: func(c *Check) (any, bool) { return c.Rise, c.Rise == defaultRise },
		check: func(c *Check) *Problem { return checkRange("rise", c.Rise, 1, 100) },
	},
	{
		word: "fall", Key: Key{Values: "1 to 100", Default: "3", Meaning: "so many bad checks in a row bring a backend down"},
		value: func(c *Check) (any, bool) { return c.Fall, c.Fall == defaultFall },
		check: func(c *Check) *Problem { return checkRange("fall", c.Fall, 1, 100) },
	},
	{
		word: "passive", Key: Key{
			Values: "true or false", Default: "true",
			Meaning: "a refusal that the kernel saw causes a check at once; of tcp, tls, http, https and grpc",
		},
		value: func(c *Check) (any, bool) {
			if !c.Kind.Takes("passive") {
				return known(c.Passive), false
			}
			return c.Passive, c.Passive
		},
	},
	{
		word: "source", Key: Key{
			Values: "an address of this host", Default: "as routed",
			Meaning: "where checks of backends of its family come from; not of exec",
		},
		value: func(c *Check) (any, bool) {
			if !c.Source.IsValid() {
				return nil, true
			}
			return c.Source.String(), false
		},
		check: func(c *Check) *Problem {
			if !c.Source.IsValid() {
				return nil
			}
			return checkAddr("source", c.Source)
		},
	},
	{
		word: "path", Key: Key{Values: "a path such as /ready", Default: "/", Meaning: "what is asked for; of http and https"},
		value: func(c *Check) (any, bool) { return known(c.Path), c.Path == "/" },
		check: func(c *Check) *Problem {
			if c.Kind.Takes("path") && !strings.HasPrefix(c.Path, "/") {
				return &Problem{Msg: "path " + safe.Show(c.Path) + " does not begin with /"}
			}
			return checkWordLike("path", c.Path)
		},
	},
	{
		word: "host", Key: Key{
			Values: "a name, or an address", Default: "the address",
			Meaning: "the header Host, and the name for SNI and verification; of tls, http, https and grpc",
		},
		value: func(c *Check) (any, bool) { return known(c.Host), false },
		check: func(c *Check) *Problem {
			strange := func(r rune) bool { return !safe.NameRune(r) && !strings.ContainsRune(":[]", r) }
			if strings.ContainsFunc(c.Host, strange) || len(c.Host) > 255 {
				return &Problem{Msg: "host " + safe.Show(c.Host) + " cannot be a name", Want: "letters, digits, -, _, . and :, at most 255"}
			}
			return nil
		},
	},
	{
		word: "status", Key: Key{
			Values: "numbers and ranges such as 200-399,401", Default: "200-399",
			Meaning: "the answers that pass; redirects are not followed; of http and https",
		},
		value: func(c *Check) (any, bool) {
			return known(strings.Join(texts(c.Status), ",")), slices.Equal(c.Status, defaultStatus())
		},
		check: func(c *Check) *Problem { return checkStatus(c) },
	},
	{
		word: "body", Key: Key{Values: "a text", Default: "none", Meaning: "what the first 64 KiB of the answer must have; of http and https"},
		value: func(c *Check) (any, bool) { return known(c.Body), false },
		check: func(c *Check) *Problem { return checkText("body", c.Body) },
	},
	{
		word: "verify", Key: Key{
			Values: "none, system, or /FILE with CA certificates", Default: "none",
			Meaning: "how the certificate is verified; of tls, https and grpc",
		},
		value: func(c *Check) (any, bool) { return known(c.Verify), false },
		check: func(c *Check) *Problem {
			switch {
			case c.Verify == "":
				return nil
			case c.Verify != "system" && !strings.HasPrefix(c.Verify, "/"):
				return &Problem{Msg: "verify " + safe.Show(c.Verify) + " is no word for it, and no whole path of a file"}
			case c.Kind == CheckGRPC && !c.TLS:
				return &Problem{Msg: "verify has no meaning without tls: true", Want: "tls: true beside it"}
			}
			return checkText("verify", c.Verify)
		},
	},
	{
		word: "send", Key: Key{
			Values: textForm, Default: "none; required for udp",
			Meaning: "what is sent first; of tcp and udp",
		},
		value: func(c *Check) (any, bool) { return known(escape(c.Send)), false },
		check: func(c *Check) *Problem {
			if c.Kind == CheckUDP && c.Send == "" {
				return &Problem{Msg: "check: udp has no send", Want: "send beside it", Hint: "a server answers only what it was asked"}
			}
			return checkLength("send", c.Send)
		},
	},
	{
		word: "expect", Key: Key{
			Values: textForm, Default: "any answer, of tcp none",
			Meaning: "what the answer must have; of tcp and udp",
		},
		value: func(c *Check) (any, bool) { return known(escape(c.Expect)), false },
		check: func(c *Check) *Problem { return checkLength("expect", c.Expect) },
	},
	{
		word: "query", Key: Key{Values: "a name of the DNS", Default: ". (the root)", Meaning: "what is asked; of dns"},
		value: func(c *Check) (any, bool) { return known(c.Query), c.Query == "." },
		check: func(c *Check) *Problem {
			if c.Kind.Takes("query") && !domainName(c.Query) {
				return &Problem{Msg: "query " + safe.Show(c.Query) + " cannot be a name", Want: "labels of at most 63 letters, digits, - and _, or ."}
			}
			return nil
		},
	},
	{
		word: "type", Key: Key{
			Values: "A, AAAA, NS, SOA or TXT", Default: "SOA",
			Meaning: "the type that is asked for; NOERROR passes; of dns",
		},
		value: func(c *Check) (any, bool) { return known(c.QueryType), c.QueryType == "SOA" },
		check: func(c *Check) *Problem {
			if c.Kind.Takes("type") && !slices.Contains(queryTypes, c.QueryType) {
				return &Problem{Msg: "unknown type " + safe.Show(c.QueryType)}
			}
			return nil
		},
	},
	{
		word: "service", Key: Key{Values: "a name", Default: "the whole server", Meaning: "the service that grpc.health.v1 is asked about; of grpc"},
		value: func(c *Check) (any, bool) { return known(c.Service), false },
		check: func(c *Check) *Problem { return checkWordLike("service", c.Service) },
	},
	{
		word: "tls", Key: Key{Values: "true or false", Default: "false", Meaning: "over TLS; of grpc"},
		value: func(c *Check) (any, bool) { return known(c.TLS), false },
	},
	{
		word: "command", Key: Key{
			Values: "a list: a program and its arguments", Default: "required for exec",
			Meaning: "what is run; exit 0 is up, the first line of stdout is the reason; of exec",
		},
		value: func(c *Check) (any, bool) { return list(c.Command), false },
		check: checkCommand,
	},
}

const textForm = `a text with \r, \n, \xNN and \\, at most 1024 bytes`

// Problems yields what is wrong with the check, with the key that is to be blamed.
func (c *Check) Problems(yield func(word string, p *Problem) bool) {
	for i := range healthKeys {
		k := &healthKeys[i]
		value, _ := k.value(c)
		var bad *Problem
		switch {
		case !c.Kind.Takes(k.word):
			if value != nil {
				bad = c.Kind.Refusal(k.word)
			}
		case k.check != nil:
			bad = k.check(c)
		}
		if bad == nil {
			continue
		}
		bad.Want = cmp.Or(bad.Want, k.Values)
		if !yield(k.word, bad) {
			return
		}
	}
}

func checkHealth(s *Service) *Problem {
	if len(s.Health) > MaxChecks {
		return &Problem{Msg: fmt.Sprintf("health has %d checks", len(s.Health)), Want: fmt.Sprintf("at most %d", MaxChecks)}
	}
	for i := range s.Health {
		for _, bad := range s.Health[i].Problems {
			return bad
		}
	}
	return nil
}

// checkText is what is wrong with a text that people can read.
func checkText(word, s string) *Problem {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return &Problem{Msg: word + " " + safe.Show(s) + " has a character that cannot be seen"}
	}
	return checkLength(word, s)
}

// checkWordLike is what is wrong with a text without spaces, in ASCII.
func checkWordLike(word, s string) *Problem {
	if !safe.Printable(s) || strings.Contains(s, " ") {
		return &Problem{Msg: word + " " + safe.Show(s) + " has a character that it cannot have", Want: "printable ASCII without spaces"}
	}
	return checkLength(word, s)
}

func checkLength(word, s string) *Problem {
	if len(s) > MaxCheckText {
		return &Problem{Msg: fmt.Sprintf("%s has %d bytes", word, len(s)), Want: fmt.Sprintf("at most %d", MaxCheckText)}
	}
	return nil
}

// domainName reports whether s can be asked for in the DNS (RFC 1035, 2.3.4), in
// the characters that names of hosts and services have.
func domainName(s string) bool {
	if s == "." {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return !safe.NameRune(r) }) {
			return false
		}
	}
	return len(s) <= 253
}

// healthValue is one check, or several; the short form of one is its kind.
func healthValue(checks []Check) any {
	all := make([]Mapping, len(checks))
	for i := range checks {
		all[i] = Mapping{Values: valuesOf(healthKeys, &checks[i])}
		if allDefault(all[i].Values[1:]) {
			all[i].Short = checks[i].Kind.String()
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return Mappings(all)
}
