package conntrack

// Statistics: what connection tracking counts by itself.

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Stats are conntrack's counters since the network namespace came
// (nf_conntrack_common.h, struct ip_conntrack_stat), summed up over all CPUs.
type Stats struct {
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
	msgStats = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4 // IPCTNL_MSG_CT_GET_STATS_CPU
	msgCount = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5 // IPCTNL_MSG_CT_GET_STATS

	attrEntries      = 1 // CTA_STATS_GLOBAL_ENTRIES
	attrInsertFailed = 9
	attrDrop         = 10
	attrEarlyDrop    = 11
)

// ReadStats asks the kernel for its counters.
func ReadStats(c *wire.Conn) (Stats, error) {
	var s Stats
	err := c.Dump(msgStats, unix.AF_UNSPEC, nil, func(b []byte) error {
		for typ, sum := range map[uint16]*uint64{attrInsertFailed: &s.InsertFailed, attrDrop: &s.Drop, attrEarlyDrop: &s.EarlyDrop} {
			*sum += uint64(wire.Uint32(wire.Attr(b, typ)))
		}
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("read the statistics of conntrack: %w", err)
	}
	return s, nil
}

// Count asks the kernel how many connections this network namespace has, those
// included that are not entered yet, or are just being freed.
func Count(c *wire.Conn) (uint32, error) {
	b, err := c.Request(msgCount, unix.AF_UNSPEC, nil)
	entries := wire.Attr(b, attrEntries)
	if err == nil && len(entries) < 4 {
		err = errors.New("the kernel does not say")
	}
	if err != nil {
		return 0, fmt.Errorf("count the connections of conntrack: %w", err)
	}
	return wire.Uint32(entries), nil
}
