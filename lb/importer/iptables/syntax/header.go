package syntax

// Headers: conditions that need no module, on addresses, protocols and
// interfaces.

import (
	"strings"

	"nlb/lb/importer/iptables/space"
)

// networks are the alternatives of -s or -d; nil is any address.
func (r *reader) networks(name string) []space.Set {
	o := r.base.get(name)
	if o == nil {
		return []space.Set{nil}
	}
	parts := strings.Split(o.value(), ",")
	if len(parts) > 1 && o.not {
		r.fail(o.values[0], "! with a list of addresses", "one address")
		return []space.Set{nil}
	}
	var out []space.Set
	for _, part := range parts {
		set, ok := r.network(o, part)
		if ok && set == nil {
			set = space.Set{} // none
		}
		out = append(out, set)
	}
	return out
}

// network is what a part of an option says; nil and false where that is not known.
func (r *reader) network(o *setting, part string) (space.Set, bool) {
	set, named, err := parseNetwork(part, r.family)
	switch {
	case !r.good(o, err, "an "+r.family.String()+" address or prefix"):
		return nil, false
	case named:
		r.lost(o.values[0], "names of hosts are not resolved: "+part, "write the address")
		return nil, false
	}
	return o.but(set, space.Addresses(r.family)), true
}

// but is a set, or what else there is where the option has !.
func (o *setting) but(set, all space.Set) space.Set {
	if o.not {
		return all.Without(set)
	}
	return set
}
