package config

// How the keys of services and backends are read.

import (
	"fmt"
	"net/netip"
	"slices"

	"nlb/lb"
	"nlb/lb/internal/dup"
	"nlb/lb/internal/safe"
)

func readServiceName(d *decoder, k *lb.Key, v *node, s *draft) {
	if name, ok := readName(d, k, v); ok {
		s.Name, s.at.name = name, v
	}
}

func readListens(d *decoder, k *lb.Key, v *node, s *draft) {
	items, ok := readItems(d, k, v, false)
	s.badListen = !ok
	s.Listen = make([]lb.Listen, 0, len(items))
	s.listens = make([]*node, 0, len(items))
	for _, item := range items {
		text, ok := readText(d, k, item)
		if !ok {
			s.badListen = true
			continue
		}
		l, p := parseListen(text)
		if p != nil {
			d.refuse(item, p)
			s.badListen = true
			continue
		}
		l.Pos = d.pos(item)
		s.Listen = append(s.Listen, l)
		s.listens = append(s.listens, item)
	}
}

func readProtocols(d *decoder, k *lb.Key, v *node, s *draft) {
	if words := readWords[lb.Protocol](d, k, v); len(words) > 0 {
		s.Protocols = words
	}
}

func readHashBy(d *decoder, k *lb.Key, v *node, s *draft) {
	if words := readWords[lb.HashField](d, k, v); len(words) > 0 {
		s.HashBy, s.at.hashBy = words, v
	}
}

// readWords reads one word or a list of them, and sorts them.
func readWords[T lb.Enum](d *decoder, k *lb.Key, v *node) []T {
	words, _ := readEach(d, k, v, false, func(item *node) (w T, ok bool) { ok = readWord(d, k, item, &w); return w, ok })
	slices.Sort(words)
	return words
}

// readEach reads one value or a list of them; those that can be read, and none where two
// are equal. empty says whether the list may have none.
func readEach[T comparable](d *decoder, k *lb.Key, v *node, empty bool, read func(item *node) (T, bool)) (out []T, ok bool) {
	items, ok := readItems(d, k, v, empty)
	var at []*node
	for _, item := range items {
		if x, good := read(item); good {
			out, at = append(out, x), append(at, item)
		} else {
			ok = false
		}
	}
	if !again(d, k, at, out) {
		return nil, false
	}
	return out, ok
}

// readParsed reads a text that is parsed.
func readParsed[T any](d *decoder, k *lb.Key, item *node, parse func(text, key string) (T, *lb.Problem)) (x T, ok bool) {
	text, ok := readText(d, k, item)
	if !ok {
		return x, false
	}
	x, p := parse(text, k.Word())
	if p != nil {
		p.Want = k.Values
		d.refuse(item, p)
	}
	return x, p == nil
}

func readInterface(d *decoder, k *lb.Key, v *node, s *draft) {
	text, ok := readText(d, k, v)
	if !ok {
		return
	}
	if p := lb.CheckInterface(text); p != nil {
		d.breaks(k, v, p)
		return
	}
	s.Interface, s.at.iface = text, v
}

func readDevices(d *decoder, k *lb.Key, v *node, s *draft) {
	s.Devices, s.at.devices = readInterfaces(d, k, v, lb.CheckDevice), v
}

// readInterfaces reads one or several names, sorted; none where one is wrong.
func readInterfaces(d *decoder, k *lb.Key, v *node, check func(string) *lb.Problem) []string {
	if none(v) {
		return nil
	}
	out, _ := readEach(d, k, v, false, func(item *node) (string, bool) {
		text, ok := readText(d, k, item)
		if !ok {
			return "", false
		}
		p := check(text)
		if p != nil {
			d.refuse(item, p)
		}
		return text, p == nil
	})
	if p := lb.CheckNames(k.Word(), len(v.kids)); p != nil {
		d.refuse(v, p)
		return nil
	}
	slices.Sort(out)
	return out
}

// snatModes are the words of snat; a pool has none.
var snatModes = append(lb.Words[lb.SNATMode]()[:lb.SNATPool], lb.SNATAuto)

func readSNAT(d *decoder, k *lb.Key, v *node, into *lb.SNAT) bool {
	if v.kind == scalar {
		if i := slices.Index(snatModes, v.text); i >= 0 {
			*into = lb.SNAT{Mode: lb.SNATMode(i)}
			if v.text == lb.SNATAuto {
				*into = lb.SNAT{Auto: true}
			}
			return true
		}
	}
	pool, ok := readEach(d, k, v, false, func(item *node) (netip.Addr, bool) { return readParsed(d, k, item, parsePoolAddr) })
	if ok {
		*into = lb.SNAT{Mode: lb.SNATPool, Pool: pool}
	}
	return ok
}

// parsePoolAddr is parseAddr of an address that stands where modes may stand.
func parsePoolAddr(text, key string) (netip.Addr, *lb.Problem) {
	a, p := parseAddr(text, key)
	if p == nil {
		return a, nil
	}
	switch near := lb.Nearest(text, snatModes); near {
	case "":
	case text:
		p.Msg, p.Hint = "snat "+text+" is no address, and cannot be in a list", ""
	default:
		p.Msg, p.Hint = "unknown snat "+safe.Show(text), "did you mean "+near+"?"
	}
	return a, p
}

func readPrefixes(d *decoder, k *lb.Key, v *node, into *[]netip.Prefix) *node {
	*into = nil
	if none(v) {
		return v
	}
	out, ok := readEach(d, k, v, true, func(item *node) (netip.Prefix, bool) { return readParsed(d, k, item, parseClients) })
	if !ok {
		return nil
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	*into = out
	return v
}

func readBackends(d *decoder, k *lb.Key, v *node, s *draft) {
	items, _ := readItems(d, k, v, true)
	s.badBackends = false
	d.members = slices.Grow(d.members[:0], max(len(items), 1))
	s.members = d.members
	for _, item := range items {
		s.members = append(s.members, backendDraft{})
		b := &s.members[len(s.members)-1]
		readBackend(d, k, item, b)
		if b.bad {
			s.badBackends = true
			s.members = s.members[:len(s.members)-1]
		}
	}
	s.once(d)
}

// once notes backends that are here twice.
func (s *draft) once(d *decoder) {
	dup.Find(s.members, func(b backendDraft) place { return place{b.Host, b.Address} }, func(first, second int) {
		b := &s.members[second]
		d.fail(b.at, fmt.Sprintf("backend %s is here twice, first in line %d", b.Where(), s.members[first].at.line), "each backend once", "")
	})
	dup.Find(s.members, func(b backendDraft) string { return b.Name }, func(first, second int) {
		a, b := &s.members[first], &s.members[second]
		if a.Where() == b.Where() {
			return
		}
		at := b.name
		if at == nil {
			at = b.at
		}
		d.fail(at, fmt.Sprintf("name %s is here twice, first in line %d", b.Name, a.at.line), "another name for each backend", "")
	})
}

// place is where connections to a backend go.
type place struct {
	lb.Host
	lb.Endpoint
}

func readBackend(d *decoder, k *lb.Key, v *node, b *backendDraft) {
	b.Weight, b.Priority = 1, 1
	switch v.kind {
	case scalar:
		text, ok := readText(d, k, v)
		if b.bad = !ok; ok {
			b.setAddress(d, v, text)
		}
	case mapping:
		backendKeys.need(d, v, backendKeys.read(d, v, b), "address", endpointForms)
		b.bad = b.bad || b.at == nil
	default:
		d.fail(v, "a backend is a list", k.Values, `an IPv6 address with a port needs quotes: "[2001:db8::1]:80"`)
		b.bad = true
	}
	if b.bad {
		return
	}
	if b.Name == "" {
		b.Name = b.Where()
	}
	if b.Host.SRV && b.weight != nil {
		d.refuse(b.weight, lb.BesideSRV("weight"))
	}
	if b.Host.SRV && b.priority != nil {
		d.refuse(b.priority, lb.BesideSRV("priority"))
	}
	if b.ofHost() {
		if b.snat != nil {
			if p := lb.CheckHostSNAT(b.SNAT); p != nil {
				d.refuse(b.snat, p)
			}
		}
	} else if b.snat != nil && !b.Named() {
		if p := lb.CheckPool(b.SNAT.Pool, lb.FamilyOf(b.Address.Addr)); p != nil {
			d.refuse(b.snat, p)
		}
	}
}

func (b *backendDraft) setAddress(d *decoder, v *node, text string) {
	var p *problem
	if b.Host, b.Address, p = parseBackend(text); p != nil {
		d.refuse(v, p)
		b.bad = true
		return
	}
	b.at = v
	if !b.Named() && !b.Address.OfHost() && canonical(b.Address, text) {
		b.Name = text
	}
}

// ofHost reports whether the backend is this host itself.
func (b *backendDraft) ofHost() bool {
	return !b.Named() && (b.Address.OfHost() || !b.Address.Addr.IsValid())
}

func readBackendAddress(d *decoder, k *lb.Key, v *node, b *backendDraft) {
	text, ok := readText(d, k, v)
	if !ok {
		b.bad = true
		return
	}
	name := b.Name
	b.setAddress(d, v, text)
	if b.name != nil {
		b.Name = name
	}
}

func readBackendName(d *decoder, k *lb.Key, v *node, b *backendDraft) {
	if name, ok := readName(d, k, v); ok {
		b.Name, b.name = name, v
	}
}

func readWeight(d *decoder, k *lb.Key, v *node, b *backendDraft) {
	readInt(d, k, v, 0, lb.MaxWeight, &b.Weight)
	b.weight = v
}

func readMaxConnections(d *decoder, k *lb.Key, v *node, b *backendDraft) {
	if b.MaxConnections = 0; !none(v) {
		readInt(d, k, v, 1, 1<<32-1, &b.MaxConnections)
	}
}
