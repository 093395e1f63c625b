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
		set, named, err := parseNetwork(part, r.family)
		switch {
		case err != nil:
			r.fail(o.values[0], err.Error(), "an "+r.family.String()+" address or prefix")
			set = nil
		case named:
			r.lost(o.values[0], "names of hosts are not resolved: "+part, "write the address")
			set = nil
		case o.not:
			set = space.Addresses(r.family).Without(set)
			if set == nil {
				set = space.Set{}
			}
		}
		out = append(out, set)
	}
	return out
}

// basics are the conditions that need no module, but for the addresses.
func (r *reader) basics() {
	for i := range r.base.options {
		o := &r.base.options[i]
		switch o.name {
		case "protocol":
			set, err := parseProtocol(o.value())
			if err != nil {
				r.fail(o.values[0], err.Error(), "tcp, udp, sctp, a number or all")
				continue
			}
			if o.not {
				set = space.AllProtocols().Without(set)
			}
			r.add(Protocol{set})
		case "in-interface":
			r.add(Entering{o.value(), o.not})
		case "out-interface":
			r.add(Leaving{o.value(), o.not})
		case "fragment":
			r.add(Fixed{o.not})
		}
	}
}
