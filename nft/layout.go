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

	"nlb/nft/ruleset"

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

// rulesVersion is the version of the rules within a layout. An apply over rules
// of another version reads and compares all of them; it changes with every rule
// that the same profiles get.
const rulesVersion = " rules 3"

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

// drawChainOf names the chain that draws a slot, of services that may draw more
// than once.
func drawChainOf(chain string, f *family) string { return chain + "/draw" + f.ip.Digit }

// isShared tells the chains of the layout from those of services, of backends and
// of pools.
func isShared(name string) bool {
	return !strings.Contains(name, "/") && !strings.HasPrefix(name, poolPrefix)
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
// pool's, to this extent. Of these a ruleset has what it needs.
func layout(table string, x extent) *ruleset.Ruleset {
	r := &ruleset.Ruleset{Table: table, Comment: tableComment}
	for _, t := range tiers(x.lengths) {
		r.Maps = append(r.Maps, t.maps()...)
	}
	r.Maps = append(r.Maps, slotMap(0))
	for _, n := range x.shards {
		r.Maps = append(r.Maps, slotMap(n))
	}
	r.Maps = append(r.Maps,
		&ruleset.Map{Name: stickySet, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}},
		&ruleset.Map{Name: backendsMap, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Verdict}, Jump: true})
	for _, f := range families {
		r.Maps = append(r.Maps,
			&ruleset.Map{Name: f.endpoints, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.ip.Addr, ruleset.InetService}, Counter: true},
			&ruleset.Map{Name: f.addresses, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.ip.Addr}, Counter: true})
	}
	r.Maps = append(r.Maps, &ruleset.Map{Name: poolsMap, Kind: ruleset.Pools, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Verdict}})
	for _, f := range families {
		r.Maps = append(r.Maps, &ruleset.Map{
			Name: f.sources, Key: ruleset.Type{ruleset.Integer}, Data: ruleset.Type{f.ip.Addr},
			TypeOf: fmt.Sprintf("numgen inc mod 2 : %s saddr", f.ip.Word), Udata: f.ip.SourcesUdata(),
		})
	}
	r.Maps = append(r.Maps, guardMaps()...)
	r.Maps = append(r.Maps,
		paramSet(), recordSet())
	r.Chains = append(r.Chains, baseChains(x)...)
	for _, f := range families {
		r.Chains = append(r.Chains, f.pickChain(0), f.deliverChain(x.kept))
	}
	r.Chains = append(r.Chains, resolve(0), turnAway(), refuse())
	for _, n := range x.shards {
		r.Chains = append(r.Chains, shardChains(n)...)
	}
	return r
}

// hasMode matches connections of backends with a mode of SNAT.
func hasMode(m lb.SNATMode) ruleset.Statement { return ruleset.MarkIs(modeMask, modeMark(m)) }

// midStream leaves TCP connections alone that were open before conntrack saw
// them: it takes any segment for the first of a connection.
func midStream() ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.AcceptUnlessSYN()}}
}

func baseChains(x extent) []*ruleset.Chain {
	in, out := []ruleset.Rule{midStream()}, []ruleset.Rule{midStream()}
	var vips []ruleset.Rule
	for _, t := range tiers(x.lengths) {
		if t.in {
			in = append(in, t.lookups()...)
		}
		if t.out {
			out = append(out, t.lookups()...)
		}
	}
	for _, f := range families {
		vips = append(vips, ruleset.Rule{Statements: []ruleset.Statement{ruleset.IsTranslated(), hasMode(lb.SNATVIP), f.ip.SNATVIP()}})
	}
	// Connections that somebody else marked may look like ours, unless their
	// destination was translated too.
	snat := []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.IsTranslated(), hasMode(lb.Masquerade), ruleset.Masquerade()}},
		{Statements: []ruleset.Statement{ruleset.IsTranslated(), hasMode(lb.SNATPool), ruleset.MarkVmap(poolsMap, ^x.kept)}, Needs: poolsMap},
	}
	return []*ruleset.Chain{
		{Name: preroutingChain, Hook: ruleset.Prerouting(-100, "dstnat"), Rules: in},
		{Name: outputChain, Hook: ruleset.Output(-100, "-100"), Rules: out},
		{Name: postroutingChain, Hook: ruleset.Postrouting(100, "srcnat"), Rules: append(snat, vips...)},
	}
}

// pickChain turns a slot of a shard into a backend.
func (f *family) pickChain(shard uint32) *ruleset.Chain {
	return &ruleset.Chain{Name: ofShard(f.pick, shard), Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.SetMarkByMap(ofShard(slotsMap, shard))}},
		{Statements: []ruleset.Statement{ruleset.Goto(f.deliver)}},
	}}
}

// deliverChain turns a backend into a translated destination.
func (f *family) deliverChain(kept uint32) *ruleset.Chain {
	isFull := ruleset.Rule{Statements: []ruleset.Statement{ruleset.MarkIs(modeMask, fullMark), ruleset.Return()}, Needs: fullSet}
	rules := []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.MarkVmap(backendsMap, 1<<32-1)}, Needs: backendsMap}}
	if kept != 0 {
		// What turns away looks the whole mark up.
		rules = append(append(rules, isFull), keepBits(kept)...)
	}
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{f.ip.DNAT(byte(p), f.endpoints, ^kept)}, Needs: f.endpoints})
	}
	rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{f.ip.DNATAddress(f.addresses, ^kept)}, Needs: f.addresses})
	if kept == 0 {
		rules = append(rules, isFull)
	}
	return &ruleset.Chain{Name: f.deliver, Rules: append(rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Drop()}})}
}

func refuse() *ruleset.Chain {
	return &ruleset.Chain{Name: refuseChain, Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.IsL4(byte(lb.TCP)), ruleset.RejectTCP()}},
		{Statements: []ruleset.Statement{ruleset.RejectPort()}},
	}}
}

// trim takes away what is not needed: maps without elements, rules that look
// into them, chains that nothing leads to. What the kernel has already stays,
// since other profiles may need it.
func trim(r *ruleset.Ruleset, needed func(object string) bool) {
	keep := map[string]bool{}
	r.Maps = slices.DeleteFunc(r.Maps, func(m *ruleset.Map) bool {
		keep[m.Name] = len(m.Elements) > 0 || m.OfChain != "" || m.Prefixes || needed(m.Name)
		return !keep[m.Name]
	})
	uses := map[string]bool{}
	for _, f := range families {
		picks := keep[f.endpoints] || keep[f.addresses]
		uses[f.pick], uses[f.deliver] = picks, picks
	}
	r.Chains = slices.DeleteFunc(r.Chains, func(c *ruleset.Chain) bool {
		c.Rules = slices.DeleteFunc(c.Rules, func(r ruleset.Rule) bool { return r.Needs != "" && !keep[r.Needs] })
		return c.Hook == nil && isShared(c.Name) && !uses[c.Name] && !needed(c.Name)
	})
}
