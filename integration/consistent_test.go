package integration

// Consistent: which clients move when a backend comes, goes or falls.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// TestConsistentMovesFew: of ten backends one that is removed moves its own clients and
// at most 3.5 % of the others, one that falls nobody else's, and whoever is back has its
// clients back.
func TestConsistentMovesFew(t *testing.T) {
	t.Parallel()
	const backends, clients = 10, 500
	for _, f := range []struct{ vip, backend string }{{"203.0.113.10:80", "10.2.0.%d"}, {"[2001:db8::10]:80", "fd02::%d"}} {
		t.Run(f.vip, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			var all []string
			for i := range backends {
				all = append(all, fmt.Sprintf(f.backend, 11+i))
			}
			for _, a := range all[5:] { // it has the others
				b.Address(b.Server, "eth0", netip.PrefixFrom(netip.MustParseAddr(a), netip.MustParseAddr(a).BitLen()).String())
			}
			b.Serve([]int{8080}, all...)
			profile := func(of []string) string {
				var list []string
				for _, a := range of {
					list = append(list, fmt.Sprintf("%q", netip.AddrPortFrom(netip.MustParseAddr(a), 8080)))
				}
				return fmt.Sprintf("profile: shop\nservices:\n  - {name: web, listen: %q, scheduler: consistent, hash-by: source-port, backends: [%s]}\n", f.vip, strings.Join(list, ", "))
			}
			ask := func() (met []string) {
				t.Helper()
				calls := make([]traffic.Call, clients)
				for i := range calls {
					client := traffic.Client{Host: b.Client, Port: uint16(20000 + i), Reset: true}
					calls[i] = traffic.Call{Client: client, Network: "tcp", To: netip.MustParseAddrPort(f.vip)}
				}
				b.Check(traffic.Run(t.Context(), b.Client, calls, 8))
				for i := range calls {
					b.Check(calls[i].Err)
					met = append(met, calls[i].Reply.Backend)
				}
				return met
			}
			b.Apply(profile(all))
			before := ask()
			for backend, n := range count(before) {
				if n < clients/backends/2 || n > clients/backends*2 {
					t.Errorf("%s has %d of %d clients", backend, n, clients)
				}
			}
			if again := ask(); !slices.Equal(again, before) {
				t.Fatal("a client that comes again meets another backend")
			}
			var moved []int
			for i, gone := range all {
				if !*full && i%3 != 1 {
					continue
				}
				b.Apply(profile(slices.Delete(slices.Clone(all), i, i+1)))
				n := 0
				for client, now := range ask() {
					if now == gone {
						t.Errorf("%s was removed, and client %d meets it", gone, client)
					} else if was := before[client]; was != gone && now != was {
						n++
					}
				}
				moved = append(moved, n)
			}
			slices.Sort(moved)
			t.Logf("of %d clients %d moved beside those of the removed backend", clients, moved)
			if median := moved[len(moved)/2]; float64(median) > 0.035*clients {
				t.Errorf("of %d clients %d moved beside those of the removed backend (all: %d)", clients, median, moved)
			}
			b.Apply(profile(all))
			if back := ask(); !slices.Equal(back, before) {
				t.Error("with all backends again clients meet others than at first")
			}
			b.Kernel(b.Balancer, func(c *wire.Conn) error {
				down := stand(b.Parse(profile(all)), 3, lb.Down, lb.Standing{})
				_, err := nft.Apply(t.Context(), c, []*lb.Profile{down}, nft.Options{Table: "nlb"})
				return err
			})
			for client, now := range ask() {
				if was := before[client]; now == all[3] || was != all[3] && now != was {
					t.Errorf("%s is down, and client %d went from %s to %s", all[3], client, was, now)
				}
			}
		})
	}
}
