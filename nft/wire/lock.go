package wire

// Taking turns. The number of the ruleset's generation keeps writers from
// overlooking each other; that they also wait for each other keeps them from
// working in vain. A netlink port is a lock: in a network namespace one socket
// has it, and it is free when its process ends, however it ends.

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy: somebody has not let go of the lock for long.
var ErrBusy = errors.New("another nlb has been at work for long")

const (
	// Ports from here on are above all process ids, which other programs use.
	lockPorts = 0x6e000000
	lockPause = 4 * time.Millisecond
)

// Lock waits until it is this process's turn to change what the name stands
// for, but no longer than the given time, and returns the end of the turn.
// Anybody may take the port, so a lock that cannot be had must not be the end.
func (c *Conn) Lock(ctx context.Context, name string, wait time.Duration) (unlock func(), err error) {
	h := fnv.New32a()
	h.Write([]byte(name))
	port := lockPorts | h.Sum32()&0xffffff
	for end := time.Now().Add(wait); ; {
		t, err := c.transport.Another(port, 0)
		if err == nil {
			// The kernel frees the port at once, but lets whoever closes a socket wait
			// for what the latest commit destroys (nft_rcv_nl_event).
			return func() { go t.Close() }, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, ErrBusy
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(rand.N(lockPause)):
		}
	}
}
