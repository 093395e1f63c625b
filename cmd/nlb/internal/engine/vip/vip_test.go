//go:build linux

package vip

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

var (
	four = netip.MustParseAddr("203.0.113.10")
	six  = netip.MustParseAddr("2001:db8::10")
)

// set sets addresses on a host.
func set(t *testing.T, h *netlab.Host, device string, addrs ...netip.Addr) Result {
	t.Helper()
	var out Result
	netlabtest.Must(t, h.Do(func() error {
		var want []VIP
		for _, a := range addrs {
			want = append(want, VIP{a, device})
		}
		var err error
		out, err = Set(want)
		return err
	}))
	return out
}

// ours are the addresses of nlb on a host.
func ours(t *testing.T, h *netlab.Host) (out []string) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		all, err := List()
		for _, a := range all {
			if a.Ours {
				out = append(out, a.String())
			}
		}
		return err
	}))
	return out
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestSet: addresses come and go, on lo where it is asked for, and those of others
// stay.
func TestSet(t *testing.T) {
	t.Parallel()
	w := netlabtest.NewWorld(t)
	h, other := netlabtest.NewHost(t, w, "balancer"), netlabtest.NewHost(t, w, "other")
	netlabtest.Must(t, w.Link(h, "eth0", other, "eth0"),
		h.AddAddress("lo", netip.MustParsePrefix("203.0.113.9/32")), h.AddAddress("eth0", netip.MustParsePrefix("203.0.113.8/24")))
	before := ours(t, h)
	want(t, "before", before)
	r := set(t, h, "lo", four, six)
	if len(r.Added) != 2 || len(r.Removed) != 0 || r.Instead {
		t.Errorf("%+v", r)
	}
	want(t, "both", ours(t, h), "203.0.113.10 on lo", "2001:db8::10 on lo")
	if r := set(t, h, "lo", four, six); len(r.Added)+len(r.Removed) != 0 {
		t.Errorf("the same again: %+v", r)
	}
	if r := set(t, h, "lo", six, netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.8")); len(r.Added) != 0 || len(r.Removed) != 1 || len(r.Others) != 2 {
		t.Errorf("those of others: %+v", r)
	}
	want(t, "one", ours(t, h), "2001:db8::10 on lo")
	netlabtest.Must(t, h.Do(func() error { _, err := Clear(); return err }))
	want(t, "cleared", ours(t, h))
	for _, a := range []string{"203.0.113.9", "203.0.113.8"} {
		if !has(t, h, netip.MustParseAddr(a)) {
			t.Errorf("%s of somebody else is gone", a)
		}
	}
	err := h.Do(func() error { _, err := Set([]VIP{{four, "eth0"}}); return err })
	if err == nil || !strings.Contains(err.Error(), "is of kind veth") {
		t.Errorf("on a device that others ask: %v", err)
	}
}

func has(t *testing.T, h *netlab.Host, a netip.Addr) (has bool) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		all, err := List()
		has = slices.ContainsFunc(all, func(one Address) bool { return one.Addr == a })
		return err
	}))
	return has
}

// TestDummy: a device that is missing is made, and goes; where the kernel has none of
// this kind it is lo. Machines whose kernels have it are in integration/qemu.
func TestDummy(t *testing.T) {
	t.Parallel()
	h := netlabtest.NewHost(t, netlabtest.NewWorld(t), "balancer")
	r := set(t, h, "nlb0", four, six)
	device := "nlb0"
	if lacks(t, h) {
		device = "lo"
	}
	t.Logf("the addresses are on %s", device)
	if r.Instead != (device == "lo") {
		t.Errorf("instead: %v, on %s", r.Instead, device)
	}
	want(t, "both", ours(t, h), "203.0.113.10 on "+device, "2001:db8::10 on "+device)
	netlabtest.Must(t, h.Do(func() error {
		if _, err := Clear(); err != nil {
			return err
		}
		if _, err := netlink.LinkByName("nlb0"); err == nil {
			t.Error("the device has stayed")
		}
		return nil
	}))
	want(t, "cleared", ours(t, h))
}

// lacks reports whether the kernel has no dummy devices.
func lacks(t *testing.T, h *netlab.Host) (lacks bool) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		l := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "try"}}
		err := netlink.LinkAdd(l)
		if lacks = err == unix.EOPNOTSUPP; err == nil {
			return netlink.LinkDel(l)
		}
		return nil
	}))
	return lacks
}
