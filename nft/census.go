package nft

// Census: what conntrack holds for our backends, in more detail than their
// live connections, and conntrack's own statistics.

import (
	"fmt"
	"maps"
	"slices"

	"nlb/nft/ruleset"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

// Use is what conntrack holds for a backend.
type Use struct {
	// Entries counts by protocol, those of connections that are over included:
	// each of them holds its port.
	Entries map[lb.Protocol]int
	// Live counts connections that are not over.
	Live map[lb.Protocol]int
	// Unanswered counts live TCP and SCTP connections that the backend has not
	// answered.
	Unanswered int
}

// Census is what conntrack holds for all marks of ours.
type Census map[uint32]*Use

// TakeCensus reads conntrack, filtered by the kernel.
func TakeCensus(c *wire.Conn) (Census, error) {
	out := Census{}
	err := tracked(c, func(f flow) {
		n := f.mark & indexMask
		u := out[n]
		if u == nil {
			u = &Use{Entries: map[lb.Protocol]int{}, Live: map[lb.Protocol]int{}}
			out[n] = u
		}
		u.Entries[f.protocol]++
		if f.over {
			return
		}
		u.Live[f.protocol]++
		if !f.answered && f.protocol != lb.UDP {
			u.Unanswered++
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read conntrack: %w", err)
	}
	return out, nil
}

// Use returns what conntrack holds for a backend of the state.
func (s *State) Use(census Census, profile, service string, address lb.Endpoint) Use {
	b, ok := s.backends[backendKey{chainOf(profile, service), address}]
	if u := census[b.mark&indexMask]; ok && u != nil {
		return *u
	}
	return Use{}
}

// Gone sums up what is live for backends that none of the states has. Each
// table of nlb in a namespace has its own.
func Gone(census Census, states ...*State) Use {
	alive := map[uint32]bool{}
	for _, s := range states {
		for _, b := range s.backends {
			alive[b.mark&indexMask] = true
		}
	}
	out := Use{Entries: map[lb.Protocol]int{}, Live: map[lb.Protocol]int{}}
	for n, u := range census {
		if alive[n] {
			continue
		}
		for p, count := range u.Entries {
			out.Entries[p] += count
		}
		for p, count := range u.Live {
			out.Live[p] += count
		}
		out.Unanswered += u.Unanswered
	}
	return out
}

// Tables are the names of the tables of family inet that nlb made.
func Tables(c *wire.Conn) ([]string, error) {
	var out []string
	err := c.Dump(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment) == tableComment {
			out = append(out, wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)))
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// TrackStats are conntrack's counters since the network namespace came
// (nf_conntrack_common.h, struct ip_conntrack_stat), summed up over all CPUs.
type TrackStats struct {
	// InsertFailed counts connections that could not be entered, since their
	// addresses and ports were taken.
	InsertFailed uint64
	// Drop counts packets that were dropped since their connection could not
	// be entered.
	Drop uint64
	// EarlyDrop counts connections that were forgotten to make room.
	EarlyDrop uint64
}

const (
	ctStatsCPU = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4 // IPCTNL_MSG_CT_GET_STATS_CPU

	ctaStatsInsertFailed = 9
	ctaStatsDrop         = 10
	ctaStatsEarlyDrop    = 11
)

// ReadTrackStats asks ctnetlink for its counters.
func ReadTrackStats(c *wire.Conn) (TrackStats, error) {
	var s TrackStats
	err := c.Dump(ctStatsCPU, unix.AF_UNSPEC, nil, func(b []byte) error {
		for typ, sum := range maps.All(map[uint16]*uint64{
			ctaStatsInsertFailed: &s.InsertFailed, ctaStatsDrop: &s.Drop, ctaStatsEarlyDrop: &s.EarlyDrop,
		}) {
			*sum += uint64(wire.Uint32(wire.Attr(b, typ)))
		}
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("read the statistics of conntrack: %w", err)
	}
	return s, nil
}
