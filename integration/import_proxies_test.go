package integration

// What import makes of proxies and of rulesets of nftables, against what they do: the
// program runs, its traffic is measured, its configuration is imported and applied in
// its place, and the traffic is measured again.

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb/importer"
	"nlb/lb/importer/haproxy"
	"nlb/lb/importer/nftables"
	"nlb/lb/importer/nginx"
)

// proxyBed is a bed whose balancer has the addresses that a proxy listens on.
func proxyBed(t *testing.T) *bed {
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
	b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
	return b
}

// starts runs a proxy on the balancer until stop is called.
func (b *bed) starts(ready, name string, args ...string) (stop func()) {
	b.T.Helper()
	netlabtest.Needs(b.T, name)
	c := b.Command(b.Balancer, name, args...)
	var said strings.Builder
	c.Stdout, c.Stderr = &said, &said
	b.Check(c.Start())
	from := b.Client
	if strings.HasPrefix(ready, "127.") {
		from = b.Balancer
	}
	for begin := time.Now(); b.Reaches(from, "tcp", ready, false) == ""; time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			b.T.Fatalf("%s does not listen\n%s", name, said.String())
		}
	}
	return func() {
		b.Check(c.Process.Kill())
		_ = c.Wait() // it was killed
	}
}

func (b *bed) file(name, text string) string {
	b.T.Helper()
	path := filepath.Join(b.T.TempDir(), name)
	b.Check(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// measured is a way to measure a service: exactly, of a round, or by chance.
type measured struct {
	network, to string
	local       bool // the balancer itself asks
	exact       map[string]int
	near        map[string]float64
	seen        string // by the backend; *: that differs
}

func (b *bed) measure(what string, all []measured) {
	b.T.Helper()
	for _, m := range all {
		from := b.From()
		if m.local {
			from = traffic.Client{Host: b.Balancer}
		}
		to := netip.MustParseAddrPort(m.to)
		if m.exact != nil {
			n, got := 0, map[string]int{}
			for _, k := range m.exact {
				n += k
			}
			for range n {
				r, err := from.Exchange(b.T.Context(), m.network, to)
				b.Check(err)
				got[r.Backend]++
				if s := r.Seen.Addr().String(); s != m.seen && m.seen != "*" {
					b.T.Fatalf("%s, %s: a backend sees %s, want %s", what, m.to, s, m.seen)
				}
			}
			b.T.Logf("%s, %s: %v", what, m.to, got)
			b.WantShares(got, m.exact)
			continue
		}
		got := from.Many(b.T.Context(), m.network, to, sample(1000), 8)
		b.Check(got.Err)
		b.wantNear(what+", "+m.to, got.Backends, m.near)
	}
}

// replace measures, imports, stops what runs, applies, and measures again.
func (b *bed) replace(what string, read func(string, []byte) (*importer.Import, error), text string, complete bool, stop func(), all []measured) {
	b.T.Helper()
	b.measure(what, all)
	stop()
	b.Apply(string(b.take(read, text, complete).YAML()))
	b.measure("nlb", all)
}

func TestImportedHAProxy(t *testing.T) {
	t.Parallel()
	text := `global
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen web
    bind 203.0.113.10:80
    balance roundrobin
    server a 10.2.0.11:8080 weight 3
    server b 10.2.0.12:8080 weight 1
    server c 10.2.0.13:8080 weight 0
frontend six
    bind [2001:db8::10]:443
    default_backend six
backend six
    balance static-rr
    server a [fd02::11]:8080 weight 10
    server b [fd02::12]:8080 weight 20
listen chance
    bind 203.0.113.10:81
    balance random(1)
    server a 10.2.0.11:8080 weight 75
    server b 10.2.0.12:8080 weight 25
`
	b := proxyBed(t)
	stop := b.starts("203.0.113.10:80", "haproxy", "-db", "-f", b.file("haproxy.cfg", text))
	b.replace("HAProxy", haproxy.Import, text, true, stop, []measured{
		{network: "tcp", to: "203.0.113.10:80", exact: map[string]int{"10.2.0.11": 30, "10.2.0.12": 10}, seen: "10.2.0.1"},
		{network: "tcp", to: "[2001:db8::10]:443", exact: map[string]int{"fd02::11": 10, "fd02::12": 20}, seen: "fd02::1"},
		{network: "tcp", to: "203.0.113.10:81", near: map[string]float64{"10.2.0.11": .75, "10.2.0.12": .25}},
	})
}

// TestImportedLocal: a proxy for programs of its host alone.
func TestImportedLocal(t *testing.T) {
	t.Parallel()
	text := `listen db
    mode tcp
    bind 127.0.0.1:3306
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    server a 127.0.0.1:8081
    server b 127.0.0.1:8082
`
	b := proxyBed(t)
	for _, at := range []string{"127.0.0.1:8081", "127.0.0.1:8082"} {
		_, err := traffic.Serve(b.Balancer, at, traffic.Port{Network: "tcp", At: netip.MustParseAddrPort(at)})
		b.Check(err)
	}
	stop := b.starts("127.0.0.1:3306", "haproxy", "-db", "-f", b.file("haproxy.cfg", text))
	b.replace("HAProxy", haproxy.Import, text, true, stop, []measured{
		{network: "tcp", to: "127.0.0.1:3306", local: true, exact: map[string]int{"127.0.0.1:8081": 10, "127.0.0.1:8082": 10}, seen: "127.0.0.1"},
	})
}

func TestImportedNginx(t *testing.T) {
	t.Parallel()
	stream := `stream {
    upstream web {
        server 10.2.0.11:8080 weight=5;
        server 10.2.0.12:8080;
        server 10.2.0.13:8080 down;
    }
    upstream chance {
        random;
        server 10.2.0.11:8080 weight=3;
        server 10.2.0.12:8080;
    }
    server {
        listen 203.0.113.10:80;
        proxy_pass web;
    }
    server {
        listen 203.0.113.10:81;
        proxy_pass chance;
    }
    server {
        listen [2001:db8::10]:53 udp;
        proxy_pass [fd02::11]:8080;
        proxy_responses 1;
        proxy_bind fd02::1;
    }
}
`
	b := proxyBed(t)
	netlabtest.Needs(t, "nginx")
	main := "daemon off; master_process off; error_log stderr; pid " + filepath.Join(t.TempDir(), "pid") + "; events { }\n"
	if about, err := b.Command(b.Balancer, "nginx", "-V").CombinedOutput(); err == nil && strings.Contains(string(about), "--with-stream=dynamic") {
		_, modules, _ := strings.Cut(string(about), "--modules-path=")
		modules, _, _ = strings.Cut(modules, " ")
		main = "load_module " + filepath.Join(modules, "ngx_stream_module.so") + ";\n" + main
	}
	stop := b.starts("203.0.113.10:80", "nginx", "-c", b.file("nginx.conf", main+stream))
	b.replace("nginx", nginx.Import, main+stream, true, stop, []measured{
		{network: "tcp", to: "203.0.113.10:80", exact: map[string]int{"10.2.0.11": 50, "10.2.0.12": 10}, seen: "10.2.0.1"},
		{network: "tcp", to: "203.0.113.10:81", near: map[string]float64{"10.2.0.11": .75, "10.2.0.12": .25}},
		{network: "udp", to: "[2001:db8::10]:53", exact: map[string]int{"fd02::11": 5}, seen: "fd02::1"},
	})
}

func TestImportedNft(t *testing.T) {
	t.Parallel()
	text := `table inet lb {
  map services {
    type inet_proto . ipv4_addr . inet_service : verdict
    elements = { tcp . 203.0.113.10 . 80 : goto web, udp . 203.0.113.10 . 53 : goto dns }
  }
  set mail { type inet_service; flags interval; elements = { 25, 587-588 }; }
  chain web { meta l4proto tcp dnat ip to numgen inc mod 10 map { 0-6 : 10.2.0.11, 7-9 : 10.2.0.12 } : 8080; }
  chain dns { meta l4proto udp dnat ip to numgen random mod 4 map { 0-2 : 10.2.0.11, 3 : 10.2.0.12 } : 8080; }
  chain third { meta l4proto tcp dnat ip to 10.2.0.13:8080; }
  chain half { meta l4proto tcp numgen random mod 2 vmap { 0 : jump third }; meta l4proto tcp dnat ip to 10.2.0.11:8080; }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto . ip daddr . th dport vmap @services
    iifname "eth0" ip daddr 203.0.113.10 tcp dport 81 counter jump half
    ip daddr 203.0.113.10 tcp dport 82 numgen inc mod 4 1 dnat ip to 10.2.0.12:8080
    ip daddr 203.0.113.10 tcp dport 82 dnat ip to 10.2.0.11:8080
    ip daddr 203.0.113.10 tcp dport @mail ct state new dnat ip to 10.2.0.13:8080
    ip6 daddr 2001:db8::10 tcp dport 80 dnat ip6 to jhash ip6 saddr . tcp sport mod 2 map { 0 : fd02::11, 1 : fd02::12 } : 8080
    ip daddr . tcp dport { 203.0.113.10 . 83 } dnat ip addr . port to ip daddr . tcp dport map { 203.0.113.10 . 83 : 10.2.0.12 . 8080 }
  }
  chain marks {
    type filter hook prerouting priority mangle; policy accept;
    ip daddr 203.0.113.10 tcp dport 84 ct state new ct mark set numgen inc mod 3
  }
  chain marked {
    type nat hook prerouting priority -95; policy accept;
    ip daddr 203.0.113.10 tcp dport 84 dnat ip addr . port to ct mark map { 0 : 10.2.0.11 . 8080, 1 : 10.2.0.12 . 8080, 2 : 10.2.0.13 . 8080 }
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip daddr { 10.2.0.11, 10.2.0.12 } masquerade
  }
}
`
	b := proxyBed(t)
	b.NFT(b.Balancer, text)
	listed := b.Witness(b.Balancer, "", "nft", "-j", "list", "ruleset")
	stop := func() { b.Witness(b.Balancer, "", "nft", "flush", "ruleset") }
	one := func(to, backend, seen string) measured {
		return measured{network: "tcp", to: to, exact: map[string]int{backend: 3}, seen: seen}
	}
	b.replace("nft", nftables.Import, listed, true, stop, []measured{
		{network: "tcp", to: "203.0.113.10:80", exact: map[string]int{"10.2.0.11": 28, "10.2.0.12": 12}, seen: "10.2.0.1"},
		{network: "udp", to: "203.0.113.10:53", near: map[string]float64{"10.2.0.11": .75, "10.2.0.12": .25}},
		{network: "tcp", to: "203.0.113.10:81", near: map[string]float64{"10.2.0.11": .5, "10.2.0.13": .5}},
		{network: "tcp", to: "203.0.113.10:82", exact: map[string]int{"10.2.0.11": 15, "10.2.0.12": 5}, seen: "10.2.0.1"},
		one("203.0.113.10:25", "10.2.0.13", "10.1.0.2"),
		one("203.0.113.10:588", "10.2.0.13", "10.1.0.2"),
		one("203.0.113.10:83", "10.2.0.12", "10.2.0.1"),
		{network: "tcp", to: "203.0.113.10:84", exact: map[string]int{"10.2.0.11": 5, "10.2.0.12": 5, "10.2.0.13": 5}, seen: "*"},
		{network: "tcp", to: "[2001:db8::10]:80", near: map[string]float64{"fd02::11": .5, "fd02::12": .5}},
	})
}
