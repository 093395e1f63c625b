//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/agent/probe"
	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/agent/resolve/resolvetest"
	"nlb/cmd/nlb/internal/agent/roster"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/names"
)

// zone answers for web.test.
func zone(t *testing.T, addresses ...string) resolvetest.Answerer {
	t.Helper()
	var lines []string
	for _, a := range addresses {
		lines = append(lines, "web.test. 1 IN A "+a)
	}
	answer, err := resolvetest.Zone(lines...)
	must(t, err)
	return answer
}

// TestAgentNames: a backend follows its name, an address that goes is drained, and a
// dead DNS changes nothing, at a restart neither.
func TestAgentNames(t *testing.T) {
	t.Parallel()
	server, err := resolvetest.Listen("127.0.0.1:0", zone(t, "10.0.0.21", "10.0.0.22"))
	must(t, err)
	t.Cleanup(server.Close)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o644))

	b := newBed(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host"))
	b.lookup = resolve.Options{Conf: conf, Hosts: "/dev/null", Port: server.Port(), Shortest: time.Second}
	b.begin()
	must(t, b.profile("shop", 80, "10.0.0.11", `"web.test"`))
	b.await("shop 10.0.0.11 10.0.0.21 10.0.0.22")
	server.Set(zone(t, "10.0.0.22", "10.0.0.23"))
	b.await("shop 10.0.0.11 10.0.0.21 draining 10.0.0.22 10.0.0.23")
	asked := server.Asked()
	server.Set(resolvetest.Code(dns.RcodeServerFailure))
	b.until(func() bool { return server.Asked() > asked+1 }, func() string { return "it does not ask again" })
	must(t, b.stop())
	b.await("shop 10.0.0.11 10.0.0.21 draining 10.0.0.22 10.0.0.23")
	b.run()
	b.until(func() bool { return Dial(b.socket).do(t.Context(), http.MethodGet, "/healthz", nil, &Done{}) == nil }, func() string { return "it does not begin again" })
	if got := b.kernel(); got != "shop 10.0.0.11 10.0.0.21 draining 10.0.0.22 10.0.0.23" {
		t.Errorf("begun without a DNS, it has %s", got)
	}
}

// timed carries checks out by the clock of a bubble.
type timed struct {
	results chan []probe.Result
	refuses sync.Map // addresses
	pending map[probe.Key]*time.Timer
}

func (p *timed) Start(key probe.Key, t *probe.Target, after time.Duration) {
	p.Stop(key)
	o := probe.Outcome{OK: true, Percent: -1, Reason: "tcp: connected"}
	p.pending[key] = time.AfterFunc(after, func() {
		if _, refuses := p.refuses.Load(t.At.Addr()); refuses {
			o = probe.Outcome{Refused: true, Percent: -1, Reason: "tcp: refused"}
		}
		p.results <- []probe.Result{{Key: key, Kind: t.Check.Kind, Began: time.Now(), Outcome: o}}
	})
}

func (p *timed) Stop(key probe.Key) {
	if t := p.pending[key]; t != nil {
		t.Stop()
	}
}

// TestHourWithoutDNS: for an hour a DNS is silent, fails, or denies all. No address
// changes, that is said, and servers are checked on.
func TestHourWithoutDNS(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(conf, []byte("nameserver 192.0.2.53\nnameserver 192.0.2.54\n"), 0o644))
	for name, dead := range map[string]resolvetest.Answerer{
		"silent": resolvetest.Silent, "fails": resolvetest.Code(dns.RcodeServerFailure), "knows no name": resolvetest.Code(dns.RcodeNameError), "knows no address": resolvetest.Code(dns.RcodeSuccess),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var server resolvetest.Memory
				server.Set(zone(t, "10.0.0.21", "10.0.0.22"))
				var log bytes.Buffer
				checks := &timed{results: make(chan []probe.Result, 10), pending: map[probe.Key]*time.Timer{}}
				a := &agent{
					Config: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, board: board.New("nlb", nil), roster: roster.New(checks, 1),
					names: newNamed(resolve.Options{Conf: conf, Hosts: "/dev/null", Dial: server.Dial}), due: time.NewTimer(time.Hour),
				}
				defer a.names.resolver.Close()
				web := lb.Service{
					Name: "web", Protocols: []lb.Protocol{lb.TCP}, Health: []lb.Check{{Kind: lb.CheckTCP, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}},
					Backends: []lb.Backend{{Host: lb.Host{Name: "web.test"}, Address: lb.Endpoint{Port: 80}, Weight: 1, Priority: 1}},
				}
				web.Listen = []lb.Listen{{Prefix: netip.MustParsePrefix("203.0.113.10/32"), Ports: []lb.PortRange{{First: 80, Last: 80}}}}
				written := []*lb.Profile{{Name: "shop", Services: []lb.Service{web}}}
				a.firstNames(t.Context(), written, nil)
				wanted, _ := a.names.resolved(written)
				a.roster.Set(wanted, nil, time.Now())
				// goOn is what the loop does with all that comes. To apply anything
				// would need an engine, which this agent has not got.
				goOn := func(d time.Duration) {
					over, tick := time.After(d), time.NewTicker(guardEvery)
					defer tick.Stop()
					for {
						select {
						case results := <-checks.results:
							a.hear(results)
						case answer := <-a.names.resolver.Answers():
							a.answered(t.Context(), answer)
						case <-a.due.C:
							a.noted()
						case <-tick.C:
							if a.names.gone(time.Now()) {
								t.Error("an address goes")
							}
						case <-over:
							return
						}
					}
				}
				states := func() (out string) {
					resolved, _ := a.names.resolved(written)
					for _, s := range lb.Services(a.roster.Preview(resolved, nil, time.Now())) {
						for _, b := range s.Backends {
							out += fmt.Sprint(b.Address, b.State, b.Standing.Order, " ")
						}
					}
					return out
				}
				goOn(time.Minute)
				before := states()
				if strings.Count(before, "up") != 2 {
					t.Fatalf("at first: %s", before)
				}
				server.Set(dead)
				for range 60 {
					if goOn(time.Minute); states() != before {
						t.Fatalf("before: %s, then %s", before, states())
					}
				}
				if !strings.Contains(log.String(), `level=WARN msg="a name stays what it was" name=web.test`) {
					t.Errorf("it is not said:\n%s", log.String())
				}
				checks.refuses.Store(netip.MustParseAddr("10.0.0.22"), true)
				if goOn(10 * time.Second); strings.Count(states(), "down") != 1 {
					t.Errorf("a server that dies meanwhile: %s", states())
				}
				checks.refuses.Delete(netip.MustParseAddr("10.0.0.22"))
				server.Set(zone(t, "10.0.0.22", "10.0.0.21"))
				if goOn(time.Hour); states() != before {
					t.Errorf("before: %s, after the DNS came back: %s", before, states())
				}
				for key := range checks.pending {
					checks.Stop(key)
				}
			})
		})
	}
}

// TestLeaving: an address goes when its time is over, and stays when it comes back.
func TestLeaving(t *testing.T) {
	web := lb.Host{Name: "web.test"}
	record := func(a string) names.Record { return names.Record{Addr: netip.MustParseAddr(a)} }
	n := &named{
		written: []*lb.Profile{{Name: "shop", Services: []lb.Service{{Name: "web", Backends: []lb.Backend{{Host: web, Address: lb.Endpoint{Port: 80}}}}}}},
		records: map[lb.Host][]names.Record{}, leaving: map[lb.Host]map[names.Record]time.Time{},
	}
	now := time.Now()
	learn := func(addresses ...string) bool {
		var records []names.Record
		for _, a := range addresses {
			records = append(records, record(a))
		}
		return n.learn(resolve.Answer{Host: web, Records: records}, now)
	}
	if !learn("10.0.0.1", "10.0.0.2") || learn("10.0.0.1", "10.0.0.2") || learn() || !learn("10.0.0.2") {
		t.Error("a change is what differs; an empty answer is none")
	}
	leaving := n.isLeaving()
	if len(leaving) != 1 || !leaving[lb.BackendID{Profile: "shop", Service: "web", Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}}] {
		t.Errorf("leaving: %v", leaving)
	}
	if n.gone(now.Add(leaveTime - 1)) {
		t.Error("it goes early")
	}
	if learn("10.0.0.1", "10.0.0.2"); len(n.isLeaving()) != 0 {
		t.Error("it is back, and leaves")
	}
	if learn("10.0.0.2"); !n.gone(now.Add(leaveTime)) || len(n.isLeaving()) != 0 {
		t.Error("it stays for ever")
	}
}

// TestLeavingShared: an address stays that another name of its service has, or the
// profile itself.
func TestLeavingShared(t *testing.T) {
	web, api := lb.Host{Name: "web.test"}, lb.Host{Name: "api.test"}
	one, two, three := names.Record{Addr: netip.MustParseAddr("10.0.0.1")}, names.Record{Addr: netip.MustParseAddr("10.0.0.2")}, names.Record{Addr: netip.MustParseAddr("10.0.0.3")}
	n := &named{
		written: []*lb.Profile{{Name: "shop", Services: []lb.Service{
			{Name: "web", Backends: []lb.Backend{{Host: web}, {Host: api}, {Address: lb.Endpoint{Addr: two.Addr}}}},
			{Name: "alone", Backends: []lb.Backend{{Host: web}}},
		}}},
		records: map[lb.Host][]names.Record{api: {one}},
		leaving: map[lb.Host]map[names.Record]time.Time{web: {one: {}, two: {}, three: {}}},
	}
	id := func(service string, r names.Record) lb.BackendID {
		return lb.BackendID{Profile: "shop", Service: service, Address: lb.Endpoint{Addr: r.Addr}}
	}
	want := map[lb.BackendID]bool{id("web", three): true, id("alone", one): true, id("alone", two): true, id("alone", three): true}
	if got := n.isLeaving(); !maps.Equal(got, want) {
		t.Errorf("leaving: %v, want %v", got, want)
	}
}
