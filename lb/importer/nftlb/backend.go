package nftlb

// Backends of a farm.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/document"
)

// member is a backend while it is read.
type member struct {
	lb.Backend
	weight   uint64
	priority uint64
	up       bool
	place    importer.Place
}

// backends reads the backends of a farm. Those that are not in use have
// weight 0.
func (r *reader) backends(o *document.Node, s *lb.Service) []lb.Backend {
	var members []member
	names, addresses := map[string]bool{}, map[lb.Endpoint]bool{}
	for _, n := range r.objects(o.Get("backends")) {
		m, ok := r.backend(n)
		if !ok {
			continue
		}
		if addresses[m.Address] {
			r.Lost(fmt.Sprintf("backend %s is here twice, and is left out the second time", m.Address), "", m.place)
			continue
		}
		addresses[m.Address] = true
		if names[m.Name] {
			m.Name = m.Address.String()
		}
		names[m.Name] = true
		members = append(members, m)
	}
	level := r.level(o, members)
	var shares []int64
	for _, m := range members {
		w := int64(0)
		if m.priority > level {
			r.Lost("backends with a lower priority do not take over by themselves; the profile has them with weight 0", "", m.place)
		} else if m.up {
			w = int64(m.weight)
		}
		shares = append(shares, w)
	}
	weights := r.Weights(shares, lineOf(o))
	var out []lb.Backend
	for i, m := range members {
		m.Weight, m.Priority = weights[i], 1
		out = append(out, m.Backend)
	}
	return out
}

// level is the priority up to which backends are in use: the farm's, or that
// of the first backends that are up.
func (r *reader) level(o *document.Node, members []member) uint64 {
	level := r.number(o, "priority", 1, 1<<32)
	var up []uint64
	for _, m := range members {
		if m.up {
			up = append(up, m.priority)
		}
	}
	if len(up) == 0 {
		return level
	}
	return max(level, slices.Min(up))
}

// backendKeys are those of a backend, last those that say nothing that matters for a
// profile.
var backendKeys = importer.Words("name ip-addr port source-addr weight priority mark est-connlimit state fqdn ether-addr iface est-connlimit-log-prefix")

func (r *reader) backend(n *document.Node) (member, bool) {
	m := member{place: lineOf(n)}
	r.keys(n, backendKeys)
	a := r.address(n, "ip-addr")
	if !a.IsValid() {
		if r.text(n, "ip-addr", "") == "" {
			r.Fail(n.Place, "a backend has no ip-addr", `"ip-addr"`)
		}
		return m, false
	}
	m.Address = lb.Endpoint{Addr: a, Port: uint16(r.number(n, "port", 0, 65535))}
	m.Name = cmp.Or(importer.Name(r.text(n, "name", "")), m.Address.String())
	m.weight = r.number(n, "weight", 1, 1<<31)
	m.priority = r.number(n, "priority", 1, 1<<32)
	m.MaxConnections = uint32(r.number(n, "est-connlimit", 0, 1<<32-1))
	if src := r.address(n, "source-addr"); src.IsValid() {
		m.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{src}}
	}
	if mark := r.text(n, "mark", "0x0"); strings.Trim(mark, "0x") != "" {
		r.Note("marks of backends are not in the profile: nlb gives its own to connections", "", at(n, "mark"))
	}
	state := r.text(n, "state", "up")
	m.up = state == "up" || state == "available"
	if !slices.Contains([]string{"up", "available", "down", "off", "config_error"}, state) {
		r.Fail(at(n, "state"), fmt.Sprintf("unknown state %q", state), "up, down or off")
	} else if !m.up {
		r.Note("a backend that is "+state+" has weight 0", "", at(n, "state"))
	}
	return m, true
}
