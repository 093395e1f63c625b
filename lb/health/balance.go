package health

// Balance: shares that make live connections even, for the scheduler
// least-connections.

import (
	"math"

	"nlb/lb"
)

// Load is what a backend has of the connections of its service and family.
type Load struct {
	Weight int // effective, of a backend that is up
	Live   int // connections that have not ended
	// New and Ended are the connections that came and ended since the last look.
	New, Ended int
}

const (
	// A quarter of what a backend has too much or too little is to be gone by the
	// time the shares are made next. More would swing: nobody knows yet how long
	// the connections last that come meanwhile.
	balanceGain = 4
	// leastShare keeps a backend in use, so that it is seen how it does.
	leastShare, mostShare = 0.1, 2
	// mostOver is how many times its fair part of the new connections a backend gets
	// at most. One that comes up has none: where the others have many, all new ones
	// would go to it for a while.
	mostOver = 3
)

// Balance returns the shares, in parts of lb.Shares, that make the live connections of
// backends of one family go with their weights, which are above 0. If as many
// connections come as did, a backend gets its fair part, a quarter of what it lacks,
// and what will end there more than elsewhere. Where most connections end before
// the next look, what ended says little, and counts little.
func Balance(loads []Load) []uint8 {
	weight, live, came, ended := 0., 0., 0., 0.
	for _, l := range loads {
		weight, live, came, ended = weight+float64(l.Weight), live+float64(l.Live), came+float64(l.New), ended+float64(l.Ended)
	}
	came = max(came, 1)
	lasting := live / (live + came)
	shares := make([]float64, len(loads))
	mean, top := 0., 0. // by weight
	for i, l := range loads {
		part := float64(l.Weight) / weight
		lacks, ends := live*part-float64(l.Live), float64(l.Ended)-ended*part
		shares[i] = min(max(1+(lacks/balanceGain+ends*lasting)/(came*part), leastShare), mostShare)
		mean, top = mean+shares[i]*part, max(top, shares[i])
	}
	even := 0. // how far all go towards 1, until nobody gets too much
	if over := top - mostOver*mean; over > 0 {
		even = over / (over + mostOver - 1)
	}
	out := make([]uint8, len(loads))
	for i, s := range shares {
		out[i] = uint8(math.Round((s + even*(1-s)) * lb.Shares))
	}
	return out
}
