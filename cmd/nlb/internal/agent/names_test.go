//go:build linux

package agent

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/agent/resolve/resolvetest"
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
	b.until(func() bool { return Dial(b.socket).Healthy(t.Context()) == nil }, func() string { return "it does not begin again" })
	if got := b.kernel(); got != "shop 10.0.0.11 10.0.0.21 draining 10.0.0.22 10.0.0.23" {
		t.Errorf("begun without a DNS, it has %s", got)
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
