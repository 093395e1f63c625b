package compile

// Retry: a server that refuses is passed over for a moment, and the client that
// met it draws again.
//
// Where the answer to a SYN is a reset, the chain `answers` notes the backend in
// the set `ejected`, which draws look into (overflow.go), and drops the reset. So
// the client sends its SYN once more, after a second, and that is balanced anew.
//
// What notes a backend must not be in the hands of clients. It is the answer of
// a closed port, it comes from where the backend is, and it is the first answer of
// all: a client can provoke a reset by a wrong ACK or a second SYN, but has got
// another answer before. ICMP errors, which anybody can send, do not count.
//
// A client that is refused again gets the reset. So one waits at most three
// seconds where all servers refuse, and not at all where there is no other.

import (
	"slices"
	"sync"
	"time"

	"nlb/lb"
	"nlb/nft/compile/border"
	"nlb/nft/compile/datagrams"
	"nlb/nft/compile/handshake"
	"nlb/nft/compile/synproxy"
	"nlb/nft/fleet"
	"nlb/nft/ruleset"
)

const (
	// RetrySet has the backends whose refusals make others serve.
	RetrySet   = "retry"
	ejectedSet = "ejected" // backends that refused of late
	// retriedSet has the connections that are tried again, by what the reset
	// acknowledges: the client sends the same number again, and no translation of
	// addresses changes it.
	retriedSet = "retried"

	answersChain = "answers" // what comes from the network, behind conntrack
	ejectChain   = "eject"

	// ejectedTime is how long a backend is passed over.
	ejectedTime = 5 * time.Second
	// A connection is tried so often again. The number of connections of which
	// that is known is bounded; others are refused at once.
	mostRetries, mostRetried = 2, 1 << 16
	retriedTime              = 10 * time.Second // a client's second try comes 3 s after the first

	manglePriority = -150 // NF_IP_PRI_MANGLE
)

// retryMaps are the maps of the layout that retries need.
func retryMaps() []*ruleset.Map {
	return []*ruleset.Map{
		{Name: RetrySet, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}},
		{Name: ejectedSet, Key: ruleset.Type{ruleset.Mark}, Dynamic: true, Timeout: true, Size: maxClients},
		{
			Name: retriedSet, Key: ruleset.Type{ruleset.Number}, Dynamic: true, Timeout: true, Size: mostRetried,
			TypeOf: "tcp ackseq", Udata: ruleset.AckUdata(),
		},
	}
}

// retryChains see the answers of backends. The flags of a segment are looked at
// first: nearly all others leave the chain there.
func retryChains(kept uint32) []*ruleset.Chain {
	again := ruleset.Rate{Text: "1/hour", Events: 1, Per: time.Hour, Burst: mostRetries}
	return []*ruleset.Chain{
		{Name: answersChain, Hook: ruleset.Prerouting(manglePriority, "mangle"), Filter: true, Rules: []ruleset.Rule{{
			Statements: []ruleset.Statement{
				ruleset.IsRefusal(), ruleset.EndsAttempt(), ruleset.MarkBitsIn(RetrySet, ^kept), ruleset.CameFromSource(), ruleset.Goto(ejectChain),
			},
			Needs: RetrySet,
		}}},
		{Name: ejectChain, Rules: []ruleset.Rule{
			{Statements: []ruleset.Statement{ruleset.UpdateMark(ejectedSet, ^kept, ejectedTime)}},
			{Statements: []ruleset.Statement{ruleset.RateByAck(retriedSet, again, retriedTime), ruleset.Drop()}},
		}},
	}
}

// ejects reports whether backends of a family of a service are passed over where
// they refuse: whether there is another one.
func ejects(s *lb.Service, f lb.Family) bool { return s.Retry && drawn(s.Of(f)) > 1 }

// drawn counts the backends that take new connections.
func drawn(backends []lb.Backend) int {
	n := 0
	for i := range backends {
		if backends[i].Effective() > 0 {
			n++
		}
	}
	return n
}

// retryObjects are what refusals count by. All packets meet the first of the
// chains.
var retryObjects = []string{answersChain, ejectChain, RetrySet, ejectedSet, retriedSet}

// Lapses reports whether a chain or map of the layout goes as soon as nobody needs
// it.
func Lapses(object string) bool { return lapsing()[object] }

var lapsing = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{ForwardChain: true, border.ForwardChain: true, RandomSet: true}
	for _, object := range slices.Concat(retryObjects, OffloadSets) {
		out[object] = true
	}
	for _, m := range append(slices.Concat(datagrams.Maps(), synproxy.Maps(), fleet.Maps()), handshake.Map()) {
		out[m.Name] = true
	}
	for _, c := range append(slices.Concat(synproxy.Chains(), fleet.Chains(ruleset.Accept())), datagrams.Entry(), handshake.Chain(0)) {
		out[c.Name] = true
	}
	return out
})

// retries makes the refusals of a backend count.
func (c *compiler) retries(mark uint32) {
	c.add(RetrySet, ruleset.Element{Key: ruleset.MarkBytes(mark)})
	c.needRetry()
}

func (c *compiler) needRetry() {
	for _, object := range retryObjects {
		c.needed[object] = true
	}
}

// othersRetry keeps what other profiles need.
func (c *compiler) othersRetry(others []*lb.Profile) {
	for _, s := range lb.Services(others) {
		c.needed[RandomSet] = c.needed[RandomSet] || s.RandomPorts
		for _, f := range s.Families() {
			if ejects(s, f) {
				c.needRetry()
			}
		}
	}
}
