package compile

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
	case kept&^NumberMask != 0:
		return 0, errors.New("nlb itself needs the highest 8 bits of the connection mark")
	case bits.OnesCount32(NumberMask&^kept) < leastNumberBits:
		return 0, fmt.Errorf("nlb itself needs %d of the lower 24 bits of the connection mark", leastNumberBits)
	}
	return kept, nil
}

// RulesVersion is the version of the rules of a layout, which leave these bits to
// others. An apply over rules of another version reads and compares all of them.
func RulesVersion(kept uint32) string {
	if kept == 0 {
		return rulesNumber
	}
	return fmt.Sprintf("%s %x", rulesNumber, kept)
}

// keepBits are the rules that put bits back.
func keepBits(kept uint32) []ruleset.Rule {
	var out []ruleset.Rule
	for bit := uint32(1); bit&NumberMask != 0; bit <<= 1 {
		if kept&bit != 0 {
			out = append(out, ruleset.Rule{Statements: []ruleset.Statement{ruleset.KeepBit(bit)}, Comment: fmt.Sprintf("keeps 0x%08x", kept)})
		}
	}
	return out
}

// ReadKept reads the comment of a rule that puts bits back: all that are kept.
func ReadKept(comment string) (kept uint32, ok bool) {
	n, _ := fmt.Sscanf(comment, "keeps 0x%x", &kept)
	return kept, n == 1
}
