package direct

// Fragments: those but the first have no ports, and go where the first went.

import (
	"nlb/nft/compile"
	"nlb/nft/ruleset"
)

// sendChain sends a packet to the backend in its mark.
func sendChain(f *compile.Family) *ruleset.Chain {
	return &ruleset.Chain{Name: send(f), Rules: []ruleset.Rule{
		rule(f.IP.IsFirstFragment(), ruleset.Goto(first(f))),
		rule(f.IP.Forward(Backends(f), LinksMap)),
		rule(ruleset.Drop()),
	}}
}

// firstChain does the same with the first fragment of a datagram, and remembers the
// backend.
func firstChain(f *compile.Family) *ruleset.Chain {
	datagram := datagramOf(f)
	return &ruleset.Chain{Name: first(f), Rules: []ruleset.Rule{
		rule(datagram.Unlearn(fragments(f))), // an earlier datagram may have had the number
		rule(datagram.Learn(fragments(f), fragmentTime)),
		rule(f.IP.Forward(Backends(f), LinksMap)),
		rule(ruleset.Drop()),
	}}
}

// fragmentsChain sends a later fragment where the first went. Those of other datagrams
// go their way.
func fragmentsChain(f *compile.Family) *ruleset.Chain {
	return &ruleset.Chain{Name: fragments(f), Rules: []ruleset.Rule{
		rule(datagramOf(f).SetPacketMarkBy(fragments(f)), f.IP.Forward(Backends(f), LinksMap)),
	}}
}

func datagramOf(f *compile.Family) ruleset.FlowHash {
	return ruleset.FlowHash{Family: f.IP, Fields: f.IP.Datagram()}
}
