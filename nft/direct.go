package nft

// Direct: the table of family netdev beside ours, which has the services with mode: dsr
// or tunnel. Our table holds all that is known of them; that one follows from it, from the
// routes and from the interfaces, and is read and compared whole.

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/direct"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// readDirect reads the table; nil: there is none. One that is not ours is there, and
// nothing of it is read.
func readDirect(c *wire.Conn, table string) (*objects, error) {
	b, err := c.Request(wire.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Netdev, wire.Named(table))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the table of family netdev: %w", err)
	}
	o := newObjects(ruleset.Netdev)
	o.exists = true
	o.layout = compile.LayoutOf(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment))
	if o.unknown = o.layout == 0; o.unknown {
		return o, nil
	}
	return o, o.readAll(c, table)
}

// packets counts those that went to a backend with a mark as they were.
func (o *objects) packets(f *compile.Family, mark uint32) uint64 {
	if o.direct == nil || o.direct.maps[direct.Backends(f)] == nil {
		return 0
	}
	e := o.direct.maps[direct.Backends(f)].elements[ruleset.MarkBytes(mark)]
	return e.More().Packets
}

// LinksInUse are the numbers of the interfaces that packets are sent by from the table of
// family netdev.
func LinksInUse(c *wire.Conn, table string) (map[uint32]bool, error) {
	links, err := readSet(c, ruleset.Netdev, table, direct.Map(direct.LinksMap))
	if err != nil {
		return nil, fmt.Errorf("read the links of table netdev %s: %w", table, err)
	}
	out := map[uint32]bool{}
	for _, e := range links {
		out[ruleset.MarkOf(e.Data)] = true
	}
	return out, nil
}

// datagrams counts those that went to a server of a service, each for itself. endpoint
// is its address, and perhaps a port.
func (o *objects) datagrams(chain string, f *compile.Family, endpoint string) (n uint64) {
	m := o.maps[compile.ServersOf(chain, f)]
	if m == nil {
		return 0
	}
	for _, e := range m.elements {
		if strings.HasPrefix(endpoint, e.Data) {
			n += e.More().Packets
		}
	}
	return n
}

// linkWith makes options have the links of profiles and of others that stay. Errors:
// ErrForeign, and a backend that cannot be reached.
func (s *State) linkWith(o *Options, profiles, others []*lb.Profile) error {
	if !direct.Has(profiles) && !direct.Has(others) {
		return nil
	}
	if d := s.objects.direct; d != nil && d.unknown {
		return fmt.Errorf("table netdev %s: %w", s.Table, ErrForeign)
	}
	if err := o.readLinks(profiles, others); err != nil {
		return err
	}
	if why := o.links.Refused(profiles); why != "" {
		return errors.New(why)
	}
	return nil
}

// readLinks reads the links of profiles, and of others, unless they are known: an Update
// goes on with those of the last apply.
func (o *Options) readLinks(profiles, others []*lb.Profile) (err error) {
	all := slices.Concat(profiles, others)
	switch {
	case !direct.Has(all), o.links != nil && !direct.Has(others):
		return nil
	case o.Links == nil:
		return errors.New("mode: dsr and tunnel need to know the interfaces and routes of the host")
	}
	o.links, err = o.Links(all)
	return err
}

// direct plans the table. Drift, which has no links, leaves it as it is.
func (p *plan) direct(have *State, g *goal, n *compile.Numbers) {
	is := have.objects.direct
	if is != nil && is.unknown || g.links == nil && direct.Has(g.profiles) {
		return
	}
	want := direct.Ruleset(g.Table, g.profiles, g.others, n, g.links, func(name string) bool {
		return is != nil && is.maps[name] != nil && slices.ContainsFunc(slices.Collect(maps.Values(is.maps[name].elements)), func(e ruleset.Element) bool {
			return !g.inScope(direct.ProfileOf(is.maps[name].spec, e))
		})
	})
	if want == nil {
		p.removeDirect(have)
		return
	}
	p.family = ruleset.Netdev
	defer func() { p.family = 0 }()
	if is == nil {
		p.add(op{verb: add, table: true})
		is = newObjects(ruleset.Netdev)
	}
	leaving := p.directMaps(is, want, g.inScope)
	p.directChains(is, want, g.inScope)
	if !p.empty() { // else nobody has left now
		p.leave(leaving, have, g.profiles, g.Options)
	}
}

// removeDirect removes the table.
func (p *plan) removeDirect(have *State) {
	if is := have.objects.direct; is != nil && !is.unknown {
		p.add(op{verb: remove, table: true})
		p.main[len(p.main)-1].family = ruleset.Netdev
	}
}

// directMaps brings maps and chains up to date that packets do not enter by, then those
// that they do. It returns the elements of backends that nobody has any more.
func (p *plan) directMaps(is *objects, want *ruleset.Ruleset, inScope func(string) bool) map[*ruleset.Map][]ruleset.Element {
	leaving := map[*ruleset.Map][]ruleset.Element{}
	for _, m := range want.Maps {
		if is.maps[m.Name] == nil {
			p.add(op{verb: add, mapping: m})
		}
	}
	for _, c := range want.Chains {
		if is.chains[c.Name] == nil && c.Hook == nil {
			p.add(op{verb: add, chain: c})
		}
	}
	for _, m := range slices.Backward(want.Maps) {
		if m.Dynamic || m.Kind == ruleset.Destinations {
			continue
		}
		c := directChange(is, m, inScope)
		if m.Kind != ruleset.OwnSlots && len(c.gone) > 0 {
			leaving[m], c.gone = sorted(c.gone), nil
		}
		p.change(m, c)
	}
	for _, c := range want.Chains {
		if c.Hook == nil {
			var rules []haveRule
			if h := is.chains[c.Name]; h != nil {
				rules = h.rules
			}
			p.rules(c, rules)
		}
	}
	for _, m := range slices.Backward(want.Maps) {
		if m.Kind == ruleset.Destinations {
			p.change(m, directChange(is, m, inScope))
		}
	}
	return leaving
}

// directChange is what becomes of the elements of a map.
func directChange(is *objects, m *ruleset.Map, inScope func(string) bool) change {
	c := compared(is.elements(m.Name), m, nil)
	c.gone = slices.DeleteFunc(c.gone, func(h ruleset.Element) bool { return m.Kind != ruleset.OwnSlots && !inScope(direct.ProfileOf(m, h)) })
	return c
}

// directChains brings the entry up to date, and removes the chains and maps of services
// that are gone. A base chain is on its devices for as long as it lives, so with other
// devices there is another.
func (p *plan) directChains(is *objects, want *ruleset.Ruleset, inScope func(string) bool) {
	ours := func(name string) bool {
		profile, _, ok := compile.OwnerOf(name)
		return ok && inScope(profile)
	}
	wanted := map[string]bool{}
	for _, c := range want.Chains {
		if wanted[c.Name] = true; c.Hook == nil {
			continue
		}
		h := is.chains[c.Name]
		if h != nil && sameDevices(h.devices, c.Hook.Devices) {
			p.rules(c, h.rules)
			continue
		}
		if h != nil {
			p.add(op{verb: remove, chain: c})
		}
		p.add(op{verb: add, chain: c, joined: h != nil})
		for i := range c.Rules {
			p.add(op{verb: add, chain: c, rule: &c.Rules[i], joined: h != nil})
		}
	}
	needed := map[string]bool{}
	for _, m := range want.Maps {
		needed[m.Name] = true
	}
	names := slices.Sorted(maps.Keys(is.maps))
	for _, name := range names { // what leads to the chains
		if m := is.maps[name].spec; !needed[name] && m != nil && m.Kind == ruleset.Destinations {
			p.add(op{verb: remove, mapping: m})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is.chains)) {
		if !wanted[name] && (ours(name) || name == direct.EntryChain) {
			p.add(op{verb: remove, chain: &ruleset.Chain{Name: name}})
		}
	}
	for _, name := range names {
		if !needed[name] && ours(name) {
			p.add(op{verb: remove, mapping: &ruleset.Map{Name: name}})
		}
	}
}

func sameDevices(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// leave removes the elements of backends that nobody has any more. Those whose flows a
// service remembers stay until they have had no packet for as long as that.
func (p *plan) leave(leaving map[*ruleset.Map][]ruleset.Element, have *State, profiles []*lb.Profile, o Options) {
	remember := map[uint32]int64{} // seconds, by the mark of the backend
	wanted := byChain(profiles)
	for key, b := range have.backends {
		if s := wanted[key.Chain]; s != nil && !o.Cut {
			remember[b.mark] = int64(s.Remember / time.Second)
		}
	}
	now, packets := time.Now().Unix(), map[uint32]uint64{}
	for m, elements := range leaving {
		for _, e := range elements {
			if m.Counter {
				packets[ruleset.MarkOf(e.Key)] = e.More().Packets
			}
		}
	}
	for _, m := range slices.SortedFunc(maps.Keys(leaving), func(a, b *ruleset.Map) int { return strings.Compare(a.Name, b.Name) }) {
		var c change
		for _, e := range leaving[m] {
			mark := ruleset.MarkOf(e.Key)
			l, noted := direct.ReadLeft(e)
			next := direct.Left{Packets: packets[mark], At: now, Seconds: l.Seconds}
			if !noted {
				next.Seconds = remember[mark]
			}
			_, leaves := packets[mark] // the backend, not only what it has here
			switch {
			case !leaves, next.Seconds == 0, noted && o.Cut, noted && now-l.At > l.Seconds && l.Packets == next.Packets:
				c.gone = append(c.gone, e)
			case !noted, now-l.At > l.Seconds:
				c.replace(e, next.Note(m, e))
			}
		}
		p.change(m, c)
	}
}

// bound reports whether the entry is on these devices.
func bound(c *wire.Conn, table string, devices []string) bool {
	var e wire.Encoder
	e.Text(unix.NFTA_CHAIN_TABLE, table)
	e.Text(unix.NFTA_CHAIN_NAME, direct.EntryChain)
	b, err := c.Request(wire.MsgType(unix.NFT_MSG_GETCHAIN), ruleset.Netdev, e.Bytes())
	if err != nil {
		return len(devices) == 0 && errors.Is(err, unix.ENOENT)
	}
	return sameDevices(ruleset.DevicesOf(wire.Attr(b, unix.NFTA_CHAIN_HOOK)), devices)
}

// linksChanged reports whether interfaces or routes of what was applied have changed.
func (t *Table) linksChanged() (bool, error) {
	if t.options.links == nil {
		return false, nil
	}
	profiles := t.all()
	now, err := t.options.Links(profiles)
	if err != nil {
		return false, err
	}
	return now.Digest(profiles) != t.options.links.Digest(profiles) || !t.isBound(t.memory, profiles, now), nil
}

// isBound reports whether the table of family netdev takes what comes in by the links
// of profiles: with an interface that goes, its chain may go.
func (t *Table) isBound(m *memory, profiles []*lb.Profile, l *direct.Links) bool {
	return !m.direct || l == nil || bound(t.conn, t.name, l.All(profiles))
}
