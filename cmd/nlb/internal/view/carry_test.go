//go:build linux

package view

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/lb/lbtest"
	"nlb/nft"
)

// counted is a snapshot of profiles in which each figure is another number.
func counted(profiles []*lb.Profile, live bool) *Snapshot {
	n := 0
	next := func() int { n++; return n % 5 } // zeros, too
	services := make([]Services, len(profiles))
	for i, p := range profiles {
		services[i].Profile = p.Name
		for k := range p.Services {
			services[i].Services = append(services[i].Services, &p.Services[k])
		}
	}
	return SnapshotOf("nlb", 7, services, Figures{
		Of: func(string, *lb.Service, *lb.Backend) nft.Stats {
			return nft.Stats{Connections: uint64(next()), Live: next(), Packets: uint64(next())}
		},
		Live:      live,
		Refused:   func(string, *lb.Service) uint64 { return uint64(next()) },
		Offloaded: func(*lb.Service) Offloaded { return Offloaded{By: "software", Note: strings.Repeat("x", next())} },
	})
}

// seenAs is a snapshot as people and programs see it.
func seenAs(t *testing.T, v *Snapshot) string {
	t.Helper()
	for i := range v.Profiles { // ages count from another moment
		for k := range v.Profiles[i].Services {
			for n := range v.Profiles[i].Services[k].Backends {
				v.Profiles[i].Services[k].Backends[n].at = time.Unix(0, 0)
			}
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := &Console{Out: &Stream{W: &out}, Width: 120}
	c.PrintSnapshot(v)
	return out.String() + string(b)
}

// TestCarry: a snapshot that was carried is what it was, whatever the profiles have, and
// equal ones are carried alike.
func TestCarry(t *testing.T) {
	for _, live := range []bool{true, false} {
		v := counted(append(lbtest.Full(), lbtest.Fleet(3)), live)
		b, err := v.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := v.MarshalBinary(); !bytes.Equal(b, again) {
			t.Error("it is carried otherwise the second time")
		}
		var got Snapshot
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if want, got := seenAs(t, v), seenAs(t, &got); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// FuzzCarry: whatever comes in place of a snapshot is refused, or can be shown.
func FuzzCarry(f *testing.F) {
	whole, err := counted([]*lb.Profile{lbtest.Fleet(2)}, true).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	for i := range whole {
		f.Add(whole[:i])
		changed := slices.Clone(whole)
		changed[i] ^= 0x41
		f.Add(changed)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		var v Snapshot
		if v.UnmarshalBinary(b) == nil {
			seenAs(t, &v)
		}
	})
}
