package iptables

// Services: what a region becomes in a profile.

import (
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
	"nlb/lb/importer/share"
)

// service adds what a candidate becomes. Where a profile needs several services
// for it (two interfaces), they are alike.
func (t *translator) service(c *candidate) {
	for _, r := range c.those(matched) {
		t.used[r] = true
	}
	at := places(c.deciding())
	s := lb.Service{Role: c.role}
	if s.Protocols = t.protocols(c, at); len(s.Protocols) == 0 {
		return
	}
	if s.Listen = t.listen(c, at); len(s.Listen) == 0 {
		return
	}
	s.Name = t.name(c, &s)
	t.backends(c, &s, at)
	if len(s.Backends) == 0 {
		return // endpoint has said why
	}
	// A listen for all addresses leaves loopback ones out, where only this host itself can serve.
	elsewhere := func(b lb.Backend) bool { return !b.Address.Addr.IsUnspecified() }
	if c.inside && t.everywhere(c.region) && !slices.ContainsFunc(s.Backends, elsewhere) {
		prefixes, _ := loopback(t.set.Family).Prefixes(t.set.Family, 1)
		s.Listen = append(s.Listen, lb.Listen{Prefix: prefixes[0], Ports: s.Listen[0].Ports})
	}
	t.clients(c, &s, at)
	t.affinity(c, &s, at)
	t.report(c, &s, at)
	notes := t.notes(c, &s)
	for _, name := range t.entering(c, at) {
		one := s
		one.Interface = name
		one.Backends = slices.Clone(s.Backends)
		t.draft.Add(one, c.deciding()[0].Place, notes...)
	}
}

// transports are the protocols that a service can have.
var transports = []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP}

func (t *translator) protocols(c *candidate, at []importer.Place) []lb.Protocol {
	var out []lb.Protocol
	rest := c.region[space.Protocol]
	for _, p := range transports {
		one := space.Protocols(uint8(p))
		if rest.Meets(one) {
			out = append(out, p)
			rest = rest.Without(one)
		}
	}
	switch {
	case len(rest) == 0:
	case len(out) > 0:
		t.draft.Lost("connections of protocols other than TCP, UDP and SCTP are not in the profile", "", at...)
	default:
		var numbers []string
		for _, r := range rest {
			numbers = append(numbers, strconv.FormatUint(r.First.Low, 10))
		}
		t.draft.Lost("a service has TCP, UDP and SCTP only, so these rules for protocol "+strings.Join(numbers, ", ")+" are left out", "", at...)
	}
	return out
}

// maxListens is how many prefixes a service listens on before the exceptions
// are given up.
const maxListens = 64

// listen are the destinations of a service.
func (t *translator) listen(c *candidate, at []importer.Place) []lb.Listen {
	ports := c.region[space.Port].PortRanges()
	if len(ports) == 0 {
		return nil
	}
	own := lb.Listen{Ports: ports}
	any := lb.Listen{Prefix: netip.PrefixFrom(space.Number{}.Addr(t.set.Family), 0), Ports: ports}
	set := c.region[space.Destination]
	everywhere := t.everywhere(c.region)
	switch local := c.region[space.Local]; {
	case everywhere && local.Equal(space.Own(true)):
		return []lb.Listen{own}
	case everywhere && c.role == lb.RoleServer:
		t.draft.Lost("these rules take connections to any address that come through here; the profile takes those to this host's own addresses",
			"listen: "+any.Prefix.String()+", with the port, takes those to any address, also those that this host makes itself; with interface: only what enters there", at...)
		return []lb.Listen{own}
	case local.Equal(space.Own(false)):
		t.draft.Lost("these rules leave out connections to this host's own addresses; the profile does not", "", at...)
	}
	if everywhere {
		return []lb.Listen{any}
	}
	prefixes, ok := set.Without(unreachable(t.set.Family)).Prefixes(t.set.Family, maxListens)
	if !ok {
		t.draft.Lost("these rules have too many exceptions among their addresses; the profile has none", "", at...)
		return []lb.Listen{any}
	}
	var out []lb.Listen
	for _, p := range prefixes {
		out = append(out, lb.Listen{Prefix: p, Ports: ports})
	}
	return out
}

// unreachable are addresses that no connection is made to.
func unreachable(f lb.Family) space.Set {
	if f == lb.IPv4 {
		return prefixes("0.0.0.0/32", "224.0.0.0/4", "255.255.255.255/32")
	}
	return prefixes("::/128", "ff00::/8")
}

// entering are the interfaces of the services that a candidate needs; "" is
// any.
func (t *translator) entering(c *candidate, at []importer.Place) []string {
	if c.hook == output {
		return []string{""}
	}
	patterns, ok := t.interfaces.Patterns(c.region[space.Interface])
	if !ok {
		out, _ := t.interfaces.Patterns(t.interfaces.All().Without(c.region[space.Interface]))
		t.draft.Lost("these rules leave out what enters at "+strings.Join(out, ", ")+"; the profile does not", "", at...)
		return []string{""}
	}
	for i, p := range patterns {
		if name, begins := strings.CutSuffix(p, "+"); begins && name != "" {
			patterns[i] = name + "*"
		} else {
			patterns[i] = name
		}
	}
	return patterns
}

// backends fills in the backends with their weights, the scheduler, and what
// the backends see.
func (t *translator) backends(c *candidate, s *lb.Service, at []importer.Place) {
	type sum struct {
		amount
		sources, logs map[string]float64
	}
	bySource := map[string]lb.SNAT{}
	byLog := map[string]*lb.Log{}
	sums := map[lb.Endpoint]*sum{}
	var order []lb.Endpoint
	for _, o := range c.classes[0].outcomes {
		if o.fate != balanced {
			continue
		}
		e, ok := t.endpoint(c, s, o.to, at)
		if !ok {
			continue
		}
		c.at[o.to] = e
		if sums[e] == nil {
			sums[e] = &sum{sources: map[string]float64{}, logs: map[string]float64{}}
			order = append(order, e)
		}
		sums[e].amount = sums[e].plus(o.share)
		snat := t.snat(s, o.source)
		bySource[snat.String()] = snat
		sums[e].sources[snat.String()] += o.share.real
		s.RandomPorts = s.RandomPorts || o.random
		byLog[o.logs] = t.log(c, o.logs)
		sums[e].logs[o.logs] += o.share.real
	}
	// Rules that have become the same service are a single backend each, or
	// one rule's after the other's.
	var shares []*big.Rat
	for _, e := range order {
		shares = append(shares, sums[e].meant)
	}
	weights, _ := share.Weights(shares)
	mixed := false
	for i, e := range order {
		b := lb.Backend{Name: e.String(), Address: e, Weight: weights[i], Priority: 1}
		if b.SNAT = bySource[most(sums[e].sources)]; e.OfHost() {
			b.SNAT = lb.SNAT{Mode: lb.SNATNone}
		}
		b.Log = byLog[most(sums[e].logs)]
		mixed = mixed || len(sums[e].sources) > 1 || len(sums[e].logs) > 1
		s.Backends = append(s.Backends, b)
	}
	if mixed {
		t.draft.Lost("a backend sees several kinds of sources, or is logged at times; the profile has the most frequent", "", at...)
	}
	s.RandomPorts = s.RandomPorts && slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.SNAT.Mode != lb.SNATNone })
	if len(s.Backends) > 0 {
		t.common(s)
		t.scheduler(c, s)
	}
}

// most is the key with the largest value, the first of the equal.
func most(m map[string]float64) string {
	best, at := -1.0, ""
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > best {
			best, at = m[k], k
		}
	}
	return at
}

// common moves to the service what is the same for most of its backends.
func (t *translator) common(s *lb.Service) {
	weight, best := map[string]int{}, -1
	for _, b := range s.Backends {
		if !b.Address.OfHost() {
			weight[b.SNAT.String()] += b.Weight
		}
	}
	for _, b := range s.Backends {
		if w := weight[b.SNAT.String()]; w > best && !b.Address.OfHost() {
			best, s.SNAT = w, b.SNAT
		}
	}
	s.Log = s.Backends[0].Log
	for _, b := range s.Backends {
		if (b.Log == nil) != (s.Log == nil) || s.Log != nil && *b.Log != *s.Log {
			s.Log = nil
			return
		}
	}
}

// endpoint is where an outcome goes.
func (t *translator) endpoint(c *candidate, s *lb.Service, d destination, at []importer.Place) (lb.Endpoint, bool) {
	e := lb.Endpoint{Addr: d.addr, Port: d.port}
	if e.Addr.IsValid() {
		return e, true
	}
	own := !slices.ContainsFunc(s.Listen, func(l lb.Listen) bool { return l.Prefix.IsValid() }) || c.region[space.Local].Equal(space.Own(true))
	switch {
	case d.redirected && d.port == 0:
		t.draft.Lost("REDIRECT leaves each of many ports as it is; a backend that is this host has one port, so this is left out", "", at...)
		return e, false
	case d.redirected, own && d.port != 0:
		return lb.HostEndpoint(t.set.Family, d.port), true
	case len(s.Listen) == 1 && s.Listen[0].Prefix.IsSingleIP():
		e.Addr = s.Listen[0].Prefix.Addr()
		return e, true
	}
	t.draft.Lost("these rules change the port and leave each address; a backend needs an address, so this is left out", "", at...)
	return e, false
}

// maxPool bounds the addresses that a backend sees.
const maxPool = 256

// snat is what the backend sees.
func (t *translator) snat(s *lb.Service, from source) lb.SNAT {
	switch {
	case from.masquerade:
		return lb.SNAT{Mode: lb.Masquerade}
	case !from.first.IsValid():
		return lb.SNAT{Mode: lb.SNATNone}
	}
	if from.first == from.last && len(s.Listen) == 1 && s.Listen[0].Prefix == netip.PrefixFrom(from.first, from.first.BitLen()) {
		return lb.SNAT{Mode: lb.SNATVIP}
	}
	pool := lb.SNAT{Mode: lb.SNATPool}
	for a := from.first; len(pool.Pool) < maxPool; a = a.Next() {
		pool.Pool = append(pool.Pool, a)
		if a == from.last {
			break
		}
	}
	return pool
}

// scheduler says how the rules choose.
func (t *translator) scheduler(c *candidate, s *lb.Service) {
	switch {
	case len(s.Backends) == 1:
	case c.hash && !c.nth && !c.chance:
		s.Scheduler = lb.Hash
		s.HashBy = []lb.HashField{lb.SourceAddress, lb.DestinationAddress}
		for _, r := range c.those(matched) {
			if d, ok := r.Target.(syntax.DNAT); ok && d.Persistent {
				s.HashBy = []lb.HashField{lb.SourceAddress}
			}
		}
		if c.hashBy != nil {
			s.HashBy = slices.Clone(c.hashBy)
		}
	case c.chance || c.hash || len(c.those(everyPacket)) > 0:
		s.Scheduler = lb.Random
	}
}

// log is the log of rules by their numbers; nil where there are none.
func (t *translator) log(c *candidate, numbers string) *lb.Log {
	first, _, ok := strings.Cut(numbers, " ")
	if !ok {
		return nil
	}
	i, _ := strconv.Atoi(first)
	rule := c.logs[i]
	from := rule.Target.(syntax.Log)
	l := &lb.Log{Level: from.Level, Prefix: importer.LogPrefix(from.Prefix)}
	for _, m := range rule.Matches {
		if limit, ok := m.(syntax.Limit); ok {
			l.Rate = limit.Rate
		}
	}
	return l
}

// affinity reads -m recent as it is used for it: a client that is on the list
// of a backend goes there again.
func (t *translator) affinity(c *candidate, s *lb.Service, at []importer.Place) {
	filled := map[string]bool{}
	for _, r := range c.those(lists) {
		filled[recent(r, true).List] = true
	}
	rules := c.those(looksUp)
	if len(rules) == 0 {
		return
	}
	first := recent(rules[0], false)
	for _, r := range rules {
		t.used[r] = true
		c.note(r, matched)
		m := recent(r, false)
		if m.Not || m.Seconds == 0 || !filled[m.List] || m.Seconds != first.Seconds || m.Bits != first.Bits || m.Bits6 != first.Bits6 {
			t.draft.Lost("these rules look into lists of -m recent in a way that is not translated", "affinity: keeps clients with their backend", at...)
			return
		}
	}
	s.Affinity = &lb.Affinity{Timeout: time.Duration(first.Seconds) * time.Second, Bits: first.Bits, Bits6: first.Bits6}
}

// recent is the -m recent of a rule that adds to a list, or looks into it.
func recent(r *syntax.Rule, adds bool) syntax.Recent {
	for _, m := range r.Matches {
		if m, ok := m.(syntax.Recent); ok && m.Set == adds {
			return m
		}
	}
	return syntax.Recent{}
}
