package integration

// The daemons beside nlb: those that the configurations of nlb render --for are for
// load them, and do what they say.

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// daemon is one of them, on a host, with its files in a folder of its own.
type daemon struct {
	*bed
	host *netlab.Host
	dir  string
	log  journal
	cmd  *netlab.Cmd
}

// machineWide are the folders where these daemons have what only one of a machine can have.
var machineWide = regexp.MustCompile(`/var/(lock|run)/`)

// forced are sizes of buffers that no root of a user namespace may have.
var forced = regexp.MustCompile(`\t*(Snd|Rcv)SocketBuffer \d+\n`)

// render is a configuration for a daemon, with its files in a folder.
func (b *bed) render(dir, daemon, profile string, with ...string) string {
	b.T.Helper()
	args := []string{"render", "-q", "--for", daemon, b.write("shop.yaml", profile)}
	for _, w := range with {
		args = append(args, "--with", w)
	}
	c := b.Command(b.Balancer, b.command(), args...)
	out, err := c.Output()
	if err != nil {
		b.T.Fatalf("nlb render --for %s: %v", daemon, err)
	}
	if !netlabtest.RootOfMachine(b.T) {
		out = forced.ReplaceAll(out, nil)
	}
	file := filepath.Join(dir, daemon+".conf")
	b.Check(os.WriteFile(file, machineWide.ReplaceAll(out, []byte(dir+"/")), 0o644))
	return file
}

// start starts a program on a host, until the test ends; a failure shows what it said.
func (b *bed) start(h *netlab.Host, dir, name string, args ...string) *daemon {
	b.T.Helper()
	d := &daemon{bed: b, host: h, dir: dir}
	d.cmd = h.Command(context.Background(), name, args...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with its children
	b.Check(d.cmd.Start())
	ended := make(chan struct{})
	go func() { _ = d.cmd.Wait(); close(ended) }()
	b.T.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
		}
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if b.T.Failed() {
			b.T.Logf("%s on %s said:\n%s", name, h.Name(), d.log.String())
		}
	})
	return d
}

// folder is a short path: those of sockets have at most 107 bytes.
func (b *bed) folder() string {
	b.T.Helper()
	dir, err := os.MkdirTemp("", "nlb")
	b.Check(err)
	b.T.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// output is what a command says on a host, whether it fails or not.
func (b *bed) output(h *netlab.Host, name string, args ...string) string {
	b.T.Helper()
	out, _ := b.Command(h, name, args...).CombinedOutput()
	return string(out)
}

// bird starts BIRD on a host.
func (b *bed) bird(h *netlab.Host, dir, file string) *daemon {
	b.T.Helper()
	return b.start(h, dir, "bird", "-f", "-c", file, "-s", filepath.Join(dir, "bird.ctl"), "-P", filepath.Join(dir, "bird.pid"))
}

// conntrackd starts conntrackd on a host.
func (b *bed) conntrackd(h *netlab.Host, dir, file string) *daemon {
	b.T.Helper()
	d := b.start(h, dir, "conntrackd", "-C", file)
	b.eventually("conntrackd answers", func() bool { return strings.Contains(d.ask("-s"), "active connections") })
	return d
}

// ask asks it.
func (d *daemon) ask(args ...string) string {
	d.T.Helper()
	return d.output(d.host, "conntrackd", append([]string{"-C", filepath.Join(d.dir, "conntrackd.conf")}, args...)...)
}

const daemonsShop = `announce: lo
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], snat: none, backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: dns, listen: "203.0.113.11:53", protocol: udp, snat: 10.2.0.9, backends: "10.2.0.12:8080"}
`

// TestRenderFor: the daemons themselves find no fault with the files.
func TestRenderFor(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, program := range []string{"bird", "keepalived", "vtysh", "conntrackd"} {
		netlabtest.Needs(t, program)
	}
	with := []string{
		"self=10.1.0.1", "peer=10.1.0.3", "as=65001", "front=10.1.0.2/65000", "front=fd01::2/65000", "back=10.2.0.11/65002",
		"interface=eth0", "back-interface=eth1", "back-address=10.2.0.99/24",
	}
	for daemon, check := range map[string][]string{
		"bird": {"bird", "-p", "-c"}, "keepalived": {"keepalived", "-t", "-f"}, "frr": {"vtysh", "-C", "-f"},
	} {
		file := b.render(t.TempDir(), daemon, daemonsShop, with...)
		out, err := b.Command(b.Balancer, check[0], append(check[1:], file)...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", daemon, err, out)
		}
	}
	for _, more := range []string{"vrid=1", "peer=10.1.0.4"} { // a pair, a mesh
		dir := b.folder()
		b.conntrackd(b.Balancer, dir, b.render(dir, "conntrackd", daemonsShop, append(with, more)...))
	}
}
