package nft

// Guard: who may connect, how often, and what is written down of it. All of it
// stands in the service's chain, before the connection is translated, and
// meets new connections only.

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

const (
	turnAwayChain = "turn-away"
	refusedSet    = "refused"
	listPrefix    = "clients-" // sets of prefixes, named by their content

	// A guarded service's mark while its guard looks at a connection. It is none
	// of a backend's.
	serviceMark = 0x4b000000

	// maxClients bounds what the kernel remembers of clients, in all services.
	maxClients = 1 << 20
)

// newcomers and visitors are what the kernel remembers of clients: how fast
// they connect, how many connections they have.
func (f *family) newcomers() string { return "newcomers" + f.digit }
func (f *family) visitors() string  { return "visitors" + f.digit }

// guardMaps are the maps of the layout that guards need.
func guardMaps() []*mapping {
	var out []*mapping
	for _, f := range families {
		key := typ{mark, f.addr}
		out = append(out,
			&mapping{name: f.newcomers(), key: key, dynamic: true, timeout: true},
			&mapping{name: f.visitors(), key: key, dynamic: true})
	}
	return append(out, &mapping{name: refusedSet, key: typ{mark}, counter: true})
}

// guard returns the rules that a new connection has to pass.
func (c *compiler) guard(chain string, s *lb.Service) []rule {
	var out []rule
	add := func(comment string, statements ...statement) {
		out = append(out, rule{statements: append(statements, goTo(turnAwayChain)), comment: comment})
	}
	for _, list := range []struct {
		name     string
		prefixes []netip.Prefix
		not      bool
	}{{"deny", s.Deny, false}, {"allow", s.Allow, true}} {
		if len(list.prefixes) == 0 {
			continue
		}
		for _, f := range s.Families() {
			f := familyOf(f)
			set := c.clientList(f, list.prefixes)
			add(list.name+" "+set, f.inList(set, list.not))
		}
	}
	if l := s.Limit.NewPerSource; l.Events > 0 {
		for _, f := range s.Families() {
			add(fmt.Sprintf("limit new-per-source %s burst %d", l, s.Limit.Burst), familyOf(f).newPerSource(l, s.Limit.Burst))
		}
		c.use(s, (*family).newcomers)
	}
	if n := s.Limit.ConnectionsPerSource; n > 0 {
		for _, f := range s.Families() {
			add(fmt.Sprintf("limit connections-per-source %d", n), familyOf(f).perSource(n))
		}
		c.use(s, (*family).visitors)
	}
	if l := s.Limit.New; l.Events > 0 {
		add(fmt.Sprintf("limit new %s", l), limitRate(l, burstOf(l), true))
	}
	if len(out) > 0 {
		id := serviceMark | c.serviceNumber(chain)
		begin := rule{statements: []statement{setMarkTo(id)}, comment: fmt.Sprintf("guard 0x%08x", id)}
		out = append([]rule{begin}, out...)
		c.add(refusedSet, element{key: markBytes(id)})
	}
	return out
}

// use marks the maps of a service's families as needed.
func (c *compiler) use(s *lb.Service, name func(*family) string) {
	for _, f := range s.Families() {
		c.needed[name(familyOf(f))] = true
	}
}

// clientList returns the set with these prefixes of a family. Lists with the
// same content share one.
func (c *compiler) clientList(f *family, prefixes []netip.Prefix) string {
	h := fnv.New64a()
	m := &mapping{key: typ{f.addr}, prefixes: true}
	for _, p := range lb.Outer(prefixes) {
		if lb.FamilyOf(p.Addr()) != f.Family {
			continue
		}
		fmt.Fprintln(h, p)
		m.elements = append(m.elements, element{key: addrBytes(p.Addr()), end: lastOf(p)})
	}
	m.name = fmt.Sprintf("%s%s-%016x", listPrefix, f.digit, h.Sum64())
	if c.byName[m.name] == nil {
		c.byName[m.name] = m
		c.maps = append(c.maps, m)
	}
	return m.name
}

func (f *family) inList(set string, not bool) statement {
	op := ""
	if not {
		op = "!= "
	}
	exprs := append(f.isFamily(), f.loadSource(reg, f.addr.size*8)...)
	return newStatement(fmt.Sprintf("%s saddr %s@%s", f.word, op, set),
		append(exprs, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: not})...)
}

// loadVisitor puts the service and the client into registers.
func (f *family) loadVisitor() []expr.Any {
	return append(append(f.isFamily(), loadMark), f.loadSource(reg32+1, f.addr.size*8)...)
}

func (f *family) newPerSource(l lb.Rate, burst uint32) statement {
	timeout := max(2*l.Per, time.Minute)
	text := fmt.Sprintf("update @%s { ct mark . %s saddr timeout %s limit rate over %s burst %d packets }",
		f.newcomers(), f.word, timeText(timeout), l, burst)
	return newStatement(text, append(f.loadVisitor(), &expr.Dynset{
		SrcRegKey: reg, SetName: f.newcomers(), Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout,
		Exprs: []expr.Any{limitExpr(l, burst, true)},
	})...)
}

func (f *family) perSource(n uint32) statement {
	text := fmt.Sprintf("add @%s { ct mark . %s saddr ct count over %d }", f.visitors(), f.word, n)
	return newStatement(text, append(f.loadVisitor(), &expr.Dynset{
		SrcRegKey: reg, SetName: f.visitors(), Operation: unix.NFT_DYNSET_OP_ADD,
		Exprs: []expr.Any{&expr.Connlimit{Count: n, Flags: expr.NFT_CONNLIMIT_F_INV}},
	})...)
}

func limitRate(l lb.Rate, burst uint32, over bool) statement {
	word := ""
	if over {
		word = "over "
	}
	return newStatement(fmt.Sprintf("limit rate %s%s burst %d packets", word, l, burst), limitExpr(l, burst, over))
}

func limitExpr(l lb.Rate, burst uint32, over bool) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: l.Events, Unit: expr.LimitTime(l.Per / time.Second), Burst: burst, Over: over}
}

// burstOf is how many events of a rate may come at once.
func burstOf(l lb.Rate) uint32 { return uint32(min(l.Events, 1<<31)) }

// connectionLimit refuses what is over a number of live connections.
func connectionLimit(n uint32) rule {
	return rule{statements: []statement{
		newStatement(fmt.Sprintf("ct count over %d", n), &expr.Connlimit{Count: n, Flags: expr.NFT_CONNLIMIT_F_INV}),
		goTo(turnAwayChain),
	}, comment: fmt.Sprintf("max-connections %d", n)}
}

// turnAway counts a connection for the service or backend in its mark, and
// refuses it.
func turnAway() *chain {
	count := newStatement("ct mark @"+refusedSet, loadMark, &expr.Lookup{SourceRegister: reg, SetName: refusedSet})
	return &chain{name: turnAwayChain, rules: []rule{
		{statements: []statement{count}},
		{statements: []statement{goTo(refuseChain)}},
	}}
}

// logRule writes connections into the kernel log.
func logRule(l *lb.Log) rule {
	var r rule
	comment := "log level " + l.Level.String()
	if l.Rate.Events > 0 {
		r.statements = append(r.statements, limitRate(l.Rate, burstOf(l.Rate), false))
		comment += " rate " + l.Rate.String()
	}
	text, key := "log", uint32(1<<unix.NFTA_LOG_LEVEL)
	if l.Prefix != "" {
		text += fmt.Sprintf(" prefix \"%s\"", l.Prefix)
		key |= 1 << unix.NFTA_LOG_PREFIX
		comment += " prefix " + l.Prefix
	}
	text += " level " + l.Level.String()
	r.statements = append(r.statements, newStatement(text, &expr.Log{Key: key, Level: expr.LogLevel(l.Level), Data: []byte(l.Prefix)}))
	r.comment = comment
	return r
}

// readGuard reads the comments of guard's rules and of logRule into a service,
// and reports whether it was one.
func (s *State) readGuard(chain, comment string, out *lb.Service) bool {
	if id, ok := guardOf(comment); ok {
		s.guards[chain] = id
		s.ownRefused(chain, id)
		return true
	}
	word, rest, _ := strings.Cut(comment, " ")
	switch word {
	case "deny":
		out.Deny = append(out.Deny, s.listed(rest)...)
	case "allow":
		out.Allow = append(out.Allow, s.listed(rest)...)
	case "limit":
		readLimit(rest, &out.Limit)
	case "log":
		out.Log = readLog(rest)
	default:
		return false
	}
	return true
}

// guardOf is the mark of a guarded service, from the comment of its first rule.
func guardOf(comment string) (id uint32, ok bool) {
	n, _ := fmt.Sscanf(comment, "guard 0x%x", &id)
	return id, n == 1
}

// listed are the prefixes of a set.
func (s *State) listed(set string) []netip.Prefix {
	s.lists[set] = true
	var out []netip.Prefix
	for _, e := range s.elements(set) {
		if p, ok := prefixOf(e.key, e.end); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func readLimit(s string, l *lb.Limit) {
	words := strings.Fields(s)
	if len(words) < 2 {
		return
	}
	switch words[0] {
	case "connections-per-source":
		_, _ = fmt.Sscan(words[1], &l.ConnectionsPerSource)
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
			_ = l.Level.UnmarshalText([]byte(words[i+1]))
		case "rate":
			_ = l.Rate.UnmarshalText([]byte(words[i+1]))
		}
	}
	return l
}

// timeText is a duration as nft writes it: whole seconds, in parts.
func timeText(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		word string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.word)
			d -= n * u.unit
		}
	}
	return b.String()
}
