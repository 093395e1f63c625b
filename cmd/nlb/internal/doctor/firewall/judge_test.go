package firewall

// What rules make of packets, without a kernel; integration compares the same
// with what real packets meet.

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

func dport(low, high uint16, not bool) Condition {
	be := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	return Condition{Fields: []Field{{Transport, 2, 2}}, Not: not, Ranges: []Range{{be(low), be(high)}}}
}

// TestClose: a range ends before the next element, whether that ends one or begins one.
func TestClose(t *testing.T) {
	s := set{elements: []setElement{{Range: Range{Low: []byte{0, 21}}}, {Range: Range{Low: []byte{0, 10}}}, {Range: Range{Low: []byte{1, 0}}}}}
	s.close([][]byte{{0, 0}, {0, 31}})
	for i, want := range [][]byte{{0, 30}, {0, 20}, {0xff, 0xff}} {
		if got := s.elements[i].High; !slices.Equal(got, want) {
			t.Errorf("the range from %v ends at %v, want %v", s.elements[i].Low, got, want)
		}
	}
}

// TestMeets: a packet may be a span of packets, of which some meet a condition.
func TestMeets(t *testing.T) {
	in := func(s string) Condition {
		a := AddrsOf(netip.MustParsePrefix(s))
		return Condition{Fields: []Field{{Network, 16, 4}}, Ranges: []Range{{a.First.AsSlice(), a.Last.AsSlice()}}}
	}
	masked := in("10.2.0.0/24")
	masked.Mask, masked.Xor = []byte{255, 255, 255, 0}, make([]byte, 4)
	masked.Ranges = []Range{single([]byte{10, 2, 0, 0})}
	odd := masked
	odd.Mask = []byte{255, 255, 0, 1}
	both := Condition{Fields: []Field{{Network, 16, 4}, {Transport, 2, 2}}, Ranges: []Range{single([]byte{10, 2, 0, 11, 0, 80, 0, 0})}}
	one := Packet{Dst: AddrsOf(netip.MustParsePrefix("10.2.0.11/32")), DstPort: Ports{80, 80}}
	many := Packet{Dst: AddrsOf(netip.MustParsePrefix("10.2.0.0/25")), DstPort: Ports{80, 90}}
	asks := Packet{V6: true, Protocol: 58, Solicitation: true}
	hops := func(mode, limit byte) Condition { return xtMatch("hl", 0, []byte{mode, limit})[0] }
	six := Packet{V6: true, Dst: AddrsOf(netip.MustParsePrefix("fd00::/64"))}
	for i, test := range []struct {
		packet Packet
		c      Condition
		want   Tri
	}{
		{one, in("10.2.0.0/24"), True},
		{one, in("10.3.0.0/24"), False},
		{many, in("10.2.0.0/24"), True},
		{many, in("10.2.0.0/26"), Maybe},
		{many, in("10.3.0.0/24"), False},
		{one, masked, True},
		{many, masked, True},
		{many, odd, Maybe},
		{one, dport(80, 80, false), True},
		{many, dport(80, 80, false), Maybe},
		{many, dport(91, 95, false), False},
		{one, dport(80, 80, true), False},
		{many, dport(80, 80, true), Maybe},
		{many, dport(91, 95, true), True},
		{one, both, True},
		{many, both, Maybe},
		{Packet{DstPort: Ports{81, 81}}, both, False},
		{Packet{}, both, Maybe},
		{one, unknown, Maybe},
		{Packet{}, dport(1, 2, false), Maybe},
		{six, in("10.2.0.0/24"), Maybe},
		{one, Condition{Fields: []Field{{Kind: NFProto, Len: 1}}, Ranges: []Range{single([]byte{2})}}, True},
		{six, Condition{Fields: []Field{{Kind: NFProto, Len: 1}}, Ranges: []Range{single([]byte{2})}}, False},
		{one, Condition{Fields: []Field{{Network, 16, 4}}, Ranges: []Range{{[]byte{1, 2}, []byte{1}}}}, Maybe}, // bytes that make no sense
		{Packet{In: "eth0"}, Condition{Fields: []Field{{Kind: InName, Len: 16}}, Ranges: []Range{single([]byte("eth"))}}, True},
		{Packet{Local: True}, anyBit(typeOfDstBits, 1<<2, false), True},
		{Packet{Local: False}, anyBit(typeOfDstBits, 1<<2, true), True},
		{Packet{Translated: true}, anyBit(Status, statusDNAT, false), True},
		{Packet{Established: true}, anyBit(State, stateNew, false), False},
		{asks, hops(0, 255), True},
		{asks, hops(0, 254), False},
		{asks, hops(1, 255), False},
		{asks, hops(1, 254), True},
		{asks, hops(2, 255), False},
		{asks, hops(2, 0), False},
		{asks, hops(3, 254), True},
		{asks, hops(3, 255), False},
		{asks, hops(9, 255), Maybe}, // a mode that there is not
		{asks, Condition{Fields: []Field{{Network, 6, 2}}, Ranges: []Range{single([]byte{58, 255})}}, True},
		{asks, Condition{Fields: []Field{{Network, 4, 4}}, Ranges: []Range{single([]byte{0, 24, 58, 255})}}, Maybe},
		{six, hops(0, 255), Maybe},
	} {
		if got := test.packet.meets(&test.c); got != test.want {
			t.Errorf("%d: got %d, want %d", i, got, test.want)
		}
	}
}

// TestJudge: what is certain, what is not, and which rule it is.
func TestJudge(t *testing.T) {
	yes, no, maybe := dport(80, 80, false), dport(81, 81, false), unknown
	rule := func(c Condition, a Action, target string) Rule {
		return Rule{Conditions: []Condition{c}, Action: a, Target: target, Number: 7}
	}
	chains := func(drop bool, base []Rule, more map[string][]Rule) *Table {
		t := &Table{Family: "ip", Name: "t", Chains: map[string]*Chain{"base": {Name: "base", Rules: base, Base: &Base{Hook: "forward", Drop: drop}}}}
		for name, rules := range more {
			t.Chains[name] = &Chain{Name: name, Rules: rules}
		}
		return t
	}
	for _, test := range []struct {
		name  string
		table *Table
		want  Action
		by    Cause
		may   []Action
	}{
		{"policy", chains(true, nil, nil), Drop, Cause{"base", true, 0}, nil},
		{"a rule", chains(true, []Rule{rule(no, Drop, ""), rule(yes, Accept, "")}, nil), Accept, Cause{"base", false, 7}, nil},
		{"perhaps", chains(true, []Rule{rule(maybe, Accept, "")}, nil), Drop, Cause{"base", true, 0}, []Action{Accept}},
		{"jump", chains(true, []Rule{rule(yes, Jump, "a")}, map[string][]Rule{"a": {rule(yes, Accept, "")}}), Accept, Cause{"a", false, 7}, nil},
		{"jump and back", chains(false, []Rule{rule(yes, Jump, "a"), rule(yes, Drop, "")}, map[string][]Rule{"a": {rule(yes, Return, ""), rule(yes, Accept, "")}}), Drop, Cause{"base", false, 7}, nil},
		{"goto, no way back", chains(true, []Rule{rule(yes, Goto, "a"), rule(yes, Accept, "")}, map[string][]Rule{"a": nil}), Drop, Cause{"base", true, 0}, nil},
		{"perhaps a jump", chains(false, []Rule{rule(maybe, Jump, "a")}, map[string][]Rule{"a": {rule(yes, Drop, "")}}), Accept, Cause{"base", true, 0}, []Action{Drop}},
		{"perhaps a return", chains(false, []Rule{rule(yes, Jump, "a"), rule(yes, Accept, "")}, map[string][]Rule{"a": {rule(maybe, Return, ""), rule(yes, Drop, "")}}), Drop, Cause{"a", false, 7}, []Action{Anything}},
		{"translation of another destination", chains(false, []Rule{rule(no, Translate, "")}, nil), Accept, Cause{"base", true, 0}, nil},
		{"translation that is not about it", chains(false, []Rule{rule(maybe, Translate, "")}, nil), Accept, Cause{"base", true, 0}, nil},
		{"translation, perhaps", chains(false, []Rule{{Conditions: []Condition{maybe, yes}, Action: Translate}}, nil), Accept, Cause{"base", true, 0}, []Action{Translate}},
		{"a chain that is not there", chains(false, []Rule{rule(yes, Jump, "a")}, nil), Anything, Cause{"a", false, 0}, nil},
		{"a loop", chains(false, []Rule{rule(yes, Jump, "a")}, map[string][]Rule{"a": {rule(yes, Jump, "a")}}), Anything, Cause{"a", false, 0}, nil},
	} {
		j := test.table.Judge(test.table.Chains["base"], &Packet{DstPort: Ports{80, 80}})
		if j.Action != test.want || j.By != test.by || len(j.May) != len(test.may) {
			t.Errorf("%s: got %+v", test.name, j)
		}
		for _, a := range test.may {
			if _, ok := j.May[a]; !ok {
				t.Errorf("%s: got %+v", test.name, j)
			}
		}
	}
}

// FuzzRule: whatever bytes come as a rule, it is read and judged.
func FuzzRule(f *testing.F) {
	f.Add([]byte{})
	for _, exprs := range seeds {
		f.Add(encoded(f, exprs...))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		d := &decoder{map[string]*set{"s": {keyLen: 4, complete: true, elements: []setElement{{Range: single([]byte{1, 2, 3, 4}), action: Accept}}}}}
		t := &Table{Chains: map[string]*Chain{"c": {Name: "c", Rules: d.rule(b), Base: &Base{}}}}
		t.Judge(t.Chains["c"], &Packet{Dst: AddrsOf(netip.MustParsePrefix("10.0.0.0/8")), DstPort: Ports{1, 9}, Protocol: 6})
	})
}

// seeds are rules of which the fuzzer makes others.
var seeds = [][]expr.Any{
	{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth")}, &expr.Verdict{Kind: expr.VerdictDrop}},
	{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{6, 0, 0, 0}, Xor: make([]byte, 4)}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}, &expr.Verdict{Kind: expr.VerdictAccept}},
	{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, &expr.Lookup{SourceRegister: 1, SetName: "s", IsDestRegSet: true}},
	{&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Range{Op: expr.CmpOpEq, Register: 9, FromData: []byte{0, 1}, ToData: []byte{0, 9}}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "c"}},
	{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}, &expr.Limit{Rate: 1, Unit: 1}, &expr.NAT{Type: expr.NATTypeDestNAT, Family: 2, RegAddrMin: 1}},
	{&expr.Match{Name: "conntrack", Rev: 3, Info: &xt.Unknown{}}, &expr.Target{Name: "DNAT", Rev: 2, Info: &xt.Unknown{}}},
}

// TestRuleOwnsItsBytes: what a rule was read from may be overwritten, as the
// buffer of a netlink socket is.
func TestRuleOwnsItsBytes(t *testing.T) {
	hop, icmp := xt.Unknown{0, 255}, xt.Unknown{135, 0, 255, 0}
	b := encoded(t, &expr.Match{Name: "icmp6", Info: &icmp}, &expr.Match{Name: "hl", Info: &hop}, &expr.Verdict{Kind: expr.VerdictAccept})
	r := (&decoder{}).rule(b)
	clear(b)
	p := Packet{V6: true, Protocol: 58, Solicitation: true}
	table := &Table{Chains: map[string]*Chain{"c": {Name: "c", Rules: r, Base: &Base{Drop: true}}}}
	if j := table.Judge(table.Chains["c"], &p); j.Action != Accept {
		t.Errorf("got %+v of %+v", j, r)
	}
}

// encoded are the attributes of a rule.
func encoded(f testing.TB, exprs ...expr.Any) []byte {
	f.Helper()
	var e wire.Encoder
	list := e.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, x := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_IPV4, x)
		if err != nil {
			f.Fatal(err)
		}
		at := e.Nest(unix.NFTA_LIST_ELEM)
		e.Raw(b)
		e.Unnest(at)
	}
	e.Unnest(list)
	return e.Bytes()
}

// FuzzLegacy: the same for a table of legacy iptables.
func FuzzLegacy(f *testing.F) {
	// INPUT, FORWARD and OUTPUT without rules, policy drop, and the end.
	info, entries := make([]byte, xtInfoSize), []byte{}
	host.PutUint32(info[xtTableName:], 1<<1|1<<2|1<<3)
	for i := range 4 {
		e := make([]byte, xt4.head+40)
		host.PutUint16(e[xt4.targetAt:], uint16(xt4.head))
		host.PutUint16(e[xt4.nextAt:], uint16(len(e)))
		host.PutUint32(e[xt4.head+xtTargetHead:], 1<<32-1) // -NF_DROP - 1
		if i == 3 {
			copy(e[xt4.head+2:], "ERROR")
		} else {
			host.PutUint32(info[xtTableName+4*(2+i):], uint32(len(entries)))
			host.PutUint32(info[xtTableName+4*(7+i):], uint32(len(entries)))
		}
		entries = append(entries, e...)
	}
	if t, ok := xt4.table("filter", info, entries); !ok || len(t.Chains) != 3 || !t.Chains["FORWARD"].Base.Drop {
		f.Fatalf("%v, %+v", ok, t)
	}
	f.Add(info, entries)
	f.Fuzz(func(_ *testing.T, info, entries []byte) {
		if len(info) != xtInfoSize {
			return
		}
		for _, x := range []xtLayout{xt4, xt6} {
			t, ok := x.table("filter", info, entries)
			if !ok {
				continue
			}
			for _, c := range t.Bases() {
				t.Judge(c, &Packet{Protocol: 6, DstPort: Ports{80, 80}})
			}
		}
	})
}

// TestBypassed: which chains packets in a flow table pass by.
func TestBypassed(t *testing.T) {
	rules := []Rule{{Action: Drop}}
	chain := func(name, kind, hook string, priority int, drop bool, rules ...Rule) *Chain {
		return &Chain{Name: name, Base: &Base{Type: kind, Hook: hook, Priority: priority, Drop: drop}, Rules: rules}
	}
	chains := []*Chain{
		chain("a-nat", "nat", "prerouting", -100, false, rules...),
		chain("b-empty", "filter", "forward", 0, false),
		chain("c-input", "filter", "input", 0, true, rules...),
		chain("d-early", "filter", "ingress", -1, false, rules...),
		{Name: "e-regular", Rules: rules},
		chain("f-policy", "filter", "forward", 0, true),
		chain("g-raw", "filter", "prerouting", -300, false, rules...),
		chain("h-out", "filter", "postrouting", 0, false, rules...),
		chain("i-late", "filter", "ingress", 0, false, rules...),
	}
	table := &Table{Family: "inet", Name: "t", Chains: map[string]*Chain{}}
	for _, c := range chains {
		table.Chains[c.Name] = c
	}
	dormant := &Table{Family: "ip", Name: "sleeps", Dormant: true, Chains: table.Chains}
	bridge := &Table{Family: "bridge", Name: "b", Chains: table.Chains}
	legacy := &Table{Family: "ip", Name: "filter", Legacy: true, Chains: map[string]*Chain{"FORWARD": chain("FORWARD", "filter", "forward", 0, false, rules...)}}
	got := strings.Join(Bypassed([]*Table{table, dormant, bridge, legacy}), "; ")
	want := "table inet t, chain g-raw; table inet t, chain f-policy; table inet t, chain h-out; table inet t, chain i-late; legacy iptables table filter, chain FORWARD"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
