package integration

// Retry: servers that refuse are passed over, and clients that met one are
// balanced anew.

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// applyRetry makes the balancer hold a profile whose services have retry.
func (b *bed) applyRetry(profile string, keep uint32) {
	b.T.Helper()
	p := b.Parse(profile)
	for i := range p.Services {
		p.Services[i].Retry = true
	}
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, err := nft.Apply(b.T.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Keep: keep})
		return err
	})
	if changes := lb.Compare(b.Load().Profiles, []*lb.Profile{p}); len(changes) > 0 {
		b.T.Errorf("read back, the profile differs: %v", changes)
	}
	for _, s := range b.Load().Profiles[0].Services {
		if !s.Retry {
			b.T.Errorf("%s is read back without retry", s.Name)
		}
	}
	b.undrifted("read back")
}

// TestRetryIsThereWhereAsked: what sees the answers of backends comes with the
// first service that asks for it and has two backends, and goes with the last.
func TestRetryIsThereWhereAsked(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	web := func(name, vip string, retry bool, backends string) *lb.Profile {
		p := b.Parse(fmt.Sprintf("profile: %s\nservices:\n  - {name: web, listen: %q, backends: [%s]}\n", name, vip, backends))
		p.Services[0].Retry = retry
		return p
	}
	two := `"10.2.0.11:8080", "10.2.0.12:8080"`
	for i, step := range []struct {
		profiles []*lb.Profile
		there    bool
	}{
		{[]*lb.Profile{web("a", "203.0.113.1:80", false, two)}, false},
		{[]*lb.Profile{web("b", "203.0.113.2:80", true, `"10.2.0.11:8080"`)}, false},
		{[]*lb.Profile{web("b", "203.0.113.2:80", true, two)}, true},
		{[]*lb.Profile{web("a", "203.0.113.1:80", true, two)}, true},
		{[]*lb.Profile{web("b", "203.0.113.2:80", false, two)}, true},
		{[]*lb.Profile{web("c", "203.0.113.3:80", false, two)}, true},
		{[]*lb.Profile{web("a", "203.0.113.1:80", true, `"10.2.0.11:8080", {address: "10.2.0.12:8080", weight: 0}`)}, false},
	} {
		b.Kernel(b.Balancer, func(c *wire.Conn) error {
			_, err := nft.Apply(t.Context(), c, step.profiles, nft.Options{Table: "nlb"})
			return err
		})
		listed := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb")
		for _, object := range []string{"chain answers {", "chain eject {", "set retry {", "set ejected {", "set retried {"} {
			if strings.Contains(listed, object) != step.there {
				t.Errorf("step %d: %s is there: %v, want %v", i, object, !step.there, step.there)
			}
		}
		b.undrifted(fmt.Sprintf("step %d", i))
	}
}

// TestRetryFollowsBackends: where one backend is left, its refusals do not count
// any more, also where an apply reads a part of the table only.
func TestRetryFollowsBackends(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	apply := func(weight, want int) {
		b.T.Helper()
		p := b.Parse(fmt.Sprintf(`profile: shop
services:
  - {name: a, retry: true, listen: "203.0.113.1:80", backends: ["10.2.0.11:8080", {address: "10.2.0.12:8080", weight: %d}]}
  - {name: b, retry: true, listen: "203.0.113.2:80", backends: ["10.2.0.11:8080", "10.2.0.12:8080"]}
`, weight))
		b.Kernel(b.Balancer, func(c *wire.Conn) error {
			_, err := nft.Apply(t.Context(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Record: true, Build: "test"})
			return err
		})
		if got := strings.Count(b.packets("retry"), "0x"); got != want {
			t.Errorf("with weight %d the refusals of %d backends count, want %d", weight, got, want)
		}
		b.undrifted(fmt.Sprintf("with weight %d", weight))
	}
	apply(1, 4)
	apply(0, 2)
	apply(1, 4)
	apply(0, 2)
}

// patient is a client that sends its SYN again for as long as retries take.
func (b *bed) patient() traffic.Client {
	c := b.From()
	c.Timeout = 20 * time.Second
	return c
}

// TestRetry: of two backends one refuses, and nobody notices, be they many at
// once or one after another.
func TestRetry(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ vip, serves, refuses string }{
		{"203.0.113.10:80", "10.2.0.11:8080", "10.2.0.12:8080"},
		{"[2001:db8::10]:80", "[fd02::11]:8080", "[fd02::12]:8080"},
	} {
		for _, tt := range []struct {
			keys, backend string
			keep          uint32
		}{
			{"snat: masquerade", "", 0},
			{"snat: none", "", 0},
			{"snat: vip", "", 0},
			{"snat: none, scheduler: random", "", 0xff00},
			{"scheduler: least-connections", "", 0},
			{"scheduler: hash, hash-by: [source-address, source-port]", "", 0},
			{"scheduler: hash", "", 0},
			{"scheduler: consistent, hash-by: [source-address, source-port]", "", 0xff00},
			{"affinity: 1m", "", 0xff0000},
			{"snat: none", ", max-connections: 1000", 0},
			{"affinity: 1m", ", max-connections: 1000", 0xff00},
		} {
			t.Run(fmt.Sprintf("%s %s%s %x", f.vip, tt.keys, tt.backend, tt.keep), func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				serves := netip.MustParseAddrPort(f.serves)
				b.Serve([]int{8080}, serves.Addr().String())
				b.applyRetry(fmt.Sprintf("profile: shop\nservices:\n  - {name: web, listen: %q, %s, backends: [{address: %q%s}, {address: %q%s}]}\n",
					f.vip, tt.keys, f.serves, tt.backend, f.refuses, tt.backend), tt.keep)
				for name, workers := range map[string]int{"at once": 20, "one after another": 1} {
					got := b.patient().Many(t.Context(), "tcp", netip.MustParseAddrPort(f.vip), 20, workers)
					if got.Backends[serves.Addr().String()] != 20 {
						t.Errorf("%s: %v are served and %v, want 20", name, got.Backends, got.Failures)
					}
				}
			})
		}
	}
}

// TestRetryEnds: where there is no other backend, a client is refused at once, and
// where all refuse, after its retries.
func TestRetryEnds(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.applyRetry(`profile: shop
services:
  - {name: alone, listen: "203.0.113.1:80", backends: ["10.2.0.11:8080"]}
  - {name: drained, listen: "203.0.113.2:80", backends: ["10.2.0.11:8080", {address: "10.2.0.12:8080", weight: 0}]}
  - {name: all, listen: ["203.0.113.3:80", "[2001:db8::3]:80"], backends: ["10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080", "[fd02::12]:8080"]}
`, 0)
	for _, tt := range []struct {
		to    string
		again bool
	}{{"203.0.113.1:80", false}, {"203.0.113.2:80", false}, {"203.0.113.3:80", true}, {"[2001:db8::3]:80", true}} {
		b.NFT(b.Balancer, "flush set inet nlb ejected\nflush set inet nlb retried\n")
		got := b.patient().Many(t.Context(), "tcp", netip.MustParseAddrPort(tt.to), 4, 4)
		if got.Failures["refused"] != 4 {
			t.Errorf("%s: %v and %v, want 4 that are refused", tt.to, got.Backends, got.Failures)
		}
		again := b.packets("ejected", "retried") != ""
		if again != tt.again {
			t.Errorf("%s: clients try again: %v, want %v", tt.to, again, tt.again)
		}
	}
}

// packets are the elements of sets that packets fill, as nft lists them.
func (b *bed) packets(sets ...string) string {
	b.T.Helper()
	var out string
	for _, set := range sets {
		_, elements, _ := strings.Cut(b.Witness(b.Balancer, "", "nft", "list", "set", "inet", "nlb", set), "elements = {")
		out += elements
	}
	return out
}

// TestClientsEjectNobody: nothing that a client sends makes a backend one that
// refused.
func TestClientsEjectNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.NFT(b.Server, "table inet t { chain in { type filter hook input priority 0; ip daddr { 10.2.0.13, 10.2.0.14 } drop; }; }")
	for _, link := range []string{"all", "eth0", "eth1"} {
		b.Check(b.Balancer.SetSysctl("net/ipv4/conf/"+link+"/rp_filter", "0"))
	}
	// The client's kernel knows nothing of these connections, and must not end them.
	b.NFT(b.Client, "table inet t { chain in { type filter hook input priority 0; tcp dport 5000-5999 drop; }; }")
	b.NFT(b.Balancer, `table inet t {
		set resets { type inet_service; flags dynamic; size 100; }
		set sent { type inet_service; flags dynamic; size 100; }
		chain in {
			type filter hook prerouting priority raw
			iifname eth1 tcp flags & rst == rst add @resets { tcp dport }
			iifname eth0 tcp flags & rst == rst tcp dport 80 add @sent { tcp sport }
			iifname eth0 tcp flags & rst == rst tcp dport != 80 add @sent { tcp dport }
			iifname eth0 icmp type destination-unreachable counter
		}
	}`)
	b.applyRetry(`profile: shop
services:
  - {name: open, listen: "203.0.113.1:80", backends: ["10.2.0.11:8080", "10.2.0.12:8080"]}
  - {name: silent, listen: "203.0.113.2:80", backends: ["10.2.0.13:8080", "10.2.0.14:8080"]}
  - {name: closed, listen: "203.0.113.3:80", backends: ["10.2.0.15:8080", "10.2.0.11:8080"]}
`, 0)
	// Otherwise it depends on the server's first number whether a wrong ACK gets there.
	b.Check(b.Balancer.SetSysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1"))
	const isn = 1000
	send := func(from, to netip.AddrPort, flags byte, seq, ack uint32) {
		b.raw(b.Client, to.Addr(), packet(from.Addr(), to.Addr(), unix.IPPROTO_TCP, segment(from, to, flags, seq, ack)))
	}
	open, silent := netip.MustParseAddrPort("203.0.113.1:80"), netip.MustParseAddrPort("203.0.113.2:80")
	own := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("10.1.0.2"), port) }
	forge := func(by *netlab.Host, port uint16) {
		via := netip.AddrPortFrom(netip.MustParseAddr("10.2.0.1"), port)
		for _, backend := range []string{"10.2.0.13:8080", "10.2.0.14:8080"} {
			at := netip.MustParseAddrPort(backend)
			b.raw(by, via.Addr(), packet(at.Addr(), via.Addr(), unix.IPPROTO_TCP, segment(at, via, flagRST|flagACK, 0, isn+1)))
		}
	}
	for _, tt := range []struct {
		what string
		port uint16
		to   netip.AddrPort
		send func(from, to netip.AddrPort)
	}{
		{"a wrong ACK", 5001, open, func(from, to netip.AddrPort) { send(from, to, flagACK, isn+1, 77) }},
		{"a second SYN", 5002, open, func(from, to netip.AddrPort) { send(from, to, flagSYN, isn+10, 0) }},
		{"a reset", 5003, silent, func(from, to netip.AddrPort) { send(from, to, flagRST, isn+1, 0) }},
		{"a reset that looks like an answer", 5004, silent, func(from, to netip.AddrPort) { send(from, to, flagRST|flagACK, 0, isn+1) }},
		{"a reset in a backend's name", 5005, silent, func(from, _ netip.AddrPort) { forge(b.Client, from.Port()) }},
		{"an ICMP error in a backend's name", 5006, silent, func(from, _ netip.AddrPort) {
			for _, backend := range []string{"10.2.0.13:8080", "10.2.0.14:8080"} {
				at := netip.MustParseAddrPort(backend)
				via := netip.AddrPortFrom(netip.MustParseAddr("10.2.0.1"), from.Port())
				unreachable := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, packet(via.Addr(), at.Addr(), unix.IPPROTO_TCP, segment(via, at, flagSYN, isn, 0)[:8])...)
				binary.BigEndian.PutUint16(unreachable[2:], checksum(unreachable))
				b.raw(b.Client, via.Addr(), packet(at.Addr(), via.Addr(), unix.IPPROTO_ICMP, unreachable))
			}
		}},
	} {
		send(own(tt.port), tt.to, flagSYN, isn, 0)
		time.Sleep(100 * time.Millisecond) // an answer has come by then
		tt.send(own(tt.port), tt.to)
		time.Sleep(100 * time.Millisecond)
		if elements := b.packets("ejected"); elements != "" {
			t.Fatalf("%s ejects a backend: %s", tt.what, elements)
		}
	}
	// The first two do provoke a reset, and the others do come.
	there := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "t")
	for _, want := range []string{`resets \{[^}]*elements = \{ 5001, 5002`, `sent \{[^}]*elements = \{ 5003, 5004,\s*5005 \}`, "counter packets 2 "} {
		if !regexp.MustCompile(want).MatchString(there) {
			t.Errorf("%s did not come: %s", want, there)
		}
	}
	// The very reset of a backend's name does eject from where the backend is.
	send(own(5007), silent, flagSYN, isn, 0)
	time.Sleep(100 * time.Millisecond)
	if forge(b.Server, 5007); b.packets("ejected") == "" {
		t.Error("no reset ejects")
	}
	before := b.packets("ejected")
	if got := b.patient().Many(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.3:80"), 2, 1); got.Err != nil {
		t.Error(got.Err)
	}
	if b.packets("ejected") == before {
		t.Error("a server that refuses is not ejected")
	}
}
