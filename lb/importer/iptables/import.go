// Package iptables turns rules of iptables into a profile. It walks them as the
// kernel does, and so finds out what they do, which is not always what they
// look like.
package iptables

// Import: from a text to a profile.

import (
	"slices"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// Import reads what iptables-save and ip6tables-save print, and command lines.
// file is the name of the text for messages. The error is lb.Errors: the text
// is not what iptables would take.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, err := importer.Begin(file, "iptables", data)
	if err != nil {
		return nil, err
	}
	sets, err := syntax.Parse(file, draft.Lines, draft)
	if err != nil {
		return nil, err
	}
	Translate(draft, sets)
	return draft.Finish(), nil
}

// Translate adds the services that rulesets make to a draft. Rules of several rulesets
// that have the same place are one.
func Translate(draft *importer.Draft, sets []*syntax.Ruleset) {
	budget := maxSteps
	var all []*translator
	for _, set := range sets {
		t := &translator{set: set, elsewhere: backendsOf(set), draft: draft, interfaces: interfacesOf(set), ways: waysOf(set), used: map[*syntax.Rule]bool{}, told: map[*syntax.Rule]bool{}}
		t.translate(&budget)
		all = append(all, t)
	}
	for _, t := range all {
		elsewhere := map[importer.Place]bool{}
		for _, other := range all {
			for r := range other.used {
				elsewhere[r.Place] = elsewhere[r.Place] || other != t
			}
		}
		t.account(elsewhere)
	}
}

// interfacesOf divides the names of interfaces as the rules do.
func interfacesOf(set *syntax.Ruleset) *space.Interfaces {
	var patterns []string
	for r := range set.Rules {
		for _, m := range r.Matches {
			if m, ok := m.(syntax.Interface); ok {
				patterns = append(patterns, m.Pattern)
			}
		}
	}
	return space.NewInterfaces(patterns)
}

// backendsOf are the addresses that rules send to.
func backendsOf(set *syntax.Ruleset) space.Set {
	var out []space.Range
	for r := range set.Rules {
		if d, ok := r.Target.(syntax.DNAT); ok {
			for _, to := range d.To {
				if to.First.IsValid() {
					out = append(out, space.Range{First: space.NumberOf(to.First), Last: space.NumberOf(to.Last)})
				}
			}
		}
	}
	return space.Of(out...)
}

// translator turns one ruleset into services.
type translator struct {
	set        *syntax.Ruleset
	draft      *importer.Draft
	interfaces *space.Interfaces
	ways       *ways
	// used are the rules that are in a service, told those that a finding is
	// about.
	used, told map[*syntax.Rule]bool
	// elsewhere are addresses of backends.
	elsewhere space.Set
	// cut: the search was ended before its end.
	cut bool
}

// candidate is a region that wants to be a service.
type candidate struct {
	*finding
	region space.Region
	logs   []*syntax.Rule
	role   lb.Role
	// at is where its connections go, as backends.
	at map[destination]lb.Endpoint
	// alone: this host's own connections do not meet the same.
	alone bool
	// inside: what this host sends to its loopback addresses is in it, too.
	inside bool
}

func (t *translator) translate(budget *int) {
	var both [2][]*candidate
	for _, h := range []hook{prerouting, output} {
		found, logs, err := partition(t.set, t.interfaces, t.ways, h, budget)
		if err != nil {
			t.cut = true
			t.draft.Lost(err.Error()+", so not all are looked at", "import a part of the rules")
		}
		var never space.Set // where nothing goes that this hook sees
		if h == prerouting {
			never = loopback(t.set.Family)
		}
		for _, f := range found {
			for _, r := range f.regions {
				if len(t.without(r, never)) == 0 {
					continue
				}
				both[h] = append(both[h], &candidate{finding: f, region: r, logs: logs, at: map[destination]lb.Endpoint{}})
			}
		}
	}
	services := t.roles(both)
	slices.SortStableFunc(services, func(a, b *candidate) int { return a.deciding()[0].Place.Line - b.deciding()[0].Place.Line })
	for _, c := range services {
		t.service(c)
	}
}

// roles says whose traffic each candidate is about. What both hooks do alike is
// one service.
func (t *translator) roles(both [2][]*candidate) []*candidate {
	services := both[prerouting]
	same := map[string][]*candidate{} // those that may be alike
	key := func(c *candidate) string { return c.classes[0].key + c.region[space.Port].Key() }
	for _, p := range services {
		p.alone = true
		same[key(p)] = append(same[key(p)], p)
	}
	for _, o := range both[output] {
		inside := o.region[space.Destination].Meets(loopback(t.set.Family))
		near := same[key(o)]
		i := slices.IndexFunc(near, func(p *candidate) bool { return p.alone && t.alike(p, o) })
		if i < 0 {
			o.role, o.inside = lb.RoleClient, inside
			services = append(services, o)
			continue
		}
		p := near[i]
		p.alone, p.inside = false, inside
		// What the rules of either hook say is about the one service.
		p.trace.add(o.trace)
	}
	for _, p := range services {
		switch {
		case !p.alone:
		case t.own(p.region):
			p.role = lb.RoleServer
		case t.anyInterface(p.region):
			t.draft.Note("these rules balance what comes from the network only; the profile also what this host itself sends to the same address", "",
				places(p.deciding())...)
		}
	}
	return services
}

// alike reports whether this host's own connections meet the same as those
// from the network.
func (t *translator) alike(p, o *candidate) bool {
	loop := loopback(t.set.Family)
	return t.anyInterface(p.region) &&
		p.region[space.Port].Equal(o.region[space.Port]) && p.region[space.Protocol].Equal(o.region[space.Protocol]) &&
		p.region[space.Local].Equal(o.region[space.Local]) &&
		t.without(p.region, loop).Equal(t.without(o.region, loop)) &&
		p.classes[0].key == o.classes[0].key
}

// own reports whether a region has to be this host's own addresses: because the
// rules say so, or because nothing else fits what they say.
func (t *translator) own(r space.Region) bool {
	return r[space.Local].Equal(space.Own(true)) || t.everywhere(r) && t.anyInterface(r)
}

// anyInterface reports whether a service for a region cannot be limited to
// interfaces, since it has all, or all but some.
func (t *translator) anyInterface(r space.Region) bool {
	patterns, ok := t.interfaces.Patterns(r[space.Interface])
	return !ok || slices.Equal(patterns, []string{"+"})
}

// without are the destinations of a region but some. Of this host's own, neither
// do the addresses of backends count: a bridge's containers are no addresses of
// this host.
func (t *translator) without(r space.Region, some space.Set) space.Set {
	if !r[space.Local].Equal(space.Own(true)) {
		return r[space.Destination].Without(some)
	}
	return r[space.Destination].Without(some.Union(t.elsewhere))
}

// everywhere reports whether a region has all destinations.
func (t *translator) everywhere(r space.Region) bool {
	all := space.Addresses(t.set.Family)
	return len(t.without(space.Region{space.Destination: all, space.Local: r[space.Local]}, loopback(t.set.Family).Union(r[space.Destination]))) == 0
}

func places(rules []*syntax.Rule) []importer.Place {
	var out []importer.Place
	for _, r := range rules {
		out = append(out, r.Place)
	}
	return out
}
