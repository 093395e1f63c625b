package integration

// Misread: a dump that lacks elements, as the kernel's does while it enlarges a
// hash table.

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"nlb/nft"
	"nlb/nft/wire"
)

// gappy is a transport that leaves out the elements of a map, so many times.
type gappy struct {
	wire.Transport
	set   string
	times int
}

func (l *gappy) Receive(b []byte) (int, error) {
	n, err := l.Transport.Receive(b)
	if err != nil || l.times == 0 {
		return n, err
	}
	var rest []byte
	for m := b[:n]; len(m) > 0; {
		size := int(binary.NativeEndian.Uint32(m))
		const attrs = unix.SizeofNlMsghdr + 4
		if binary.NativeEndian.Uint16(m[4:]) == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM &&
			wire.Text(wire.Attr(m[attrs:size], unix.NFTA_SET_ELEM_LIST_SET)) == l.set {
			l.times--
		} else {
			rest = append(rest, m[:size]...)
		}
		m = m[min((size+3)&^3, len(m)):]
	}
	if len(rest) == 0 {
		return l.Receive(b)
	}
	return copy(b, slices.Clip(rest)), nil
}

func TestMisread(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"inline-slots", "inline-endpoints4", "services4"} {
		for _, times := range []int{1, 1000} {
			b := newBed(t)
			b.Apply(shopBefore)
			before := b.generation()
			var l *gappy
			var err error
			b.Check(b.Balancer.Do(func() error {
				transport, e := wire.Open()
				if e != nil {
					return e
				}
				l = &gappy{Transport: transport, set: set, times: times}
				c := wire.NewConn(l)
				defer c.Close()
				_, err = nft.Apply(t.Context(), c, b.all([]string{shopAfter}), nft.Options{Table: "nlb"})
				return nil
			}))
			switch {
			case times == 1 && (err != nil || l.times != 0):
				t.Errorf("%s: %v; %d times to come", set, err, l.times)
			case times == 1:
				if wrong := b.differs([]string{shopAfter}); wrong != "" {
					t.Errorf("%s: %s", set, wrong)
				}
			case err == nil || b.generation() != before:
				t.Errorf("%s is never read: %v, generation %d, then %d", set, err, before, b.generation())
			}
		}
	}
}
