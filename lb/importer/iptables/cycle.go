package iptables

// Cycles: where one connection meets several nth matches whatever they say
// (marks that are set one after the other), shares alone do not tell which of
// them match together. There the counters are followed, from connection to
// connection, until they repeat.

import (
	"encoding/binary"
	"errors"
	"math/big"
	"slices"

	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// maxStates bounds the states of the counters that are followed.
const maxStates = 1 << 14

var errCycle = errors.New("the counters of these rules have too many states to follow")

// count moves counter i on, and reports whether its match holds: when it gets
// back to 0 (net/netfilter/xt_statistic.c, statistic_mt).
func count(counters string, i int, every uint32) (string, bool) {
	b := []byte(counters)
	at := b[4*i:]
	n := binary.BigEndian.Uint32(at) + 1
	if n >= every {
		n = 0
	}
	binary.BigEndian.PutUint32(at, n)
	return string(b), n == 0
}

// cycle returns the ends of a region with shares that are the mean over all
// states which the counters come to.
//
// For fixed results of the random matches, one connection changes the state of
// the counters to another, and no two states to the same one, as long as no
// counter is moved twice by one connection. Then a state is entered with as
// much probability as it is left, so that in the long run all states that can
// be reached are equally likely. Where that is not so, and nothing is random,
// the states end in a cycle, and that is what counts.
func (w *walker) cycle(r space.Region, src space.Set) ([]end, error) {
	w.counters = map[*syntax.Nth]int{}
	defer func() { w.counters = nil }()
	var start []byte
	visits := w.visits
	for rule := range w.set.Rules {
		for _, m := range rule.Matches {
			if n, ok := m.(*syntax.Nth); ok && len(visits[n]) > 0 {
				w.counters[n] = len(start) / 4
				// The first to match is number Packet.
				start = binary.BigEndian.AppendUint32(start, n.Every-1-n.Packet)
			}
		}
	}
	states := []string{string(start)}
	number := map[string]int{states[0]: 0}
	var ends [][]end
	var next []map[int]*big.Rat
	whole := newTrace()
	for i := 0; i < len(states); i++ {
		found := w.run(r, src, states[i])
		whole.add(w.trace)
		ends = append(ends, found)
		to := map[int]*big.Rat{}
		for _, e := range found {
			j, ok := number[e.counters]
			if !ok {
				if j = len(states); j == maxStates {
					return nil, errCycle
				}
				number[e.counters] = j
				states = append(states, e.counters)
			}
			if to[j] == nil {
				to[j] = new(big.Rat)
			}
			to[j].Add(to[j], e.share.meant)
		}
		next = append(next, to)
	}
	w.trace = whole
	lasting := lasting(next)
	if lasting == nil {
		return nil, errCycle
	}
	var out []end
	part := big.NewRat(1, int64(len(lasting)))
	for _, i := range lasting {
		for _, e := range ends[i] {
			e.counters = ""
			e.share = e.share.times(1/float64(len(lasting)), part)
			out = append(out, e)
		}
	}
	return out, nil
}

// lasting are the states that are equally likely in the long run; nil where
// they cannot be told.
func lasting(next []map[int]*big.Rat) []int {
	into := make([]*big.Rat, len(next))
	for i := range into {
		into[i] = new(big.Rat)
	}
	certain := true
	for _, to := range next {
		for j, p := range to {
			into[j].Add(into[j], p)
		}
		certain = certain && len(to) == 1
	}
	one := big.NewRat(1, 1)
	if !slices.ContainsFunc(into, func(p *big.Rat) bool { return p.Cmp(one) != 0 }) {
		all := make([]int, len(next))
		for i := range all {
			all[i] = i
		}
		return all
	}
	if !certain {
		return nil
	}
	seen := make([]int, len(next)) // when, from 1
	i := 0
	for step := 1; seen[i] == 0; step++ {
		seen[i] = step
		for i = range next[i] {
		}
	}
	var out []int
	for j, when := range seen {
		if when >= seen[i] {
			out = append(out, j)
		}
	}
	return out
}

// add joins what was seen on several walks.
func (t *trace) add(o *trace) {
	for r, is := range o.rules {
		t.note(r, is)
	}
	if o.hashBy != nil {
		t.hashBy = o.hashBy
	}
	t.nth, t.chance, t.hash = t.nth || o.nth, t.chance || o.chance, t.hash || o.hash
}
