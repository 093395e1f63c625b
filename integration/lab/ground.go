//go:build linux

package lab

// The ground that a world is built on: which addresses the profiles leave free,
// which of them are a client's, and how the links are called.

import (
	"net/netip"
	"slices"
	"strings"

	"nlb/integration/netlab"
	"nlb/lb"
)

// Ground knows the addresses in use.
type Ground struct {
	used  map[netip.Addr]bool
	wide  []netip.Prefix // prefixes of the profiles, kept clear of where possible
	links []netip.Prefix // networks of the balancer's links: who is in one is a neighbour
	block map[lb.Family]netip.Prefix
}

// Survey finds ground that the profiles leave free: a block of addresses in each
// family, a /16 and a /48.
func Survey(profiles []*lb.Profile) *Ground {
	g := &Ground{used: map[netip.Addr]bool{}, block: map[lb.Family]netip.Prefix{}}
	for _, s := range lb.Services(profiles) {
		for _, l := range s.Listen {
			g.claim(l.Prefix)
		}
		for _, b := range s.Backends {
			g.claim(netlab.Single(b.Address.Addr))
			for _, a := range b.SNAT.Pool {
				g.used[a] = true
			}
		}
		for _, p := range slices.Concat(s.Allow, s.Deny) {
			g.claim(p)
		}
	}
	for f, c := range blocks {
		g.block[f] = c[0]
		for _, p := range c {
			if g.clear(p) {
				g.block[f] = p
				break
			}
		}
	}
	return g
}

// Clients are up to n addresses of a family that nothing else has, inside allow (nil:
// anywhere) and outside deny.
func (g *Ground) Clients(f lb.Family, n int, allow, deny []netip.Prefix) []netip.Addr {
	bits := 32
	if f == lb.IPv6 {
		bits = 128
	}
	return g.pick(f, n, bits, allow, deny, g.free)
}

func (g *Ground) claim(p netip.Prefix) {
	switch {
	case !p.IsValid():
	case p.IsSingleIP():
		g.used[p.Addr()] = true
	case p.Bits() >= 8: // a wider one leaves nothing to keep clear of it
		g.wide = append(g.wide, p)
	}
}

func (g *Ground) clear(p netip.Prefix) bool {
	for a := range g.used {
		if p.Contains(a) {
			return false
		}
	}
	return !slices.ContainsFunc(g.wide, p.Overlaps)
}

// blocks are where worlds are built, the best first: the range for benchmarks
// (RFC 2544), shared and private ones; and for IPv6 unique local ones (RFC
// 4193) that spell nlb.
var blocks = map[lb.Family][]netip.Prefix{lb.IPv4: blocks4(), lb.IPv6: blocks6()}

func blocks4() []netip.Prefix {
	var out []netip.Prefix
	for _, r := range []struct{ a, from, to int }{{198, 18, 19}, {100, 64, 127}, {10, 0, 255}, {172, 16, 31}, {192, 168, 168}} {
		for b := r.from; b <= r.to; b++ {
			out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.a), byte(b)}), 16))
		}
	}
	return out
}

func blocks6() []netip.Prefix {
	var out []netip.Prefix
	for i := range 256 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x6e, 0x6c, 0x62, 0, byte(i)}), 48))
	}
	return out
}

// Transit is the two ends of the n-th network between the balancer (near) and
// another host (far).
func (g *Ground) Transit(f lb.Family, n int) (near, far netip.Prefix) {
	bits := 24
	if f == lb.IPv6 {
		bits = 64
	}
	network := step(g.block[f].Addr(), bits, n)
	return netip.PrefixFrom(step(network, network.BitLen(), 1), bits), netip.PrefixFrom(step(network, network.BitLen(), 2), bits)
}

// pool is where clients come from that nothing else is asked of: the upper
// half of the block.
func (g *Ground) pool(f lb.Family) netip.Prefix {
	b := g.block[f]
	return netip.PrefixFrom(step(b.Addr(), b.Bits()+1, 1), b.Bits()+1)
}

// unicast is where clients come from that must be far apart.
var unicast = map[lb.Family][]netip.Prefix{
	lb.IPv4: {netip.MustParsePrefix("64.0.0.0/2"), netip.MustParsePrefix("128.0.0.0/2"), netip.MustParsePrefix("0.0.0.0/2")},
	lb.IPv6: {netip.MustParsePrefix("2000::/3")},
}

// pick finds up to n addresses of a family that ok likes, no two in the same
// network of this many bits, inside one of the prefixes (nil: anywhere) and
// outside the others.
func (g *Ground) pick(f lb.Family, n, bits int, inside, outside []netip.Prefix, ok func(netip.Addr) bool) []netip.Addr {
	if inside == nil {
		inside = []netip.Prefix{g.pool(f)}
		if bits < inside[0].Bits()+10 {
			inside = append(inside, unicast[f]...)
		}
	}
	var out []netip.Addr
	seen := map[netip.Prefix]bool{}
	for _, c := range inside {
		if lb.FamilyOf(c.Addr()) != f {
			continue
		}
		length := max(bits, c.Bits())
		for i := range candidates(length-c.Bits(), n) {
			if len(out) == n {
				return out
			}
			a := step(c.Addr(), length, i)
			if length < a.BitLen() {
				a = a.Next()
			}
			network, _ := a.Prefix(bits)
			if seen[network] || !ordinary(a) || !ok(a) || slices.ContainsFunc(outside, func(p netip.Prefix) bool { return p.Contains(a) }) {
				continue
			}
			seen[network] = true
			out = append(out, a)
		}
	}
	return out
}

// candidates is how many networks to look at, of 2^bits.
func candidates(bits, n int) int {
	most := 8*n + 4096
	if bits < 20 {
		return min(most, 1<<bits)
	}
	return most
}

// free reports whether nothing has an address, and no link has its network.
func (g *Ground) free(a netip.Addr) bool {
	return !g.used[a] && !slices.ContainsFunc(g.links, func(p netip.Prefix) bool { return p.Contains(a) })
}

// anyIn reports whether some address is in the network of another.
func anyIn[T any](all map[netip.Addr]T, a netip.Addr, bits int) bool {
	network, _ := a.Prefix(bits)
	for one := range all {
		if network.Contains(one) {
			return true
		}
	}
	return false
}

// ordinary reports whether an address can be a host's.
func ordinary(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return a.IsGlobalUnicast() && b[0] != 0 && b[0] < 224 && b[3] != 0 && b[3] != 255
	}
	b := a.As16()
	return (b[0]>>5 == 1 || a.IsPrivate()) && b[15] != 0 // 2000::/3 (RFC 4291), fc00::/7
}

// step is the address that is i networks of this many bits further on.
func step(a netip.Addr, bits, i int) netip.Addr {
	b := a.AsSlice()
	carry := uint64(i) << (7 - (bits-1)%8)
	for at := (bits - 1) / 8; at >= 0 && carry > 0; at-- {
		carry += uint64(b[at])
		b[at] = byte(carry)
		carry >>= 8
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// linkNames are the links from the balancer to clients. The first one is for services without
// an interface, where there are any, and no service names it. The others are those that
// services name.
func linkNames(all []*lb.Service) []string {
	var out []string
	for _, v := range all {
		if v.Interface != "" && !slices.ContainsFunc(out, func(n string) bool { return matches(v.Interface, n) }) {
			out = append(out, strings.ReplaceAll(v.Interface, "*", "0"))
		}
	}
	if len(out) == 0 || slices.ContainsFunc(all, func(v *lb.Service) bool { return v.Interface == "" }) {
		free := []string{"eth0", "lan0", "net0", "clients0", "zone0"}
		free = slices.DeleteFunc(free, func(n string) bool {
			return slices.ContainsFunc(all, func(v *lb.Service) bool { return v.Interface != "" && matches(v.Interface, n) })
		})
		out = slices.Concat(free[:min(1, len(free))], out)
	}
	return out
}

// matches reports whether a link's name fits a profile's.
func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// services are those of all profiles, in order.
func services(profiles []*lb.Profile) []*lb.Service {
	var out []*lb.Service
	for _, v := range lb.Services(profiles) {
		out = append(out, v)
	}
	return out
}
