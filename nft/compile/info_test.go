package compile

import (
	"reflect"
	"testing"

	"nlb/lb"
)

// TestDrawComments: whatever draws, its comment is one that nft takes, and is read back.
func TestDrawComments(t *testing.T) {
	const most = 128 // nft's limit
	longest := 0
	for _, scheduler := range []lb.Scheduler{lb.RoundRobin, lb.LeastConnections, lb.Hash, lb.Consistent} {
		for fields := range 1 << 5 {
			s := &lb.Service{Scheduler: scheduler, Retry: true, OnEmpty: lb.Drop}
			for f := lb.SourceAddress; scheduler.Hashes() && f <= lb.ByProtocol; f++ {
				if fields>>f&1 > 0 {
					s.HashBy = append(s.HashBy, f)
				}
			}
			if scheduler.Hashes() {
				if s.HashSeed = 1<<32 - 1; s.HashBy == nil {
					continue
				}
			}
			b := Block{Base: 1<<31 - 1, Parked: 1<<24 - 1}
			if scheduler.OwnSlots() {
				b = Block{Parked: mostOwnSlots, Own: true}
			}
			p := poolInfo{lb.IPv4, s, b}
			longest = max(longest, len(p.String()))
			if got, ok := parsePoolInfo(p.String()); !ok || !reflect.DeepEqual(got, p) {
				t.Errorf("%q is read as %+v, %+v", p, got, got.service)
			}
		}
	}
	if longest > most {
		t.Errorf("a comment of %d bytes", longest)
	}
	before := "IPv6 hash source-address,source-port,destination-address,destination-port seed 77 slots 3+2+1"
	if p, ok := parsePoolInfo(before); !ok || len(p.service.HashBy) != 4 {
		t.Errorf("%q of an older nlb is read as %+v", before, p)
	}
}
