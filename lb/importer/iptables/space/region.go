package space

// Regions: packets that a number of rules treat alike.

import "slices"

// Dimension is one of the things that rules look at and that a service of a
// profile can be limited to.
type Dimension uint8

// The dimensions of a region.
const (
	Destination Dimension = iota // addresses
	Protocol                     // numbers in the IP header
	Port                         // destination ports
	Interface                    // atoms of Interfaces, where the packet enters
	Local                        // 1: the destination is an address of this host; 0: it is not
	dimensions
)

// Region is the product of its dimensions.
type Region [dimensions]Set

// Split parts a region in two along one dimension.
func (r Region) Split(d Dimension, by Set) (inside, outside Region) {
	inside, outside = r, r
	inside[d], outside[d] = r[d].And(by), r[d].Without(by)
	return inside, outside
}

// keyWithout is a text that is the same for regions that are equal in all
// dimensions but one.
func (r Region) keyWithout(d Dimension) string {
	var b []byte
	for i, s := range r {
		if Dimension(i) != d {
			b = s.key(b)
		}
	}
	return string(b)
}

// Merge joins regions that are equal in all dimensions but one, as far as that
// goes. The regions must not overlap.
func Merge(regions []Region) []Region {
	out := slices.Clone(regions)
	for changed := len(out) > 1; changed; {
		changed = false
		for d := range dimensions {
			at := map[string]int{}
			parts := [][]Range{}
			var merged []Region
			for _, r := range out {
				key := r.keyWithout(d)
				if i, ok := at[key]; ok {
					parts[i] = append(parts[i], r[d]...)
					changed = true
					continue
				}
				at[key] = len(merged)
				merged = append(merged, r)
				parts = append(parts, slices.Clone(r[d]))
			}
			for i := range merged {
				merged[i][d] = Of(parts[i]...)
			}
			out = merged
		}
	}
	return out
}
