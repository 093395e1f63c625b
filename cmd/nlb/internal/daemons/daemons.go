// Package daemons writes configurations of the daemons that make several balancers one:
// BIRD and FRR, which announce addresses, keepalived, which hands them over, and
// conntrackd, which has connections known to all. They are for profiles, and for a
// place in a network that the caller names.
package daemons

// From profiles and settings to a text.

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/announce"
)

//go:embed *.tmpl
var files embed.FS

// Names are the daemons.
var Names = []string{"bird", "frr", "keepalived", "conntrackd"}

// page is what a template is filled with.
type page struct {
	settings
	Profiles     string
	VIPs4, VIPs6 []netip.Addr
	Devices      []string // that have the addresses
	Sources      []string // that servers see of connections
}

// Write is the configuration of a daemon, and what is to be said of it. with are
// settings, name=value. Errors say which there are.
func Write(daemon string, profiles []*lb.Profile, with []string) (config string, notes []string, err error) {
	if !slices.Contains(Names, daemon) {
		return "", nil, fmt.Errorf("there is nothing to write for %q: want one of %s", daemon, strings.Join(Names, ", "))
	}
	p := page{settings: defaults}
	if err := p.read(with); err != nil {
		return "", nil, err
	}
	p.look(profiles)
	if len(p.VIPs4)+len(p.VIPs6) == 0 {
		return "", nil, fmt.Errorf("%s: no service listens on an address that others could be told of", p.Profiles)
	}
	if err := p.check(daemon); err != nil {
		return "", nil, err
	}
	notes = p.notes(daemon, profiles)
	t, err := template.New("").Funcs(template.FuncMap{"inc": func(i int) int { return i + 1 }, "seq": func(i int) int { return 5 * (i + 1) }, "list": func(addrs []netip.Addr) string { return strings.Join(texts(addrs), ", ") }}).ParseFS(files, daemon+".tmpl")
	if err != nil {
		return "", nil, err
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, daemon+".tmpl", &p); err != nil {
		return "", nil, err
	}
	return b.String(), notes, nil
}

// check finds balancers that cannot speak to each other as a daemon does.
func (p *page) check(daemon string) error {
	family := version(p.Self)
	switch {
	case daemon != "keepalived" && daemon != "conntrackd":
	case slices.ContainsFunc(p.Peers, func(peer netip.Addr) bool { return version(peer) != family }):
		return fmt.Errorf("self and peer: want addresses of one family")
	case daemon == "keepalived" && len(p.Advertised()) == 0:
		return fmt.Errorf("self=%s: no service listens on an %s address, and VRRP needs one: want self and peer of the other family", p.Self, family)
	case daemon == "conntrackd" && p.Mesh() && !p.Self.Is4():
		return fmt.Errorf("self=%s: want an IPv4 address, as group is", p.Self)
	}
	return nil
}

// look finds what the profiles say of the host's addresses.
func (p *page) look(profiles []*lb.Profile) {
	var names []string
	for _, one := range profiles {
		names = append(names, one.Name)
		device := lb.AnnounceDefault.Interface
		if one.Announce != nil {
			device = one.Announce.Interface
		}
		if !slices.Contains(p.Devices, device) && device != "lo" {
			p.Devices = append(p.Devices, device)
		}
	}
	p.Profiles = text.List(names)
	for _, v := range announce.VIPs(announced(profiles), announce.Anybody) {
		if v.Addr.Is4() {
			p.VIPs4 = append(p.VIPs4, v.Addr)
		} else {
			p.VIPs6 = append(p.VIPs6, v.Addr)
		}
	}
	var sources []netip.Addr
	for _, s := range lb.Services(profiles) {
		sources = append(sources, s.SNAT.Pool...)
		for i := range s.Backends {
			sources = append(sources, s.Backends[i].SNAT.Pool...)
		}
	}
	slices.SortFunc(sources, netip.Addr.Compare)
	for _, a := range slices.Compact(sources) {
		p.Sources = append(p.Sources, whole(a))
	}
}

// announced are the profiles as if all of them announced: what keepalived hands over
// is in none.
func announced(profiles []*lb.Profile) []*lb.Profile {
	out := make([]*lb.Profile, len(profiles))
	for i, p := range profiles {
		q := *p
		if q.Announce == nil {
			a := lb.AnnounceDefault
			q.Announce = &a
		}
		out[i] = &q
	}
	return out
}

// notes are what is to be said of a configuration.
func (p *page) notes(daemon string, profiles []*lb.Profile) (out []string) {
	missing := filter(needed[daemon], func(name string) bool { return !slices.Contains(p.said, name) })
	if len(missing) > 0 {
		out = append(out, "examples stand for "+text.List(missing)+": say --with "+missing[0]+"=…, or edit it")
	}
	announces := slices.ContainsFunc(profiles, func(p *lb.Profile) bool { return p.Announce != nil })
	switch daemon {
	case "bird", "frr":
		if !announces {
			out = append(out, "no profile has announce, so nlb run gives this host no addresses to announce")
		}
		for _, f := range p.Families() {
			if len(f.Front) == 0 && len(f.VIPs) > 0 {
				out = append(out, "no router of the clients has an "+f.Name+" address, so those of "+f.Name+" are not announced")
			}
		}
	case "keepalived":
		if announces {
			out = append(out, "a profile has announce: nlb run gives its addresses to both hosts, and keepalived to one")
		}
		if masquerades(profiles) {
			out = append(out, "backends see this host's own address (snat: masquerade), so their connections end at a handover: take an address that floats, or none")
		}
	}
	return out
}

func masquerades(profiles []*lb.Profile) bool {
	for _, s := range lb.Services(profiles) {
		if s.Mode == lb.NAT && slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.SNAT.Mode == lb.Masquerade }) {
			return true
		}
	}
	return false
}

// family is what is announced of one, and to whom.
type family struct {
	Name        string
	Version     int
	Front, Back []router
	VIPs        []netip.Addr
}

// Families are those that there is anything of.
func (p *page) Families() (out []family) {
	for _, f := range []family{{Name: "ipv4", Version: 4, VIPs: p.VIPs4}, {Name: "ipv6", Version: 6, VIPs: p.VIPs6}} {
		of := func(r router) bool { return r.Version() == f.Version }
		f.Front, f.Back = filter(p.Front, of), filter(p.Back, of)
		if len(f.VIPs)+len(f.Front)+len(f.Back) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// Routers are all.
func (p *page) Routers() []router { return slices.Concat(p.Front, p.Back) }

// Has reports whether there is something to announce of a version of IP.
func (p *page) Has(version int) bool {
	return version == 4 && len(p.VIPs4) > 0 || version == 6 && len(p.VIPs6) > 0
}

// mostAdvertised is how many addresses a VRRP packet of keepalived has.
const mostAdvertised = 20

// Advertised are the addresses in VRRP packets: of the family that these are sent by.
func (p *page) Advertised() []string {
	of := p.VIPs4
	if p.Self.Is6() {
		of = p.VIPs6
	}
	return texts(of[:min(len(of), mostAdvertised)])
}

// Beside are the other addresses that move with them, with those that servers see
// where there is no side of theirs.
func (p *page) Beside() (out []string) {
	for _, one := range texts(slices.Concat(p.VIPs4, p.VIPs6)) {
		if !slices.Contains(p.Advertised(), one) {
			out = append(out, one)
		}
	}
	if p.BackInterface == "" {
		out = append(out, p.Sources...)
	}
	return out
}

// BackAdvertised are the gateways in VRRP packets: of the family of the first one.
func (p *page) BackAdvertised() []netip.Prefix {
	return filter(p.BackAddresses, func(a netip.Prefix) bool { return a.Addr().Is4() == p.BackAddresses[0].Addr().Is4() })
}

// BackBeside are the other addresses of the servers' side.
func (p *page) BackBeside() (out []string) {
	for _, a := range p.BackAddresses {
		if !slices.Contains(p.BackAdvertised(), a) {
			out = append(out, a.String())
		}
	}
	return append(out, p.Sources...)
}

// Own are the addresses of the balancers as conntrackd has them.
func (p *page) Own() (out []string) {
	for _, a := range append([]netip.Addr{p.Self}, p.Peers...) {
		out = append(out, version(a)+"_address "+a.String())
	}
	return out
}

func version(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

func whole(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

func texts(addrs []netip.Addr) (out []string) {
	for _, a := range addrs {
		out = append(out, whole(a))
	}
	return out
}

func filter[T any](all []T, is func(T) bool) (out []T) {
	for _, one := range all {
		if is(one) {
			out = append(out, one)
		}
	}
	return out
}
