//go:build linux

package lab

// A trial: the connections of one service, family and protocol, from the
// network or from the balancer itself.

import (
	"cmp"
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// trial says what to send, and so what is due.
type trial struct {
	profile  *lb.Profile
	service  *lb.Service
	family   lb.Family
	protocol lb.Protocol
	fromHost bool             // the balancer itself is the client
	link     int              // the link that clients are on
	targets  []netip.AddrPort // what they connect to
	// clients are source addresses, of distinct client networks where there is
	// an affinity; nil: the kernel's choice.
	clients []netip.Addr
	// strangers are sources that the service must refuse.
	strangers []netip.Addr
	calls     int
	// rest is what to wait after each call, one at a time; 0: several at once.
	rest time.Duration
	// chunk is how many calls may be made before conntrack must be emptied, for
	// a limit on live or half-open connections: the kernel counts those that
	// ended a while longer. 0: any number.
	chunk int
}

// Bounds of a trial.
const (
	someClients = 16
	hashClients = 128
	mostClients = 512
	mostTargets = 12
	mostChunks  = 10
	mostCycle   = 4096            // round robin is shown exactly up to cycles of this
	paceLimit   = 2 * time.Second // what a rate limit may make a trial last
	outsiders   = 4
)

func (t *trial) backends() []lb.Backend { return t.service.Of(t.family) }

// sum is the weight of all backends.
func (t *trial) sum() (sum int) {
	for _, b := range t.backends() {
		sum += b.Effective()
	}
	return sum
}

// share is the part of all connections that a backend is to get.
func (t *trial) share(b lb.Backend) float64 { return float64(b.Effective()) / float64(max(t.sum(), 1)) }

// usable reports whether some backend may take a connection.
func (t *trial) usable() bool {
	return slices.ContainsFunc(t.backends(), func(b lb.Backend) bool { return b.Effective() > 0 })
}

// sticky is the length of the client networks that stay with a backend; 0: no
// affinity.
func (t *trial) sticky() int {
	if a := t.service.Affinity; a != nil {
		return t.bits(a.Bits, a.Bits6)
	}
	return 0
}

// bits is the length of the trial's family.
func (t *trial) bits(v4, v6 int) int {
	if t.family == lb.IPv4 {
		return v4
	}
	return v6
}

// perClient is how many calls one client address may make; 0: any number.
func (t *trial) perClient() int {
	l := t.service.Limit
	n := 0
	if l.NewPerSource.Events > 0 {
		n = int(min(burst(l), math.MaxInt32))
	}
	if c := int(l.ConnectionsPerSource); c > 0 && (n == 0 || c < n) {
		n = c // a connection that ended counts as live for a while
	}
	return n
}

// limitBits is the length of the client networks that a limit counts as one; 0: it
// counts addresses, or there is none.
func (t *trial) limitBits() int {
	if t.perClient() == 0 {
		return 0
	}
	return t.bits(t.service.Limit.Bits, t.service.Limit.Bits6)
}

// slow reports whether the limit of new connections lets so few through that none
// comes back in the time of a trial.
func (t *trial) slow() bool {
	r := t.service.Limit.New
	return r.Events > 0 && r.Per/time.Duration(r.Events) > paceLimit
}

// turnedAway reports whether an error is what a connection meets that the service
// turns away.
func (t *trial) turnedAway(err error) bool {
	if t.service.OnRefuse == lb.Drop {
		return errors.Is(err, traffic.ErrTimeout)
	}
	return errors.Is(err, traffic.ErrRefused)
}

// size settles how many calls there are and how many clients make them.
func (t *trial) size(connections int) (clients int) {
	s := t.service
	if t.fromHost && s.Role == lb.RoleProxy {
		connections = min(connections, 60)
	}
	if !t.usable() {
		t.calls = 2 * len(t.targets)
		return 2
	}
	clients = someClients
	switch {
	case t.sticky() > 0:
		clients = t.whole(max(connections/4, 1))
		connections = 4 * clients
	case s.KeepsClient():
		clients = hashClients
	case s.Scheduler.Exact():
		connections = t.whole(connections)
	}
	if t.chunk = t.atOnce(); t.chunk > 0 {
		connections = min(connections, mostChunks*t.chunk)
	}
	if r := s.Limit.New; t.slow() {
		// All trials of the service, and the probe of this limit, have a part.
		connections = min(connections, int(r.Events)/(2*len(s.Families())*len(s.Protocols)+1))
	} else if r.Events > 0 {
		t.rest = r.Per * 5 / 4 / time.Duration(r.Events)
	}
	if t.rest > 0 {
		connections = min(connections, max(1, int(paceLimit/t.rest)))
	}
	if q := t.perClient(); q > 0 {
		clients = min(max(clients, (connections+q-1)/q), mostClients)
		connections = min(connections, q*clients)
	}
	t.calls = connections
	return clients
}

// halfOpen is how many of the trial's connections may be half-open; 0: any number.
func (t *trial) halfOpen() int {
	if t.protocol != lb.TCP || t.fromHost {
		return 0
	}
	return int(t.service.Limit.HalfOpen)
}

// atOnce is how many connections surely bring neither the service to its limit of
// half-open ones, beside as many that a busy kernel counts still, nor a backend to that
// of live ones; 0: there is no limit.
func (t *trial) atOnce() int {
	n := cmp.Or((t.halfOpen()+1)/2, math.MaxInt32)
	for _, b := range t.backends() {
		if b.MaxConnections == 0 || b.Effective() == 0 {
			continue
		}
		fair := int(min(b.MaxConnections, math.MaxInt32)) * t.sum() / b.Effective()
		if !t.service.Scheduler.Exact() {
			fair = int(b.MaxConnections) // all may go to one
		} else if c := len(t.service.Slots(t.backends())); fair >= c {
			fair = fair / c * c
		} else {
			fair = 1
		}
		n = min(n, max(fair, 1))
	}
	if n == math.MaxInt32 {
		return 0
	}
	return n
}

// whole rounds up to whole cycles of a round robin.
func (t *trial) whole(n int) int {
	if !t.service.Scheduler.Exact() {
		return n
	}
	if c := len(t.service.Slots(t.backends())); c > 0 && c <= mostCycle {
		return (n + c - 1) / c * c
	}
	return n
}

// beside is the trial without a backend: all calls may go to any of the others.
func (t *trial) beside(gone lb.Backend) *trial {
	u := *t
	for _, b := range t.backends() {
		if most := int(min(b.MaxConnections, math.MaxInt32)); most > 0 && b.Address != gone.Address {
			u.chunk = min(cmp.Or(u.chunk, most), most)
		}
	}
	return &u
}

// plan returns the calls in the batches in which they are to be made: where
// there is an affinity, one of each client comes first.
func (t *trial) plan(base traffic.Client) [][]traffic.Call {
	out := make([]traffic.Call, t.calls)
	for i := range out {
		out[i] = t.call(base, i)
	}
	if n := len(t.clients); t.sticky() > 0 && n < len(out) {
		return [][]traffic.Call{out[:n], out[n:]}
	}
	return [][]traffic.Call{out}
}

// call is the i-th of the trial: every client meets every target in turn.
func (t *trial) call(base traffic.Client, i int) traffic.Call {
	k := max(len(t.clients), 1)
	if t.clients != nil {
		base.Source = t.clients[i%k]
	}
	target := t.targets[(i/k+i%k)%len(t.targets)]
	return traffic.Call{Client: base, Network: t.protocol.String(), To: target}
}

// key is what decides on a call's backend together with chance: calls of equal
// keys go to one backend. Where each call is on its own, it is the call's own
// source.
func (t *trial) key(c *traffic.Call) (k struct {
	source      netip.Prefix
	port        uint16
	destination netip.AddrPort
},
) {
	from := c.Reply.From
	if bits := t.sticky(); bits > 0 {
		k.source, _ = from.Addr().Prefix(bits)
		return k
	}
	by := t.service.HashBy
	if !t.service.Scheduler.Hashes() {
		by = []lb.HashField{lb.SourceAddress, lb.SourcePort, lb.DestinationAddress, lb.DestinationPort}
	}
	var to netip.Addr
	var port uint16
	for _, f := range by {
		switch f {
		case lb.SourceAddress:
			k.source = netip.PrefixFrom(from.Addr(), from.Addr().BitLen())
		case lb.SourcePort:
			k.port = from.Port()
		case lb.DestinationAddress:
			to = c.To.Addr()
		case lb.DestinationPort:
			port = c.To.Port()
		}
	}
	k.destination = netip.AddrPortFrom(to, port)
	return k
}

// keeps reports whether there are calls that must meet the same backend.
func (t *trial) keeps() bool { return t.sticky() > 0 || t.service.Scheduler.Hashes() }

// intervals are what each backend may get of so many draws.
func (t *trial) intervals(draws int, alpha float64) []interval {
	backends := t.backends()
	if t.service.Scheduler.Exact() {
		return windows(t.service.Slots(backends), len(backends), draws)
	}
	var out []interval
	for _, b := range backends {
		out = append(out, binomial(draws, t.share(b), alpha))
	}
	return out
}

// ports are a few of the ports of a listen.
func ports(l lb.Listen) []uint16 {
	var out []uint16
	for _, r := range l.Ports {
		if r == lb.AllPorts {
			out = append(out, 80, 8443, 50000)
			continue
		}
		out = append(out, r.First, r.First+(r.Last-r.First)/2, r.Last)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// some are at most n of a list, spread over it.
func some[T any](list []T, n int) []T {
	if len(list) <= n {
		return list
	}
	out := make([]T, n)
	for i := range out {
		out[i] = list[i*(len(list)-1)/max(n-1, 1)]
	}
	return out
}
