// Package needs says which kernel parameters profiles depend on. It asks no kernel.
package needs

import (
	"slices"
	"strconv"

	"nlb/lb"
)

// Need is a kernel parameter that must, or should, have a value.
type Need struct {
	// Param is the name as sysctl(8) writes it: net.ipv4.ip_forward.
	Param string
	// Value is what it has to be.
	Value string
	// Why says what does not work without it.
	Why string
	// Wanted: the services work without it, but some of their connections
	// break. Where it is missing or cannot be written, that is no reason to
	// refuse a profile.
	Wanted bool
	// AtLeast: Value is a number, and a larger one is as good.
	AtLeast bool
}

// Met reports whether the value that was found will do.
func (n Need) Met(found string) bool {
	if n.AtLeast {
		have, err := strconv.Atoi(found)
		least, err2 := strconv.Atoi(n.Value)
		return err == nil && err2 == nil && have >= least
	}
	return found == n.Value
}

// Of lists what the services of the profiles depend on, each parameter once, those
// that are only wanted last.
func Of(profiles []*lb.Profile) []Need {
	var forward4, forward6, tcp, moves, picks bool
	for _, s := range lb.Services(profiles) {
		if s.Mode.Direct() {
			continue // neither forwarded nor tracked
		}
		translates := slices.Contains(s.Protocols, lb.TCP) && len(s.Backends) > 0
		tcp = tcp || translates
		if s.Role == lb.RoleClient {
			continue // not forwarded, and known to no other balancer
		}
		moves = moves || translates && s.Fleet != lb.FleetNone
		picks = picks || translates && s.PicksUp()
		for _, b := range s.Backends {
			if b.Named() || b.Address.Addr.IsLoopback() || b.Address.OfHost() {
				continue
			}
			forward4 = forward4 || lb.FamilyOf(b.Address.Addr) == lb.IPv4
			forward6 = forward6 || lb.FamilyOf(b.Address.Addr) == lb.IPv6
		}
	}
	var out []Need
	add := func(is bool, n Need) {
		if is {
			out = append(out, n)
		}
	}
	add(forward4, Need{Param: "net.ipv4.ip_forward", Value: "1", Why: "IPv4 connections are not forwarded to backends without it"})
	add(forward6, Need{Param: "net.ipv6.conf.all.forwarding", Value: "1", Why: "IPv6 connections are not forwarded to backends without it"})
	liberal := Need{
		Param: "net.netfilter.nf_conntrack_tcp_be_liberal", Value: "1", Wanted: true,
		Why: "a TCP segment outside of the window is not translated, and the reset that answers it ends the connection",
	}
	if moves {
		liberal.Wanted, liberal.Why = false, "a connection that comes back from another balancer of the fleet is outside of the window, is not translated and ends"
	}
	add(tcp, liberal)
	add(picks, Need{
		Param: "net.netfilter.nf_conntrack_tcp_loose", Value: "1",
		Why: "a connection that comes from another balancer of the fleet is not picked up, and ends",
	})
	add(tcp, Need{
		Param: "net.netfilter.nf_conntrack_tcp_timeout_close_wait", Value: "3600", Wanted: true, AtLeast: true,
		Why: "a client that has sent its FIN and waits longer than this for the answer loses the connection",
	})
	return out
}
