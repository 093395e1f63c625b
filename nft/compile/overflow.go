package compile

// Overflow: a service with max-connections draws again where a backend is full, and
// one with retry where a backend has refused of late (retry.go).
//
// The backend's chain counts the connection. Where that is one too many, noteChain
// writes a mark that is no backend's. So the chain that delivers finds no address, and
// goes back to the service's chain, which draws once more. After the last draw a TCP
// connection waits: its SYN is dropped, and its client sends it again after a second
// (RFC 6298). If all backends are full then, too, it is refused.
//
// The wait also makes up for the kernel's count, which has ended connections in it until
// the next tick of the clock (nf_conncount.c). So a backend that gets as many
// connections as it may within one tick looks full when it is not.
//
// `ct count` counts a connection for as long as it lives, also one that it found
// to be too many and that another backend took. A full backend whose connections
// end would so stay full by those of others. Therefore it is noted for a while,
// and a draw passes a noted backend over without counting. Only the last draws ask
// it in any case: who is refused there is forgotten at once.
//
// A list of thousands of connections costs more than all the rest. Where an agent
// counts them (Numbers.Counted), it notes the backends that have as many as they may
// for a while, and the backend's chain looks that up.

import (
	"fmt"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

const (
	fullSet, noteChain = "full", "note-full" // backends that were found full, and what notes them
	// fullTime is how long a backend is passed over.
	fullTime = 10 * time.Second
	// mostDraws bounds how often a connection draws. The last ones, so many as
	// asksAll, ask backends that are noted as full, too: two, so that of two
	// backends in turn both are asked.
	mostDraws, asksAll = 4, 2
	// waitedSet has the connections that have waited, by the sequence numbers of their
	// SYNs. Where it has mostWaited, others are refused at once.
	waitChain, waitedSet = "wait", "waited"
	waitedTime           = 10 * time.Second
	mostWaited           = 1 << 16
	// A list of live connections should be no longer than listSize, but there are
	// at most mostLists.
	listSize, mostLists = 2000, 64
	// SaturatedSet has the backends that an agent has found full.
	SaturatedSet = "saturated"
	// countedMark ends the comment of a limit that an agent keeps.
	countedMark = " by nlb run"
	// retrySeed, times the number of a retry, is added to the seed of a hash.
	retrySeed = 0x9e3779b9

	// A connection whose backend is full has this mark with the backend's number.
	fullMark = 0x4a000000
)

// FullMark is the mark of a connection that found the backend with this mark full.
func FullMark(mark uint32) uint32 { return fullMark | mark&NumberMask }

// DrawsAgain reports whether a table may have chains of DrawChainOf, by its maps.
func DrawsAgain(has func(object string) bool) bool { return has(fullSet) || has(ejectedSet) }

// limits reports whether a backend has max-connections.
func limits(b lb.Backend) bool { return b.MaxConnections > 0 }

// Countable reports whether an agent may count the connections of a backend in the
// kernel's place: going through a list of them would cost too much.
func Countable(b lb.Backend) bool { return b.MaxConnections > listSize }

// connectionLimit turns back what is over a backend's limit.
func (c *compiler) connectionLimit(service string, mark uint32, b lb.Backend) []ruleset.Rule {
	if !Countable(b) || c.Counted == nil || !c.Counted(BackendKey{service, b.Address}) {
		c.needed[fullSet] = true
		return connectionLists(b.MaxConnections)
	}
	c.needed[SaturatedSet] = true
	return []ruleset.Rule{{
		Statements: []ruleset.Statement{ruleset.MarkIn(SaturatedSet, false), ruleset.SetMark(FullMark(mark)), ruleset.Return()},
		Comment:    limitComment(b.MaxConnections) + countedMark,
	}}
}

func limitComment(n uint32) string { return fmt.Sprintf("max-connections %d", n) }

// whenFull is the chain for connections of a service that find all backends full.
func whenFull(s *lb.Service) string {
	if s.OnRefuse == lb.Drop || s.SYNProtection != nil { // a proxied SYN is not sent again
		return refusing(s)
	}
	return waitChain
}

// noting is the chain for connections that are too many for a backend. The mark has a
// rule of its own: in a rush the kernel may have no room for the note, and then it ends
// the rule.
func noting() *ruleset.Chain {
	return &ruleset.Chain{Name: noteChain, Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.AddMark(fullSet, fullTime)}, Needs: fullSet},
		{Statements: []ruleset.Statement{ruleset.SetMarkBits(NumberMask, fullMark)}},
	}}
}

// waiting is the chain that has connections wait.
func waiting() *ruleset.Chain {
	return &ruleset.Chain{Name: waitChain, Rules: []ruleset.Rule{
		{Statements: append(ruleset.ComesFirst(waitedSet, waitedTime), ruleset.Drop())},
		{Statements: []ruleset.Statement{ruleset.Goto(turnAwayChain)}},
	}}
}

// connectionLists turn back what is over a number of live connections. The
// kernel counts by going through a list of them, so a large number is split over
// several lists, by the source port. Its lowest bit says nothing: Linux prefers
// even ports for connections.
func connectionLists(n uint32) []ruleset.Rule {
	lists := uint32(1)
	for n/lists > listSize && lists < mostLists {
		lists *= 2
	}
	out := make([]ruleset.Rule, lists)
	for i := range lists {
		most := n / lists
		if i < n%lists {
			most++
		}
		var which []ruleset.Statement
		if lists > 1 {
			which = append(which, ruleset.SourcePortIs(uint16(lists-1)<<1, uint16(i)<<1))
		}
		out[i] = ruleset.Rule{
			Statements: append(which, ruleset.CountOver(most), ruleset.Goto(noteChain)),
			Comment:    limitComment(n),
		}
	}
	return out
}

// repeatedDraw makes a draw one of mostDraws, where there are backends to choose
// from. Draws in turn share a chain, and so the place in the round: a retry
// gets the next slot.
func (c *compiler) repeatedDraw(r *drawRule, chain string, s *lb.Service, f *Family, b Block) {
	resolve := ofShard(resolveChain, r.shard)
	toBackend, last := ruleset.Jump(resolve), ruleset.Goto(resolve)
	if r.own {
		toBackend = ruleset.SetMarkByMap(OwnSlotsOf(chain, f))
		last = toBackend
	} else {
		c.needed[resolve] = true
	}
	if r.limited {
		c.needed[fullSet] = true
	}
	drawn := drawn(s.Of(f.Family))
	r.repeats = true
	r.draw = []ruleset.Statement{f.drawSlot(s, b, 0), toBackend}
	inTurn := []ruleset.Statement{ruleset.Jump(DrawChainOf(chain, f))}
	if s.Scheduler.Exact() {
		r.draw = inTurn
	}
	for i := uint32(1); i < mostDraws && drawn > 1; i++ {
		retry := inTurn
		// A client that hashes to backends that refuse would do so each time.
		if s.Scheduler.Hashes() && !(r.ejects && i > 1) {
			retry = []ruleset.Statement{f.drawSlot(s, b, i), toBackend}
		}
		r.retries = append(r.retries, retry)
	}
	if s.Scheduler.Exact() || drawn > 1 && (s.Scheduler == lb.Random || r.ejects) {
		c.Chains = append(c.Chains, &ruleset.Chain{Name: DrawChainOf(chain, f), Rules: []ruleset.Rule{
			{Statements: []ruleset.Statement{ruleset.SetMarkNumgen(false, b.Slots, b.Base), last}},
		}})
	}
}

// attempts are the rules that draw, remember and deliver until a backend takes
// the connection:
//
//	draw, remember
//	unless the backend is noted as full, or as one that refused: deliver
//	... up to three times more; the last two times also where it is noted as full,
//	the last time also where it refused
//	have what found all full wait, and turn it away the next time
func (r drawRule) attempts(f *Family, draw, remember []ruleset.Rule) []ruleset.Rule {
	out := draw
	add := func(statements ...ruleset.Statement) {
		out = append(out, ruleset.Rule{Statements: append(r.match[:len(r.match):len(r.match)], statements...)})
	}
	for i := range len(r.retries) + 1 {
		if i > 0 {
			add(r.retries[i-1]...)
			out = append(out, remember...)
		}
		add(append(r.gate(i), ruleset.Jump(f.Deliver))...)
	}
	if r.limited {
		if len(r.forget) > 0 {
			add(r.forget...)
		}
		add(ruleset.Goto(r.away))
		if r.away == ignoreChain {
			out[len(out)-1].Comment = dropsComment
		}
	}
	return out
}

// gate passes over backends after a draw; 0 is the first.
func (r drawRule) gate(draw int) []ruleset.Statement {
	var out []ruleset.Statement
	if r.ejects && draw < len(r.retries) {
		out = append(out, ruleset.MarkIn(ejectedSet, true))
	}
	switch {
	case !r.limited:
	case draw > len(r.retries)-asksAll:
		out = append(out, ruleset.DeleteMark(fullSet))
	default:
		out = append(out, ruleset.MarkIn(fullSet, true))
	}
	return out
}
