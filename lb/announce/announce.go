// Package announce says which addresses of services a host is to have, so that
// others send it their clients: those that somebody is there to serve. It asks nobody,
// and has no clock.
package announce

// From profiles with the states of their backends to addresses, and when.

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"nlb/lb"
)

// VIP is an address that services listen on, of a profile that announces.
type VIP struct {
	Addr netip.Addr
	lb.Announce
	// Serves says that one of the services has somebody to serve.
	Serves bool
}

// VIPs are those of profiles, sorted, each once: as the first profile has it that
// announces it. serves says who has somebody, as Serves does.
func VIPs(profiles []*lb.Profile, serves func(*lb.Profile, *lb.Service, lb.Family) bool) []VIP {
	found := map[netip.Addr]*VIP{}
	announcing := slices.DeleteFunc(slices.Clone(profiles), func(p *lb.Profile) bool { return p.Announce == nil })
	for p, s := range lb.Services(announcing) {
		if s.Role != lb.RoleProxy {
			continue
		}
		for _, l := range s.Listen {
			a := l.Prefix.Addr()
			if !a.IsGlobalUnicast() {
				continue // this host's own, whatever they are, or known on no other one
			}
			v := found[a]
			if v == nil {
				v = &VIP{Addr: a, Announce: *p.Announce}
				found[a] = v
			}
			v.Serves = v.Serves || serves(p, s, lb.FamilyOf(a))
		}
	}
	out := make([]VIP, 0, len(found))
	for _, a := range slices.SortedFunc(maps.Keys(found), netip.Addr.Compare) {
		out = append(out, *found[a])
	}
	return out
}

// Serves reports whether a service has a backend of a family that is there to serve:
// with a weight, without an order, and found up where it is checked. One that has
// connections only since all are down is none.
func Serves(s *lb.Service, f lb.Family) bool {
	for i := range s.Backends {
		b := &s.Backends[i]
		is := b.Standing
		switch {
		case b.Named() || lb.FamilyOf(b.Address.Addr) != f || b.Weight == 0:
		case is.Order != lb.NoOrder || is.Verdict == lb.VerdictDown:
		case is.Verdict == lb.VerdictNew && (s.Checked(b) || b.State == lb.Down):
		default:
			return true
		}
	}
	return false
}

// Anybody takes every service for one that has somebody.
func Anybody(*lb.Profile, *lb.Service, lb.Family) bool { return true }

// Judge knows since when each address has had somebody to serve. The zero Judge knows
// nothing. It is driven by values and moments.
type Judge struct{ since map[netip.Addr]time.Time }

// Due are the VIPs that are to be announced at a moment, and when the next one will be,
// if nothing else happens; zero: none. An address that the host has already (has) need
// not wait, if it serves.
func (j *Judge) Due(vips []VIP, has func(netip.Addr) bool, now time.Time) (due []VIP, next time.Time) {
	since := map[netip.Addr]time.Time{}
	for _, v := range vips {
		if !v.Serves {
			continue
		}
		at, known := j.since[v.Addr]
		if !known {
			at = now
		}
		since[v.Addr] = at
		switch from := at.Add(v.Delay); {
		case has(v.Addr) || !from.After(now):
			due = append(due, v)
		case next.IsZero() || from.Before(next):
			next = from
		}
	}
	j.since = since
	return due, next
}

// Health says which of some services have somebody to serve.
type Health struct {
	// Healthy says that one of them has.
	Healthy bool `json:"healthy"`
	// Serving are how many have, of so many Services.
	Serving  int `json:"serving"`
	Services int `json:"services"`
	// Nobody are the others, profile/service; the first 100.
	Nobody []string `json:"nobody"`
}

const mostNamed = 100

// HealthOf is that of a profile, or of a profile/service; of all where the name is
// empty. false: there is none of this name. serves says who has somebody, as Serves
// does.
func HealthOf(profiles []*lb.Profile, name string, serves func(*lb.Profile, *lb.Service, lb.Family) bool) (Health, bool) {
	out, found := Health{Nobody: []string{}}, name == ""
	for _, p := range profiles {
		found = found || p.Name == name
	}
	for p, s := range lb.Services(profiles) {
		full := p.Name + "/" + s.Name
		if name != "" && name != p.Name && name != full {
			continue
		}
		found = true
		out.Services++
		switch {
		case serves(p, s, lb.IPv4) || serves(p, s, lb.IPv6):
			out.Serving++
		case len(out.Nobody) < mostNamed:
			out.Nobody = append(out.Nobody, full)
		}
	}
	out.Healthy = out.Serving > 0
	return out, found
}
