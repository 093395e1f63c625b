package compile

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
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"nlb/lb"
	"nlb/nft/compile/border"
	"nlb/nft/compile/datagrams"
	"nlb/nft/compile/handshake"
	"nlb/nft/compile/synproxy"
	"nlb/nft/fleet"
	"nlb/nft/ruleset"
)

// Names of maps and chains. Chains of services have a '/' in their names,
// others have not.
const (
	SlotsMap    = "slots"        // the first shard: slot -> backend's mark
	RandomSet   = "random-ports" // backends that see source ports at random
	BackendsMap = "backends"     // mark -> chain, of backends with statements of their own
	PoolsMap    = "pools"        // mark -> chain, of backends with a list of SNAT addresses
	ParamsSet   = "sysctl"       // kernel parameters
	RecordSet   = "applied"      // what was applied last

	PreroutingChain  = "prerouting" // what comes from the network
	outputChain      = "output"
	PostroutingChain = "postrouting" // changes sources
	refuseChain      = "refuse"
	poolPrefix       = "snat-"
)

// TableComment tells people, and nft.Load, whose table it is, and which layout it was
// made with.
const TableComment = ourTables + " see nlb show, nlb flush; layout " + layoutNumber

const (
	ourTables = "managed by nlb:"
	// layoutNumber is the version of the layout.
	//
	//	1  all slots in one map
	//	2  slots in shards
	//	3  services share maps of clients
	//	4  the first slots inline
	//
	// nft.Load reads all of them, and an apply brings an older one to this one.
	layoutNumber = "4"
)

// LayoutVersion is the version of the layout that this package makes.
var LayoutVersion = LayoutOf(TableComment)

// rulesNumber is the version of the rules within a layout. It changes with every
// rule that the same profiles get.
const rulesNumber = " rules 13"

// A backend's mark is its identity: the top byte says what SNAT its
// connections get, the rest is its number.
const (
	modeMask   = 0xff000000
	NumberMask = 0x00ffffff // the bits of the number
	// All modes share these bits, so that one filter finds our connections.
	OursMark = 0x4c000000 // their value
	OursMask = 0xfc000000 // which bits
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

// MarksWith are the marks that have a number: those of backends, of a guarded
// service and of a full backend.
func MarksWith(number uint32) []uint32 {
	marks := []uint32{serviceMark | number, fullMark | number}
	for _, m := range snatModes {
		marks = append(marks, modeMark(m)|number)
	}
	return marks
}

var snatModes = []lb.SNATMode{lb.Masquerade, lb.SNATNone, lb.SNATVIP, lb.SNATPool}

// ModeOf is the mode of SNAT that a mark says, false where it is no backend's.
func ModeOf(mark uint32) (lb.SNATMode, bool) {
	for _, m := range snatModes {
		if modeMark(m) == mark&modeMask {
			return m, true
		}
	}
	return 0, false
}

// ChainOf names the chain of a service.
func ChainOf(profile, service string) string {
	name := profile + "/" + service
	if c := name[0]; c == '.' || c == '-' || '0' <= c && c <= '9' {
		return "./" + name // nft's names begin with a letter, '_' or '.'
	}
	return name
}

// ServiceOf reads what ChainOf wrote, false where it is no chain of a service.
func ServiceOf(chain string) (profile, service string, ok bool) {
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

// DrawChainOf names the chain that draws a slot, of services that may draw more
// than once.
func DrawChainOf(chain string, f *Family) string { return chain + "/draw" + f.IP.Digit }

// isShared tells the chains of the layout from those of services, of backends and
// of pools.
func isShared(name string) bool {
	return !strings.Contains(name, "/") && !strings.HasPrefix(name, poolPrefix)
}

// OwnerOf returns the chain of the service that a chain or map belongs to, and its
// profile; false where it belongs to none.
func OwnerOf(name string) (profile, chain string, ok bool) {
	if _, _, ok := ServiceOf(name); !ok {
		name = name[:max(0, strings.LastIndexByte(name, '/'))]
	}
	profile, _, ok = ServiceOf(name)
	return profile, name, ok
}

// IsPool reports whether a chain is that of a list of SNAT addresses.
func IsPool(chain string) bool { return strings.HasPrefix(chain, poolPrefix) }

// poolOf names the chain of a list of SNAT addresses, by its content: services
// with the same list share it.
func poolOf(addrs []netip.Addr, random bool) string {
	h := fnv.New64a()
	for _, a := range addrs {
		fmt.Fprintln(h, a)
	}
	if random {
		fmt.Fprintln(h, RandomSet)
	}
	return fmt.Sprintf("%s%016x", poolPrefix, h.Sum64())
}

// Layout returns the layout of a table that has these maps: all of its maps, empty,
// and all chains that are not a service's or a pool's.
func Layout(table string, maps iter.Seq[string]) *ruleset.Ruleset {
	x := extentIn(maps)
	x.probes, x.picksUp = true, true
	r := layoutTo(table, x)
	for _, way := range offloads {
		r.Maps = append(r.Maps, newOffloadSet(way))
	}
	r.Chains = append(append(r.Chains, forwardChain(nil), border.Forward(), synproxy.Kept()), synproxy.Chains()...)
	return r
}

// latest is the layout that was made last: a change of a few backends would spend half
// of its time on making it once more.
var latest struct {
	sync.Mutex
	extent
	table string
	*ruleset.Ruleset
}

// layoutTo returns all maps, empty, and all chains that are not a service's or a
// pool's, to this extent. Of these a ruleset has what it needs.
func layoutTo(table string, x extent) *ruleset.Ruleset {
	latest.Lock()
	defer latest.Unlock()
	if latest.Ruleset == nil || latest.table != table || !latest.equal(x) {
		latest.table, latest.extent, latest.Ruleset = table, x, newLayout(table, x)
		latest.lengths, latest.shards = slices.Clone(x.lengths), slices.Clone(x.shards)
	}
	out := *latest.Ruleset
	out.Maps, out.Chains = slices.Clone(out.Maps), slices.Clone(out.Chains)
	for i, m := range out.Maps {
		copied := *m
		out.Maps[i] = &copied
	}
	for i, c := range out.Chains {
		copied := *c
		copied.Rules = slices.Clone(c.Rules)
		out.Chains[i] = &copied
	}
	return &out
}

func newLayout(table string, x extent) *ruleset.Ruleset {
	r := &ruleset.Ruleset{Table: table, Family: ruleset.Inet, Comment: TableComment}
	for _, t := range tiersOf(x.lengths) {
		r.Maps = append(r.Maps, t.maps()...)
	}
	r.Maps = append(slices.Concat(r.Maps, border.Maps(), datagrams.Maps(), synproxy.Maps()), handshake.Map(), NewInlineSlots(), slotMap(0))
	for _, n := range x.shards {
		r.Maps = append(r.Maps, slotMap(n))
	}
	r.Maps = append(r.Maps,
		&ruleset.Map{Name: RandomSet, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}},
		&ruleset.Map{Name: StickySet, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}},
		&ruleset.Map{Name: BackendsMap, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Verdict}, Jump: true})
	for _, f := range Families {
		r.Maps = append(r.Maps,
			&ruleset.Map{Name: f.Endpoints, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.IP.Addr, ruleset.InetService}, Counter: true},
			&ruleset.Map{Name: f.Addresses, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{f.IP.Addr}, Counter: true},
			&ruleset.Map{Name: f.Ports, Kind: ruleset.Endpoints, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.InetService}, Counter: true})
		r.Maps = append(r.Maps, f.inlineServers()...)
	}
	r.Maps = append(r.Maps, &ruleset.Map{Name: PoolsMap, Kind: ruleset.Pools, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Verdict}})
	for _, f := range Families {
		r.Maps = append(r.Maps, &ruleset.Map{
			Name: f.Sources, Key: ruleset.Type{ruleset.Integer}, Data: ruleset.Type{f.IP.Addr},
			TypeOf: fmt.Sprintf("numgen inc mod 2 : %s saddr", f.IP.Word), Udata: f.IP.SourcesUdata(),
		})
	}
	r.Maps = append(append(append(r.Maps, guardMaps()...), retryMaps()...), fleet.Maps()...)
	r.Maps = append(r.Maps, NewVerdictsSet(), NewParamsSet(), NewRecordSet())
	r.Chains = append(append(r.Chains, baseChains(x)...), datagrams.Entry(), handshake.Chain(x.kept))
	if x.probes {
		r.Chains = append(r.Chains, probesChain())
	}
	if x.picksUp {
		r.Chains = append(r.Chains, fleet.Chains(ruleset.MarkIs(OursMask, OursMark), segments()...)...)
	}
	for _, f := range Families {
		r.Chains = append(r.Chains, f.pickChain(0), f.deliverChain(x.kept))
	}
	r.Chains = slices.Concat(r.Chains, []*ruleset.Chain{resolve(0), refuse(), noting(), waiting()}, turnAway(), retryChains(x.kept), border.Ends(refuseChain))
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
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.UnlessSYN(), ruleset.Accept()}}
}

// segments are the rules that a TCP segment from the network meets which begins no connection:
// to an address that this host only balances for, it is nobody's.
func segments() []ruleset.Rule {
	return append(synproxy.Segments(), border.Rest(ruleset.UnlessSYN())...)
}

func baseChains(x extent) []*ruleset.Chain {
	in, out := append(segments(), midStream()), []ruleset.Rule{midStream()}
	if x.picksUp {
		in = []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.UnlessSYN(), ruleset.Jump(fleet.PickUpChain)}}}
	}
	if x.probes {
		out = append(out, leaveProbes())
	}
	for _, t := range tiersOf(x.lengths) {
		if t.in {
			in = append(in, t.lookups()...)
		}
		if t.out {
			out = append(out, t.lookups()...)
		}
	}
	in = append(in, border.Rest()...)
	return []*ruleset.Chain{
		{Name: PreroutingChain, Hook: ruleset.Prerouting(-100, "dstnat"), Rules: in},
		{Name: outputChain, Hook: ruleset.Output(-100, "-100"), Rules: out},
		{Name: PostroutingChain, Hook: ruleset.Postrouting(100, "srcnat"), Rules: sourceRules(x.kept)},
	}
}

// sourceRules change sources, by the mode of the backend. What is not ours leaves
// first: connections that somebody else marked may look like ours, unless their
// destination was translated too. What keeps its source leaves behind masquerade,
// which nearly all others have.
func sourceRules(kept uint32) []ruleset.Rule {
	random := ruleset.MarkBitsIn(RandomSet, ^kept)
	out := []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.IsUntranslated(), ruleset.Accept()}},
		{Statements: []ruleset.Statement{hasMode(lb.Masquerade), random, ruleset.Masquerade(true)}, Needs: RandomSet},
		{Statements: []ruleset.Statement{hasMode(lb.Masquerade), ruleset.Masquerade(false)}},
		{Statements: []ruleset.Statement{hasMode(lb.SNATNone), ruleset.Accept()}},
		{Statements: []ruleset.Statement{hasMode(lb.SNATPool), ruleset.MarkVmap(PoolsMap, ^kept)}, Needs: PoolsMap},
	}
	for _, f := range Families {
		out = append(out,
			ruleset.Rule{Statements: []ruleset.Statement{hasMode(lb.SNATVIP), random, f.IP.SNATVIP(true)}, Needs: RandomSet},
			ruleset.Rule{Statements: []ruleset.Statement{hasMode(lb.SNATVIP), f.IP.SNATVIP(false)}})
	}
	return out
}

// pickChain turns a slot of a shard into a backend.
func (f *Family) pickChain(shard uint32) *ruleset.Chain {
	return &ruleset.Chain{Name: ofShard(f.pick, shard), Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.SetMarkByMap(ofShard(SlotsMap, shard))}},
		{Statements: []ruleset.Statement{ruleset.Goto(f.Deliver)}},
	}}
}

// deliverChain turns a backend into a translated destination.
func (f *Family) deliverChain(kept uint32) *ruleset.Chain {
	isFull := ruleset.Rule{Statements: []ruleset.Statement{ruleset.MarkIs(modeMask, fullMark), ruleset.Return()}, Needs: fullSet}
	rules := []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.MarkVmap(BackendsMap, 1<<32-1)}, Needs: BackendsMap}}
	if kept != 0 {
		// What turns away looks the whole mark up.
		rules = append(append(rules, isFull), keepBits(kept)...)
	}
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{f.IP.DNAT(byte(p), f.Endpoints, ^kept)}, Needs: f.Endpoints})
	}
	rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{f.IP.DNATAddress(f.Addresses, ^kept)}, Needs: f.Addresses})
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Redirect(byte(p), f.Ports, ^kept)}, Needs: f.Ports})
	}
	if kept == 0 {
		rules = append(rules, isFull)
	}
	return &ruleset.Chain{Name: f.Deliver, Rules: append(rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Drop()}})}
}

// refuse answers. The sources of what comes may be forged, so that answers are sent to
// somebody else: their number is bounded.
func refuse() *ruleset.Chain {
	answers := ruleset.Rate{Text: "1000/second", Events: 1000, Per: time.Second, Burst: 1000}
	return &ruleset.Chain{Name: refuseChain, Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.LimitRate(answers, true), ruleset.Drop()}},
		{Statements: []ruleset.Statement{ruleset.IsL4(byte(lb.TCP)), ruleset.RejectTCP()}},
		{Statements: []ruleset.Statement{ruleset.RejectPort()}},
	}}
}

// trim takes away what is not needed: maps without elements, rules that look
// into them, chains that nothing leads to or that have no rules. What the kernel has
// already stays, since other profiles may need it.
func trim(r *ruleset.Ruleset, needed func(object string) bool) {
	keep := map[string]bool{}
	r.Maps = slices.DeleteFunc(r.Maps, func(m *ruleset.Map) bool {
		keep[m.Name] = len(m.Elements) > 0 || m.OfChain != "" || m.Prefixes || needed(m.Name)
		return !keep[m.Name]
	})
	uses := map[string]bool{}
	for _, f := range Families {
		picks := slices.ContainsFunc(f.ServersBehind(SlotsMap), func(name string) bool { return keep[name] })
		uses[f.pick], uses[f.Deliver] = picks && keep[SlotsMap], picks
	}
	r.Chains = slices.DeleteFunc(r.Chains, func(c *ruleset.Chain) bool {
		c.Rules = slices.DeleteFunc(c.Rules, func(r ruleset.Rule) bool { return r.Needs != "" && !keep[r.Needs] })
		optional := c.Hook == nil && isShared(c.Name) && !uses[c.Name] || c.Name == PostroutingChain
		return c.Hook != nil && len(c.Rules) == 0 || optional && !needed(c.Name)
	})
}

// NewParamsSet is the set that remembers kernel parameters, empty.
func NewParamsSet() *ruleset.Map {
	return &ruleset.Map{Name: ParamsSet, Kind: ruleset.Record, Key: ruleset.Type{ruleset.Mark}, Comment: "kernel parameters, as nlb found them"}
}

// NewRecordSet is the set whose elements are the record of the last apply, empty.
func NewRecordSet() *ruleset.Map {
	return &ruleset.Map{Name: RecordSet, Kind: ruleset.Record, Key: ruleset.Type{ruleset.Mark}, Comment: "what nlb applied last"}
}
