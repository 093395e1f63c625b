package syntax

// Matches: the conditions of a rule, as far as they can be known of the first
// packet of a connection.

import (
	"math/big"

	"nlb/lb"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/share"
)

// Match is a condition: one of the types below.
type Match interface{ isMatch() }

// Source holds for these client addresses.
type Source struct{ space.Set }

// Within holds for packets whose destination, port or protocol is in Set, or what
// space.Local says of them. Original: as the client has sent them, whatever NAT has
// made of them since.
type Within struct {
	Of space.Dimension
	space.Set
	Original bool
}

// ToLocal holds for destinations that are addresses of this host.
func ToLocal(not bool) Within { return Within{Of: space.Local, Set: space.Own(!not)} }

// FromLocal holds for sources that are.
type FromLocal struct{ Not bool }

// Interface holds for packets that enter by an interface that the pattern fits, as
// nothing does that this host itself sends; or that leave by one. Which one that is, is
// up to the routes.
type Interface struct {
	Pattern      string
	Leaving, Not bool
}

// State holds for the first packet of a connection if New says so, for one
// whose destination was translated if DNAT does, and for later packets if Known
// does; Not turns that round.
type State struct{ New, DNAT, Known, Not bool }

// First reports whether only first packets pass.
func (s State) First() bool { return s.New != s.Not && s.Known == s.Not }

// Fixed holds or does not, for the first packet of any connection.
type Fixed struct{ Holds bool }

// Mark holds for a packet, or a connection, whose mark is Value in the bits of
// Mask.
type Mark struct {
	Connection  bool
	Value, Mask uint32
	Not         bool
}

// Nth holds for every Every-th packet that comes to it, the first time for
// number Packet, counted from 0 (net/netfilter/xt_statistic.c). It has a
// counter of its own, which is why it is met as a pointer.
type Nth struct {
	Every, Packet uint32
	Not           bool
}

// Chance holds at random.
type Chance struct {
	share.Probability
	Not bool
}

// Hashed holds for a part of all connections, by a hash of these fields.
type Hashed struct {
	Part *big.Rat
	By   []lb.HashField
}

// Recent is about a list of addresses. Set adds the source and holds; Check
// holds for sources that are listed and were seen within Seconds (0: ever).
type Recent struct {
	List       string
	Set, Check bool
	Seconds    uint32
	// Bits and Bits6 are how much of an address counts.
	Bits, Bits6 int
	Not         bool
}

// Limit holds until the rate is exceeded.
type Limit struct{ lb.Rate }

func (Source) isMatch()    {}
func (Within) isMatch()    {}
func (FromLocal) isMatch() {}
func (Interface) isMatch() {}
func (State) isMatch()     {}
func (Fixed) isMatch()     {}
func (Mark) isMatch()      {}
func (*Nth) isMatch()      {}
func (Chance) isMatch()    {}
func (Hashed) isMatch()    {}
func (Recent) isMatch()    {}
func (Limit) isMatch()     {}
