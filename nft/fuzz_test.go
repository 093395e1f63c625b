package nft

// Hostile input: a kernel that holds anything (a table that somebody has
// changed by hand, too), and profiles whose names, comments and log prefixes
// would be statements if they could.

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// profiles of which the fuzzers make others.
var fuzzProfiles = []string{
	`profile: shop
services:
  - {name: web, listen: ["203.0.113.10:80,443,8000-8010", "[2001:db8::10]:80"], protocol: [tcp, udp], backends: ["10.0.0.11:8080", {address: "10.0.0.12:8080", weight: 2, name: two}, {address: "10.0.0.13:8080", weight: 0}, "[fd00::1]:80"]}
`,
	`profile: 0shop
services:
  - {name: -web, listen: "203.0.113.0/24:80", interface: eth0, snat: [192.0.2.1, 192.0.2.2], affinity: 10m, backends: ["10.0.0.11", {address: "10.0.0.12", max-connections: 7}]}
  - {name: all, listen: "203.0.113.0/28:*", backends: []}
`,
	`profile: p
services:
  - {name: a, listen: ":80", role: server, snat: vip, scheduler: hash, hash-by: [source-address, source-port], allow: [10.0.0.0/8, "fd00::/8"], deny: 10.1.0.0/16, log: {prefix: "a: ", rate: 10/second}, backends: ["10.0.0.11:80", "[fd00::1]:80"]}
  - {name: b, listen: "203.0.113.9:1-9", snat: none, scheduler: random, limit: {new: 5/second, new-per-source: 3/minute, connections-per-source: 4}, backends: ["10.0.0.11:80"]}
  - {name: c, listen: "203.0.113.8:80", on-empty: drop, backends: []}
`,
}

func fuzzProfile(tb testing.TB, i int) *lb.Profile {
	tb.Helper()
	p, err := config.Parse("fuzz.yaml", []byte(fuzzProfiles[i]))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// FuzzLoad: a kernel whose objects are any messages. It is read and planned
// for, or refused, and nothing grows beyond what is there.
func FuzzLoad(f *testing.F) {
	f.Add([]byte{})
	for i := range fuzzProfiles {
		profiles := []*lb.Profile{fuzzProfile(f, i)}
		p, _, err := planFor(newState("nlb", emptyObjects()), profiles, Options{
			Table: "nlb", Record: true, Params: []Param{{"net.ipv4.ip_forward", "0"}},
		}, func() request { return requestOf(profiles, Options{}) })
		if err != nil {
			f.Fatal(err)
		}
		b := wire.NewBatch(1)
		encode(&ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: p.table, List: ruleset.MaxList}, p.ops())
		f.Add(slices.Clone(b.Bytes()))
	}
	wanted := []*lb.Profile{fuzzProfile(f, 0)}
	fewer := []*lb.Profile{fuzzProfile(f, 0)}
	fewer[0].Services[0].Backends = fewer[0].Services[0].Backends[:2]
	f.Fuzz(func(t *testing.T, messages []byte) {
		c := wire.NewConn(wiretest.Kernel(messages))
		_, _ = Tables(c)
		_, _ = ReadUsage(c)
		census, _ := ReadUsage(c)
		_, _ = conntrack.ReadStats(c)
		s, err := Load(c, "nlb")
		if err != nil {
			return
		}
		_ = Orphans(census, s)
		_ = s.Params()
		if drift := s.Drift(); len(drift) > len(messages) {
			t.Errorf("%d differences in %d bytes", len(drift), len(messages))
		}
		mend := func(s *State, profiles []*lb.Profile, o Options, now func() request) {
			p, _, err := planFor(s, profiles, o, now)
			if err != nil {
				return
			}
			_ = newCleanup(s, p, o)
			_ = p.String()
			b := wire.NewBatch(1)
			encode(&ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: p.table, List: ruleset.MaxList}, p.ops())
			if b.Size() > 1<<16+64*len(messages) {
				t.Errorf("%d bytes to mend %d", b.Size(), len(messages))
			}
		}
		none := func() request { return request{} }
		mend(s, wanted, Options{Table: "nlb", Record: true}, none)
		mend(s, wanted, Options{Table: "nlb", Prune: true}, none)
		applied, err := readSet(c, ruleset.Inet, "nlb", compile.NewRecordSet())
		if err != nil {
			return
		}
		o, now := Options{Table: "nlb", Record: true}, func() request { return requestOf(fewer, Options{}) }
		last := &memory{record: decodeRecord(applied), elements: applied, sweeps: true}
		_, _ = last.upToDate(c, o, now)
		if have, part := last.loadChanged(c, fewer, o, now); have != nil {
			mend(have, part, o, now)
		}
	})
}

// smuggled are texts that would be something else to nft, if they came that far.
var smuggled = []string{
	`x" drop "`, `x" comment "y`, "x; flush ruleset", "x }\nflush ruleset\n", "x\n}", "x # y", `x\`, `x\"`, "$x", "@slots", "include", "x,y", "x y", "{", "}", "\x00", "\x1b[2J", "é", "*", "-x", "",
	"goto", "x/y", "x.y_z-1", "slots", "prerouting", "name", "weight 3", "retired", strings.Repeat("x", 63), strings.Repeat("x", 200),
}

// FuzzRender: a profile that is accepted gives a script of the statements that
// were compiled, and of nothing else, whatever the texts in it are.
func FuzzRender(f *testing.F) {
	f.Add("shop", "web", "one", "eth0", "web: ", "203.0.113.10:80")
	for _, s := range smuggled {
		f.Add(s, "web", "one", "eth0", "web: ", "203.0.113.10:80")
		f.Add("shop", s, "one", "eth0", "web: ", "203.0.113.0/24:80")
		f.Add("shop", "web", s, "eth0", "web: ", ":80")
		f.Add("shop", "web", "one", s, "web: ", "203.0.113.10:*")
		f.Add("shop", "web", "one", "eth0", s, "203.0.113.10:80-90")
		f.Add("shop", "web", "one", "eth0", "web: ", s)
	}
	f.Fuzz(func(t *testing.T, profile, service, backend, link, prefix, listen string) {
		text := fmt.Appendf(nil, "profile: %s\nservices:\n"+
			"  - {name: %s, listen: %s, interface: %s, log: {prefix: %s}, affinity: 1m, deny: 10.0.0.0/8, backends: [{address: \"10.0.0.2:80\", name: %s, max-connections: 1}]}\n",
			yamlText(profile), yamlText(service), yamlText(listen), yamlText(link), yamlText(prefix), yamlText(backend))
		p, err := config.Parse("fuzz.yaml", text)
		if err != nil {
			return
		}
		r := compile.Profiles("nlb", []*lb.Profile{p})
		if err := sound(r); err != nil {
			t.Errorf("%v in\n%s", err, r)
		}
	})
}

// yamlText is a text as YAML writes it in quotes: JSON is a part of YAML.
func yamlText(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

var (
	// What is in quotes, as nft reads it: it knows no escapes.
	quoted = regexp.MustCompile(`"[^"\n]*"`)
	// What stands before a quote.
	beforeQuote = regexp.MustCompile(`(^|[ ,])(comment |prefix |iifname |)$`)
	inQuotes    = regexp.MustCompile(`^"[ !#-\[\]-~]{0,128}"$`)
	// Everything else, but for what opens and closes a block.
	plain = regexp.MustCompile(`^[a-z0-9A-Z ._/:,=&|<!@~*+-]*$`)
	base  = regexp.MustCompile(`^\t\ttype (nat|filter) hook [a-z]+ priority [a-z0-9-]+; policy accept;$`)
	// Braces within a statement.
	inline = regexp.MustCompile(` \{ [^{}]* \}`)
	opens  = regexp.MustCompile(`^(table inet nlb|\t(map|set|chain) [A-Za-z0-9_./-]+|\t\telements =) \{$`)
	closes = regexp.MustCompile(`^\t{0,2}\}$`)
)

// sound says what of a script is not as the ruleset has it: each line is one of
// nlb's kinds, and there are as many as objects, elements and rules.
func sound(r *ruleset.Ruleset) error {
	want := 5 // add, delete, table, comment, the end
	for _, m := range r.Maps {
		want += 4 + len(m.Elements) // empty line, head, type, end
		for _, more := range []bool{m.Dynamic, m.FlagWords() != "", m.Counter, m.Comment != ""} {
			if more {
				want++
			}
		}
		if len(m.Elements) > 0 {
			want += 2
		}
	}
	for _, c := range r.Chains {
		want += 3 + len(c.Rules)
		if c.Hook != nil {
			want++
		}
	}
	lines := strings.Split(strings.TrimSuffix(r.String(), "\n"), "\n")
	if len(lines) != want {
		return fmt.Errorf("%d lines, want %d", len(lines), want)
	}
	for _, line := range lines {
		bare := line
		for at := quoted.FindStringIndex(bare); at != nil; at = quoted.FindStringIndex(bare) {
			if !inQuotes.MatchString(bare[at[0]:at[1]]) || !beforeQuote.MatchString(strings.TrimLeft(bare[:at[0]], "\t")) {
				return fmt.Errorf("a text in line %q", line)
			}
			if strings.HasSuffix(bare[:at[0]], " prefix ") && strings.Contains(bare[at[0]:at[1]], "$") {
				return fmt.Errorf("a variable in line %q", line)
			}
			bare = bare[:at[0]] + "text" + bare[at[1]:]
		}
		switch {
		case opens.MatchString(bare), closes.MatchString(bare), base.MatchString(bare):
		case plain.MatchString(strings.TrimLeft(inline.ReplaceAllString(bare, ""), "\t")):
		default:
			return fmt.Errorf("line %q", line)
		}
	}
	return nil
}
