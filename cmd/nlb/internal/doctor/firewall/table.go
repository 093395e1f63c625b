// Package firewall reads the rules that others keep in a network namespace,
// those of nftables and of legacy iptables, as values, and says what they make
// of a packet, as far as that can be told: what a rule looks at may be unknown
// here, and then the answer is a maybe.
package firewall

// Tables, chains and rules as values.

import (
	"cmp"
	"maps"
	"slices"
)

// Table is a table of nftables, or of legacy iptables.
type Table struct {
	// Family is ip, ip6, inet, bridge, arp or netdev.
	Family string
	Name   string
	// Legacy says that it is not one of nftables: iptables-legacy shows it.
	Legacy bool
	// Dormant says that its base chains are not attached.
	Dormant bool
	// Handle grows with every new table of the namespace; 0: not known.
	Handle uint64
	Chains map[string]*Chain
}

// String is what to call it: table inet filter.
func (t *Table) String() string {
	switch {
	case t.Legacy && t.Family == "ip6":
		return "legacy ip6tables table " + t.Name
	case t.Legacy:
		return "legacy iptables table " + t.Name
	}
	return "table " + t.Family + " " + t.Name
}

// Bases are the base chains, in the order in which a packet meets them at one
// hook; those of the same priority by name.
func (t *Table) Bases() []*Chain {
	var out []*Chain
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		if c := t.Chains[name]; c.Base != nil && !t.Dormant {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b *Chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
	return out
}

// Chain is rules in a row.
type Chain struct {
	Name  string
	Base  *Base // nil: others jump to it
	Rules []Rule
}

// Base is where a chain is attached.
type Base struct {
	// Type is filter, nat or route.
	Type string
	// Hook is prerouting, input, forward, output, postrouting, ingress or
	// egress.
	Hook     string
	Priority int
	// Drop is the policy: what becomes of a packet that no rule decides on.
	Drop bool
	// Devices are the links of an ingress or egress hook.
	Devices []string
}

// Action is what a rule does.
type Action uint8

// The actions. Those from Accept to Translate are the last word of a base
// chain.
const (
	Pass      Action = iota // nothing that decides: count, log, mark
	Accept                  // this chain lets it through
	Drop                    // drop and reject
	Translate               // dnat, redirect, snat, masquerade
	Jump
	Goto
	Return
	Anything // it cannot be told
)

// Rule does something with the packets that meet all of its conditions.
type Rule struct {
	Conditions []Condition
	Action     Action
	Target     string // of Jump and Goto
	// Number finds it in its chain: its handle, in a legacy table its place. 0:
	// it is one of several that a map of verdicts makes.
	Number uint64
	// Mark is what it does with the connection mark.
	Mark MarkUse
	// Untracks says that packets have no connection from here on (notrack).
	Untracks bool
}

// idle reports whether a rule does nothing that is looked at here.
func (r *Rule) idle() bool { return r.Action == Pass && r.Mark == (MarkUse{}) && !r.Untracks }

// MarkUse is what is done with the connection mark.
type MarkUse struct {
	Sets     uint32 // the bits that are written to it
	Restores uint32 // the bits that are copied from it to the packet's mark
}

// Condition compares fields of a packet with ranges of values.
type Condition struct {
	// Fields are compared one by one, each with its part of a range. None: it
	// cannot be told whether a packet meets the condition.
	Fields []Field
	// Mask and Xor change the value of a single field before; nil: they do not.
	Mask, Xor []byte
	// Not: the value must be in none of the ranges.
	Not    bool
	Ranges []Range
}

var unknown = Condition{}

// Range is values from Low to High, both included: the bytes of the fields as
// the kernel has them. Each of several fields is padded to 4 bytes.
type Range struct{ Low, High []byte }

func single(v []byte) Range { return Range{v, v} }

// Kind is where a field is found.
type Kind uint8

// The kinds.
const (
	Other         Kind = iota // it is not known here
	InName                    // the name of the link that the packet came by
	OutName                   // the name of the link that it leaves by
	InIndex                   // their numbers, in host order
	OutIndex                  //
	NFProto                   // the family: 2 or 10
	EtherType                 // the same as a link has it: 0x0800 or 0x86dd
	L4Proto                   // the transport protocol
	Network                   // the network header
	Transport                 // the transport header
	State                     // of the connection, bits in host order
	Status                    // of the connection, bits in host order
	TypeOfDst                 // what the destination address is here: RTN_LOCAL or else
	SrcAddr                   // the source address, for rules of legacy iptables
	DstAddr                   // the destination address, likewise
	ConnMark                  // the connection mark
	typeOfDstBits             // TypeOfDst as xt_addrtype has it: 1<<type
)

// Field is a part of a packet, or of what is known of it.
type Field struct {
	Kind        Kind
	Offset, Len int // Len: how many bytes
}

// destination reports whether a condition looks at where the packet goes.
func (c *Condition) destination() bool {
	return slices.ContainsFunc(c.Fields, func(f Field) bool {
		switch f.Kind {
		case DstAddr:
			return true
		case Network:
			return f.Offset == 16 || f.Offset == 24 && f.Len > 1
		case Transport:
			return f.Offset == 2
		}
		return false
	})
}

// Bypassed names the base chains that packets in a flow table pass by, as far as these
// do something with packets of live connections: those of type nat see the first one
// only, and an empty one that accepts does nothing.
func Bypassed(tables []*Table) []string {
	var out []string
	for _, t := range tables {
		if !slices.Contains([]string{"inet", "ip", "ip6", "netdev"}, t.Family) {
			continue
		}
		for _, c := range t.Bases() {
			// Flow tables look at packets at priority 0 of the hook ingress.
			late := c.Base.Hook == "ingress" && c.Base.Priority >= 0 || slices.Contains([]string{"prerouting", "forward", "postrouting"}, c.Base.Hook)
			if late && c.Base.Type != "nat" && (len(c.Rules) > 0 || c.Base.Drop) {
				out = append(out, t.String()+", chain "+c.Name)
			}
		}
	}
	return out
}
