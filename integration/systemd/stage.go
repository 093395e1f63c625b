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
func build() (*stage, error) {
	s := &stage{running: map[string]*traffic.Server{}}
	var err error
	if s.world, err = netlab.New(); err != nil {
		return nil, err
	}
	if s.client, err = s.world.Host("client"); err != nil {
		return nil, err
	}
	if s.servers, err = s.world.Host("servers"); err != nil {
		return nil, err
	}
	err = errors.Join(
		join(s.client, "front", "192.168.56.2/24", "192.168.56.10/24"),
		join(s.servers, "back", "192.168.57.2/24", "192.168.57.11/24", "192.168.57.12/24", "192.168.57.13/24"))
	for _, name := range []string{"a", "b", "c"} {
		err = errors.Join(err, s.serve(name))
	}
	return s, err
}

// join is a cable between this machine and a host, with their addresses on it. The
// machine is the host's default route.
func join(h *netlab.Host, link, here string, there ...string) error {
	ns, err := os.Open(h.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	address, err := netlink.ParseAddr(here)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(cable, address), netlink.LinkSetUp(cable)); err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	err = h.Do(func() error {
		end, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(end)
	})
	for _, prefix := range there {
		err = errors.Join(err, h.AddAddress("eth0", netip.MustParsePrefix(prefix)))
	}
	return errors.Join(err, h.DefaultVia(netip.MustParsePrefix(here).Addr()))
}

// serve starts a server.
func (s *stage) serve(name string) error {
	server, err := traffic.Serve(s.servers, name, traffic.Port{Network: "tcp", At: backend(name)}, traffic.Port{Network: "udp", At: backend(name)})
	s.running[name] = server
	return err
}

// write writes the profile, which the agent sees.
func (s *stage) write(text string) error {
	err := os.MkdirAll(filepath.Dir(profile), 0o755)
	if err == nil {
		err = os.WriteFile(profile, []byte(text), 0o644)
	}
	if err == nil {
		if err = os.Link(profile, hidden); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	return err
}

// hide writes the profile so that the agent does not see it.
func (s *stage) hide(text string) error { return os.WriteFile(hidden, []byte(text), 0o644) }

// from opens connections from the client. An emulated machine whose processor
// others want as well is slow.
func (s *stage) from() traffic.Client {
	return traffic.Client{Host: s.client, Timeout: 15 * time.Second, Reset: true}
}

// hold opens the connection that stays, to backend a, which lives all the while.
func (s *stage) hold(ctx context.Context) error {
	for s.held == nil {
		c, err := s.from().Dial(ctx, "tcp", service)
		if err != nil {
			return err
		}
		if c.Reply.Backend == "a" {
			s.held = c
		} else {
			c.Close()
		}
	}
	return nil
}

// shares demands that so many exchanges are answered by these servers.
func (s *stage) shares(ctx context.Context, want map[string]int) error {
	n := 0
	for _, w := range want {
		n += w
	}
	for _, network := range []string{"tcp", "udp"} {
		got := map[string]int{}
		for range n {
			reply, err := s.from().Exchange(ctx, network, service)
			if err != nil {
				reply.Backend = traffic.Way(err)
			}
			got[reply.Backend]++
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("answers by %s of %v, want %v", network, got, want)
		}
	}
	return nil
}

// still demands that the connection that has been open all the while goes on.
func (s *stage) still() error {
	if _, err := s.held.Again(); err != nil {
		return fmt.Errorf("the connection that was open: %w", err)
	}
	return nil
}

// during plays f while new connections come, none of which may fail, and the old one
// goes on. It says how many there were.
func (s *stage) during(ctx context.Context, f func() error) (int, error) {
	ctx, stop := context.WithCancel(ctx)
	over := make(chan error, 1)
	n := 0
	go func() {
		for ctx.Err() == nil {
			// Not with ctx: one that is under way goes to its end.
			_, err := s.from().Exchange(context.WithoutCancel(ctx), "tcp", service)
			if err == nil {
				err = s.still()
			}
			if err != nil {
				over <- fmt.Errorf("after %d connections: %w", n, err)
				return
			}
			n++
			time.Sleep(10 * time.Millisecond)
		}
		over <- nil
	}()
	err := f()
	stop()
	err = errors.Join(err, <-over) // n is whole now
	return n, err
}

// patience is how long something may take to become so: an emulated machine, whose
// processor others want as well.
const patience = time.Minute

// soon waits until f finds nothing wrong.
func soon(ctx context.Context, f func() error) error {
	for limit := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil || ctx.Err() != nil || time.Now().After(limit) {
			return err
		}
	}
}
