package fleet

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestSoak: canaries are watched for all of soak, also those that have it at the last
// moment.
func TestSoak(t *testing.T) {
	const wait, soak = lookEvery * 11 / 2, 10 * time.Second // it ends between two looks
	for name, ready := range map[string]time.Duration{"at once": 0, "soon": wait / 2, "last": wait} {
		for bad, faults := range map[time.Duration]int{soak / 2: 1, 3 * soak: 0} {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				known := func(context.Context) (*Known, error) {
					h := &Held{Version: Version{Seq: 1}}
					if time.Since(began) >= ready {
						h.Seq = 2
					}
					if time.Since(began) >= bad {
						h.Down = 1
					}
					return &Known{
						Wanted: Wanted{Pointers: map[string]Entry{"shop": {Pointer: &Pointer{Version: Version{Seq: 2}}}}},
						Nodes:  map[string]*Status{"n1": {Profiles: map[string]*Held{"shop": h}}}, Alive: map[string]bool{"n1": true},
					}, nil
				}
				p := &Plan{Known: &Known{}, Steps: []*Step{{Profile: "shop", Next: Pointer{Version: Version{Seq: 2}}}}}
				got, err := p.await(t.Context(), known, nil, []string{"n1"}, wait, soak)
				if err != nil || len(got) != faults {
					t.Errorf("%s, bad after %s: %v %v, want %d faults", name, bad, got, err, faults)
				}
			})
		}
	}
}
