package nft

// Kept bits: those of the connection mark that others route by. A host with
// several uplinks marks a connection by the link it came in on, and an `ip rule`
// sends the answers out there. nlb gives its backends numbers without these
// bits, and once it has chosen one puts the bits back, from the packet's mark.

import (
	"errors"
	"fmt"
	"math/bits"

	"nlb/nft/ruleset"
)

// leastNumberBits are what the numbers of backends need of a mark.
const leastNumberBits = 16

// KeepableBits are the bits of these masks of policy routing rules, where nlb can
// keep them all; else none, and why.
func KeepableBits(masks ...uint32) (kept uint32, err error) {
	for _, m := range masks {
		kept |= m
	}
	switch {
	case kept&^indexMask != 0:
		return 0, errors.New("nlb itself needs the highest 8 bits of the connection mark")
	case bits.OnesCount32(indexMask&^kept) < leastNumberBits:
		return 0, fmt.Errorf("nlb itself needs %d of the lower 24 bits of the connection mark", leastNumberBits)
	}
	return kept, nil
}

// keepFree keeps bits out of the numbers of so many backends, where enough are
// left.
func (n *numbers) keepFree(kept uint32, backends int) {
	if backends < 1<<(bits.OnesCount32(indexMask&^kept)-1) {
		n.owners.kept = kept
	}
}

// rules stands for the rules that an apply makes of the same profiles.
func (o Options) rules() string {
	if o.Keep == 0 {
		return rulesVersion
	}
	return fmt.Sprintf("%s %x", rulesVersion, o.Keep)
}

// keepBits are the rules that put bits back.
func keepBits(kept uint32) []ruleset.Rule {
	var out []ruleset.Rule
	for bit := uint32(1); bit&indexMask != 0; bit <<= 1 {
		if kept&bit != 0 {
			out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.KeepBit(bit)}, Comment: fmt.Sprintf("keeps 0x%08x", kept)})
		}
	}
	return out
}

// readKept reads the comments that keepBits writes.
func readKept(o *objects) (kept uint32) {
	for _, f := range families {
		if c := o.chains[f.deliver]; c != nil {
			for _, r := range c.rules {
				_, _ = fmt.Sscanf(r.comment, "keeps 0x%x", &kept)
			}
		}
	}
	return kept
}
