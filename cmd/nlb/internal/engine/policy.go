//go:build linux

package engine

// Policy routing: the bits of the mark that rules of others look at.

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"nlb/nft/compile"
	"nlb/nft/links"
)

// KeptBits are the bits of the connection mark that an apply leaves to policy
// routing rules of this network namespace. An error says why there are such
// rules and nothing is kept, or that they cannot be read.
func KeptBits() (uint32, error) {
	var masks []uint32
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := links.Whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return 0, fmt.Errorf("read the policy routing rules: %w", err)
		}
		for _, r := range rules {
			if r.Mask != nil && (r.Mark != 0 || *r.Mask != 0) {
				masks = append(masks, *r.Mask)
			}
		}
	}
	return compile.KeepableBits(masks...)
}
