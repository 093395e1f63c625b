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
	items, _ := readItems(d, k, v, false)
	var out []lb.Protocol
	var at []*node
	for _, item := range items {
		var p lb.Protocol
		if readWord(d, k, item, &p) {
			out, at = append(out, p), append(at, item)
		}
	}
	if again(d, k, at, out) && len(out) > 0 {
		slices.Sort(out)
		s.Protocols = out
	}
}

func readHashBy(d *decoder, k *lb.Key, v *node, s *draft) {
	items, _ := readItems(d, k, v, false)
	var out []lb.HashField
	var at []*node
	for _, item := range items {
		var f lb.HashField
		if readWord(d, k, item, &f) {
			out, at = append(out, f), append(at, item)
		}
	}
	if again(d, k, at, out) && len(out) > 0 {
		slices.Sort(out)
		s.HashBy, s.at.hashBy = out, v
	}
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

// snatModes are the words of snat; a pool has none.
var snatModes = lb.SNATMode(0).Words()[:lb.SNATPool]

func readSNAT(d *decoder, k *lb.Key, v *node, into *lb.SNAT) bool {
	if v.kind == scalar {
		if i := slices.Index(snatModes, v.text); i >= 0 {
			*into = lb.SNAT{Mode: lb.SNATMode(i)}
			return true
		}
	}
	items, ok := readItems(d, k, v, false)
	var pool []netip.Addr
	var at []*node
	for _, item := range items {
		text, isText := readText(d, k, item)
		if !isText {
			ok = false
			continue
		}
		a, p := parseAddr(text, k.Word())
		if p != nil {
			p.Want = k.Values
			switch near := lb.Nearest(text, snatModes); near {
			case "":
			case text:
				p.Msg, p.Hint = "snat "+text+" is no address, and cannot be in a list", ""
			default:
				p.Msg, p.Hint = "unknown snat "+safe.Show(text), "did you mean "+near+"?"
			}
			d.refuse(item, p)
			ok = false
			continue
		}
		pool, at = append(pool, a), append(at, item)
	}
	if again(d, k, at, pool) && ok {
		*into = lb.SNAT{Mode: lb.SNATPool, Pool: pool}
		return true
	}
	return false
}

func readPrefixes(d *decoder, k *lb.Key, v *node, into *[]netip.Prefix) *node {
	*into = nil
	if none(v) {
		return v
	}
	items, ok := readItems(d, k, v, true)
	var out []netip.Prefix
	var at []*node
	for _, item := range items {
		text, isText := readText(d, k, item)
		if !isText {
			ok = false
			continue
		}
		prefix, p := parseClients(text, k.Word())
		if p != nil {
			p.Want = k.Values
			d.refuse(item, p)
			ok = false
			continue
		}
		out, at = append(out, prefix), append(at, item)
	}
	if !again(d, k, at, out) || !ok {
		return nil
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	*into = out
	return v
}

func readBackends(d *decoder, k *lb.Key, v *node, s *draft) {
	items, _ := readItems(d, k, v, true)
	s.badBackends = false
	s.members = make([]backendDraft, 0, len(items))
	for _, item := range items {
		s.members = append(s.members, backendDraft{})
		b := &s.members[len(s.members)-1]
		readBackend(d, k, item, b)
		if b.bad {
			s.badBackends = true
			s.members = s.members[:len(s.members)-1]
		}
	}
	dup.Find(s.members, func(b backendDraft) place { return place{b.Host, b.Address} }, func(first, second int) {
		b := &s.members[second]
		d.fail(b.at, fmt.Sprintf("backend %s is here twice, first in line %d", b.Where(), s.members[first].at.line), "each backend once", "")
	})
	dup.Find(s.members, func(b backendDraft) string { return b.Name }, func(first, second int) {
		a, b := &s.members[first], &s.members[second]
		if a.Address == b.Address && a.Host == b.Host {
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
	if b.snat != nil && !b.Named() {
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
	if !b.Named() && canonical(b.Address, text) {
		b.Name = text
	}
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
