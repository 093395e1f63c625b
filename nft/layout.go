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
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
)

// Names of maps and chains. Chains of services have a '/' in their names,
// others have not.
const (
	slotsMap  = "slots"
	poolsMap  = "pools"
	paramsSet = "sysctl"

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

func modeOf(mark uint32) (lb.SNATMode, bool) {
	for _, m := range []lb.SNATMode{lb.Masquerade, lb.SNATNone, lb.SNATVIP, lb.SNATPool} {
		if modeMark(m) == mark&modeMask {
			return m, true
		}
	}
	return 0, false
}

// chainOf names the chain of a service.
func chainOf(profile, service string) string {
	name := profile + "/" + service
	if c := name[0]; c == '-' || '0' <= c && c <= '9' {
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

// poolOf names the chain of a list of SNAT addresses, by its content: services
// with the same list share it.
func poolOf(addrs []netip.Addr) string {
	h := fnv.New64a()
	for _, a := range addrs {
		fmt.Fprintln(h, a)
	}
	return fmt.Sprintf("%s%016x", poolPrefix, h.Sum64())
}

// layout returns the maps, empty, and the chains that are always there.
func layout(table string) *Ruleset {
	r := &Ruleset{Table: table}
	for _, f := range families {
		destination := typ{f.addr, inetProto, inetService}
		r.maps = append(r.maps,
			&mapping{name: f.services, key: destination, data: typ{verdict}},
			&mapping{name: f.ranges, key: destination, data: typ{verdict}, interval: true})
	}
	r.maps = append(r.maps, &mapping{name: slotsMap, key: typ{mark}, data: typ{mark}})
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
	r.maps = append(r.maps, &mapping{name: paramsSet, key: typ{mark}, comment: "kernel parameters, as nlb found them"})
	r.chains = append(r.chains, baseChains()...)
	for _, f := range families {
		r.chains = append(r.chains, f.pickChain())
	}
	r.chains = append(r.chains, &chain{name: refuseChain, rules: []rule{
		{statements: []statement{isTCP(), rejectTCP()}},
		{statements: []statement{rejectPort()}},
	}})
	return r
}

func baseChains() []*chain {
	var lookups, vips []rule
	for _, f := range families {
		lookups = append(lookups,
			rule{statements: []statement{f.lookupService(f.services)}},
			rule{statements: []statement{f.lookupService(f.ranges)}})
		vips = append(vips, rule{statements: []statement{isTranslated(), hasMode(lb.SNATVIP), f.snatVIP()}})
	}
	// Connections that somebody else marked may look like ours, unless their
	// destination was translated too; those that nlb dropped never get here.
	snat := []rule{
		{statements: []statement{isTranslated(), hasMode(lb.Masquerade), masquerade()}},
		{statements: []statement{isTranslated(), hasMode(lb.SNATPool), lookupPool()}},
	}
	return []*chain{
		{name: preroutingChain, hook: &hook{"prerouting", unix.NF_INET_PRE_ROUTING, -100, "dstnat"}, rules: lookups},
		{name: outputChain, hook: &hook{"output", unix.NF_INET_LOCAL_OUT, -100, "-100"}, rules: lookups},
		{name: postroutingChain, hook: &hook{"postrouting", unix.NF_INET_POST_ROUTING, 100, "srcnat"}, rules: append(snat, vips...)},
	}
}

// pickChain turns a slot into a translated destination.
func (f *family) pickChain() *chain {
	rules := []rule{{statements: []statement{slotToBackend()}}}
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		rules = append(rules, rule{statements: []statement{f.dnat(p)}})
	}
	return &chain{name: f.pick, rules: append(rules,
		rule{statements: []statement{f.dnatAddress()}},
		rule{statements: []statement{dropIt()}})}
}
