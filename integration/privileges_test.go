package integration

// Privileges: CAP_NET_ADMIN is all that nlb needs, and without it nothing is
// changed, whatever else the process may do.

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// rights are the options of setpriv(1) for a process that has no capability but
// these, in none of its five sets, and is not root, where there is another user:
// the user namespace of tests that are not run by root has root only.
func rights(capability string) []string {
	sets := "-all" + capability
	options := []string{"--inh-caps=" + sets, "--ambient-caps=" + sets, "--bounding-set=" + sets}
	if exec.Command("setpriv", "--reuid=65534", "true").Run() == nil {
		options = append(options, "--reuid=65534", "--regid=65534", "--clear-groups")
	}
	return options
}

// confined runs a program on a host with these options of setpriv.
func (b *bed) confined(h *netlab.Host, options []string, stdin string, args ...string) (string, int) {
	b.T.Helper()
	netlabtest.Needs(b.T, "setpriv")
	c := h.Command(context.Background(), "setpriv", append(options, args...)...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		b.Check(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

const (
	forward4, forward6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
	needsNetAdmin      = "not permitted: nlb needs CAP_NET_ADMIN in this network namespace"
)

// TestNothingLostPrivileges: each command, with CAP_NET_ADMIN alone, with nothing
// at all, and with all the others.
func TestNothingLostPrivileges(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11")
	nlb := b.command()
	b.Check(os.Chmod(filepath.Dir(nlb), 0o755)) // for the other user
	b.Check(b.Balancer.SetSysctl(forward4, "0"))
	b.Check(b.Balancer.SetSysctl(forward6, "0"))
	forwarding := func(want string) {
		t.Helper()
		for _, key := range []string{forward4, forward6} {
			if got, err := b.Balancer.Sysctl(key); err != nil || got != want {
				t.Errorf("%s is %q, want %s (%v)", key, got, want, err)
			}
		}
	}

	only := rights(",+net_admin")
	sets, _ := b.confined(b.Balancer, only, "", "grep", "^Cap", "/proc/self/status")
	if strings.Count(sets, "\t0000000000001000\n") != 5 {
		t.Fatalf("the capabilities are\n%s", sets)
	}
	allowed := 0
	run := func(want int, stdin string, args ...string) {
		t.Helper()
		allowed++
		if out, code := b.confined(b.Balancer, only, stdin, append([]string{nlb}, args...)...); code != want {
			t.Errorf("nlb %s: exit %d, want %d\n%s", strings.Join(args, " "), code, want, out)
		}
	}
	run(0, shopBefore, "apply", "--dry-run", "-")
	forwarding("0")
	run(4, shopBefore, "diff", "-")
	run(0, shopBefore, "apply", "-")
	forwarding("1")
	run(0, shopBefore, "diff", "-")
	run(0, "", "show")
	b.Row("udp", "203.0.113.10:80", 4)
	b.Ask("tcp", "203.0.113.10:80")
	run(0, shopAfter, "apply", "--cut", "-") // ends connections, too
	if wrong := b.differs([]string{shopAfter}); wrong != "" {
		t.Error(wrong)
	}
	if n := b.flowsOfGone(); n > 0 {
		t.Errorf("%d flows of removed backends are there", n)
	}
	run(0, "", "show", "shop/web")
	run(4, "", "doctor") // everybody can use what nlb has turned on
	b.Witness(b.Balancer, "", "nft", "table inet balanced { chain forward { type filter hook forward priority filter; policy drop; ct status dnat accept; ct state established,related accept; }; }")
	run(0, "", "doctor")
	b.Witness(b.Balancer, "", "nft", "delete", "table", "inet", "balanced")
	run(0, "", "flush", "--sysctl")
	forwarding("0")

	b.Check(b.Balancer.Forward())
	b.Apply(shopBefore)
	before, refused := b.generation(), 0
	for name, options := range map[string][]string{
		"without any capability": rights(""),
		"with all others":        {"--bounding-set=-net_admin", "--inh-caps=-net_admin", "--ambient-caps=-all"},
	} {
		for _, args := range [][]string{{"apply", "-"}, {"apply", "--dry-run", "-"}, {"diff", "-"}, {"show"}, {"flush"}, {"flush", "--sysctl"}, {"doctor"}} {
			out, code := b.confined(b.Balancer, options, shopAfter, append([]string{nlb}, args...)...)
			refused++
			if code == 0 || !strings.Contains(out, "CAP_NET_ADMIN") {
				t.Errorf("%s, nlb %s: exit %d\n%s", name, strings.Join(args, " "), code, out)
			}
			if args[0] == "apply" || args[0] == "flush" {
				if !strings.Contains(out, needsNetAdmin+"; nothing was changed") {
					t.Errorf("%s, nlb %s says\n%s", name, strings.Join(args, " "), out)
				}
			}
		}
	}
	if now := b.generation(); now != before {
		t.Error("something was changed without CAP_NET_ADMIN")
	}
	forwarding("1")
	figures(t, "privileges: %d commands with CAP_NET_ADMIN alone; %d without it, refused, 0 changes", allowed, refused)
}
