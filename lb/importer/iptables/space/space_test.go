package space

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"nlb/lb"

	"github.com/google/go-cmp/cmp"
)

// small is a random set of numbers below 64, and its members.
func small(r *rand.Rand) (Set, [64]bool) {
	var ranges []Range
	var has [64]bool
	for range r.IntN(5) {
		first := r.IntN(64)
		last := min(63, first+r.IntN(12))
		ranges = append(ranges, Range{N(uint64(first)), N(uint64(last))})
		for i := first; i <= last; i++ {
			has[i] = true
		}
	}
	return Of(ranges...), has
}

func TestSetAlgebra(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		a, inA := small(r)
		b, inB := small(r)
		union, and, without := a.Union(b), a.And(b), a.Without(b)
		some, all, members := false, true, 0.0
		for i := range uint64(64) {
			n := N(i)
			for _, c := range []struct {
				name string
				set  Set
				want bool
			}{
				{"Union", union, inA[i] || inB[i]}, {"And", and, inA[i] && inB[i]}, {"Without", without, inA[i] && !inB[i]}, {"Of", a, inA[i]},
			} {
				if c.set.Has(n) != c.want {
					t.Fatalf("%v %s %v = %v, wrong about %d", a, c.name, b, c.set, i)
				}
			}
			some = some || inA[i] && inB[i]
			all = all && (!inA[i] || inB[i])
			if inA[i] {
				members++
			}
		}
		want := Across
		if !some {
			want = Outside
		} else if all {
			want = Inside
		}
		if got := a.Against(b); got != want {
			t.Fatalf("%v against %v is %d, want %d", a, b, got, want)
		}
		if a.Meets(b) != some || a.Size() != members {
			t.Fatalf("%v meets %v: %v; size %v", a, b, a.Meets(b), a.Size())
		}
		if !union.Equal(b.Union(a)) || !without.Union(and).Equal(a) || (a.Key() == b.Key()) != a.Equal(b) {
			t.Fatalf("%v and %v do not add up", a, b)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for _, tt := range []struct {
		family lb.Family
		set    Set
		want   []string
	}{
		{lb.IPv4, nil, nil},
		{lb.IPv4, Addresses(lb.IPv4), []string{"0.0.0.0/0"}},
		{lb.IPv6, Addresses(lb.IPv6), []string{"::/0"}},
		{lb.IPv4, Prefix(netip.MustParsePrefix("10.0.0.7/32")), []string{"10.0.0.7/32"}},
		{lb.IPv4, Between(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.6")), []string{"10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"}},
		{lb.IPv4, Addresses(lb.IPv4).Without(Prefix(netip.MustParsePrefix("128.0.0.0/2"))), []string{"0.0.0.0/1", "192.0.0.0/2"}},
		{lb.IPv6, Prefix(netip.MustParsePrefix("2001:db8::/33")).Union(Prefix(netip.MustParsePrefix("2001:db8:8000::/33"))), []string{"2001:db8::/32"}},
		{lb.IPv6, Prefix(netip.MustParsePrefix("ffff::/16")), []string{"ffff::/16"}},
	} {
		got, ok := tt.set.Prefixes(tt.family, 100)
		var texts []string
		for _, p := range got {
			texts = append(texts, p.String())
		}
		if diff := cmp.Diff(tt.want, texts); diff != "" || !ok {
			t.Errorf("%v (-want +got)\n%s", tt.set, diff)
		}
	}
	hole := Addresses(lb.IPv6).Without(Prefix(netip.MustParsePrefix("2001:db8::1/128")))
	if got, ok := hole.Prefixes(lb.IPv6, 128); !ok || len(got) != 128 {
		t.Errorf("all but one address are %d prefixes", len(got))
	}
	if _, ok := hole.Prefixes(lb.IPv6, 127); ok {
		t.Error("128 prefixes are not more than 127")
	}
}

func TestInterfaces(t *testing.T) {
	f := NewInterfaces([]string{"eth0", "eth+", "e+", "lo", "eth1", "+", "eth0"})
	for pattern, member := range map[string]string{"eth+": "eth0", "e+": "eth+", "+": "lo"} {
		if got := f.Matching(member).Against(f.Matching(pattern)); got != Inside {
			t.Errorf("%s is not in %s: %d", member, pattern, got)
		}
	}
	if f.Matching("lo").Meets(f.Matching("e+")) || f.Matching("eth0").Meets(f.Matching("eth1")) {
		t.Error("names that are apart meet")
	}
	for _, tt := range []struct {
		set  Set
		want []string
		ok   bool
	}{
		{f.All(), []string{"+"}, true},
		{f.Matching("eth+"), []string{"eth+"}, true},
		{f.Matching("eth0").Union(f.Matching("lo")), []string{"eth0", "lo"}, true},
		{f.All().Without(f.Matching("lo")), []string{"e+"}, false},
		{f.Matching("eth+").Without(f.Matching("eth0")), []string{"eth1"}, false},
	} {
		got, ok := f.Patterns(tt.set)
		if !slices.Equal(got, tt.want) || ok != tt.ok {
			t.Errorf("%v is %v %v, want %v %v", tt.set, got, ok, tt.want, tt.ok)
		}
	}
}

// TestMerge: merging changes neither what is in the regions nor that they are
// apart.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 300 {
		whole := Region{One(0, 15), One(0, 3), One(0, 15), One(0, 1), One(0, 1)}
		regions := []Region{whole}
		for range r.IntN(8) {
			i := r.IntN(len(regions))
			d := Dimension(r.IntN(int(dimensions)))
			by := One(uint64(r.IntN(8)), uint64(8+r.IntN(8)))
			inside, outside := regions[i].Split(d, by)
			if len(inside[d]) == 0 || len(outside[d]) == 0 {
				continue
			}
			regions[i] = inside
			regions = append(regions, outside)
		}
		if got := Merge(regions); len(got) != 1 || got[0].keyWithout(dimensions) != whole.keyWithout(dimensions) {
			// Not all ways of cutting can be undone along one dimension at a
			// time, but the size must be the same.
			if a, b := volume(regions), volume(got); a != b {
				t.Fatalf("%v becomes %v", regions, got)
			}
		}
	}
}

func volume(regions []Region) float64 {
	sum := 0.0
	for _, r := range regions {
		v := 1.0
		for _, s := range r {
			v *= s.Size()
		}
		sum += v
	}
	return sum
}
