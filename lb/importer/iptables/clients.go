package iptables

// Clients: what rules do for some clients and not for others.

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
)

// maxPrefixes is how many prefixes of clients a service allows or denies.
const maxPrefixes = 256

// clients compares the clients that the service is made for with the others.
func (t *translator) clients(c *candidate, s *lb.Service, at []importer.Place) {
	served, passed := c.classes[0].src, false
	for _, o := range c.classes[1:] {
		if o.parts[balanced] == 0 {
			passed = passed || o.parts[unbalanced] > 0
			continue
		}
		served = served.Union(o.src)
		if !t.behind(o.src, c) {
			t.otherwise(c, s, o, at)
		}
	}
	everyone := space.Addresses(t.set.Family)
	if served.Equal(everyone) {
		return
	}
	allow, ok := served.Prefixes(t.set.Family, maxPrefixes)
	deny, ok2 := everyone.Without(served).Prefixes(t.set.Family, maxPrefixes)
	text := "those of " + prefixText(allow)
	switch {
	case ok && (!ok2 || len(allow) <= len(deny)):
		s.Allow = importer.Prefixes(allow)
	case ok2:
		s.Deny = importer.Prefixes(deny)
		text = "all but those of " + prefixText(deny)
	default:
		t.draft.Lost("these rules are for too many different networks of clients; the profile is for all clients", "", at...)
		return
	}
	if passed {
		t.draft.Lost(fmt.Sprintf("these rules balance connections to %s from some clients only: %s; the others went on unbalanced, and the profile refuses them", listenText(s), text),
			"", at...)
	}
}

// behind reports whether the rules say that clients are behind other interfaces than
// those that the service has.
func (t *translator) behind(clients space.Set, c *candidate) bool {
	return !t.anyInterface(c.region) && slices.ContainsFunc(t.ways.networks, func(w way) bool {
		return !w.not && clients.Against(w.net) == space.Inside && !w.matching(t.interfaces).Meets(c.region[space.Interface])
	})
}

func prefixText(prefixes []netip.Prefix) string {
	var parts []string
	for _, p := range prefixes {
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		parts = append(parts, text)
	}
	return importer.Some(parts, 4)
}

// otherwise says how clients are balanced that are not balanced like most.
func (t *translator) otherwise(c *candidate, s *lb.Service, o class, at []importer.Place) {
	prefixes, ok := o.src.Prefixes(t.set.Family, maxPrefixes)
	from := "clients of " + prefixText(prefixes)
	if !ok {
		from = "some clients"
	}
	if !maps.EqualFunc(goingTo(c.classes[0]), goingTo(o), func(a, b amount) bool { return a.meant.Cmp(b.meant) == 0 }) {
		t.draft.Lost(fmt.Sprintf("%s met other backends of %s: %s; the profile treats all clients alike", from, listenText(s), o.text()), "", at...)
		return
	}
	seen, others := t.seen(s, c.classes[0]), t.seen(s, o)
	switch {
	case seen == others:
		// Logs, or parts that add up differently.
		t.draft.Note(from+" are logged, or reach their backend, by other rules; the profile treats all clients alike", "", at...)
	case seen == "none" && t.backendsOnly(s, o.src):
		t.draft.Lost("a backend that calls its own service gets its answer by rules that masquerade such calls; the profile has snat: none for all",
			"snat: masquerade suits all, if the backends need not see who calls", at...)
	case seen == "none":
		t.draft.Lost(fmt.Sprintf("the backends see another source of %s: %s; the profile has snat: %s for all", from, others, seen),
			"snat: masquerade suits all, if the backends need not see who calls", at...)
	default:
		t.draft.Note("some clients reach the backends under another address by these rules; the profile has snat: "+seen+" for all", "", at...)
	}
}

// text lists what a class got.
func (c *class) text() string {
	var parts []string
	for _, o := range c.outcomes {
		name := "no backend"
		switch {
		case o.fate == dropped:
			name = "dropped"
		case o.fate == balanced && o.to.addr.IsValid():
			name = lb.Endpoint{Addr: o.to.addr, Port: o.to.port}.String()
		case o.fate == balanced:
			name = "this host"
		}
		if parts = append(parts, name+" "+percent(o.share.real)); len(parts) > maxShares {
			return strings.Join(parts, ", ") + " and more"
		}
	}
	return strings.Join(parts, ", ")
}

// goingTo are the shares of a class by where they go.
func goingTo(c class) map[kind]amount {
	out := make(map[kind]amount, len(c.outcomes))
	for _, o := range c.outcomes {
		k := kind{fate: o.fate, to: o.to}
		out[k] = out[k].plus(o.share)
	}
	return out
}

// seen is what backends see of clients.
func (t *translator) seen(s *lb.Service, c class) string {
	var out []string
	for _, o := range c.outcomes {
		if o.fate == balanced {
			out = append(out, t.snat(s, o.source).String())
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " or ")
}

// backendsOnly reports whether clients are backends of the service.
func (t *translator) backendsOnly(s *lb.Service, clients space.Set) bool {
	var own []space.Range
	for _, b := range s.Backends {
		n := space.NumberOf(b.Address.Addr)
		own = append(own, space.Range{First: n, Last: n})
	}
	return clients.Against(space.Of(own...)) == space.Inside
}
