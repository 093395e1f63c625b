//go:build linux

package agent

// Names: backends that are names in the DNS become addresses, and follow what the
// DNS says of them. An address that it does not say any more is drained, and goes.

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/lb"
	"nlb/lb/names"
)

const (
	// firstAnswers is how long the first apply waits for names that nothing is known
	// of.
	firstAnswers = 5 * time.Second
	// leaveTime is how long an address is drained that the DNS does not say any more.
	leaveTime = time.Minute
	byNames   = "dns" // who gives such orders
)

// named is what is known of names.
type named struct {
	resolver *resolve.Resolver
	written  []*lb.Profile // as the files have them
	records  map[lb.Host][]names.Record
	// leaving are records that the DNS does not say any more, and when they go.
	leaving map[lb.Host]map[names.Record]time.Time
}

func newNamed(o resolve.Options) *named {
	return &named{resolver: resolve.New(o), records: map[lb.Host][]names.Record{}, leaving: map[lb.Host]map[names.Record]time.Time{}}
}

// resolved are profiles with addresses in place of names.
func (n *named) resolved(written []*lb.Profile) ([]*lb.Profile, []names.Note) {
	return names.Resolve(written, func(h lb.Host) []names.Record {
		return names.Sort(slices.AppendSeq(slices.Clone(n.records[h]), maps.Keys(n.leaving[h])))
	})
}

// learn takes an answer, and reports whether the addresses of the name change.
func (n *named) learn(a resolve.Answer, now time.Time) (changed bool) {
	old := n.records[a.Host]
	if len(a.Records) == 0 || slices.Equal(old, a.Records) {
		return false
	}
	n.records[a.Host] = a.Records
	leaving := n.leaving[a.Host]
	if leaving == nil {
		leaving = map[names.Record]time.Time{}
		n.leaving[a.Host] = leaving
	}
	for _, r := range old {
		leaving[r] = now.Add(leaveTime)
	}
	for _, r := range a.Records {
		maps.DeleteFunc(leaving, func(l names.Record, _ time.Time) bool { return l.Addr == r.Addr && l.Port == r.Port })
	}
	return true
}

// goOn has those leave that were leaving when an agent of before ended.
func (n *named) goOn(held []*lb.Profile, now time.Time) {
	drained := map[netip.AddrPort]bool{}
	for _, s := range lb.Services(held) {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Standing.Order == lb.OrderDrain && b.Standing.By == byNames {
				drained[netip.AddrPortFrom(b.Address.Addr, b.Address.Port)] = true
				drained[netip.AddrPortFrom(b.Address.Addr, 0)] = true // of a record without a port
			}
		}
	}
	for host, records := range n.records {
		n.leaving[host] = map[names.Record]time.Time{}
		n.records[host] = slices.DeleteFunc(records, func(r names.Record) bool {
			leaves := drained[netip.AddrPortFrom(r.Addr, r.Port)]
			if leaves {
				n.leaving[host][r] = now.Add(leaveTime)
			}
			return leaves
		})
	}
}

// gone forgets the addresses whose time is over, and reports whether there were
// some.
func (n *named) gone(now time.Time) (some bool) {
	for _, leaving := range n.leaving {
		maps.DeleteFunc(leaving, func(_ names.Record, until time.Time) bool {
			over := !now.Before(until)
			some = some || over
			return over
		})
	}
	return some
}

// isLeaving are the backends whose addresses the DNS does not say any more, neither
// of one name of their service nor of another, and the profile has not itself.
func (n *named) isLeaving() map[lb.BackendID]bool {
	out := map[lb.BackendID]bool{}
	for p, s := range lb.Services(n.written) {
		id := func(b *lb.Backend, r names.Record) lb.BackendID {
			at := lb.Endpoint{Addr: r.Addr, Port: b.Address.Port}
			if b.Host.SRV {
				at.Port = r.Port
			}
			return lb.BackendID{Profile: p.Name, Service: s.Name, Address: at}
		}
		for i := range s.Backends {
			for r := range n.leaving[s.Backends[i].Host] {
				out[id(&s.Backends[i], r)] = true
			}
		}
		for i := range s.Backends {
			b := &s.Backends[i]
			for _, r := range n.records[b.Host] {
				delete(out, id(b, r))
			}
			if !b.Named() {
				delete(out, id(b, names.Record{Addr: b.Address.Addr}))
			}
		}
	}
	return out
}

// follow follows the names of these profiles from now on.
func (n *named) follow(written []*lb.Profile) {
	n.written = written
	n.resolver.Set(names.Hosts(written))
}

// firstNames learns what names stand for before the first apply: what the kernel
// holds, or else what the DNS says within a moment.
func (a *agent) firstNames(ctx context.Context, written, held []*lb.Profile) {
	a.names.follow(written)
	maps.Copy(a.names.records, names.Held(written, held))
	a.names.goOn(held, time.Now())
	over := time.After(firstAnswers)
	missing := func(h lb.Host) bool { return len(a.names.records[h]) == 0 }
	unheard := slices.DeleteFunc(names.Hosts(written), func(h lb.Host) bool { return !missing(h) })
	for len(unheard) > 0 {
		select {
		case answer := <-a.names.resolver.Answers():
			a.logAnswer(answer)
			a.names.learn(answer, time.Now())
			unheard = slices.DeleteFunc(unheard, func(h lb.Host) bool { return h == answer.Host })
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (a *agent) answered(ctx context.Context, answer resolve.Answer) {
	a.logAnswer(answer)
	if a.names.learn(answer, time.Now()) {
		a.applyAgain(ctx, answer.Host.String()+" changed")
	}
}

// logAnswer is one line for what the DNS says.
func (a *agent) logAnswer(answer resolve.Answer) {
	if answer.Err != nil {
		a.board.Counts.Unresolved.Inc()
	}
	records := make([]string, len(answer.Records))
	for i, r := range answer.Records {
		records[i] = lb.Endpoint{Addr: r.Addr, Port: r.Port}.String()
	}
	switch {
	case answer.Stale:
		a.Log.Warn("a name stays what it was", "name", answer.Host.String(), "records", records, "error", answer.Err)
	case answer.Err != nil:
		a.Log.Warn("a name is not known as a whole", "name", answer.Host.String(), "records", records, "error", answer.Err)
	default:
		a.Log.Info("a name is known", "name", answer.Host.String(), "records", records)
	}
}
