package integration

// What is read of a host's own rules by netlink is what nft and iptables print of them.

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb/config"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables"
	"nlb/lb/importer/nftables"
	"nlb/nft/listing"
	"nlb/nft/wire"
)

// fromHost imports what the balancer has.
func (b *bed) fromHost() *importer.Import {
	b.T.Helper()
	var objects []json.RawMessage
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { objects, err = listing.Read(c); return err })
	m, err := nftables.Ruleset("old", "nft", objects, "nlb")
	b.Check(err)
	return m
}

func TestImportedFromHost(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"lookups": listingLookups, "balancer": listingBalancer} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.NFT(b.Balancer, text)
			want := b.take(nftables.Import, b.Witness(b.Balancer, "", "nft", "-j", "list", "ruleset"), false)
			got := b.fromHost()
			for _, f := range got.Findings {
				t.Log(f.Format())
			}
			if diff := cmp.Diff(string(config.Write(want.Profile)), string(config.Write(got.Profile))); diff != "" || len(want.Profile.Services) < 5 {
				t.Errorf("of %d services (-nft -j +netlink)\n%s", len(want.Profile.Services), diff)
			}
			if got.Complete() {
				t.Error("what nft -j has parts of that are lost is complete")
			}
		})
	}
	t.Run("iptables", func(t *testing.T) {
		b := newBed(t)
		saved := b.restore("iptables", `*nat
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 80 -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.2.0.11:8080
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 80 -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.2.0.12:8080
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.13:8080
-A PREROUTING -d 203.0.113.11/32 -i eth0 -p udp -m udp --dport 53 -m comment --comment "the dns" -m statistic --mode random --probability 0.25 -j DNAT --to-destination 10.2.0.11
-A PREROUTING -d 203.0.113.11/32 -i eth0 -p udp -m udp --dport 53 -m comment --comment "the dns" -j DNAT --to-destination 10.2.0.12-10.2.0.13 --persistent
-A PREROUTING -d 203.0.113.12/30 -p tcp -m tcp --dport 5000:5010 -j DNAT --to-destination 10.2.0.11
-A POSTROUTING -d 10.2.0.12/32 -j MASQUERADE
-A POSTROUTING -d 10.2.0.11/32 -p tcp -j SNAT --to-source 10.2.0.1
COMMIT
`)
		want := b.take(iptables.Import, saved, true)
		got := b.fromHost()
		for _, f := range got.Findings {
			t.Log(f.Format())
		}
		if diff := cmp.Diff(string(config.Write(want.Profile)), string(config.Write(got.Profile))); diff != "" {
			t.Errorf("(-iptables-save +netlink)\n%s", diff)
		}
	})
}

// listingLookups looks up sets and maps of all kinds.
const listingLookups = `table ip nat {
  map fwds { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { 203.0.113.1 . 80 : 10.0.0.1 . 8080 }; }
  map byport { type inet_service : verdict; flags interval; elements = { 8000-8010 : jump pick }; }
  set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.1-192.168.1.7 }; }
  chain pick { dnat to numgen random mod 10 map { 0-2 : 10.0.0.1, 3-9 : 10.0.0.2 }; }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "eth0" ip daddr 203.0.113.1 tcp dport 80 counter dnat to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 } : 8080 comment "web"
    ip daddr 203.0.113.2 tcp dport { 80, 443 } dnat to jhash ip saddr . tcp sport mod 3 map { 0 : 10.0.0.1, 1 : 10.0.0.2, 2: 10.0.0.3 }
    dnat ip to ip daddr . tcp dport map @fwds
    tcp dport vmap @byport
    ip saddr != @nets ip daddr 203.0.113.4 udp dport 53 dnat to 10.0.0.1-10.0.0.4 persistent
    ip daddr 203.0.113.5 tcp dport 80 dnat to 10.0.0.1:80-90 random
    ip daddr 203.0.113.5 tcp dport 81 redirect to :8080
    fib daddr type local tcp dport 82 dnat to 10.0.0.8
    ip daddr 203.0.113.6 tcp dport 22 ct state new meta mark set numgen inc mod 2
    ip daddr 203.0.113.7 meta l4proto { tcp, udp } th dport 53 dnat to 10.0.0.1
    ip daddr 203.0.113.8 tcp dport 80 dnat to ip saddr map { 10.0.0.0/8 : 10.0.0.1, 11.0.0.0/8 : 10.0.0.2 }
    ip daddr . tcp dport vmap { 203.0.113.9 . 80 : jump pick }
    tcp dport != 22 ip protocol tcp mark and 0xff == 0x1 limit rate 10/second log prefix "x " level warn
    ip daddr 203.0.113.12 tcp dport 80 dnat ip addr . port to numgen inc mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }
    ip daddr 203.0.113.13 tcp dport 80 dnat to symhash mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }
  }
  chain postrouting { type nat hook postrouting priority srcnat; ip daddr 10.0.0.0/24 oifname "eth1" masquerade random; ip daddr 10.1.0.1 snat to 192.0.2.1; ip daddr 10.1.0.2 snat to numgen inc mod 2 map { 0 : 192.0.2.1, 1: 192.0.2.2 }; }
}
table inet mixed {
  chain pre { type nat hook prerouting priority -90; ip6 daddr 2001:db8::1 tcp dport 80 dnat ip6 to fd00::1; ip daddr 203.0.113.9 tcp dport 81 dnat ip to 10.0.0.1:80; tcp dport 82 dnat ip to 10.0.0.1; tcp dport 83 dnat ip to numgen inc mod 2 offset 5 map { 5 : 10.0.0.1, 6 : 10.0.0.2 }
    meta nfproto ipv4 tcp dport {84-86, 90} goto other
  }
  chain other { drop; }
}
`

// listingBalancer balances by maps of verdicts and marks.
const listingBalancer = `table inet lb {
  map services { type inet_proto . ipv4_addr . inet_service : verdict; elements = { tcp . 203.0.113.10 . 80 : goto web, udp . 203.0.113.10 . 53 : goto dns }; }
  chain web { meta l4proto tcp dnat ip to numgen random mod 4 map { 0-2 : 10.2.0.11, 3 : 10.2.0.12 }  : 8080; }
  chain dns { dnat ip to jhash ip saddr mod 2 seed 0xcafe map { 0 : 10.2.0.11, 1 : 10.2.0.12 }; }
  chain pick { numgen inc mod 3 vmap { 0 : goto b1, 1 : goto b2, 2 : jump logs }; dnat ip to 10.2.0.13; }
  chain b1 { meta mark set 7 counter dnat ip to 10.2.0.11; }
  chain b2 { meta l4proto tcp dnat ip to 10.2.0.12:8080; }
  chain logs { log prefix "third " level info; }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto . ip daddr . th dport vmap @services
    ip daddr 203.0.113.11 tcp dport 443 counter log prefix "tls " jump pick
    ip daddr 203.0.113.12 tcp dport 25 numgen inc mod 2 0 dnat to 10.2.0.11
    ip daddr 203.0.113.12 tcp dport 25 dnat to 10.2.0.12
    ip daddr 203.0.113.13 tcp dport 22 tcp sport 1024-65535 dnat to 10.2.0.12
    ip daddr 203.0.113.14 tcp dport 22 limit rate 5/second dnat to 10.2.0.12
  }
  chain marks {
    type filter hook prerouting priority mangle;
    ip daddr 203.0.113.15 tcp dport 80 ct state new ct mark set numgen inc mod 2 offset 100
  }
  chain bymark {
    type nat hook prerouting priority -95;
    ct mark 100 dnat ip to 10.2.0.11
    ct mark 101 dnat ip to 10.2.0.12
  }
  chain postrouting { type nat hook postrouting priority srcnat; ct status dnat masquerade; }
}
`

// TestImportFromHost: the command reads what the balancer has but its own table, and
// says what the profile would meet there.
func TestImportFromHost(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(web + backends(8080, -1, -1))
	b.NFT(b.Balancer, `table ip old {
  chain pre {
    type nat hook prerouting priority -110; policy accept;
    ip daddr 203.0.113.77 tcp dport 80 dnat to numgen inc mod 2 map { 0 : 10.2.0.11, 1 : 10.2.0.12 }
  }
}
`)
	c := b.Command(b.Balancer, b.command(), "import", "--from-host")
	var said strings.Builder
	c.Stderr = &said
	yaml, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	p := b.Parse(string(yaml))
	if len(p.Services) != 1 || p.Services[0].Listen[0].String() != "203.0.113.77:80" || len(p.Services[0].Backends) != 2 {
		t.Errorf("the profile is\n%s", yaml)
	}
	for _, want := range []string{"the table nlb is left out", "applied beside what runs now", "table ip old, chain pre may take what is for 203.0.113.77:80", "before nlb at -100"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said.String())
		}
	}
}
