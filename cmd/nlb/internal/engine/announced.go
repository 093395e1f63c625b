//go:build linux

package engine

// Announced: the addresses that an agent has made for profiles go with these.

import (
	"net/netip"
	"slices"

	"nlb/cmd/nlb/internal/engine/vip"
	"nlb/lb"
)

// Announcing is the table whose agent announces addresses. An address does not say
// which of several agents has made it.
const Announcing = "nlb"

// Announced are the addresses that an agent of a table has made, each with its device;
// none where they cannot be read.
func Announced(table string) (out []string) {
	if table != Announcing {
		return nil
	}
	all, _ := vip.List()
	for _, a := range all {
		if a.Ours {
			out = append(out, a.String())
		}
	}
	return out
}

// withdraw takes away what was announced, before these profiles go; none: all do.
func (e *Engine) withdraw(names []string) ([]vip.Address, error) {
	if e.table != Announcing {
		return nil, nil
	}
	have, err := vip.List()
	if err != nil {
		return nil, err
	}
	goes := func(netip.Addr) bool { return true }
	if len(names) > 0 {
		state, err := e.State()
		if err != nil {
			return nil, err
		}
		gone, stays := flushed(state, names).Removed, map[netip.Addr]bool{}
		for p, s := range lb.Services(state.Profiles) {
			for _, l := range s.Listen {
				stays[l.Prefix.Addr()] = stays[l.Prefix.Addr()] || !slices.Contains(gone, p.Name)
			}
		}
		goes = func(a netip.Addr) bool { there, known := stays[a]; return known && !there }
	}
	var want []vip.VIP
	for _, a := range have {
		switch {
		case !a.Ours:
		case !goes(a.Addr):
			want = append(want, vip.VIP{Addr: a.Addr, Device: a.Device})
		default:
			if err := e.gate.passed(); err != nil {
				return nil, err
			}
		}
	}
	if len(want) == 0 {
		result, err := vip.Clear()
		return result.Removed, err
	}
	result, err := vip.Set(want)
	return result.Removed, err
}
