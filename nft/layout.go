package nft

// The layout: the maps and chains that every table of ours has, whatever it
// balances. A new connection meets a handful of map lookups, the same number
// for one service and for ten thousand; a packet of a live connection meets
// none, since chains of type nat see only the first.
//
//	prerouting, output    destination -> the service's chain
//	the service's chain   draws a slot into the connection mark
//	pick                  slot -> backend's mark -> DNAT
//	postrouting           the top byte of the mark says what SNAT to do

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
)

// Names of maps and chains. Chains of services have a '/' in their names,
// others have not.
const (
	slotsMap    = "slots"
	backendsMap = "backends" // backends with statements of their own
	poolsMap    = "pools"
	paramsSet   = "sysctl"

	preroutingChain  = "prerouting"
	outputChain      = "output"
	postroutingChain = "postrouting"
	refuseChain      = "refuse"
	poolPrefix       = "snat-"
)

// tableComment tells people, and Load, whose table it is. The number is the
// version of the layout.
const tableComment = "managed by nlb: see nlb show, nlb flush; layout 1"

// A backend's mark is its identity: the top byte says what SNAT its
// connections get, the rest is its number.
const (
	modeMask  = 0xff000000
	indexMask = 0x00ffffff
	// All modes share these bits, so that one filter finds our connections.
	oursMark = 0x4c000000
	oursMask = 0xfc000000
)

func modeMark(m lb.SNATMode) uint32 {
	switch m {
	case lb.SNATNone:
		return 0x4c000000
	case lb.SNATPool:
		return 0x4d000000
	case lb.SNATVIP:
		return 0x4f000000
	}
	return 0x4e000000 // masquerade
}

var snatModes = []lb.SNATMode{lb.Masquerade, lb.SNATNone, lb.SNATVIP, lb.SNATPool}

func modeOf(mark uint32) (lb.SNATMode, bool) {
	for _, m := range snatModes {
		if modeMark(m) == mark&modeMask {
			return m, true
		}
	}
	return 0, false
}

// chainOf names the chain of a service.
func chainOf(profile, service string) string {
	name := profile + "/" + service
	if c := name[0]; c == '.' || c == '-' || '0' <= c && c <= '9' {
		return "./" + name // nft's names begin with a letter, '_' or '.'
	}
	return name
}

// serviceOf reads what chainOf wrote.
func serviceOf(chain string) (profile, service string, ok bool) {
	parts := strings.Split(chain, "/")
	if len(parts) == 3 && parts[0] == "." {
		parts = parts[1:]
	}
	if len(parts) != 2 {
		return "", "", false
	}
	return parts[0], parts[1], true
}

// backendChainOf names the chain of a backend with statements of its own.
func backendChainOf(chain string, mark uint32) string { return fmt.Sprintf("%s/%08x", chain, mark) }

// isBackendChain tells the chains of backends from those of services.
func isBackendChain(name string) bool {
	_, _, ok := serviceOf(name)
	return !ok && strings.Contains(name, "/")
}

// ownerOf returns the chain of the service that a chain or map belongs to.
func ownerOf(name string) (profile, chain string, ok bool) {
	if _, _, ok := serviceOf(name); !ok {
		name = name[:max(0, strings.LastIndexByte(name, '/'))]
	}
	profile, _, ok = serviceOf(name)
	return profile, name, ok
}

// poolOf names the chain of a list of SNAT addresses, by its content: services
// with the same list share it.
func poolOf(addrs []netip.Addr) string {
	h := fnv.New64a()
	for _, a := range addrs {
		fmt.Fprintln(h, a)
	}
	return fmt.Sprintf("%s%016x", poolPrefix, h.Sum64())
}

// layout returns all maps, empty, and all chains that are not a service's or a
// pool's, for services that listen on prefixes of these lengths. Of these a
// ruleset has what it needs.
func layout(table string, lengths []prefixLength) *Ruleset {
	r := &Ruleset{Table: table}
	for _, t := range tiers(lengths) {
		r.maps = append(r.maps, t.maps()...)
	}
	r.maps = append(r.maps,
		&mapping{name: slotsMap, key: typ{mark}, data: typ{mark}},
		&mapping{name: stickySet, key: typ{mark}},
		&mapping{name: backendsMap, key: typ{mark}, data: typ{verdict}})
	for _, f := range families {
		r.maps = append(r.maps,
			&mapping{name: f.endpoints, key: typ{mark}, data: typ{f.addr, inetService}, counter: true},
			&mapping{name: f.addresses, key: typ{mark}, data: typ{f.addr}, counter: true})
	}
	r.maps = append(r.maps, &mapping{name: poolsMap, key: typ{mark}, data: typ{verdict}})
	for _, f := range families {
		r.maps = append(r.maps, &mapping{
			name: f.sources, key: typ{integer}, data: typ{f.addr},
			typeOf: fmt.Sprintf("numgen inc mod 2 : %s saddr", f.word), udata: f.sourcesUdata(),
		})
	}
	r.maps = append(r.maps, guardMaps()...)
	r.maps = append(r.maps,
		&mapping{name: paramsSet, key: typ{mark}, comment: "kernel parameters, as nlb found them"},
		recordSet())
	r.chains = append(r.chains, baseChains(lengths)...)
	for _, f := range families {
		r.chains = append(r.chains, f.pickChain(), f.deliverChain())
	}
	r.chains = append(r.chains, resolve(), turnAway(), refuse())
	return r
}

func baseChains(lengths []prefixLength) []*chain {
	var in, out, vips []rule
	for _, t := range tiers(lengths) {
		if t.in {
			in = append(in, t.lookups()...)
		}
		if t.out {
			out = append(out, t.lookups()...)
		}
	}
	for _, f := range families {
		vips = append(vips, rule{statements: []statement{isTranslated(), hasMode(lb.SNATVIP), f.snatVIP()}})
	}
	// Connections that somebody else marked may look like ours, unless their
	// destination was translated too.
	snat := []rule{
		{statements: []statement{isTranslated(), hasMode(lb.Masquerade), masquerade()}},
		{statements: []statement{isTranslated(), hasMode(lb.SNATPool), lookupPool()}, needs: poolsMap},
	}
	return []*chain{
		{name: preroutingChain, hook: &hook{"prerouting", unix.NF_INET_PRE_ROUTING, -100, "dstnat"}, rules: in},
		{name: outputChain, hook: &hook{"output", unix.NF_INET_LOCAL_OUT, -100, "-100"}, rules: out},
		{name: postroutingChain, hook: &hook{"postrouting", unix.NF_INET_POST_ROUTING, 100, "srcnat"}, rules: append(snat, vips...)},
	}
}

// pickChain turns a slot into a backend.
func (f *family) pickChain() *chain {
	return &chain{name: f.pick, rules: []rule{
		{statements: []statement{slotToBackend()}},
		{statements: []statement{goTo(f.deliver)}},
	}}
}

// deliverChain turns a backend into a translated destination.
func (f *family) deliverChain() *chain {
	rules := []rule{{statements: []statement{callBackend()}, needs: backendsMap}}
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		rules = append(rules, rule{statements: []statement{f.dnat(p)}, needs: f.endpoints})
	}
	return &chain{name: f.deliver, rules: append(rules,
		rule{statements: []statement{f.dnatAddress()}, needs: f.addresses},
		rule{statements: []statement{dropIt()}})}
}

func refuse() *chain {
	return &chain{name: refuseChain, rules: []rule{
		{statements: []statement{isTCP(), rejectTCP()}},
		{statements: []statement{rejectPort()}},
	}}
}

// trim takes away what is not needed: maps without elements, rules that look
// into them, chains that nothing leads to. What the kernel has already stays,
// since other profiles may need it.
func (r *Ruleset) trim(needed func(object string) bool) {
	keep := map[string]bool{}
	r.maps = slices.DeleteFunc(r.maps, func(m *mapping) bool {
		keep[m.name] = len(m.elements) > 0 || m.ofChain != "" || m.prefixes || needed(m.name)
		return !keep[m.name]
	})
	uses := map[string]bool{}
	for _, f := range families {
		picks := keep[f.endpoints] || keep[f.addresses]
		uses[f.pick], uses[f.deliver] = picks, picks
	}
	r.chains = slices.DeleteFunc(r.chains, func(c *chain) bool {
		c.rules = slices.DeleteFunc(c.rules, func(r rule) bool { return r.needs != "" && !keep[r.needs] })
		switch c.name {
		case refuseChain, turnAwayChain, resolveChain:
			return !needed(c.name)
		case families[0].pick, families[0].deliver, families[1].pick, families[1].deliver:
			return !uses[c.name] && !needed(c.name)
		}
		return false
	})
}
