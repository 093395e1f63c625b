package config

// A service in a file: how its keys are read.

import (
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// draft is a service while it is read.
type draft struct {
	lb.Service
	// listens says where the listens stand.
	listens []*node
	// members become Service.Backends; nil without the key backends.
	members []backendDraft
	// at says where keys stand that must agree with others; nil where a key is
	// missing, or was refused.
	at    struct{ name, role, iface, hashBy, hashSeed, snat, allow, deny *node }
	there given
	// What was refused, so that nothing is said about what depends on it.
	badListen, badBackends, badScheduler, badSNAT bool
}

func readServiceName(d *decoder, k *Key, v *node, s *draft) {
	if name, ok := readName(d, k, v); ok {
		s.Name, s.at.name = name, v
	}
}

func readListens(d *decoder, k *Key, v *node, s *draft) {
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

func readProtocols(d *decoder, k *Key, v *node, s *draft) {
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

func readHashBy(d *decoder, k *Key, v *node, s *draft) {
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

// readInterface reads a name that the kernel accepts (dev_valid_name in
// net/core/dev.c), as far as nftables can write it.
func readInterface(d *decoder, k *Key, v *node, s *draft) {
	text, ok := readText(d, k, v)
	if !ok {
		return
	}
	name := strings.TrimSuffix(text, "*")
	switch {
	case text == "*":
		d.fail(v, "interface * is any", k.Values, "without the key, any interface will do")
	case name == "" || name == "." || name == ".." || len(name) > 15 || !safe.Printable(name) || strings.ContainsAny(name, " /:*\"\\"):
		d.fail(v, "interface "+safe.Show(text)+" cannot be a name", "1 to 15 characters without space, /, :, \", \\ and *", "")
	default:
		s.Interface, s.at.iface = text, v
	}
}

// snatModes are the words of snat; a pool has none.
var snatModes = lb.SNATMode(0).Words()[:lb.SNATPool]

func readSNAT(d *decoder, k *Key, v *node, into *lb.SNAT) bool {
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
		a, p := parseAddr(text, k.name())
		if p != nil {
			p.want = k.Values
			switch near := lb.Nearest(text, snatModes); near {
			case "":
			case text:
				p.msg, p.hint = "snat "+text+" is no address, and cannot be in a list", ""
			default:
				p.msg, p.hint = "unknown snat "+safe.Show(text), "did you mean "+near+"?"
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

func readPrefixes(d *decoder, k *Key, v *node, into *[]netip.Prefix) *node {
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
		prefix, p := parseClients(text, k.name())
		if p != nil {
			p.want = k.Values
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
