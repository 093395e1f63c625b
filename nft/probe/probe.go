// Package probe asks the kernel what of nftables it has. A batch without END is
// validated and dropped, so that everything can be asked for and nothing is
// changed.
package probe

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/direct"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// Part is something of nftables that profiles may need.
type Part struct {
	// Name is an expression as the kernel calls it, or a kind of object.
	Name string
	// For says what profiles use it for.
	For string
	// Since is the version of Linux that has it.
	Since string
	// Module is the kernel's module that it is in, where it is not a part of
	// nf_tables.
	Module string
}

// Missing is a part that the kernel refused, and what it said.
type Missing struct {
	Part
	Err error
}

// probe asks for a part: by the objects of a batch.
type probe struct {
	Part
	sets  []*ruleset.Map
	exprs []expr.Any
	base  *ruleset.Hook // of the chain with the expressions; nil: a regular chain
	// family is that of the table; 0: ruleset.Inet.
	family uint8
	chain  *ruleset.Chain // in place of these two
	flows  *ruleset.Flowtable
}

const (
	table = "nlb-probe"
	// Registers that the expressions use.
	reg   = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
	// Another program that commits all the time makes us ask again, this often.
	tries = 60
	// setSize is what a set that packets fill may hold.
	setSize = 1024
)

// Names of parts that are no expressions.
const (
	partTable   = "table inet"
	partChain   = "nat chain"
	partSet     = "set"
	partMap     = "verdict map"
	partCounter = "counter of elements"
	partRanges  = "ranges of concatenations"
	partPrefix  = "intervals"
	partTimeout = "timeouts"
)

// probes are all parts, those that others need first.
func probes() []probe {
	pre := func(priority int32) *ruleset.Hook {
		return ruleset.Prerouting(priority, "")
	}
	post := ruleset.Postrouting(100, "")
	loadMark := &expr.Ct{Key: expr.CtKeyMARK, Register: reg}
	protocol := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
	number := &expr.Immediate{Register: reg, Data: make([]byte, 4)}
	clients := &ruleset.Map{Name: "clients", Key: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: setSize}
	simple := func(name, use, since, module string, e ...expr.Any) probe {
		return probe{Part: Part{name, use, since, module}, exprs: e}
	}
	set := func(name, use, since, module string, m ruleset.Map) probe {
		m.Name = "probe"
		return probe{Part: Part{name, use, since, module}, sets: []*ruleset.Map{&m}}
	}
	jenkins := &expr.Hash{SourceRegister: reg32 + 4, DestRegister: reg, Length: 4, Modulus: 2, Seed: 1, Type: expr.HashTypeJenkins}
	snat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg}
	return []probe{
		simple(partTable, "every service", "3.14", "nf_tables_inet"),
		{Part: Part{partChain, "every service", "5.2", "nft_chain_nat"}, base: pre(-100)},
		set(partSet, "every service", "3.13", "", ruleset.Map{Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Mark}}),
		set(partMap, "every service", "4.1", "", ruleset.Map{Key: ruleset.Type{ruleset.IPv4Addr, ruleset.InetProto, ruleset.InetService}, Data: ruleset.Type{ruleset.Verdict}}),
		set(partCounter, "every service", "5.7", "", ruleset.Map{Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.IPv4Addr}, Counter: true}),
		set(partRanges, "several ports, prefixes and interfaces", "5.6", "", ruleset.Map{Key: ruleset.Type{ruleset.InetProto, ruleset.InetService}, Data: ruleset.Type{ruleset.Verdict}, Interval: true}),
		set(partPrefix, "allow and deny", "3.13", "", ruleset.Map{Key: ruleset.Type{ruleset.IPv4Addr}, Prefixes: true}),
		set(partTimeout, "affinity, limit, max-connections and retry", "4.1", "", ruleset.Map{Key: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: setSize}),
		simple("meta", "every service", "3.13", "", protocol),
		simple("payload", "every service", "3.13", "", &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}),
		simple("cmp", "every service", "3.13", "", protocol, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{6}}),
		simple("immediate", "every service", "3.13", "", number),
		simple("ct", "every service", "3.13", "nft_ct", loadMark, &expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true}),
		{
			Part: Part{"lookup", "every service", "3.13", ""}, sets: []*ruleset.Map{{Name: "probe", Key: ruleset.Type{ruleset.Mark}}},
			exprs: []expr.Any{number, &expr.Lookup{SourceRegister: reg, SetName: "probe"}},
		},
		{
			Part: Part{"nat", "every service", "5.2", "nft_nat"}, base: post,
			exprs: []expr.Any{&expr.Immediate{Register: reg, Data: []byte{192, 0, 2, 1}}, snat},
		},
		{Part: Part{"redir", "backends that are this host", "5.2", "nft_redir"}, base: pre(-100), exprs: []expr.Any{&expr.Redir{}}},
		simple("bitwise", "every service", "3.13", "", loadMark, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: make([]byte, 4), Xor: make([]byte, 4)}),
		simple("numgen", "scheduler: round-robin, random and least-connections", "4.10", "nft_numgen", &expr.Numgen{Register: reg, Modulus: 2, Type: unix.NFT_NG_INCREMENTAL, Offset: 1}),
		simple("hash", "scheduler: hash and consistent", "4.10", "nft_hash", &expr.Immediate{Register: reg32 + 4, Data: make([]byte, 4)}, jenkins),
		{Part: Part{"masq", "snat: masquerade", "5.2", "nft_masq"}, base: post, exprs: []expr.Any{&expr.Masq{}}},
		{Part: Part{"reject", "refused connections", "3.14", "nft_reject_inet"}, base: pre(-100), exprs: []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
		{Part: Part{"fib", "role: server, retry and a listen without an address", "4.10", "nft_fib_inet"}, base: pre(-100), exprs: []expr.Any{&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}}},
		simple("limit", "refused connections, affinity, limit, retry and the rate of log", "3.13", "nft_limit", &expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Burst: 1, Over: true}),
		simple("connlimit", "affinity, connections-per-source and max-connections", "4.18", "nft_connlimit", &expr.Connlimit{Count: 1, Flags: expr.NFT_CONNLIMIT_F_INV}),
		simple("log", "log", "3.13", "nft_log", &expr.Log{Key: 1 << unix.NFTA_LOG_LEVEL, Level: expr.LogLevelInfo}),
		{
			Part: Part{"dynset", "affinity, limit, max-connections and retry", "4.1", ""}, sets: []*ruleset.Map{clients},
			exprs: []expr.Any{number, &expr.Dynset{SrcRegKey: reg, SetName: clients.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: 1e9}},
		},
		{Part: Part{"objref", "timeouts and helper", "4.19", "nft_ct"}, chain: &ruleset.Chain{Name: "probe-objref", Rules: []ruleset.Rule{{
			Statements: []ruleset.Statement{ruleset.SetTimeouts(&ruleset.Timeouts{Name: "probe", Protocol: unix.IPPROTO_UDP, Seconds: []uint32{1, 1}})},
		}}}},
		simple("notrack", "balance: datagrams", "4.9", "nft_ct", &expr.Notrack{}),
		{Part: Part{"synproxy", "syn-protection", "5.3", "nft_synproxy"}, base: ruleset.Input(0, ""), exprs: []expr.Any{
			protocol, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}}, &expr.SynProxy{Mss: 1460, Wscale: 7},
		}},
		{Part: Part{"socket", "fleet: anycast and mesh", "5.10", "nft_socket"}, base: pre(-100), exprs: []expr.Any{&expr.Socket{Key: expr.SocketKeyWildcard, Register: reg}}},
		simple("exthdr", "mode: dsr", "3.13", "", &expr.Exthdr{DestRegister: reg, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6}),
		{
			Part: Part{"fwd", "mode: dsr", "5.5", "nft_fwd_netdev"}, family: ruleset.Netdev,
			sets: []*ruleset.Map{direct.Map(direct.Backends(compile.Families[0])), direct.Map(direct.LinksMap)},
			chain: &ruleset.Chain{Name: "probe-fwd", Rules: []ruleset.Rule{{
				Statements: []ruleset.Statement{ruleset.IPv4.Forward(direct.Backends(compile.Families[0]), direct.LinksMap)},
			}}},
		},
	}
}

// Parts are all parts of nftables that a profile may need.
func Parts() []Part {
	var out []Part
	for _, p := range probes() {
		out = append(out, p.Part)
	}
	return out
}

// Needed are the names of the parts that the rulesets of profiles are made of.
func Needed(profiles []*lb.Profile) map[string]bool {
	out := map[string]bool{partTable: true, partChain: true}
	r := compile.Profiles(table, profiles)
	beside := direct.Ruleset(table, profiles, nil, compile.NewNumbers(0, profiles), &direct.Links{}, func(string) bool { return false })
	if beside != nil {
		r.Maps, r.Chains = append(r.Maps, beside.Maps...), append(r.Chains, beside.Chains...)
	}
	for _, m := range r.Maps {
		for name, uses := range map[string]bool{
			partSet: true, partMap: m.Verdicts(), partCounter: m.Counter, partRanges: m.Interval,
			partPrefix: m.Prefixes, partTimeout: m.Timeout,
		} {
			if uses {
				out[name] = true
			}
		}
	}
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			for _, s := range rule.Statements {
				maps.Insert(out, maps.All(expressionNames(s.Exprs)))
			}
		}
	}
	return out
}

// expressionNames are the names of encoded expressions, and of those inside.
func expressionNames(list []byte) map[string]bool {
	out := map[string]bool{}
	for _, e := range wire.Attrs(list) {
		name := wire.Text(wire.Attr(e, unix.NFTA_EXPR_NAME))
		out[name] = true
		if name == "dynset" {
			data := wire.Attr(e, unix.NFTA_EXPR_DATA)
			if inner := wire.Attr(data, unix.NFTA_DYNSET_EXPR); inner != nil {
				out[wire.Text(wire.Attr(inner, unix.NFTA_EXPR_NAME))] = true
			}
			for _, inner := range wire.Attrs(wire.Attr(data, dynsetExpressions)) {
				out[wire.Text(wire.Attr(inner, unix.NFTA_EXPR_NAME))] = true
			}
		}
	}
	return out
}

const dynsetExpressions = 10 // NFTA_DYNSET_EXPRESSIONS

// Kernel asks the kernel for the parts that profiles need, or for all where
// there are none, and returns those that it refuses. Nothing is changed, but
// that the kernel may load modules, as for an apply. An error says that it
// could not be asked: unix.EPERM without CAP_NET_ADMIN.
func Kernel(c *wire.Conn, profiles []*lb.Profile) ([]Missing, error) {
	all := probes()
	if len(profiles) > 0 {
		needed := Needed(profiles)
		all = slices.DeleteFunc(all, func(p probe) bool { return !needed[p.Name] })
	}
	err := ask(c, all...)
	if err == nil || nft.NotPermitted(err) || !refused(err) {
		return nil, err
	}
	// Where a single message was refused, it says which. Else what needs the
	// missing part is refused, too, so one by one.
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Others == 0 {
		if i := slices.IndexFunc(all, func(p probe) bool { return e.What == "chain "+p.chainName() }); i >= 0 {
			return []Missing{{all[i].Part, err}}, nil
		}
	}
	var out []Missing
	for _, p := range all {
		err := ask(c, p)
		if err != nil && !refused(err) {
			return out, err
		}
		if err != nil && !blames(err, p.Name, all) {
			out = append(out, Missing{p.Part, err})
		}
		if err != nil && slices.Contains([]string{partTable, partChain}, p.Name) {
			break // all else needs it
		}
	}
	return out, nil
}

// Checks asks the kernel for what nft.Options.Probes needs. The error is a
// *wire.Error where the kernel lacks something: it is older than Linux 4.19, or was
// built without CONFIG_NF_CONNTRACK_TIMEOUT. Debian's kernels have that.
func Checks(c *wire.Conn) error {
	asked := func(object string) bool { return object == compile.ProbesChain }
	for _, chain := range compile.Beside(table, nil, nil, compile.NewNumbers(0), asked).Chains {
		if asked(chain.Name) {
			return ask(c, probe{chain: chain})
		}
	}
	return nil
}

// Flowtable asks the kernel for a flow table, and for a chain that adds to it. Without
// devices it asks whether the kernel has flow tables at all. The error is a *wire.Error
// where it refuses.
func Flowtable(c *wire.Conn, f ruleset.Flowtable) error {
	f.Name = "probe"
	return ask(c, probe{flows: &f, chain: &ruleset.Chain{
		Name: "probe-flow_offload", Hook: ruleset.Forward(0), Filter: true,
		Rules: []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.AddFlow(f.Name)}}},
	}})
}

// blames reports whether the kernel says that it is another part which it
// lacks.
func blames(err error, name string, all []probe) bool {
	e, ok := errors.AsType[*wire.Error](err)
	return ok && e.Expr != name && slices.ContainsFunc(all, func(p probe) bool { return p.Name == e.Expr })
}

// chainName tells the probe's chain from those of others in a batch.
func (p probe) chainName() string { return "probe-" + p.Name }

// refused reports whether err is the kernel's answer to a message.
func refused(err error) bool {
	_, ok := errors.AsType[*wire.Error](err)
	return ok || errors.Is(err, wire.ErrRefused)
}

// ask has the kernel validate the objects of some probes.
func ask(c *wire.Conn, probes ...probe) error {
	for try := 0; ; try++ {
		generation, err := c.Generation()
		if err != nil {
			return err
		}
		b := wire.NewBatch(generation)
		for i, p := range probes {
			p.encode(b, i)
		}
		err = c.Check(b)
		if !errors.Is(err, wire.ErrStale) || try == tries {
			return err
		}
	}
}

// encode writes a table of its own, with a set and a chain that has a rule.
func (p probe) encode(b *wire.Batch, i int) {
	m := &ruleset.Messages{Batch: b, Family: cmp.Or(p.family, ruleset.Inet), Table: table + string(rune('a'+i)), List: ruleset.MaxList}
	m.NewTable("nlb asks what the kernel has")
	for _, s := range p.sets {
		m.NewMap(s)
	}
	if p.flows != nil {
		m.NewFlowtable(p.flows)
	}
	ch := p.chain
	switch {
	case ch != nil:
	case p.base == nil && p.exprs == nil:
		return
	default:
		ch = &ruleset.Chain{Name: p.chainName(), Hook: p.base}
		if p.exprs != nil {
			ch.Rules = []ruleset.Rule{{Statements: []ruleset.Statement{ruleset.NewStatement(p.Name, p.exprs...)}}}
		}
	}
	m.NewChain(ch)
	for _, r := range ch.Rules {
		m.Rule(ch.Name, r, 0)
	}
}
