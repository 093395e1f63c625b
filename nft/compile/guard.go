package compile

// Guard: who may connect, how often, and what is written down of it. All of it
// stands in the service's chain, before the connection is translated, and
// meets new connections only.

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/compile/handshake"
	"nlb/nft/compile/synproxy"
	"nlb/nft/ruleset"
)

const (
	turnAwayChain = "turn-away"
	ignoreChain   = "ignore"   // the same without an answer
	RefusedSet    = "refused"  // what was turned away, by the mark of a guarded service or a full backend
	listPrefix    = "clients-" // sets of prefixes, named by their content

	// A guarded service's mark while its guard looks at a connection. It is none
	// of a backend's.
	serviceMark = 0x4b000000

	// maxClients bounds what the kernel remembers of clients, in all services.
	maxClients = 1 << 20
)

// newcomers and visitors are what the kernel remembers of clients: how fast
// they connect, how many connections they have.
func (f *Family) newcomers() string { return "newcomers" + f.IP.Digit }
func (f *Family) visitors() string  { return "visitors" + f.IP.Digit }

// guardMaps are the maps of the layout that guards need.
func guardMaps() []*ruleset.Map {
	var out []*ruleset.Map
	for _, f := range Families {
		key := ruleset.Type{ruleset.Mark, f.IP.Addr}
		out = append(out,
			&ruleset.Map{Name: f.newcomers(), Key: key, Dynamic: true, Timeout: true, Size: maxClients},
			&ruleset.Map{Name: f.visitors(), Key: key, Dynamic: true, Size: maxClients})
	}
	for _, name := range []string{fullSet, SaturatedSet} {
		out = append(out, &ruleset.Map{Name: name, Key: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: maxClients})
	}
	return append(out,
		&ruleset.Map{
			Name: waitedSet, Key: ruleset.Type{ruleset.Number}, Dynamic: true, Timeout: true, Size: mostWaited,
			TypeOf: "tcp sequence", Udata: ruleset.SequenceUdata(),
		},
		&ruleset.Map{Name: RefusedSet, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Counter: true})
}

// guard returns the rules that a new connection has to pass.
func (c *compiler) guard(chain string, s *lb.Service) []ruleset.Rule {
	var out []ruleset.Rule
	add := func(comment string, statements ...ruleset.Statement) {
		out = append(out, ruleset.Rule{Statements: append(statements, ruleset.Goto(refusing(s))), Comment: comment})
	}
	for _, list := range []struct {
		name     string
		prefixes []netip.Prefix
		not      bool
	}{{"deny", s.Deny, false}, {"allow", s.Allow, true}} {
		if len(list.prefixes) == 0 {
			continue
		}
		// No packet comes here of a family that only the list has. Its rule is what the
		// list is read from.
		for _, f := range Families {
			named := slices.ContainsFunc(list.prefixes, func(p netip.Prefix) bool { return lb.FamilyOf(p.Addr()) == f.Family })
			if named || slices.Contains(s.Families(), f.Family) {
				set := c.clientList(f, list.prefixes)
				add(list.name+" "+set, f.IP.SourceIn(set, list.not))
			}
		}
	}
	switch {
	case s.SYNProtection == nil:
	case s.Limit.HalfOpen == 0:
		out = append(out, unproven(s)...)
	default:
		enter, full := handshake.Enter(chain, s)
		out = append(append(out, enter), unproven(s, full)...)
	}
	id := serviceMark | c.serviceNumber(chain)
	pickUps, counts := pickUps(s, id)
	out = append(out, pickUps...)
	limit := func(comment string, statement ruleset.Statement) {
		add("limit "+comment, append(slices.Clip(counts), statement)...)
	}
	if l := s.Limit.NewPerSource; l.Events > 0 {
		for _, f := range s.Families() {
			f := FamilyOf(f)
			limit(fmt.Sprintf("new-per-source %s burst %d", l, s.Limit.Burst)+limitPrefixes(s.Limit),
				f.IP.RateBySource(f.newcomers(), f.clientBits(s.Limit), rateOf(l, s.Limit.Burst), true, max(2*l.Per, time.Minute)))
			c.needed[f.newcomers()] = true
		}
	}
	if n := s.Limit.ConnectionsPerSource; n > 0 {
		for _, f := range s.Families() {
			f := FamilyOf(f)
			limit(fmt.Sprintf("connections-per-source %d", n)+limitPrefixes(s.Limit), f.IP.CountBySource(f.visitors(), f.clientBits(s.Limit), n))
			c.needed[f.visitors()] = true
		}
	}
	if l := s.Limit.New; l.Events > 0 {
		limit(fmt.Sprintf("new %s", l), ruleset.LimitRate(rateOf(l, burstOf(l)), true))
	}
	if s.Limit.HalfOpen > 0 && s.SYNProtection == nil {
		enter, full := handshake.Enter(chain, s)
		out = append(out, enter)
		add("", ruleset.IsSYN(), ruleset.HasEntered(), full)
	}
	if guarded(s) {
		begin := ruleset.Rule{Statements: []ruleset.Statement{ruleset.SetMark(id)}, Comment: fmt.Sprintf("guard 0x%08x", id)}
		if s.OnRefuse == lb.Drop {
			begin.Comment += " " + dropsComment
		}
		out = append([]ruleset.Rule{begin}, out...)
		c.add(RefusedSet, ruleset.Element{Key: ruleset.MarkBytes(id)})
	}
	return out
}

// unproven are the rules by which a SYN leaves before anything counts or remembers it; with
// full, one that there is no room for. It meets all of this again when its client has
// answered.
func unproven(s *lb.Service, full ...ruleset.Statement) []ruleset.Rule {
	var serving []ruleset.Statement
	for _, f := range s.Families() {
		if drawn(s.Of(f)) > 0 {
			serving = append(serving, FamilyOf(f).match)
		}
	}
	return synproxy.Leave(s, serving, full)
}

// pickUps are the rules for connections that another balancer of the fleet has had so
// far, and the match of those that are limited. No rate meets them: all connections of a
// balancer that is gone come at once. Where a mesh does not draw by a hash, another
// backend would refuse them: they wait for the entry that tells which it is.
func pickUps(s *lb.Service, guard uint32) (rules []ruleset.Rule, limited []ruleset.Statement) {
	rule := func(do ruleset.Statement) []ruleset.Rule {
		return []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.UnlessSYN(), do}, Comment: "picked up"}}
	}
	switch {
	case !s.PicksUp():
	case !s.Scheduler.Hashes():
		return rule(ruleset.Drop()), nil
	case s.Limit != (lb.Limit{}):
		return rule(ruleset.SetMark(0)), []ruleset.Statement{ruleset.MarkIs(1<<32-1, guard)}
	}
	return nil, nil
}

// IsClientSet reports whether a set is one of prefixes that allow or deny names.
func IsClientSet(set string) bool { return strings.HasPrefix(set, listPrefix) }

// ClientSet is the set of prefixes that has this name, empty; nil: there is none.
func ClientSet(name string) *ruleset.Map {
	for _, f := range Families {
		if strings.HasPrefix(name, listPrefix+f.IP.Digit) {
			return &ruleset.Map{Name: name, Key: ruleset.Type{f.IP.Addr}, Prefixes: true}
		}
	}
	return nil
}

// addMap adds a map that is not there yet.
func (c *compiler) addMap(m *ruleset.Map) {
	if c.byName[m.Name] == nil {
		c.byName[m.Name] = m
		c.Maps = append(c.Maps, m)
	}
}

// clientList returns the set with these prefixes of a family. Lists with the
// same content share one.
func (c *compiler) clientList(f *Family, prefixes []netip.Prefix) string {
	h := fnv.New64a()
	m := &ruleset.Map{Key: ruleset.Type{f.IP.Addr}, Prefixes: true}
	for _, p := range lb.Outer(prefixes) {
		if lb.FamilyOf(p.Addr()) != f.Family {
			continue
		}
		fmt.Fprintln(h, p)
		m.Elements = append(m.Elements, ruleset.Element{Key: ruleset.AddrBytes(p.Addr()), End: ruleset.LastOf(p)})
	}
	m.Name = fmt.Sprintf("%s%s-%016x", listPrefix, f.IP.Digit, h.Sum64())
	c.addMap(m)
	return m.Name
}

// rateOf is a rate as a statement has it.
func rateOf(l lb.Rate, burst uint32) ruleset.Rate {
	return ruleset.Rate{Text: l.String(), Events: l.Events, Per: l.Per, Burst: burst}
}

// burstOf is how many events of a rate may come at once.
func burstOf(l lb.Rate) uint32 { return uint32(min(l.Events, 1<<31)) }

// clientBits is the length of the networks that count as one client.
func (f *Family) clientBits(l lb.Limit) int {
	if f.Family == lb.IPv6 {
		return cmp.Or(l.Bits6, f.IP.Addr.Size*8)
	}
	return cmp.Or(l.Bits, f.IP.Addr.Size*8)
}

// limitPrefixes are the networks in a comment, of both families in each.
func limitPrefixes(l lb.Limit) (s string) {
	if l.Bits > 0 {
		s = fmt.Sprintf(" prefix %d", l.Bits)
	}
	if l.Bits6 > 0 {
		s += fmt.Sprintf(" prefix6 %d", l.Bits6)
	}
	return s
}

// refusing is the chain that refuses connections of a service.
func refusing(s *lb.Service) string {
	if s.OnRefuse == lb.Drop {
		return ignoreChain
	}
	return turnAwayChain
}

const dropsComment = "on-refuse drop"

// turnAway counts a connection for the service or backend in its mark, and
// refuses it.
func turnAway() []*ruleset.Chain {
	count := ruleset.Rule{Statements: []ruleset.Statement{ruleset.MarkIn(RefusedSet, false)}}
	return []*ruleset.Chain{
		{Name: turnAwayChain, Rules: []ruleset.Rule{count, {Statements: []ruleset.Statement{ruleset.Goto(refuseChain)}}}},
		{Name: ignoreChain, Rules: []ruleset.Rule{count, {Statements: []ruleset.Statement{ruleset.Drop()}}}},
	}
}

// sharedLog is the log of all backends of a service, nil where they differ.
func sharedLog(s *lb.Service) *lb.Log {
	if len(s.Backends) == 0 {
		return s.Log
	}
	first := s.Backends[0].Log
	for i := range s.Backends {
		if l := s.Backends[i].Log; l != first && l.String() != first.String() {
			return nil
		}
	}
	return first
}

// logRule writes connections into the kernel log.
func logRule(l *lb.Log) ruleset.Rule {
	var r ruleset.Rule
	r.Comment = "log level " + l.Level.String()
	if l.Rate.Events > 0 {
		r.Statements = append(r.Statements, ruleset.LimitRate(rateOf(l.Rate, burstOf(l.Rate)), false))
		r.Comment += " rate " + l.Rate.String()
	}
	if l.Prefix != "" {
		r.Comment += " prefix " + l.Prefix
	}
	r.Statements = append(r.Statements, ruleset.Log(l.Prefix, l.Level.String(), uint32(l.Level)))
	return r
}

// readGuard reads the comments of guard's rules and of logRule into a service,
// and reports whether it was one. clients are the prefixes of a set.
func readGuard(comment string, s *lb.Service, clients func(set string) []netip.Prefix) bool {
	word, rest, _ := strings.Cut(comment, " ")
	switch word {
	case "deny":
		s.Deny = append(s.Deny, clients(rest)...)
	case "allow":
		s.Allow = append(s.Allow, clients(rest)...)
	case "limit":
		readLimit(rest, &s.Limit)
	case "log":
		s.Log = readLog(rest)
	default:
		return false
	}
	return true
}

// ReadGuardMark is the mark of a guarded service, from the comment of its first rule,
// which also says on-refuse.
func ReadGuardMark(comment string, s *lb.Service) (id uint32, ok bool) {
	if !strings.HasPrefix(comment, "guard ") { // nearly none has it, and Sscanf takes its time
		return 0, false
	}
	n, _ := fmt.Sscanf(comment, "guard 0x%x", &id)
	if n == 1 && strings.HasSuffix(comment, " "+dropsComment) {
		s.OnRefuse = lb.Drop
	}
	return id, n == 1
}

func readLimit(s string, l *lb.Limit) {
	words := strings.Fields(s)
	if len(words) < 2 {
		return
	}
	for ; len(words) > 3 && strings.HasPrefix(words[len(words)-2], "prefix"); words = words[:len(words)-2] {
		into, most := &l.Bits, 32
		if words[len(words)-2] == "prefix6" {
			into, most = &l.Bits6, 128
		}
		if n, err := strconv.Atoi(words[len(words)-1]); err == nil && 0 < n && n < most {
			*into = n
		}
	}
	switch words[0] {
	case "connections-per-source":
		_, _ = fmt.Sscan(words[1], &l.ConnectionsPerSource)
	case "half-open":
		_, _ = fmt.Sscan(words[1], &l.HalfOpen)
	case "new":
		_ = l.New.UnmarshalText([]byte(words[1]))
	case "new-per-source":
		_ = l.NewPerSource.UnmarshalText([]byte(words[1]))
		if len(words) == 4 {
			_, _ = fmt.Sscan(words[3], &l.Burst)
		}
	}
}

func readLog(s string) *lb.Log {
	l := &lb.Log{}
	head, prefix, _ := strings.Cut(s, " prefix ")
	l.Prefix = prefix
	words := strings.Fields(head)
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "level":
			_ = lb.Read(&l.Level, words[i+1])
		case "rate":
			_ = l.Rate.UnmarshalText([]byte(words[i+1]))
		}
	}
	return l
}
