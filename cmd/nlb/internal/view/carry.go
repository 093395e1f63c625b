//go:build linux

package view

// How a snapshot is carried from an agent to another process of the same program.

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"

	"nlb/lb"
	"nlb/nft"
)

// carried is a snapshot as values alone, the figures in the order in which fill asks
// for them.
type carried struct {
	Table      string
	Generation uint32
	Profiles   []Services
	Refused    []uint64
	Offloaded  []Offloaded
	Stats      []nft.Stats
	Live       bool
}

// MarshalBinary is the snapshot in bytes, the same for equal ones.
func (v *Snapshot) MarshalBinary() ([]byte, error) {
	c := carried{Table: v.Table, Generation: v.Generation, Profiles: make([]Services, len(v.Profiles))}
	for i := range v.Profiles {
		p := &v.Profiles[i]
		c.Profiles[i] = Services{p.Name, make([]*lb.Service, len(p.Services))}
		for k := range p.Services {
			s := &p.Services[k]
			c.Profiles[i].Services[k] = s.Service
			c.Refused = append(c.Refused, s.Refused)
			if s.Service.Offload != lb.OffloadNone {
				c.Offloaded = append(c.Offloaded, s.Offloaded)
			}
			for n := range s.Backends {
				b := &s.Backends[n]
				stats := nft.Stats{Connections: b.Connections}
				if b.Live != nil {
					c.Live, stats.Live = true, *b.Live
				}
				if b.Packets != nil {
					stats.Packets = *b.Packets
				}
				c.Stats = append(c.Stats, stats)
			}
		}
	}
	var out bytes.Buffer
	err := gob.NewEncoder(&out).Encode(c)
	return out.Bytes(), err
}

var errCarried = errors.New("a snapshot that is not whole")

// UnmarshalBinary reads what MarshalBinary of the same program made. Errors: those of
// gob, and of services that no profile could have.
func (v *Snapshot) UnmarshalBinary(b []byte) error {
	var c carried
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&c); err != nil {
		return err
	}
	services, wishes, backends := 0, 0, 0
	for _, p := range c.Profiles {
		for _, s := range p.Services {
			if err := checkCarried(s); err != nil {
				return fmt.Errorf("%s/%s: %w", p.Profile, s.Name, err)
			}
			if services, backends = services+1, backends+len(s.Backends); s.Offload != lb.OffloadNone {
				wishes++
			}
		}
	}
	if len(c.Refused) != services || len(c.Offloaded) != wishes || len(c.Stats) != backends {
		return errCarried
	}
	*v = *SnapshotOf(c.Table, c.Generation, c.Profiles, Figures{
		Of: func(string, *lb.Service, *lb.Backend) nft.Stats { return next(&c.Stats) }, Live: c.Live,
		Refused:   func(string, *lb.Service) uint64 { return next(&c.Refused) },
		Offloaded: func(*lb.Service) Offloaded { return next(&c.Offloaded) },
	})
	return nil
}

// checkCarried is what is wrong with a service that was carried. It leaves of what is known
// of its backends what the kernel would know.
func checkCarried(s *lb.Service) error {
	for i := range s.Backends {
		if is := &s.Backends[i].Standing; is.Verdict != lb.VerdictDown {
			*is = is.WithoutVerdict()
		}
	}
	whole := *s
	if s.Affinity != nil {
		a := *s.Affinity
		a.Bits, a.Bits6 = cmp.Or(a.Bits, 32), cmp.Or(a.Bits6, 128) // a family without backends has none
		whole.Affinity = &a
	}
	return whole.Validate()
}

// next takes the first of a list.
func next[T any](list *[]T) (first T) {
	first, *list = (*list)[0], (*list)[1:]
	return first
}
