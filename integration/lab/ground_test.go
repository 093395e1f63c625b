//go:build linux

package lab

import (
	"net/netip"
	"slices"
	"testing"

	"nlb/lb"
)

func TestStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from string
		bits int
		i    int
		want string
	}{
		{"10.0.0.0", 32, 257, "10.0.1.1"},
		{"10.0.0.0", 24, 3, "10.0.3.0"},
		{"10.0.0.0", 30, 5, "10.0.0.20"},
		{"10.255.255.255", 32, 1, "11.0.0.0"},
		{"198.18.0.0", 17, 1, "198.18.128.0"},
		{"fd00::", 64, 65536, "fd00:0:1::"},
		{"fd00::", 61, 1, "fd00:0:0:8::"},
		{"2000::", 8, 1, "2100::"},
	} {
		if got := step(netip.MustParseAddr(c.from), c.bits, c.i); got.String() != c.want {
			t.Errorf("%d networks of /%d after %s: %s, want %s", c.i, c.bits, c.from, got, c.want)
		}
	}
}

func TestGroundIsFree(t *testing.T) {
	t.Parallel()
	g := Survey([]*lb.Profile{{Services: []lb.Service{{
		Listen:   []lb.Listen{listenAt("198.18.0.1", 80), {Prefix: netip.MustParsePrefix("100.64.0.0/10"), Ports: []lb.PortRange{{First: 53, Last: 53}}}},
		Backends: []lb.Backend{backendAt("198.19.255.1:80", 1), backendAt("[fd6e:6c62::1]:80", 1)},
	}}}})
	if got, want := g.block[lb.IPv4].String(), "10.0.0.0/16"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := g.block[lb.IPv6].String(), "fd6e:6c62:1::/48"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	near, far := g.Transit(lb.IPv4, 3)
	near6, far6 := g.Transit(lb.IPv6, 3)
	got := []string{near.String(), far.String(), near6.String(), far6.String()}
	want := []string{"10.0.3.1/24", "10.0.3.2/24", "fd6e:6c62:1:3::1/64", "fd6e:6c62:1:3::2/64"}
	if !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	prefixes := func(s ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	for _, c := range []struct {
		name            string
		f               lb.Family
		n, bits         int
		inside, outside []netip.Prefix
		want            []string
	}{
		{"anywhere", lb.IPv4, 2, 32, nil, nil, []string{"198.18.128.1", "198.18.128.2"}},
		{"networks", lb.IPv4, 2, 24, nil, nil, []string{"198.18.128.1", "198.18.129.1"}},
		{"large networks", lb.IPv4, 4, 16, nil, nil, []string{"198.18.128.1", "64.0.0.1", "64.1.0.1", "64.2.0.1"}},
		{"all there is", lb.IPv4, 9, 3, nil, nil, []string{"198.18.128.1", "64.0.0.1", "96.0.0.1", "128.0.0.1", "160.0.0.1", "32.0.0.1"}},
		{"IPv6 networks", lb.IPv6, 2, 64, nil, nil, []string{"fd6e:6c62:0:8000::1", "fd6e:6c62:0:8001::1"}},
		{"inside", lb.IPv4, 9, 32, prefixes("192.0.2.0/30", "2001:db8::/64"), nil, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}},
		{"inside, apart", lb.IPv4, 9, 24, prefixes("192.0.2.7/32", "192.0.2.9/32", "192.0.3.9/32"), nil, []string{"192.0.2.7", "192.0.3.9"}},
		{"outside", lb.IPv4, 2, 32, prefixes("192.0.2.0/29"), prefixes("192.0.2.0/30"), []string{"192.0.2.4", "192.0.2.5"}},
		{"nobody", lb.IPv4, 2, 32, prefixes("192.0.2.0/29"), prefixes("192.0.0.0/16"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := Survey(nil)
			var got []string
			for _, a := range g.pick(c.f, c.n, c.bits, c.inside, c.outside, g.free) {
				got = append(got, a.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func listenAt(addr string, ports ...uint16) lb.Listen {
	a := netip.MustParseAddr(addr)
	l := lb.Listen{Prefix: netip.PrefixFrom(a, a.BitLen())}
	for _, p := range ports {
		l.Ports = append(l.Ports, lb.PortRange{First: p, Last: p})
	}
	return l
}

func backendAt(at string, weight int) lb.Backend {
	ap, err := netip.ParseAddrPort(at)
	e := lb.Endpoint{Addr: ap.Addr(), Port: ap.Port()}
	if err != nil {
		e = lb.Endpoint{Addr: netip.MustParseAddr(at)}
	}
	return lb.Backend{Name: e.String(), Address: e, Weight: weight}
}
