//go:build linux

package main

// Applying a profile where nothing is: beside nft -f of the same rules, and
// beside the kernel alone.

import (
	"fmt"
	"path/filepath"
	"time"

	"nlb/integration/netlab"
)

// cold is what it takes to apply a profile in a fresh namespace, and what it
// takes nft to load the same rules.
type cold struct {
	nlb, nft usages
	// netlink is the part of it that talks to the kernel, bare the kernel's own
	// time for the same bytes.
	netlink, bare []time.Duration
}

func (b *bench) applyRows() error {
	few, err := b.cold(b.few)
	if err != nil {
		return err
	}
	many, err := b.cold(b.many)
	if err != nil {
		return err
	}
	small, large := grouped(b.few)+" x 3", grouped(b.many)+" x 3"
	t := &b.table
	t.atMost(0.6, "", compare("cold apply, "+small, few.nlb.walls(), "nft -f", few.nft.walls()))
	t.atMost(1.3, "", compare("netlink part of it", few.netlink, "the kernel alone, same bytes", few.bare))
	t.atMost(7, fmt.Sprintf("the kernel alone needs %.2g times as long for them: it makes its hash tables larger while they are filled", float64(median(many.bare))/float64(median(few.bare))),
		compare("cold apply, "+large, many.nlb.walls(), "that of "+small, few.nlb.walls()))
	t.add(compare("the same", many.nlb.walls(), "nft -f", many.nft.walls()))
	t.atMost(1.3, "", compare("netlink part of it", many.netlink, "the kernel alone, same bytes", many.bare))
	t.add(row{
		work: "its memory", figure: mebibytes(many.nlb.rss()), yardstick: "nft -f: " + mebibytes(many.nft.rss()),
		ratio:  float64(many.nlb.rss()) / float64(many.nft.rss()),
		wanted: "at most 400 MiB", met: many.nlb.rss() <= 400<<20,
	})
	return nil
}

// cold measures both, one after the other in each round.
func (b *bench) cold(services int) (c cold, err error) {
	profile, err := b.save(fmt.Sprintf("fleet%d.yaml", services), fleet("fleet", 0, services, 3))
	if err != nil {
		return c, err
	}
	script, err := b.render(profile)
	if err != nil {
		return c, err
	}
	for round := range b.rounds {
		ours, err := b.alone(b.nlb, "apply", profile)
		if err != nil {
			return c, err
		}
		theirs, err := b.alone("nft", "-f", script)
		if err != nil {
			return c, err
		}
		b.progress("cold %d, round %d: nlb %v (%v processor, %s), nft %v (%v, %s)", services, round+1,
			ours.Wall, ours.CPU, mebibytes(ours.RSS), theirs.Wall, theirs.CPU, mebibytes(theirs.RSS))
		c.nlb, c.nft = append(c.nlb, ours), append(c.nft, theirs)
	}
	c.netlink, c.bare, err = b.netlink(profile)
	return c, err
}

// netlink measures the part of an apply that talks to the kernel, and the
// kernel's own time for the same bytes.
func (b *bench) netlink(profile string) (ours, bare []time.Duration, err error) {
	recording := filepath.Join(b.dir, "recording")
	err = b.fresh(func(h *netlab.Host) error { return b.role(h, &sent{}, "commit", profile, recording) })
	if err != nil {
		return nil, nil, err
	}
	for round := range b.rounds {
		var o, k sent
		if err := b.fresh(func(h *netlab.Host) error { return b.role(h, &o, "commit", profile) }); err != nil {
			return nil, nil, err
		}
		if err := b.fresh(func(h *netlab.Host) error { return b.role(h, &k, "replay", recording) }); err != nil {
			return nil, nil, err
		}
		if o.Batches != k.Batches {
			return nil, nil, fmt.Errorf("%d batches, and %d were recorded", o.Batches, k.Batches)
		}
		b.progress("netlink, round %d: %v (%v in the kernel, %d messages), bare %v", round+1, o.Netlink, o.Kernel, o.Messages, k.Kernel)
		ours, bare = append(ours, o.Netlink), append(bare, k.Kernel)
	}
	return ours, bare, nil
}
