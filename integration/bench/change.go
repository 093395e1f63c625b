//go:build linux

package main

// Applying a profile where one is: nothing changed, and one backend changed.

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"nlb/integration/netlab"
	"nlb/nft/wire"
)

func (b *bench) changeRows() error {
	as, err := b.save("steady.yaml", fleet("fleet", 0, b.few, 3))
	if err != nil {
		return err
	}
	to, err := b.save("changed.yaml", changed("fleet", b.few, 3))
	if err != nil {
		return err
	}
	var first, again, reread, one usages
	var batches []sent
	for round := range b.rounds {
		err := b.fresh(func(h *netlab.Host) error {
			return errors.Join(
				b.step(h, &first, 1, b.nlb, "apply", as),
				b.step(h, &again, 0, b.nlb, "apply", as),
				b.step(h, &one, 1, b.nlb, "apply", to),
				b.step(h, nil, 1, "nft", "add", "table", "inet", "other"),
				b.step(h, &reread, 0, b.nlb, "apply", to),
				// Back, and once more, watched.
				func() error {
					var back, once sent
					err := errors.Join(b.role(h, &back, "commit", as), b.role(h, &once, "commit", to))
					batches = append(batches, once)
					return err
				}())
		})
		if err != nil {
			return err
		}
		b.progress("change, round %d: cold %v, again %v (%s), reread %v (%s), one changed %v (%s), its batch %d messages in %v", round+1,
			first[round].Wall, again[round].Wall, mebibytes(again[round].RSS), reread[round].Wall, mebibytes(reread[round].RSS),
			one[round].Wall, mebibytes(one[round].RSS), batches[round].Messages, batches[round].Kernel)
	}
	size := grouped(b.few) + " x 3"
	b.table.atMost(0.35, "", compare("apply again, unchanged, "+size+"; nothing sent: same generation", again.walls(), "cold apply", first.walls()))
	b.table.add(compare("the same after another program's commit, so that all is read back", reread.walls(), "cold apply", first.walls()))
	b.table.atMost(0.4, "", compare("apply with one backend changed, "+size, one.walls(), "cold apply", first.walls()))
	kernel := median(each(batches, func(s sent) time.Duration { return s.Kernel }))
	messages := median(each(batches, func(s sent) int { return s.Messages }))
	b.table.add(row{
		work:      "the batch of that change",
		figure:    fmt.Sprintf("%d messages, %s in the kernel", messages, short(kernel)),
		yardstick: "cold apply: " + short(first.wall()), ratio: float64(kernel) / float64(first.wall()),
		wanted: "below 20, at most 5 ms", met: messages < 20 && kernel <= 5*time.Millisecond,
	})
	return nil
}

// step measures a program in a host that is not fresh, and fails unless it made
// so many generations of the ruleset.
func (b *bench) step(h *netlab.Host, to *usages, generations uint32, program ...string) error {
	before, err := generation(h)
	if err != nil {
		return err
	}
	quiet()
	u, err := b.timed(h, program...)
	if err != nil {
		return err
	}
	if to != nil {
		*to = append(*to, u)
	}
	after, err := generation(h)
	if err == nil && after != before+generations {
		err = fmt.Errorf("%s: generation %d, was %d, want %d more", strings.Join(program, " "), after, before, generations)
	}
	return err
}

// generation is the number of a host's ruleset.
func generation(h *netlab.Host) (n uint32, err error) {
	err = h.Do(func() error {
		c, err := wire.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		n, err = c.Generation()
		return err
	})
	return n, err
}
