//go:build linux

package main

// Batches: what nlb sends, watched and recorded on its way to the kernel, and
// sent again by a loop that does nothing else.

import (
	"context"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
	"nlb/nft/wire"
)

// roles are what this program does when it runs itself again.
var roles = map[string]func([]string) error{
	"stopwatch": stopwatch, "commit": commit, "replay": replay, "decode": decode,
}

// sent is what an apply had to do with the kernel.
type sent struct {
	// Netlink is the time from when it begins to write messages to the
	// kernel's answer.
	Netlink time.Duration
	// Kernel is the part of it in which the kernel worked on batches.
	Kernel time.Duration
	// Batches and Messages count what was sent.
	Batches, Messages int
}

// watch is a transport that measures batches, and keeps a copy where asked.
type watch struct {
	wire.Transport
	keep      bool
	recording [][]byte
	began     time.Time // of writing the first batch
	ended     time.Time
	kernel    time.Duration
}

// Reserve is asked first before a batch is written.
func (w *watch) Reserve(n int) (int, error) {
	if w.began.IsZero() {
		w.began = time.Now()
	}
	return w.Transport.Reserve(n)
}

func (w *watch) Send(b []byte) error {
	if !isBatch(b) {
		return w.Transport.Send(b)
	}
	if w.keep {
		w.recording = append(w.recording, append([]byte{}, b...))
	}
	began := time.Now()
	err := w.Transport.Send(b)
	w.kernel += time.Since(began)
	return err
}

// Receive ends a batch: the last answer is that to the question behind it.
func (w *watch) Receive(b []byte) (int, error) {
	n, err := w.Transport.Receive(b)
	w.ended = time.Now()
	return n, err
}

// isBatch tells a batch from a request by the type of its first message.
func isBatch(b []byte) bool {
	return len(b) >= unix.SizeofNlMsghdr && binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_MSG_BATCH_BEGIN
}

// commit is the role that applies a profile as nlb apply does, watched. With a
// second argument it writes there what it sent.
func commit(args []string) error {
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	p, err := config.Parse(args[0], text)
	if err != nil {
		return err
	}
	t, err := wire.Open()
	if err != nil {
		return err
	}
	w := &watch{Transport: t, keep: len(args) > 1}
	c := wire.NewConn(w)
	defer c.Close()
	result, err := nft.Apply(context.Background(), c, []*lb.Profile{p}, nft.Options{Table: "nlb", Digest: args[0]})
	if err != nil {
		return err
	}
	if w.keep {
		f, err := os.Create(args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		if err := gob.NewEncoder(f).Encode(w.recording); err != nil {
			return err
		}
	}
	return reply(sent{w.ended.Sub(w.began), w.kernel, result.Batches, result.Messages})
}

// replay is the role that sends a recording. A generation is part of a batch,
// and that of a fresh namespace is always the same.
func replay(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	var recording [][]byte
	if err := gob.NewDecoder(f).Decode(&recording); err != nil {
		return err
	}
	t, err := wire.Open()
	if err != nil {
		return err
	}
	c := wire.NewConn(t)
	defer c.Close()
	before, err := c.Generation()
	if err != nil {
		return err
	}
	for _, b := range recording {
		if limit, err := t.Reserve(len(b)); err != nil || limit < len(b) {
			return fmt.Errorf("no room for %d bytes: %d, %w", len(b), limit, err)
		}
	}
	began := time.Now()
	for _, b := range recording {
		if err := t.Send(b); err != nil {
			return err
		}
	}
	took := time.Since(began)
	after, err := c.Generation()
	if err != nil {
		return err
	}
	if after != before+uint32(len(recording)) {
		return fmt.Errorf("the kernel refused the recording: generation %d, was %d", after, before)
	}
	return reply(sent{Kernel: took, Netlink: took, Batches: len(recording)})
}
