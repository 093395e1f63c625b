//go:build linux

package main

// Reading: what the kernel holds, and what a file holds.

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v4"
)

func (b *bench) readRows() error {
	if err := b.checkRow(); err != nil {
		return err
	}
	return b.showRow()
}

// checkRow measures nlb check beside a program that only decodes the same
// YAML.
func (b *bench) checkRow() error {
	profile, err := b.save("check.yaml", fleet("fleet", 0, b.few, 3))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var ours, theirs usages
	for round := range b.rounds {
		u, err := b.alone(b.nlb, "check", profile)
		if err != nil {
			return err
		}
		y, err := b.alone(self, "decode", profile)
		if err != nil {
			return err
		}
		b.progress("check, round %d: nlb %v (%s), yaml.v4 alone %v (%s)", round+1, u.Wall, mebibytes(u.RSS), y.Wall, mebibytes(y.RSS))
		ours, theirs = append(ours, u), append(theirs, y)
	}
	b.table.add(row{
		work: "nlb check, " + grouped(b.few) + " x 3", figure: short(ours.wall()),
		yardstick: "yaml.v4 decoding the file: " + short(theirs.wall()), ratio: float64(ours.wall()) / float64(theirs.wall()),
		wanted: "at most 0.25 s", met: ours.wall() <= 250*time.Millisecond,
	})
	return nil
}

// decode is the role that decodes YAML and does nothing with it.
func decode(args []string) error {
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var any any
	return yaml.Unmarshal(text, &any)
}

// showRow measures nlb show with many live connections, beside the programs
// that list the rules and the connections.
func (b *bench) showRow() error {
	p, err := newPath()
	if err != nil {
		return err
	}
	defer p.close()
	profile := filepath.Join(b.dir, "check.yaml")
	if _, err := b.output(p.Balancer, b.nlb, "apply", profile); err != nil {
		return err
	}
	if err := p.Balancer.SetSysctl("net.netfilter.nf_conntrack_udp_timeout", "3600"); err != nil {
		return err
	}
	live := 10 * b.few
	if _, err := p.send(p.train(live, toServices(b.few))); err != nil {
		return err
	}
	if n, err := p.tracked(); err != nil || n < live {
		return fmt.Errorf("%d of %d connections are tracked; %w", n, live, err)
	}
	var ours, rules, flows usages
	for round := range b.rounds {
		for _, m := range []struct {
			to      *usages
			program []string
		}{
			{&ours, []string{b.nlb, "show", "--json"}},
			{&rules, []string{"nft", "-j", "list", "table", "inet", "nlb"}},
			{&flows, []string{"conntrack", "-L"}},
		} {
			quiet()
			u, err := b.timed(p.Balancer, m.program...)
			if err != nil {
				return err
			}
			*m.to = append(*m.to, u)
		}
		b.progress("show, round %d: nlb %v (%s), nft list %v (%s), conntrack -L %v", round+1, ours[round].Wall, mebibytes(ours[round].RSS),
			rules[round].Wall, mebibytes(rules[round].RSS), flows[round].Wall)
	}
	yardstick := rules.wall() + flows.wall()
	work := fmt.Sprintf("nlb show --json, %s x 3 with %s live connections", grouped(b.few), grouped(live))
	b.table.add(row{
		work: work, figure: short(ours.wall()), yardstick: "nft -j list, then conntrack -L: " + short(yardstick),
		ratio:  float64(ours.wall()) / float64(yardstick),
		wanted: "at most 2 s", met: ours.wall() <= 2*time.Second,
	})
	b.table.add(row{
		work: "its memory", figure: mebibytes(ours.rss()), yardstick: "nft -j list: " + mebibytes(rules.rss()),
		ratio: float64(ours.rss()) / float64(rules.rss()), wanted: "at most 400 MiB", met: ours.rss() <= 400<<20,
	})
	return nil
}
