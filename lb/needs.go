package lb

// Needs: what kernel parameters the traffic of a profile depends on.

import (
	"slices"
	"strconv"
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

// Needs lists what the services of the profiles depend on, each parameter
// once, those that are only wanted last. A backend on another host is reached
// by forwarding, unless only this host's own connections are balanced. Every
// translated TCP connection relies on connection tracking.
func Needs(profiles []*Profile) []Need {
	var forward [2]bool
	tcp := false
	for _, p := range profiles {
		for i := range p.Services {
			s := &p.Services[i]
			tcp = tcp || slices.Contains(s.Protocols, TCP) && len(s.Backends) > 0
			if s.Role == RoleClient {
				continue
			}
			for _, b := range s.Backends {
				if !b.Named() && !b.Address.Addr.IsLoopback() {
					forward[index(FamilyOf(b.Address.Addr))] = true
				}
			}
		}
	}
	var out []Need
	if forward[0] {
		out = append(out, Need{Param: "net.ipv4.ip_forward", Value: "1", Why: "IPv4 connections are not forwarded to backends without it"})
	}
	if forward[1] {
		out = append(out, Need{Param: "net.ipv6.conf.all.forwarding", Value: "1", Why: "IPv6 connections are not forwarded to backends without it"})
	}
	if tcp {
		out = append(out, Need{
			Param: "net.netfilter.nf_conntrack_tcp_be_liberal", Value: "1", Wanted: true,
			Why: "a TCP segment outside of the window is not translated, and the reset that answers it ends the connection",
		}, Need{
			Param: "net.netfilter.nf_conntrack_tcp_timeout_close_wait", Value: "3600", Wanted: true, AtLeast: true,
			Why: "a client that has sent its FIN and waits longer than this for the answer loses the connection",
		})
	}
	return out
}
