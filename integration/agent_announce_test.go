package integration

// What the agent announces: addresses that are there while somebody is there to serve,
// and the file that tells keepalived.

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// vips are the addresses of a host that are whole, with their devices.
func (b *bed) vips(h *netlab.Host) (out []string) {
	b.T.Helper()
	b.Check(h.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			all, failed := netlink.AddrList(l, unix.AF_UNSPEC)
			if failed != nil {
				return failed
			}
			for _, a := range all {
				if ones, bits := a.Mask.Size(); ones == bits && !a.IP.IsLoopback() {
					out = append(out, a.IP.String())
				}
			}
		}
		return err
	}))
	slices.Sort(out)
	return out
}

// announces waits until the balancer has these addresses, and no others.
func (b *bed) announces(want ...string) {
	b.T.Helper()
	got := []string{}
	defer func() {
		if b.T.Failed() {
			b.T.Logf("there is %v, want %v", got, want)
		}
	}()
	b.eventually("the balancer has "+strings.Join(want, ", "), func() bool {
		got = b.vips(b.Balancer)
		return slices.Equal(got, want)
	})
}

// fault is what keepalived is told.
func (a *agent) fault() string {
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(a.socket), "fault"))
	return strings.TrimSpace(string(text))
}

// wantFindings runs nlb doctor with arguments, and compares what these checks have to say
// with those of the arguments that are no flags and no files.
func (b *bed) wantFindings(what string, checks []string, args ...string) {
	b.T.Helper()
	var ask, want, got []string
	for _, a := range args {
		if strings.Contains(a, ": ") {
			want = append(want, a)
		} else {
			ask = append(ask, a)
		}
	}
	for _, f := range b.doctor(ask...) {
		if slices.Contains(checks, f.Check) {
			got = append(got, strings.TrimPrefix(f.Subject+": "+f.Problem, ": "))
		}
	}
	if !slices.Equal(got, want) {
		b.T.Errorf("%s: doctor finds %q, want %q", what, got, want)
	}
}

const announced = "announce: {interface: nlb0, delay: 200ms, drain: 2s}\n"

// announcedShop is a profile of both families, with servers that are checked.
func announcedShop() string {
	return announced + shopOf(1, "health: {check: tcp, port: 8080, interval: 100ms}")
}

// TestAgentAnnounces: addresses come with the first server that is up, each family on
// its own, and go with the last one, although health is ignored then. When the agent
// is told to end they go first, and what comes meanwhile is balanced on.
func TestAgentAnnounces(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one := b.serve("10.2.0.11")
	a := b.agent(announcedShop())
	b.announces("203.0.113.10")
	b.serve("fd02::11")
	b.announces("2001:db8::10", "203.0.113.10")
	if a.fault() != "0" {
		t.Errorf("keepalived is told %q", a.fault())
	}
	if code, out := a.process("healthy", "shop/web"); code != 0 {
		t.Errorf("healthy: exit %d\n%s", code, out)
	}
	b.shell(b.Balancer, "nlb show --socket "+a.socket+" | grep '^announced: .*203.0.113.10 on '; nlb show --json --socket "+a.socket+" | grep -F '\"announced\"'")
	// A daemon of the balancer that listens on any address is not there for all the world.
	_, err := traffic.Serve(b.Balancer, "own", traffic.Port{Network: "tcp", At: netip.MustParseAddrPort("[::]:22")})
	b.Check(err)
	for to, due := range map[string]bool{"10.1.0.1:22": true, "[fd01::1]:22": true, "203.0.113.10:22": false, "[2001:db8::10]:22": false} {
		if got := b.Reaches(b.Client, "tcp", to, due); (got != "") != due {
			t.Errorf("a client that asks %s reaches %q", to, got)
		}
	}
	b.wantFindings("announced", []string{"announce"}, a.file, "--socket", a.socket)
	one.Close()
	b.announces("2001:db8::10")
	b.wantFindings("nobody is up", []string{"announce"}, a.file, "--socket", a.socket, "203.0.113.10: it is not announced")
	one = b.serve("10.2.0.11")
	b.announces("2001:db8::10", "203.0.113.10")

	// Another profile, another address.
	a.rewrite(strings.ReplaceAll(announcedShop(), "203.0.113.10", "203.0.113.11"))
	b.announces("2001:db8::10", "203.0.113.11")
	a.rewrite(announcedShop())
	b.announces("2001:db8::10", "203.0.113.10")

	// Somebody else takes one away.
	device := strings.Fields(b.Witness(b.Balancer, "", "ip", "-o", "address", "show", "to", "203.0.113.10"))[1]
	b.Witness(b.Balancer, "", "ip", "address", "del", "203.0.113.10/32", "dev", device)
	b.announces("2001:db8::10", "203.0.113.10")

	open := b.stream("203.0.113.10:80", false)
	began := time.Now()
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	b.announces()
	if code, out := a.process("healthy"); code != 4 {
		t.Errorf("healthy of one that leaves: exit %d\n%s", code, out)
	}
	if a.fault() != "1" {
		t.Errorf("keepalived is told %q", a.fault())
	}
	if err := <-a.ended; err != nil || time.Since(began) < 2*time.Second {
		t.Errorf("it ended after %s: %v", time.Since(began), err)
	}
	a.ended = nil
	b.wantNoFailures("while it drains", b.stopped(open), time.Time{})
	one.Close()
}

// TestAgentTracks: where an interface that is tracked has no carrier, or is not there,
// nothing is announced, and why is said.
func TestAgentTracks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	a := b.agent(strings.Replace(announcedShop(), "drain: 2s", "drain: none, track: [eth0, eth1]", 1))
	b.announces("203.0.113.10")
	for _, by := range []*netlab.Host{b.Client, b.Balancer} {
		b.Check(by.Cut("eth0"))
		b.announces()
		found := b.doctor(a.file, "--socket", a.socket)
		if !slices.ContainsFunc(found, func(f finding) bool {
			return f.Check == "announce" && f.Why == "track names interface eth0, which is down"
		}) {
			t.Errorf("doctor finds %+v", found)
		}
		if code, _ := a.process("healthy"); code != 4 || a.fault() != "1" {
			t.Errorf("healthy: exit %d, keepalived is told %q", code, a.fault())
		}
		b.Check(by.Mend("eth0"))
		b.announces("203.0.113.10")
	}
	a.rewrite(strings.Replace(announcedShop(), "drain: 2s", "drain: none, track: [eth0, eth7]", 1))
	b.announces()
	a.rewrite(announcedShop())
	b.announces("203.0.113.10")
}

// TestAgentLeftovers: what a killed agent left goes on where it still has somebody, and
// goes where it has not, or nobody wants it. nlb flush takes it away, too.
func TestAgentLeftovers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one := b.serve("10.2.0.11")
	b.serve("fd02::11")
	b.Address(b.Balancer, "lo", "203.0.113.99/32") // an admin's
	a := b.agent(announcedShop())
	all := []string{"2001:db8::10", "203.0.113.10", "203.0.113.99"}
	said := func() int { return strings.Count(a.log.String(), "msg=announced") }
	b.announces(all...)
	b.eventually("it is said", func() bool { return said() == 2 })
	a.end(syscall.SIGKILL)
	b.announces(all...)

	a.begin()
	b.announces(all...)
	if text := a.log.String(); said() != 2 || strings.Contains(text, "not announced any more") {
		t.Errorf("an address that had somebody all the time went and came:\n%s", text)
	}

	a.end(syscall.SIGKILL)
	one.Close()
	a.begin()
	b.announces("2001:db8::10", "203.0.113.99")
	b.serve("10.2.0.11")
	b.announces(all...)

	a.end(syscall.SIGKILL)
	b.Check(os.WriteFile(a.file, []byte(strings.TrimPrefix(announcedShop(), announced)), 0o644))
	a.begin()
	b.announces("203.0.113.99")
	a.rewrite(announcedShop())
	b.announces(all...)

	a.end(syscall.SIGKILL)
	if code, out := a.process("flush"); code != 0 {
		t.Errorf("flush: exit %d\n%s", code, out)
	} else if !strings.Contains(out, "203.0.113.10 on ") {
		t.Errorf("flush says nothing of the addresses:\n%s", out)
	}
	b.announces("203.0.113.99")
}

// TestAgentAnnouncePrivileges: CAP_NET_ADMIN is enough.
func TestAgentAnnouncePrivileges(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	netlabtest.Needs(t, "setpriv")
	b.serve("10.2.0.11")
	b.serve("fd02::11")
	a := &agent{bed: b, file: b.write("shop.yaml", announcedShop()), socket: filepath.Join(t.TempDir(), "nlb.sock"), as: append([]string{"setpriv"}, rights(",+net_admin")...)}
	for _, dir := range []string{filepath.Dir(b.command()), filepath.Dir(a.socket), filepath.Dir(filepath.Dir(a.socket)), filepath.Dir(a.file)} {
		b.Check(os.Chmod(dir, 0o777))
	}
	b.Check(os.Chmod(a.file, 0o644))
	a.begin()
	t.Cleanup(func() {
		a.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.log.String())
		}
	})
	b.announces("2001:db8::10", "203.0.113.10")
	_ = a.end(syscall.SIGTERM)
	b.announces()
}

// TestAgentAnnounceDevice: a device on a network is refused, and said so, while
// everything else goes on; one of others that has the address already keeps it.
func TestAgentAnnounceDevice(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	a := b.agent(strings.Replace(announcedShop(), "nlb0", "eth1", 1))
	a.says(0, "is of kind veth")
	b.becomes(0, "web", "10.2.0.11")
	b.announces()
	b.Check(b.Balancer.AddAddress("eth0", netip.MustParsePrefix("203.0.113.10/32")))
	a.rewrite(strings.Replace(announcedShop(), "nlb0", "lo", 1))
	a.says(0, "somebody else has made")
	b.announces("203.0.113.10")
	_ = a.end(syscall.SIGTERM)
	b.announces("203.0.113.10")
}
