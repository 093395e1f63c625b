//go:build linux

package sysctl_test

// Changes in network namespaces of the kernel's, router advertisements included.

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/sysctl"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// hosts returns two that are joined by a cable, eth0 at either end.
func hosts(t *testing.T) (a, b *netlab.Host) {
	w := netlabtest.NewWorld(t)
	a, b = netlabtest.NewHost(t, w, "a"), netlabtest.NewHost(t, w, "b")
	netlabtest.Must(t, w.Link(a, "eth0", b, "eth0"))
	return a, b
}

// turnOn makes the settings hold in a host.
func turnOn(t *testing.T, h *netlab.Host, settings ...sysctl.Setting) (made []sysctl.Change) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		plan, err := sysctl.Local.Plan(settings)
		if err != nil {
			return err
		}
		if err := sysctl.Local.Writable(plan); err != nil {
			return err
		}
		made, err = sysctl.Local.Write(plan)
		return err
	}))
	return made
}

func putBack(t *testing.T, h *netlab.Host, made []sysctl.Change) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		back, others, err := sysctl.Local.Undo(made)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return fmt.Errorf("changed by others: %v", others)
		}
		_, err = sysctl.Local.Write(back)
		return err
	}))
}

func check(t *testing.T, h *netlab.Host, name, want string) {
	t.Helper()
	got, err := h.Sysctl(name)
	netlabtest.Must(t, err)
	if got != want {
		t.Errorf("%s is %s, want %s", name, got, want)
	}
}

// All that the kernel changes along with forwarding is as it was, afterwards.
func TestForwardingIPv4(t *testing.T) {
	a, b := hosts(t)
	netlabtest.Must(t, a.SetSysctl("net.ipv4.conf.all.accept_redirects", "0"), a.SetSysctl("net.ipv4.conf.eth0.forwarding", "1"))
	made := turnOn(t, a, sysctl.Setting{Name: "net.ipv4.ip_forward", Value: "1"})
	check(t, a, "net.ipv4.ip_forward", "1")
	check(t, a, "net.ipv4.conf.lo.forwarding", "1")
	check(t, b, "net.ipv4.ip_forward", "0")
	if again := turnOn(t, a, sysctl.Setting{Name: "net.ipv4.ip_forward", Value: "1"}); again != nil {
		t.Errorf("wrote again: %v", again)
	}
	putBack(t, a, made)
	check(t, a, "net.ipv4.ip_forward", "0")
	check(t, a, "net.ipv4.conf.lo.forwarding", "0")
	check(t, a, "net.ipv4.conf.eth0.forwarding", "1")
	check(t, a, "net.ipv4.conf.all.accept_redirects", "0")
}

// A default route that a router advertises outlives forwarding being turned on.
func TestForwardingIPv6(t *testing.T) {
	a, route := advised(t)
	made := turnOn(t, a, sysctl.Setting{Name: "net.ipv6.conf.all.forwarding", Value: "1"})
	want := []sysctl.Change{{Name: "net.ipv6.conf.eth0.accept_ra", From: "1", To: "2"}, {Name: "net.ipv6.conf.all.forwarding", From: "0", To: "1"}}
	if d := cmp.Diff(want, made); d != "" {
		t.Error(d)
	}
	if got := defaultRoute(t, a, "eth0"); got != route {
		t.Errorf("the default route is %q, was %q", got, route)
	}
	putBack(t, a, made)
	check(t, a, "net.ipv6.conf.all.forwarding", "0")
	check(t, a, "net.ipv6.conf.eth0.accept_ra", "1")
}

// The counter-proof: without accept_ra=2 the kernel forgets the route.
func TestForwardingForgets(t *testing.T) {
	a, _ := advised(t)
	netlabtest.Must(t, a.SetSysctl("net.ipv6.conf.all.forwarding", "1"))
	if got := defaultRoute(t, a, "eth0"); got != "" {
		t.Errorf("the default route stayed: %q", got)
	}
}

// Advertisements that come only after forwarding was turned on are taken, on a
// link that was there and on one that comes later. A port of a bridge is left
// alone.
func TestForwardingIPv6Later(t *testing.T) {
	a, router := hosts(t)
	netlabtest.Must(t, a.SetSysctl("net.ipv6.conf.default.accept_ra", "1"), a.SetSysctl("net.ipv6.conf.eth0.accept_ra", "1"))
	netlabtest.Must(t, a.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0"}, PeerName: "port1"}
		if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkAdd(port)); err != nil {
			return err
		}
		return netlink.LinkSetMaster(port, bridge)
	}))
	made := turnOn(t, a, sysctl.Setting{Name: "net.ipv6.conf.all.forwarding", Value: "1"})
	want := []sysctl.Change{
		{Name: "net.ipv6.conf.br0.accept_ra", From: "1", To: "2"},
		{Name: "net.ipv6.conf.default.accept_ra", From: "1", To: "2"},
		{Name: "net.ipv6.conf.eth0.accept_ra", From: "1", To: "2"},
		{Name: "net.ipv6.conf.port1.accept_ra", From: "1", To: "2"},
		{Name: "net.ipv6.conf.all.forwarding", From: "0", To: "1"},
	}
	if d := cmp.Diff(want, made); d != "" {
		t.Error(d)
	}
	netlabtest.Must(t, a.World().Link(a, "eth1", router, "eth1"))
	for _, link := range []string{"eth0", "eth1"} {
		if learn(t, a, router, link) == "" {
			t.Errorf("%s takes no advertisements", link)
		}
	}
	putBack(t, a, made)
	check(t, a, "net.ipv6.conf.default.accept_ra", "1")
	check(t, a, "net.ipv6.conf.br0.accept_ra", "1")
}

// advised returns a host with a default route that a router advertised.
func advised(t *testing.T) (h *netlab.Host, route string) {
	h, router := hosts(t)
	netlabtest.Must(t, h.SetSysctl("net.ipv6.conf.eth0.accept_ra", "1"))
	if route = learn(t, h, router, "eth0"); route == "" {
		t.Fatal("no route was learned")
	}
	return h, route
}

// learn has a router advertise itself on a link until a host has learned its
// default route from it, and returns the next hop; empty: it did not.
func learn(t *testing.T, h, router *netlab.Host, link string) (via string) {
	for deadline := time.Now().Add(5 * time.Second); via == "" && time.Now().Before(deadline); {
		_ = advertise(router, link) // fails until the link has an address
		time.Sleep(20 * time.Millisecond)
		via = defaultRoute(t, h, link)
	}
	return via
}

// advertise sends a router advertisement (RFC 4861, 4.2) of half an hour.
func advertise(h *netlab.Host, link string) error {
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		if err := unix.BindToDevice(fd, link); err != nil {
			return err
		}
		to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16()}
		return unix.Sendto(fd, []byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}, 0, to)
	})
}

// defaultRoute is the next hop of a host's IPv6 default route over a link.
func defaultRoute(t *testing.T, h *netlab.Host, link string) (via string) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		via = gatewayOf(string(b), link)
		return err
	}))
	return via
}

func gatewayOf(table, link string) string {
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); f[1] == "00" && f[9] == link {
			return f[4]
		}
	}
	return ""
}
