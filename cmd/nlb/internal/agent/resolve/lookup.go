package resolve

// Lookups: from a name to its records, which may take many questions.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"nlb/lb"
	"nlb/lb/names"
)

// A lookup is bounded: in time, and in questions that wait for an answer.
const (
	longestLookup = 30 * time.Second
	mostQuestions = 8
)

type found struct {
	records []names.Record // none: err says why
	ttl     time.Duration
	err     error // what went wrong, although there may be records
	stale   bool  // some of the records are of an earlier lookup
	known   memory
}

// memory has the last good reply to each question that a lookup asks, so that
// a question that fails changes nothing of what the others found. nil: none.
type memory map[question]reply

type lookup struct {
	*client
	slots  chan struct{}
	before memory

	mu sync.Mutex
	found
}

func (c *client) look(ctx context.Context, host lb.Host, before memory) found {
	ctx, cancel := context.WithTimeout(ctx, longestLookup)
	defer cancel()
	l := &lookup{client: c, slots: make(chan struct{}, mostQuestions), before: before}
	l.ttl = longestTTL
	l.known = memory{}
	var records []names.Record
	var err error
	if host.SRV {
		records, err = l.services(ctx, host.Name)
	} else {
		var addrs []netip.Addr
		addrs, err = l.host(ctx, host.Name)
		for _, a := range addrs {
			records = append(records, names.Record{Addr: a})
		}
	}
	records = names.Sort(records)
	if err != nil {
		return found{err: err, ttl: longestTTL}
	}
	if n := len(records); n > MaxRecords {
		l.note(fmt.Errorf("%d addresses, only the first %d are used", n, MaxRecords))
		records = records[:MaxRecords]
	}
	l.records = records
	return l.found
}

// host is the addresses of a host: of the first name of the search list that is
// there. An error is no reason to go on to the next one: that may be somebody
// else's.
func (l *lookup) host(ctx context.Context, name string) ([]netip.Addr, error) {
	if addrs := l.hosts.read()[dns.CanonicalName(name)]; len(addrs) > 0 {
		l.ttl = min(l.ttl, shortestTTL)
		return addrs, nil
	}
	return search(l.conf.read(), name, func(full string) ([]netip.Addr, error) { return l.addresses(ctx, full, nil) })
}

// search tries the names that a name may stand for, until one is there.
func search[T any](conf *dns.ClientConfig, name string, try func(full string) ([]T, error)) (out []T, err error) {
	err = errNothing
	for _, full := range conf.NameList(name) {
		if _, valid := dns.IsDomainName(full); !valid {
			continue
		}
		if out, err = try(dns.CanonicalName(full)); !errors.Is(err, errNothing) {
			return out, err
		}
	}
	return nil, err
}

// services is the servers that SRV records name.
func (l *lookup) services(ctx context.Context, name string) ([]names.Record, error) {
	var extra map[question]reply
	targets, err := search(l.conf.read(), name, func(full string) ([]target, error) {
		r, err := l.ask(ctx, question{full, dns.TypeSRV})
		extra = r.extra
		return r.targets, err
	})
	if err != nil {
		return nil, err
	}
	if n := len(targets); n > MaxRecords {
		l.note(fmt.Errorf("%d SRV records, only the first %d are used", n, MaxRecords))
		targets = targets[:MaxRecords]
	}
	addrs, err := l.targets(ctx, targets, extra)
	var out []names.Record
	for _, t := range targets {
		for _, a := range addrs[t.name] {
			out = append(out, names.Record{Addr: a, Port: t.port, Weight: t.weight, Priority: t.priority})
		}
	}
	if len(out) > 0 {
		err = nil // it is noted
	}
	return out, err
}

// targets is the addresses of targets, by their names. The error is of one that
// has none, and noted.
func (l *lookup) targets(ctx context.Context, targets []target, extra map[question]reply) (map[string][]netip.Addr, error) {
	var distinct []string
	for _, t := range targets {
		distinct = append(distinct, t.name)
	}
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	addrs, errs := make([][]netip.Addr, len(distinct)), make([]error, len(distinct))
	var all sync.WaitGroup
	for i, name := range distinct {
		all.Go(func() {
			if addrs[i] = l.hosts.read()[name]; len(addrs[i]) == 0 {
				addrs[i], errs[i] = l.addresses(ctx, name, extra)
			}
		})
	}
	all.Wait()
	out := make(map[string][]netip.Addr, len(distinct))
	var failed error
	for i, name := range distinct {
		out[name] = addrs[i]
		if errs[i] != nil {
			failed = fmt.Errorf("%s: %w", strings.TrimSuffix(name, "."), errs[i])
			l.note(failed)
		}
	}
	return out, failed
}

// addresses is the A and AAAA records of a complete name. extra has replies that
// are known already. There is an error where no address was found: errNothing
// where there is none.
func (l *lookup) addresses(ctx context.Context, name string, extra map[question]reply) ([]netip.Addr, error) {
	var replies [2]reply
	var errs [2]error
	var both sync.WaitGroup
	for i, kind := range [...]uint16{dns.TypeA, dns.TypeAAAA} {
		both.Go(func() {
			q := question{name, kind}
			if r := extra[q]; len(r.addrs) > 0 {
				replies[i] = r
				l.learn(q, r)
				return
			}
			replies[i], errs[i] = l.ask(ctx, q)
		})
	}
	both.Wait()
	addrs := append(replies[0].addrs, replies[1].addrs...)
	for _, err := range errs {
		switch {
		case err == nil || errors.Is(err, errNothing):
		case len(addrs) == 0:
			return nil, err
		default:
			l.note(err)
		}
	}
	if len(addrs) == 0 {
		return nil, errs[0]
	}
	return addrs, nil
}

// ask asks a question. Where there is no answer, an earlier one is as good.
func (l *lookup) ask(ctx context.Context, q question) (reply, error) {
	r, err := within(ctx, l.slots, func() (reply, error) { return l.client.ask(ctx, q) })
	old, isKnown := l.before[q]
	switch {
	case err == nil:
		l.learn(q, r)
	case !errors.Is(err, errNothing) && isKnown:
		l.learn(q, old)
		l.note(err)
		l.mu.Lock()
		l.stale = true
		l.mu.Unlock()
		return old, nil
	}
	return r, err
}

// learn keeps a reply. What came with it was about other names, which are asked
// for by themselves where there is no newer one.
func (l *lookup) learn(q question, r reply) {
	r.extra = nil
	l.mu.Lock()
	l.known[q], l.ttl = r, min(l.ttl, r.ttl)
	l.mu.Unlock()
}

// note keeps the first error that leaves the lookup with records all the same.
func (l *lookup) note(err error) {
	l.mu.Lock()
	l.err = cmp.Or(l.err, err)
	l.mu.Unlock()
}
