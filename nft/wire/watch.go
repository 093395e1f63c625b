package wire

// Watching: what others change in the ruleset. The kernel reports every commit
// to a multicast group: each object with its table, and last the number of the
// generation (NFT_MSG_NEWGEN).

import (
	"errors"
	"maps"

	"golang.org/x/sys/unix"
)

// AnyGeneration makes a batch that is committed whatever the ruleset's
// generation is.
const AnyGeneration = 0

// nftablesGroup is NFNLGRP_NFTABLES as a mask (linux/netfilter/nfnetlink.h).
const nftablesGroup = 1 << (7 - 1)

// Watch listens to the changes of one table.
type Watch struct {
	transport  Transport
	table      string
	family     uint8
	buf        []byte
	own        map[uint32]bool // ports whose changes are ours; false: until all is heard that they did
	generation uint32          // of the last commit that was heard of
	touched    bool
}

// Watch begins to watch a table. What this conversation changes itself does
// not count.
func (c *Conn) Watch(family uint8, table string) (*Watch, error) {
	t, err := c.transport.Another(0, nftablesGroup)
	if err != nil {
		return nil, err
	}
	w := &Watch{transport: t, table: table, family: family, buf: make([]byte, receiveSize), own: map[uint32]bool{}}
	// From now on all is heard, what is under way included.
	w.generation, err = c.Generation()
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.transport.Close() }

// Trust makes what another conversation changes not count, either.
func (w *Watch) Trust(c *Conn) { w.own[c.transport.Port()] = true }

// Forget makes a conversation that has ended count again, once it is heard what it
// changed: another program may get its port.
func (w *Watch) Forget(c *Conn) { w.own[c.transport.Port()] = false }

// Generation is that of the last commit that was heard of.
func (w *Watch) Generation() uint32 { return w.generation }

// Touched hears everything up to the present generation, and reports whether
// anybody else has changed the table since the last call.
func (w *Watch) Touched(c *Conn) (generation uint32, touched bool, err error) {
	w.own[c.transport.Port()] = true
	if generation, err = c.Generation(); err != nil {
		return 0, true, err
	}
	// Generations are compared as sequence numbers are: they wrap around.
	for int32(generation-w.generation) > 0 {
		n, err := w.transport.Receive(w.buf)
		if err == nil {
			err = w.hear(w.buf[:n])
		}
		if err != nil {
			// Something was missed. What comes from here on is whole again.
			w.touched, w.generation = true, generation
		}
	}
	maps.DeleteFunc(w.own, func(_ uint32, stays bool) bool { return !stays })
	touched, w.touched = w.touched, false
	return w.generation, touched, nil
}

// hear takes a datagram of reports.
func (w *Watch) hear(b []byte) error {
	for m, err := range messages(b) {
		_, own := w.own[m.port]
		switch {
		case err != nil:
			return err
		case len(m.body) < nfHeader || m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES:
			return errMalformed
		case m.typ&0xff == unix.NFT_MSG_NEWGEN:
			w.generation = Uint32(Attr(m.body[nfHeader:], unix.NFTA_GEN_ID))
		case own || m.body[0] != w.family:
		default:
			// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, ... are all 1.
			w.touched = w.touched || Text(Attr(m.body[nfHeader:], 1)) == w.table
		}
	}
	return nil
}
