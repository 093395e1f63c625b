package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"nlb/lb"
)

func TestKeepableBits(t *testing.T) {
	for _, tt := range []struct {
		masks []uint32
		want  uint32
		fails bool
	}{
		{nil, 0, false},
		{[]uint32{0x3f00}, 0x3f00, false},
		{[]uint32{0xff0000}, 0xff0000, false},
		{[]uint32{0x100, 0x200, 0x100}, 0x300, false},
		{[]uint32{0x3f00, 0xff0000}, 0, true},
		{[]uint32{0xffffffff}, 0, true},
		{[]uint32{0x1000000}, 0, true},
	} {
		if got, err := KeepableBits(tt.masks...); got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%x: %x, %v", tt.masks, got, err)
		}
	}
}

// TestNumbersWithoutKeptBits: numbers are distinct and have none of the bits,
// and where there are too many backends for what is left, nothing is kept.
func TestNumbersWithoutKeptBits(t *testing.T) {
	p := &lb.Profile{Name: "p"}
	for i := range 3 {
		s := lb.Service{Name: fmt.Sprint("s", i)}
		for j := range 10000 {
			a := netip.AddrFrom4([4]byte{10, byte(i), byte(j >> 8), byte(j)})
			s.Backends = append(s.Backends, lb.Backend{Address: lb.Endpoint{Addr: a, Port: 80}, Weight: 1})
		}
		p.Services = append(p.Services, s)
	}
	for _, tt := range []struct {
		profiles []*lb.Profile
		kept     uint32
	}{{[]*lb.Profile{p}, 0xff0000}, {[]*lb.Profile{p, {Name: "q", Services: p.Services}}, 0}} {
		n := NewNumbers(0xff0000, tt.profiles)
		seen := map[uint32]bool{}
		for _, q := range tt.profiles {
			for _, s := range q.Services {
				for _, b := range s.Backends {
					i := n.Backend(ChainOf(q.Name, s.Name), b.Address)
					if i&tt.kept != 0 || i&^NumberMask != 0 || seen[i] {
						t.Fatalf("number %06x", i)
					}
					seen[i] = true
				}
			}
		}
		if n.Owners.Kept != tt.kept {
			t.Errorf("%06x are kept, want %06x", n.Owners.Kept, tt.kept)
		}
	}
}
