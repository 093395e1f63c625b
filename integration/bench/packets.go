//go:build linux

package main

// The packet's way: what a connection and a packet cost, on several paths that
// take turns.

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	// newFlows is one round of new connections, liveFlows of packets of live
	// ones, each `again` times.
	newFlows  = 20_000
	liveFlows = 1_000
	again     = 20
	// packetRounds is how many rounds there are for each of the others'.
	packetRounds = 12
	// warmUp rounds are not counted: they touch everything for the first time.
	warmUp = 2
)

// contender is a train on a path that takes part in turns.
type contender struct {
	name  string
	path  *path
	train *train
	live  bool // its flows are established, and stay
	took  []time.Duration
	lost  int
}

// perPacket is the median time that one packet needs.
func (c *contender) perPacket() time.Duration { return median(c.took) }

// compete lets contenders take turns.
func (b *bench) compete(contenders []*contender) error {
	for _, c := range contenders {
		if c.live {
			once := &train{headers: c.train.headers[:liveFlows]}
			if err := c.path.answered(once); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	undo, err := pin()
	if err != nil {
		return err
	}
	defer undo()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for round := range warmUp + packetRounds*b.rounds {
		runtime.GC()
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			if !c.live {
				if err := c.path.forget(); err != nil {
					return err
				}
			}
			time.Sleep(5 * time.Millisecond)
			t, err := c.path.send(c.train)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= warmUp {
				c.took = append(c.took, t.took/time.Duration(len(c.train.headers)))
				c.lost += t.lost
			}
		}
	}
	for _, c := range contenders {
		b.progress("%s: %v a packet (%v..%v), %d of %d lost", c.name, c.perPacket(),
			slices.Min(c.took), slices.Max(c.took), c.lost, len(c.took)*len(c.train.headers))
	}
	return nil
}

func (b *bench) packetRows() error {
	paths := map[string]*path{}
	defer func() {
		for _, p := range paths {
			p.close()
		}
	}()
	for _, name := range []string{"one", "hundred", "many", "folder", "hand", "map", "cascade", "chains", "forward", "control", "empty"} {
		p, err := newPath()
		if err != nil {
			return err
		}
		paths[name] = p
		if err := b.rules(p, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := b.newRows(paths); err != nil {
		return err
	}
	return b.liveRows(paths)
}

// iptablesServices is how many services the iptables ruleset has.
const iptablesServices = 100

// rules gives the balancer of a path what it is named after.
func (b *bench) rules(p *path, name string) error {
	apply := func(file string, services int) error {
		file, err := b.save(file, fleet("fleet", 0, services, 3))
		if err == nil {
			_, err = b.output(p.Balancer, b.nlb, "apply", file)
		}
		return err
	}
	load := func(script string, program ...string) error {
		c := p.Balancer.Command(b.ctx, program[0], program[1:]...)
		c.Stdin = strings.NewReader(script)
		out, err := c.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", program[0], err, out)
		}
		return nil
	}
	switch name {
	case "one":
		return apply("one.yaml", 1)
	case "hundred":
		return apply("hundred.yaml", iptablesServices)
	case "many":
		return apply("many.yaml", b.few)
	case "folder":
		dir, err := b.folder(b.few / 10)
		if err == nil {
			_, err = b.output(p.Balancer, b.nlb, "apply", dir)
		}
		return err
	case "hand":
		return load(fmt.Sprintf(`table ip hand {
	chain in { type nat hook prerouting priority dstnat; ip daddr %s udp dport %d dnat to %s:%d; }
	chain out { type nat hook postrouting priority srcnat; masquerade; }
}`, firstVIP, listenPort, firstBackend, backendPort), "nft", "-f", "-")
	case "map":
		return load(handMap(b.few), "nft", "-f", "-")
	case "cascade":
		return load(cascade(iptablesServices), "iptables-legacy-restore")
	case "chains":
		return load(chains(iptablesServices), "iptables-legacy-restore")
	}
	// A chain that no forwarded packet meets turns conntrack on.
	script := "table inet track { chain in { type filter hook input priority 0; ct state established accept; }; }\n"
	if name == "empty" {
		script += "table inet empty { chain in { type nat hook prerouting priority dstnat; }; chain out { type nat hook postrouting priority srcnat; }; }\n"
	}
	return load(script, "nft", "-f", "-")
}

// folder makes profiles of one service each, and returns their folder.
func (b *bench) folder(profiles int) (string, error) {
	dir := fmt.Sprintf("folder%d", profiles)
	if err := os.MkdirAll(filepath.Join(b.dir, dir), 0o700); err != nil {
		return "", err
	}
	for i := range profiles {
		name := fmt.Sprintf("p%04d", i)
		if _, err := b.save(filepath.Join(dir, name+".yaml"), fleet(name, i, 1, 3)); err != nil {
			return "", err
		}
	}
	return filepath.Join(b.dir, dir), nil
}

// toService sends all flows to one service, toServices to n in turn.
func toService(i int) func(int) netip.AddrPort {
	to := netip.AddrPortFrom(after(firstVIP, i), listenPort)
	return func(int) netip.AddrPort { return to }
}

func toServices(n int) func(int) netip.AddrPort {
	return func(i int) netip.AddrPort { return netip.AddrPortFrom(after(firstVIP, i%n), listenPort) }
}

// toBackend passes by all services.
func toBackend(int) netip.AddrPort { return netip.AddrPortFrom(firstBackend, backendPort) }

func (b *bench) newRows(paths map[string]*path) error {
	var all []*contender
	add := func(path, name string, to func(int) netip.AddrPort) *contender {
		p := paths[path]
		c := &contender{name: name, path: p, train: p.train(newFlows, to)}
		all = append(all, c)
		return c
	}
	const opening = "new connection, "
	profiles := b.few / 10
	some, most := grouped(iptablesServices)+" services in turn", grouped(b.few)+" services in turn"
	one := add("one", opening+"1 service", toService(0))
	hot := add("many", opening+"one of "+grouped(b.few)+" services", toService(b.few/2))
	spread := add("many", opening+most, toServices(b.few))
	hundred := add("hundred", opening+some, toServices(iptablesServices))
	folder := add("folder", opening+"one of "+grouped(profiles)+" profiles", toService(profiles/2))
	hand := add("hand", "one hand-written DNAT rule", toService(0))
	byHand := add("map", "a hand-written map, "+most, toServices(b.few))
	flat := add("cascade", "iptables, a rule for each backend, "+some, toServices(iptablesServices))
	nested := add("chains", "iptables, a chain for each service, "+some, toServices(iptablesServices))
	forward := add("forward", "forwarded, no NAT", toBackend)
	generator := add("forward", "the generator and its cable alone", toBackend)
	generator.train.misdirect()
	if err := b.compete(all); err != nil {
		return err
	}
	t := &b.table
	t.atMost(1.1, "", beside(hot, one, "1 service"))
	t.atMost(1.1, fmt.Sprintf("it is the same number of rules and lookups, but each service has its own element, chain, counter, slots and "+
		"backends, about ten cache lines, and those of so many do not stay in the processor's cache; a map written by hand has two "+
		"for each, and takes %s", short(byHand.perPacket())), beside(spread, one, "1 service"))
	t.add(beside(spread, byHand, byHand.name))
	t.atMost(1.1, "", beside(folder, one, "1 service"))
	t.atMost(1.15, "", beside(one, hand, hand.name))
	t.atMost(1, "", beside(hundred, flat, flat.name))
	t.add(beside(hundred, nested, nested.name))
	t.add(beside(one, forward, forward.name))
	t.add(beside(generator, one, "part of all these, as of "+one.name))
	return nil
}

func (b *bench) liveRows(paths map[string]*path) error {
	var all []*contender
	add := func(path, name string, to func(int) netip.AddrPort) *contender {
		p := paths[path]
		c := &contender{name: name, path: p, live: true, train: p.train(liveFlows, to)}
		c.train.headers = slices.Repeat(c.train.headers, again)
		all = append(all, c)
		return c
	}
	const live = "packet of a live connection, "
	services := grouped(b.few) + " services"
	forward := add("forward", "forwarded, no NAT", toBackend)
	passing := add("many", live+"forwarded where nlb has "+services, toBackend)
	one := add("many", live+"one of nlb's "+services, toService(b.few/2))
	hand := add("hand", "the hand-written DNAT rule's", toService(0))
	empty := add("empty", "forwarded where NAT chains without a rule are", toBackend)
	control := add("control", live+"forwarded by one of two equal machines", toBackend)
	if err := b.compete(all); err != nil {
		return err
	}
	t := &b.table
	t.atMost(1.03, fmt.Sprintf("the kernel rewrites addresses and checksums of every translated packet, whoever had it translated: "+
		"that of the hand-written rule takes %s", short(hand.perPacket())), beside(one, forward, forward.name))
	t.atMost(1.03, "", beside(one, hand, hand.name))
	t.atMost(1.03, fmt.Sprintf("where there is any NAT at all, the kernel asks for each packet whether its connection is translated: "+
		"where two chains without a rule are, it takes %s", short(empty.perPacket())), beside(passing, forward, "forwarded where there is no NAT"))
	t.atMost(1.03, "", beside(passing, empty, empty.name))
	t.add(beside(control, forward, "the other"))
	return nil
}

// beside is a row of two contenders.
func beside(figure, yardstick *contender, name string) row {
	return compare(figure.name, figure.took, name, yardstick.took)
}
