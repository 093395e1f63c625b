package integration

// What import makes of the port forwards of firewalls, against what these do.

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"testing"

	"nlb/integration/netlab/traffic"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables"
	"nlb/lb/importer/nftables"
)

// question is what a client asks, and what it should hear: the backend that answers, the
// source that this sees, and its port; empty: nobody answers.
type question struct {
	from        traffic.Client
	network, to string
	want        string
}

func (b *bed) answers(what string, all []question) {
	b.T.Helper()
	for _, q := range all {
		if q.from.Host == nil {
			q.from.Host = b.Client
		}
		got := ""
		if r, err := q.from.Exchange(b.T.Context(), q.network, netip.MustParseAddrPort(q.to)); err == nil {
			got = fmt.Sprintf("%s %s %d", r.Backend, r.Seen.Addr(), r.Local.Port())
		}
		if got != q.want {
			b.T.Errorf("%s, %s %s: %q, want %q", what, q.network, q.to, got, q.want)
		}
	}
}

// TestImportedFw4: zones of OpenWrt with forwards to servers and to the router itself,
// reflection, and a forward for some clients. Its filter stays.
func TestImportedFw4(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080, 9005}, "10.2.0.11", "10.2.0.12", "fd02::11")
	b.serveOn(b.Balancer, "itself", "10.1.0.1:8080")
	_, err := traffic.Serve(b.Balancer, "dns", traffic.Port{Network: "udp", At: netip.MustParseAddrPort("10.2.0.1:53")})
	b.Check(err)
	text, err := os.ReadFile("testdata/firewalls/fw4.nft")
	b.Check(err)
	b.NFT(b.Balancer, string(text))
	lan := traffic.Client{Host: b.Server, Source: netip.MustParseAddr("10.2.0.13")}
	questions := []question{
		{network: "tcp", to: "10.1.0.1:8443", want: "10.2.0.11 10.1.0.2 8080"},
		{network: "tcp", to: "10.1.0.1:9005", want: "10.2.0.12 10.1.0.2 9005"},
		{network: "udp", to: "10.1.0.1:9005", want: "10.2.0.12 10.1.0.2 9005"},
		{network: "tcp", to: "[fd01::1]:8443", want: "fd02::11 fd01::2 8080"},
		{network: "tcp", to: "10.1.0.1:2222", want: "itself 10.1.0.2 8080"},
		{network: "tcp", to: "10.1.0.1:2223"}, // for others
		{network: "tcp", to: "10.1.0.1:8080"}, // not forwarded
		{from: lan, network: "tcp", to: "10.1.0.1:8443", want: "10.2.0.11 10.2.0.1 8080"},
		{from: lan, network: "udp", to: "10.1.0.1:9005", want: "10.2.0.12 10.2.0.1 9005"},
		{from: lan, network: "udp", to: "192.0.2.53:53", want: "dns 10.2.0.13 53"},
	}
	b.answers("fw4", questions)
	m := b.take(nftables.Import, b.Witness(b.Balancer, "", "nft", "-j", "list", "ruleset"), false)
	for _, chain := range []string{"dstnat", "srcnat"} {
		b.NFT(b.Balancer, "flush chain inet fw4 "+chain)
	}
	b.answers("nobody", []question{{network: "tcp", to: "10.1.0.1:8443"}})
	b.Apply(string(m.YAML()))
	b.answers("nlb", questions)
}

// TestImportedKubeProxy: what kube-proxy 1.34.1 has made for six services on a node with
// three pods, as iptables and as nftables: cluster addresses, node ports, addresses of
// load balancers, an affinity, and externalTrafficPolicy: Local.
func TestImportedKubeProxy(t *testing.T) {
	t.Parallel()
	saved, err := os.ReadFile("testdata/firewalls/kube-proxy-1.34.1.v4")
	if err != nil {
		t.Fatal(err)
	}
	// Counters of nfacct are objects of their own, which kube-proxy makes.
	rules := regexp.MustCompile(`-m nfacct --nfacct-name +\S+`).ReplaceAllString(string(saved), "")
	for _, variant := range append(variants(), "nft") {
		t.Run(variant, func(t *testing.T) {
			b := oldBed(t)
			b.Check(b.Client.AddRoute(netip.MustParsePrefix("10.96.0.0/16"), netip.MustParseAddr("10.1.0.1")))
			b.Via(b.Balancer, "10.1.0.2", "fd01::2")
			var m *importer.Import
			if variant == "nft" {
				text, err := os.ReadFile("testdata/firewalls/kube-proxy-1.34.1.nft")
				b.Check(err)
				b.NFT(b.Balancer, string(text))
				m = b.take(nftables.Import, b.Witness(b.Balancer, "", "nft", "-j", "list", "ruleset"), false)
			} else {
				m = b.take(iptables.Import, b.restore(variant, rules), false)
			}
			b.kubeProxy(variant)
			if variant == "nft" {
				b.Witness(b.Balancer, "", "nft", "flush", "ruleset")
			} else {
				b.Witness(b.Balancer, "", variant, "-t", "filter", "-F")
				b.forget(variant)
			}
			b.Apply(string(m.YAML()))
			b.kubeProxy("nlb")
		})
	}
}

// kubeProxy measures the services of kube-proxy's rules.
func (b *bed) kubeProxy(what string) {
	b.T.Helper()
	third := map[string]float64{"10.2.0.11": 1.0 / 3, "10.2.0.12": 1.0 / 3, "10.2.0.13": 1.0 / 3}
	half := map[string]float64{"10.2.0.11": .5, "10.2.0.12": .5}
	b.measure(what, []measured{
		{network: "tcp", to: "10.96.10.20:80", near: third},
		{network: "tcp", to: "10.96.10.20:80", near: third, local: true},
		{network: "tcp", to: "10.1.0.1:30080", near: third},
		{network: "tcp", to: "203.0.113.10:80", near: half},
		{network: "tcp", to: "203.0.113.11:80", near: half},
		{network: "udp", to: "10.96.10.23:53", near: half},
		{network: "tcp", to: "10.96.10.24:80", exact: map[string]int{"10.2.0.11": 3}, seen: "10.2.0.1"},
		{network: "tcp", to: "203.0.113.12:80", exact: map[string]int{"10.2.0.11": 3}, seen: "10.1.0.2"},
		{network: "tcp", to: "10.1.0.1:30082", exact: map[string]int{"10.2.0.11": 3}, seen: "10.1.0.2"},
		{network: "tcp", to: "10.96.10.22:80", exact: map[string]int{b.Ask("tcp", "10.96.10.22:80").Backend: 8}, seen: "10.2.0.1"},
	})
	for _, to := range []string{"10.96.10.20:80", "203.0.113.10:80", "10.1.0.1:30080"} {
		if seen := b.Ask("tcp", to).Seen.Addr().String(); seen != "10.2.0.1" {
			b.T.Errorf("%s, %s: the backend sees %s", what, to, seen)
		}
	}
}
