//go:build linux

// Command cost counts what a connection costs, inside an emulated machine
// whose clock counts instructions; nlb/integration/qemu/instructions boots it.
// A client, a balancer and a server are network namespaces on the machine's
// one processor, and one thread is both ends of every connection, so that it
// never waits and a nanosecond is an instruction.
package main

// The rounds, and the table.

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"

	"nlb/integration/netlab"
)

const (
	rounds      = 10 // and the first is dropped: it resolves addresses and fills caches
	connections = 300
	datagrams   = 2000
)

// counts are instructions for each exchange, by round.
type counts []float64

// middle is the median, and how far half of the rounds are from it at most, in
// parts of it: the others had the kernel's own work in them.
func (c counts) middle() (median, spread float64) {
	s := slices.Sorted(slices.Values(c))
	median = s[len(s)/2]
	for i := range s {
		s[i] = math.Abs(s[i] - median)
	}
	slices.Sort(s)
	return median, s[len(s)/2] / median
}

func main() {
	if err := run(); err != nil {
		fmt.Println("cost:", err)
		os.Exit(1)
	}
}

func run() error {
	debug.SetGCPercent(-1) // its instructions are not the kernel's
	runtime.GOMAXPROCS(1)
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	fmt.Println("| way | TCP connection | over direct | UDP round trip | over direct |")
	fmt.Println("| --- | --- | --- | --- | --- |")
	var direct [2]float64
	for i, w := range ways() {
		tcp, udp, err := measure(w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		t, ts := tcp.middle()
		u, us := udp.middle()
		if i == 0 {
			direct = [2]float64{t, u}
		}
		fmt.Printf("| %s | %.1fk (±%.1f %%) | %+.1fk | %.2fk (±%.1f %%) | %+.2fk |\n",
			w.name, t/1000, ts*100, (t-direct[0])/1000, u/1000, us*100, (u-direct[1])/1000)
	}
	return nil
}

// measure builds hosts, sets one way up, and counts.
func measure(w way) (tcp, udp counts, err error) {
	bed, err := netlab.NewBed()
	if err != nil {
		return nil, nil, err
	}
	defer bed.World.Close()
	if err := w.set(bed.Balancer); err != nil {
		return nil, nil, err
	}
	to := virtual
	if w.direct {
		to = server1
	}
	servers, err := listen(bed.Server)
	if err != nil {
		return nil, nil, err
	}
	defer servers.close()
	err = bed.Client.Do(func() error {
		for range rounds {
			t, err := perExchange(connections, func() error { return servers.connection(to) })
			if err != nil {
				return fmt.Errorf("tcp: %w", err)
			}
			tcp = append(tcp, t)
		}
		c, err := servers.dial(to)
		if err != nil {
			return err
		}
		defer c.close()
		for range rounds {
			u, err := perExchange(datagrams, c.roundTrip)
			if err != nil {
				return fmt.Errorf("udp: %w", err)
			}
			udp = append(udp, u)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return tcp[1:], udp[1:], nil
}
