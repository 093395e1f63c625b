package doctor

// A fleet: addresses that are to be announced, and the daemons that make several
// balancers one.

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/announce"
)

// Daemon is a program that runs, or may run, and its configuration; empty: it could not
// be read.
type Daemon struct{ File, Config string }

// announced looks at the addresses that profiles want announced.
func (e *exam) announced() {
	wanted := announce.VIPs(e.Profiles, announce.Anybody)
	for _, v := range wanted {
		holder, ours, down := e.holder(v.Addr), slices.Contains(e.Announced, v.Addr), e.trackedDown(&v)
		switch {
		case holder != nil && !ours:
			e.add(Warn, v.Addr.String(), "it stays here, whoever is up", "somebody else than nlb run has made it, on "+holder.Name+", and nlb leaves it alone",
				"ip address del "+netip.PrefixFrom(v.Addr, v.Addr.BitLen()).String()+" dev "+holder.Name)
		case !e.kept(v.Addr) && ours:
			e.add(Warn, v.Addr.String(), "it is announced, and nobody looks whether its servers are up", "no nlb run keeps its profile", "systemctl start nlb-agent")
		case !e.kept(v.Addr):
			e.add(Warn, v.Addr.String(), "it is not announced", "that needs nlb run, and none keeps its profile", "systemctl start nlb-agent")
		case !ours && down != "":
			e.add(Warn, v.Addr.String(), "it is not announced", "track names interface "+down+", which is down", "")
		case !ours:
			e.add(Warn, v.Addr.String(), "it is not announced", "nobody is up to serve, or not for as long as delay says; nlb show and journalctl -u nlb-agent say more", "")
		}
	}
	e.fineIf(len(wanted) > 0, "this host has the addresses that are to be announced")
}

// trackedDown is an interface that has to be up for an address to be announced, and is
// not; empty: there is none.
func (e *exam) trackedDown(v *announce.VIP) string {
	for _, name := range v.Track {
		if l := e.link(name); l == nil || !l.Up {
			return name
		}
	}
	return ""
}

// kept reports whether nlb run keeps a profile that announces an address.
func (e *exam) kept(a netip.Addr) bool {
	return e.Agent.Running && slices.ContainsFunc(e.Profiles, func(p *lb.Profile) bool {
		return slices.Contains(e.Agent.Profiles, p.Name) && slices.ContainsFunc(announce.VIPs([]*lb.Profile{p}, announce.Anybody), func(v announce.VIP) bool { return v.Addr == a })
	})
}

// moves reports whether keepalived moves an address that services listen on.
func (e *exam) moves() bool {
	d, running := e.Daemons["keepalived"]
	if !running {
		return false
	}
	moved := map[netip.Addr]bool{}
	for word := range strings.FieldsSeq(settings(d.Config, "!", "#")) {
		text, _, _ := strings.Cut(word, "/")
		if a, err := netip.ParseAddr(text); err == nil {
			moved[a] = true
		}
	}
	for _, s := range lb.Services(e.Profiles) {
		if slices.ContainsFunc(s.Listen, func(l lb.Listen) bool { return l.Prefix.IsSingleIP() && moved[l.Prefix.Addr()] }) {
			return true
		}
	}
	return false
}

var (
	parts    = regexp.MustCompile(`(?m)^\s*advert_int\s+\d*\.\d*[1-9]`)
	version3 = regexp.MustCompile(`(?m)^\s*(vrrp_)?version\s+3\b`)
	tracks   = regexp.MustCompile(`(?m)^\s*track_(file|script)\b`)
	shares   = regexp.MustCompile(`(?m)^\s*Sync\b`)
	external = regexp.MustCompile(`(?mi)^\s*DisableExternalCache\s+(on|yes)\b`)
)

// settings are a configuration without its comments.
func settings(config string, marks ...string) string {
	var out strings.Builder
	for line := range strings.Lines(config) {
		for _, mark := range marks {
			line, _, _ = strings.Cut(line, mark)
		}
		out.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	return out.String()
}

// keepalived looks at the one that moves addresses of services.
func (e *exam) keepalived() {
	if !e.moves() {
		return
	}
	d := e.Daemons["keepalived"]
	config := settings(d.Config, "!", "#")
	const render = "nlb render --for keepalived writes a configuration without this"
	if parts.MatchString(config) && !version3.MatchString(config) {
		e.add(Warn, d.File, "a host that dies is noticed after 3 seconds", "VRRP of version 2, the default, takes a part of a second in advert_int for a whole one: say vrrp_version 3; "+render, "")
	}
	if !tracks.MatchString(config) {
		e.add(Warn, d.File, "this host keeps the addresses when nobody is up to serve", "it has no track_file, which nlb run writes for it; "+render, "")
	}
	if _, running := e.Daemons["conntrackd"]; !running {
		e.add(Warn, "", "open connections end when the addresses move", "keepalived runs here, and conntrackd does not; nlb render --for conntrackd writes a configuration", "systemctl enable --now conntrackd")
	}
	e.fine("keepalived moves addresses of services, and connections are known to the other host")
}

// conntrackd looks at it where it runs, and where services need it.
func (e *exam) conntrackd() {
	d, running := e.Daemons["conntrackd"]
	needs := e.needsEntries()
	const says = "other balancers do not know them: the profile says fleet: "
	switch config := settings(d.Config, "#"); {
	case e.Daemons != nil && !running && needs != lb.FleetNone && !e.moves(): // else keepalived's finding says it
		e.add(Warn, "", "open connections end when they come to another balancer", says+needs.String()+", and conntrackd does not run; nlb render --for conntrackd writes a configuration", "systemctl enable --now conntrackd")
	case !running || d.Config == "":
		return
	case !shares.MatchString(config):
		if needs != lb.FleetNone {
			e.add(Warn, d.File, "open connections end when they come to another balancer", says+needs.String()+", and this configuration has no Sync; nlb render --for conntrackd writes one", "")
		}
		return
	case !external.MatchString(config):
		e.add(Warn, d.File, "entries of other hosts wait until a script commits them", "that comes after the addresses have moved, and what arrives before is reset: say DisableExternalCache On; nlb render --for conntrackd does", "")
	}
	e.fine("conntrackd puts connections of other hosts into the kernel at once")
}

// needsEntries is the fleet of a service whose connections go on only where another
// balancer has their entries. Those of a mesh that draws by a hash, and keeps the source,
// are drawn alike by all.
func (e *exam) needsEntries() lb.Fleet {
	for _, s := range lb.Services(e.Profiles) {
		pair := s.Fleet == lb.FleetPair && s.Role == lb.RoleProxy && s.Mode == lb.NAT
		alike := s.Scheduler.Hashes() && !slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.SNAT.Mode != lb.SNATNone })
		if pair || s.PicksUp() && s.Fleet == lb.FleetMesh && !alike {
			return s.Fleet
		}
	}
	return lb.FleetNone
}
