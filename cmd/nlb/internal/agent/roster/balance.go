//go:build linux

package roster

// Balance: shares by live connections, for services with least-connections.

import (
	"cmp"
	"time"

	"nlb/lb"
	"nlb/lb/health"
	"nlb/nft"
)

// So many services get other shares at one look, and so many are looked at, so that
// changes of states need not wait long behind them. The others have their turn at the
// next look.
const mostBalanced, mostLooked = 100, 1000

// follows reports whether the shares of a service follow its connections.
func follows(s *lb.Service) bool { return s.Scheduler.Follows() && len(s.Backends) > 1 }

// Balances reports whether there is a service whose shares follow its connections.
func (r *Roster) Balances() bool { return len(r.pools) > 0 }

// Balance takes the figures of backends, and gives those of services with
// least-connections the shares that follow.
func (r *Roster) Balance(stats map[lb.BackendID]nft.Stats, now time.Time) {
	changed, looked := 0, min(len(r.pools), mostLooked)
	for ; looked > 0 && changed < mostBalanced; looked-- {
		r.turn = (r.turn + 1) % len(r.pools)
		s := r.pools[r.turn]
		profile := []*lb.Profile{{Name: s.profile, Services: []lb.Service{*s.Service}}}
		placed := lb.OverlayOf(profile, func(id lb.BackendID) (lb.Standing, uint8) { return s.backend(id.Address).standing(), 0 })[0].Services[0]
		four := r.balance(s.counted(&placed, lb.IPv4, stats), now)
		if six := r.balance(s.counted(&placed, lb.IPv6, stats), now); four || six {
			changed++
		}
	}
}

// counted is a backend with its figures.
type counted struct {
	*backend
	weight int // wanted; 0 where it gets no connections
	now    nft.Stats
}

// counted are the backends of a family of a service, as they are placed.
func (s *service) counted(placed *lb.Service, f lb.Family, stats map[lb.BackendID]nft.Stats) (out []*counted) {
	for i := range placed.Backends {
		if b := &placed.Backends[i]; lb.FamilyOf(b.Address.Addr) == f {
			is := s.backend(b.Address)
			out = append(out, &counted{is, b.Effective(), stats[is.id()]})
		}
	}
	return out
}

// balance gives backends that share connections their shares, and reports whether
// these are others than before. A difference of one part is not worth a batch,
// unless all have the whole again.
func (r *Roster) balance(backends []*counted, now time.Time) bool {
	var loads []health.Load
	var up []*backend
	known := false
	for _, b := range backends {
		load, was := health.Load{Live: b.now.Live}, b.stats
		if was != nil && was.Connections <= b.now.Connections {
			known = true
			load.New = int(b.now.Connections - was.Connections)
			load.Ended = max(0, was.Live+load.New-b.now.Live)
		}
		b.stats = &b.now
		if b.weight == 0 {
			b.balanced = 0 // it begins anew
			continue
		}
		load.Weight = b.weight * cmp.Or(int(b.allowed(now)), lb.Shares)
		loads, up = append(loads, load), append(up, b.backend)
	}
	if !known {
		return false
	}
	most, whole := 0, true
	shares := health.Balance(loads)
	for i, share := range shares {
		was := cmp.Or(int(up[i].balanced), lb.Shares)
		most, whole = max(most, int(share)-was, was-int(share)), whole && share == lb.Shares
	}
	if most == 0 || most == 1 && !whole {
		return false
	}
	for i, share := range shares {
		if up[i].balanced = share; share == lb.Shares {
			up[i].balanced = 0
		}
		r.change(up[i])
	}
	return true
}
