package iptables

// Reports: what is to say about a service.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/syntax"
)

// report says what the rules of a service really did, and what of it is not in
// the profile.
func (t *translator) report(c *candidate, s *lb.Service, at []importer.Place) {
	main := c.classes[0]
	text, equal := c.shares(s)
	hint := t.cascade(c, len(s.Backends))
	switch lost := main.parts[unbalanced]; {
	case lost > 0:
		t.draft.Lost(fmt.Sprintf("these rules leave %s of the new connections to %s unbalanced: %s", percent(lost), listenText(s), text), hint, at...)
	case main.parts[dropped] > 0:
	case !equal && hint != "":
		t.draft.Note(fmt.Sprintf("these rules do not give all backends of %s the same: %s", listenText(s), text), hint, at...)
	}
	if p := main.parts[dropped]; p > 0 {
		t.draft.Lost(fmt.Sprintf("these rules drop %s of the new connections to %s, and the profile none", percent(p), listenText(s)), "", at...)
	}
	if c.notExact != nil {
		t.draft.Lost("the shares are estimated: "+c.notExact.Error(), "", at...)
	}
	t.about(c.those(everyPacket), importer.Note, "this rule counts every packet, not only the first of a connection, so its share holds on average only; the profile is random", "-m conntrack --ctstate NEW counts connections")
	changed := slices.ContainsFunc(main.outcomes, func(o outcome) bool { return o.source != source{} })
	sources := slices.DeleteFunc(c.those(open), func(r *syntax.Rule) bool {
		_, jumps := r.Target.(syntax.Jump)
		return c.rules[r]&matched == 0 || !r.ChangesSource() && !(jumps && changed)
	})
	t.about(sources, importer.Lost, "these rules do not say whether backends are behind the interface of this one; it is taken as so, and then backends see its address in place of the client's",
		"ip route get BACKEND says by which interface it is reached; where it is another, snat: none does what the rules did: backends see the client, and must answer through this host")
	if changed {
		t.about(c.those(spared), importer.Lost, "these rules do not say whether backends are behind the interface of this one; it is taken as not so, and then rules behind it change what backends see as the source",
			"ip route get BACKEND says by which interface it is reached; where it is this one, snat: none does what the rules did")
	}
	t.about(c.those(refused), importer.Note, "this rule does not apply: other rules say that backends are behind another interface", "")
	t.about(c.those(firstPort), importer.Note, "this rule sends all its ports to the first of its range, and so does the profile: a range is not mapped one to one",
		"--to-destination ADDRESS:FIRST-LAST/PORT maps it, PORT being the first of the ports here")
	t.about(c.those(routed), importer.Lost, "this rule is for connections that leave by one interface; the profile takes all that this host makes to the same address", "")
	if rules := c.those(shifted); len(rules) > 0 {
		t.draft.Lost("ports that are shifted are not translated; the profile leaves them as they are", "", places(rules)...)
	}
	if s.Scheduler == lb.Hash && c.hashBy != nil {
		t.draft.Note("the hash of the profile is another than that of the rules, so a client may meet another backend than before", "", at...)
	} else if s.Scheduler == lb.Hash {
		t.draft.Note("of a range of addresses, DNAT chooses by a hash of the client's address; the profile's hash is another, so a client may meet another backend than before", "", at...)
	}
	if c.hash && s.Scheduler == lb.Random {
		t.draft.Note("of a range of addresses, DNAT chooses by the client's address; the profile does so at random", "", at...)
	}
	t.issues(c.those(matched | skipped)...)
}

// about reports the same of several rules.
func (t *translator) about(rules []*syntax.Rule, level importer.Level, msg, hint string) {
	if len(rules) == 0 {
		return
	}
	for _, r := range rules {
		t.told[r] = true
	}
	t.draft.Tell(level, msg, hint, places(rules)...)
}

// issues reports what is not understood of rules, once for each.
func (t *translator) issues(rules ...*syntax.Rule) {
	for _, r := range rules {
		if len(r.Issues) == 0 || t.told[r] {
			continue
		}
		t.told[r] = true
		for _, i := range r.Issues {
			t.draft.Tell(i.Level, i.Msg, i.Hint, i.Place)
		}
	}
}

func listenText(s *lb.Service) string {
	var parts []string
	for _, l := range s.Listen {
		parts = append(parts, l.String())
	}
	return importer.Some(parts, 3)
}

// cascade explains rules that repeat the same share, each of what the others
// left; empty where they do not.
func (t *translator) cascade(c *candidate, backends int) string {
	count := map[string]int{}
	for _, r := range c.deciding() {
		_, marks := r.Target.(syntax.SetMark)
		for _, m := range r.Matches {
			condition, right := "", func(int) string { return "" }
			switch m := m.(type) {
			case *syntax.Nth:
				if m.Every > 1 {
					condition = fmt.Sprint("every ", m.Every)
					right = func(k int) string { return fmt.Sprintf("--every %d", k) }
				}
			case syntax.Chance:
				if m.Meant.Sign() > 0 && !m.Meant.IsInt() {
					condition = "probability " + m.Meant.RatString()
					right = func(k int) string { return fmt.Sprintf("--probability %.5g", 1/float64(k)) }
				}
			}
			if condition == "" {
				continue
			}
			if count[condition]++; count[condition] == 1 {
				continue
			}
			if marks {
				return "a rule that sets a mark does not end the table: each of them sees every connection, and the last that matches wins"
			}
			return fmt.Sprintf("a rule sees what the rules before it left; equal shares for %d backends are %s", backends, countdown(backends, right))
		}
	}
	return ""
}

// countdown lists the conditions of a right cascade.
func countdown(n int, condition func(k int) string) string {
	var parts []string
	for k := n; k > 1; k-- {
		if n > 6 && k < n-2 && k > 2 {
			if k == n-3 {
				parts = append(parts, "...")
			}
			continue
		}
		parts = append(parts, condition(k))
	}
	return strings.Join(append(parts, "and none for the last"), ", ")
}

// account says what becomes of the rules that are in no service, so that none
// is passed over in silence. elsewhere are the places of those that other rulesets have
// in services.
func (t *translator) account(elsewhere map[importer.Place]bool) {
	reached := t.set.Reached()
	for r := range t.set.Rules {
		if t.used[r] || t.told[r] || elsewhere[r.Place] {
			continue
		}
		switch {
		case r.Table == "filter" || r.Table == "security":
			t.draft.Note("rules of table "+r.Table+" say what may pass, not where it goes: they are not in the profile, and stay in force", "", r.Place)
		case slices.ContainsFunc(r.Matches, func(m syntax.Match) bool { c, ok := m.(syntax.Recent); return ok && c.Check }):
			t.draft.Lost("these rules are for clients on a list, which other rules fill: they are not in the profile", "affinity: keeps clients with their backend", r.Place)
		case r.Skip && r.Balances(), len(r.Issues) > 0 && r.Table == "nat":
			t.issues(r)
		case r.Balances() && t.cut:
			t.draft.Lost("these rules were not looked at", "", r.Place)
		case r.Balances() && !reached[t.set.Table(r.Table).Chain(r.Chain)]:
			t.draft.Lost("these rules send to a backend, but nothing in this text leads to chain "+r.Chain, "import all of the table", r.Place)
		case r.Balances():
			t.draft.Note("no connection comes to these rules: others take it before, nothing leads here, or nobody sends to their addresses", "", r.Place)
		case r.ChangesSource():
			t.draft.Note("these rules change the source of connections that are not balanced: not in the profile", "", r.Place)
		case r.Table != "nat":
			t.draft.Note("rules of table "+r.Table+" that do not choose a backend: not in the profile", "", r.Place)
		default:
			t.draft.Note("rules of table nat that no balanced connection meets: not in the profile", "", r.Place)
		}
	}
}
