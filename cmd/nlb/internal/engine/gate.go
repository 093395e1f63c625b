//go:build linux

package engine

// The gate: no change begins before the caller has allowed it, nor after the
// caller's context has ended.

import (
	"context"

	"nlb/nft/wire"
)

// gate is what a batch has to pass. The zero gate is open.
type gate struct{ pass func() error }

// guard closes the gate until the first batch: that one passes if ctx has not
// ended and begin, which may be nil, returns nil. The function that guard returns
// opens the gate.
func (g *gate) guard(ctx context.Context, begin func() error) (open func()) {
	open = func() { g.pass = nil }
	g.pass = func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if begin != nil {
			if err := begin(); err != nil {
				return err
			}
		}
		open()
		return nil
	}
	return open
}

// passed passes the gate, where it is closed.
func (g *gate) passed() error {
	if g.pass == nil {
		return nil
	}
	return g.pass()
}

// gated is a transport behind a gate.
type gated struct {
	wire.Transport
	gate *gate
}

// Reserve makes room for a batch, which is the first step of a commit.
func (t gated) Reserve(n int) (int, error) {
	if err := t.gate.passed(); err != nil {
		return 0, err
	}
	return t.Transport.Reserve(n)
}

// Another opens a further socket behind the same gate.
func (t gated) Another(port, groups uint32) (wire.Transport, error) {
	other, err := t.Transport.Another(port, groups)
	if err != nil {
		return nil, err
	}
	return gated{other, t.gate}, nil
}
