package importer

// Weights of other programs.

import (
	"fmt"
	"math/big"

	"nlb/lb"
	"nlb/lb/importer/share"
)

// Weights are the smallest weights of a profile for others in the same relation.
// Where they have to be rounded, that is said.
func (d *Draft) Weights(others []int64, at Place) []int {
	var shares []*big.Rat
	for _, w := range others {
		shares = append(shares, big.NewRat(w, 1))
	}
	weights, off := share.Weights(shares)
	if rounded := fmt.Sprintf("the weights are rounded to at most %d: within %.2g %%", lb.MaxWeight, off*100); off > 0.01 {
		d.Lost(rounded, "", at)
	} else if off > 0 {
		d.Note(rounded, "", at)
	}
	return weights
}
