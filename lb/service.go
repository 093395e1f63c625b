package lb

// A service in a file: how its keys are read.

import (
	"net/netip"
	"slices"
	"strings"
)

// draft is a service while it is read.
type draft struct {
	Service
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
	s.Listen = make([]Listen, 0, len(items))
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
	var out []Protocol
	var at []*node
	for _, item := range items {
		var i uint8
		if readWord(d, k, item, protocolWords, &i) {
			out, at = append(out, protocols[i]), append(at, item)
		}
	}
	if again(d, k, at, out) && len(out) > 0 {
		slices.Sort(out)
		s.Protocols = out
	}
}

func readHashBy(d *decoder, k *Key, v *node, s *draft) {
	items, _ := readItems(d, k, v, false)
	var out []HashField
	var at []*node
	for _, item := range items {
		var f HashField
		if readWord(d, k, item, hashWords, &f) {
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
	case name == "" || name == "." || name == ".." || len(name) > 15 || !printable(name) || strings.ContainsAny(name, " /:*\"\\"):
		d.fail(v, "interface "+show(text)+" cannot be a name", "1 to 15 characters without space, /, :, \", \\ and *", "")
	default:
		s.Interface, s.at.iface = text, v
	}
}

func readSNAT(d *decoder, k *Key, v *node, into *SNAT) bool {
	if v.kind == scalar {
		if i := slices.Index(snatWords[:SNATPool], v.text); i >= 0 {
			*into = SNAT{Mode: SNATMode(i)}
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
			switch near := Nearest(text, snatWords[:SNATPool]); near {
			case "":
			case text:
				p.msg, p.hint = "snat "+text+" is no address, and cannot be in a list", ""
			default:
				p.msg, p.hint = "unknown snat "+show(text), "did you mean "+near+"?"
			}
			d.refuse(item, p)
			ok = false
			continue
		}
		pool, at = append(pool, a), append(at, item)
	}
	if again(d, k, at, pool) && ok {
		*into = SNAT{Mode: SNATPool, Pool: pool}
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
