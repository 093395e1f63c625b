package syntax

// Targets: what a rule does.

import (
	"fmt"
	"net/netip"

	"nlb/lb"
	"nlb/lb/importer/iptables/space"
)

// Target is what a rule does: one of the types below.
type Target interface{ isTarget() }

// Jump goes on in a chain of the user's own, and comes back at its end, unless
// Goto.
type Jump struct {
	Chain string
	Goto  bool
}

// Accept ends the table; Return the chain.
type (
	Accept struct{}
	Return struct{}
)

// Drop ends the packet, as do REJECT and the policy DROP.
type Drop struct{}

// DNAT sends the connection elsewhere.
type DNAT struct {
	// To are ranges of addresses, one in rules that a kernel of today takes.
	To []NATRange
	// Persistent: the same client meets the same address of a range.
	Persistent bool
	// Random: a port of a range is taken at random.
	Random bool
	// Host: to this host, whatever its address is, as REDIRECT does.
	Host bool
}

// NATRange is what DNAT or SNAT choose from. Addresses that are not valid
// leave the address as it is; First port 0 leaves the port. Base, where it is
// not 0, is the port that becomes the first of Ports; those after it follow.
type NATRange struct {
	First, Last netip.Addr
	Ports       lb.PortRange
	Base        uint16
}

// maxRange is how many addresses a range may have, and ports that are taken at random.
const maxRange = 256

// WideRange says that a range is not translated because of that.
var WideRange = fmt.Sprintf("a range of more than %d addresses or ports is not translated", maxRange)

// Wide reports whether a range has more. random: its ports are taken at random.
func (r NATRange) Wide(random bool) bool {
	return r.First.IsValid() && space.Between(r.First, r.Last).Size() > maxRange || random && int(r.Ports.Last)-int(r.Ports.First) >= maxRange
}

// SNAT changes the source to one of a range of addresses, or to one of the interface that
// the packet leaves by: Masquerade. Random: with a port at random.
type SNAT struct {
	To                 NATRange
	Masquerade, Random bool
}

// SetMark makes the mark of a packet, or of its connection, (mark &^ Mask) ^
// Value.
type SetMark struct {
	Connection  bool
	Value, Mask uint32
}

// CopyMark makes the mark of the connection (Save) or of the packet
// (mark &^ Clear) ^ (other & Take), where other is the other one.
type CopyMark struct {
	Save        bool
	Clear, Take uint32
}

// Log writes a line into the kernel log.
type Log struct {
	Prefix string
	Level  lb.LogLevel
}

// Untrack takes the connection out of the reach of NAT.
type Untrack struct{}

// Pass does nothing that decides where a connection goes. Name is the
// target's; empty where the rule has none.
type Pass struct{ Name string }

func (Jump) isTarget()     {}
func (Accept) isTarget()   {}
func (Return) isTarget()   {}
func (Drop) isTarget()     {}
func (DNAT) isTarget()     {}
func (SNAT) isTarget()     {}
func (SetMark) isTarget()  {}
func (CopyMark) isTarget() {}
func (Log) isTarget()      {}
func (Untrack) isTarget()  {}
func (Pass) isTarget()     {}

// Balances reports whether the rule sends connections to somewhere else.
func (r *Rule) Balances() bool {
	_, ok := r.Target.(DNAT)
	return ok
}

// ChangesSource reports whether the rule is for what backends see.
func (r *Rule) ChangesSource() bool {
	_, ok := r.Target.(SNAT)
	return ok
}
