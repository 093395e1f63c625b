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

// Destination holds for these addresses; Original for those that the client
// has sent to, whatever NAT has made of them since.
type Destination struct {
	space.Set
	Original bool
}

// Protocol holds for these protocols.
type Protocol struct{ space.Set }

// Port holds for these destination ports; Original as in Destination.
type Port struct {
	space.Set
	Original bool
}

// Entering holds for packets from interfaces that the pattern fits; none fits
// what this host itself sends.
type Entering struct {
	Pattern string
	Not     bool
}

// Leaving is a condition on the interface that a packet leaves by. Which that
// is, is up to the routes.
type Leaving struct {
	Pattern string
	Not     bool
}

// ToLocal holds for destinations that are addresses of this host, FromLocal
// for sources that are.
type (
	ToLocal   struct{ Not bool }
	FromLocal struct{ Not bool }
)

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

func (Source) isMatch()      {}
func (Destination) isMatch() {}
func (Protocol) isMatch()    {}
func (Port) isMatch()        {}
func (Entering) isMatch()    {}
func (Leaving) isMatch()     {}
func (ToLocal) isMatch()     {}
func (FromLocal) isMatch()   {}
func (State) isMatch()       {}
func (Fixed) isMatch()       {}
func (Mark) isMatch()        {}
func (*Nth) isMatch()        {}
func (Chance) isMatch()      {}
func (Hashed) isMatch()      {}
func (Recent) isMatch()      {}
func (Limit) isMatch()       {}
