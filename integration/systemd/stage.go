//go:build linux

package main

// The stage: client, servers, their cables, and what goes over them.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"nlb/integration/demand"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
)

const (
	// profile is in the folder that the unit names.
	profile = "/etc/nlb/shop.yaml"
	// hidden is another name of the same file. What is written by it causes no event
	// in that folder, so that only a reload can bring it to the agent.
	hidden = "/etc/nlb-lab.yaml"
)

var service = netip.MustParseAddrPort("192.168.60.10:80")

// stage is what the phases play on. Each goes on from where the one before it left it.
type stage struct {
	world           *netlab.World
	client, servers *netlab.Host
	running         map[string]*traffic.Server
	// held is a connection of the client's that is open from the first phase to the
	// last one.
	held *traffic.Conn
	// found are the kernel's parameters as they were before nlb.
	found string
}

// shop is the profile; the weight is that of backend a.
func shop(weight int) string {
	text := fmt.Sprintf("profile: shop\nservices:\n  - name: web\n    listen: %s\n    protocol: [tcp, udp]\n"+
		"    health: {check: tcp, interval: 1s}\n    backends:\n", service)
	for i, name := range []string{"a", "b", "c"} {
		text += fmt.Sprintf("      - {name: %s, address: \"%s\", weight: %d}\n", name, backend(name), weight)
		if i == 0 {
			weight = 1
		}
	}
	return text
}

// backend is where a server listens: a, b or c.
func backend(name string) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("192.168.57.%d:8080", 11+name[0]-'a'))
}

// build makes client and servers, and starts these.
func build() *stage {
	s := &stage{running: map[string]*traffic.Server{}}
	s.world = demand.Of(netlab.New())
	s.client = demand.Of(s.world.Host("client"))
	s.servers = demand.Of(s.world.Host("servers"))
	join(s.client, "front", "192.168.56.2/24", "192.168.56.10/24")
	join(s.servers, "back", "192.168.57.2/24", "192.168.57.11/24", "192.168.57.12/24", "192.168.57.13/24")
	for _, name := range []string{"a", "b", "c"} {
		s.serve(name)
	}
	return s
}

// join is a cable between this machine and a host, with their addresses on it. The
// machine is the host's default route.
func join(h *netlab.Host, link, here string, there ...string) {
	ns := demand.Of(os.Open(h.Path()))
	defer ns.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd())}
	demand.In("link "+link, func() {
		demand.OK(netlink.LinkAdd(cable))
		demand.OK(netlink.AddrAdd(cable, demand.Of(netlink.ParseAddr(here))))
		demand.OK(netlink.LinkSetUp(cable))
	})
	demand.OK(h.Do(func() error {
		end, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(end)
	}))
	for _, prefix := range there {
		demand.OK(h.AddAddress("eth0", netip.MustParsePrefix(prefix)))
	}
	demand.OK(h.DefaultVia(netip.MustParsePrefix(here).Addr()))
}

// serve starts a server.
func (s *stage) serve(name string) {
	at := backend(name)
	s.running[name] = demand.Of(traffic.Serve(s.servers, name, traffic.Port{Network: "tcp", At: at}, traffic.Port{Network: "udp", At: at}))
}

// write writes the profile, which the agent sees.
func (s *stage) write(text string) {
	demand.OK(os.MkdirAll(filepath.Dir(profile), 0o755))
	demand.OK(os.WriteFile(profile, []byte(text), 0o644))
	if err := os.Link(profile, hidden); !errors.Is(err, os.ErrExist) {
		demand.OK(err)
	}
}

// hide writes the profile so that the agent does not see it.
func (s *stage) hide(text string) { demand.OK(os.WriteFile(hidden, []byte(text), 0o644)) }

// from opens connections from the client. An emulated machine whose processor
// others want as well is slow.
func (s *stage) from() traffic.Client {
	return traffic.Client{Host: s.client, Timeout: 15 * time.Second, Reset: true}
}

// exchange asks the service once.
func (s *stage) exchange(network string) (traffic.Reply, error) {
	return s.from().Exchange(context.Background(), network, service)
}

// hold opens the connection that stays, to backend a, which lives all the while.
func (s *stage) hold() {
	for s.held == nil {
		c := demand.Of(s.from().Dial(context.Background(), "tcp", service))
		if c.Reply.Backend == "a" {
			s.held = c
		} else {
			c.Close()
		}
	}
}

// shares demands that so many exchanges are answered by these servers.
func (s *stage) shares(want map[string]int) {
	n := 0
	for _, w := range want {
		n += w
	}
	for _, network := range []string{"tcp", "udp"} {
		got := map[string]int{}
		for range n {
			reply, err := s.exchange(network)
			if err != nil {
				reply.Backend = traffic.Way(err)
			}
			got[reply.Backend]++
		}
		if !maps.Equal(got, want) {
			demand.Fail("answers by %s of %v, want %v", network, got, want)
		}
	}
}

// still demands that the connection that has been open all the while goes on.
func (s *stage) still() {
	if _, err := s.held.Again(); err != nil {
		demand.Fail("the connection that was open: %w", err)
	}
}

// during plays f while new connections come, none of which may fail, and the old one
// goes on. It says how many there were.
func (s *stage) during(f func()) (n int) {
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() {
		err := demand.Try(func() {
			for ; ctx.Err() == nil; n++ {
				demand.Of(s.exchange("tcp"))
				s.still()
				time.Sleep(10 * time.Millisecond)
			}
		})
		if err != nil {
			err = fmt.Errorf("after %d connections: %w", n, err)
		}
		over <- err
	}()
	err := demand.Try(f)
	stop()
	demand.OK(errors.Join(err, <-over)) // n is whole now
	return n
}

// patience is how long something may take to become so: an emulated machine, whose
// processor others want as well.
const patience = time.Minute

// soon plays f again and again, until all that it demands is so.
func soon(f func()) {
	for limit := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		switch err := demand.Try(f); {
		case err == nil:
			return
		case time.Now().After(limit):
			demand.OK(err)
		}
	}
}
