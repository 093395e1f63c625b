//go:build linux

package member

// Nodes as processes.

import (
	"bytes"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nlb/cmd/nlb/internal/fleet"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// process is nlb run as a node, on a host from where etcd is reached by a relay.
type process struct {
	*netlab.Cmd
	name   string
	host   *netlab.Host
	config *fleet.Config
	log    bytes.Buffer
	end    func()
}

// begin starts one; nlb is the program, with what goes ahead of it.
func begin(b testing.TB, e *cluster, w *netlab.World, name string, nlb ...string) *process {
	b.Helper()
	host := netlabtest.NewHost(b, w, name)
	c := e.Config(name)
	at := strings.TrimPrefix(c.Endpoints[0], "http://")
	var l net.Listener
	netlabtest.Must(b, host.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }))
	go relay(l, at)
	p := &process{name: name, host: host, config: c}
	args := append(nlb[1:], "run", "--fleet", e.File(c), "--socket", filepath.Join(b.TempDir(), "sock"))
	p.Cmd = host.Command(b.Context(), nlb[0], args...)
	p.Stderr = &p.log
	netlabtest.Must(b, p.Start())
	p.end = sync.OnceFunc(func() { _ = p.Process.Signal(syscall.SIGTERM); _ = p.Wait(); l.Close() })
	b.Cleanup(p.end)
	return p
}

// relay passes connections on.
func relay(l net.Listener, to string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		c, err := net.Dial("tcp", to)
		if err != nil {
			from.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{from, c}, {c, from}} {
			go func() { _, _ = io.Copy(way[0], way[1]); way[0].Close() }()
		}
	}
}

// seesAll waits until these are nodes.
func (a *admin) seesAll(nodes ...*process) {
	a.t.Helper()
	for _, p := range nodes {
		a.sees(&node{t: a.t, name: p.name})
	}
}

// built is the program.
func built(t testing.TB) string {
	t.Helper()
	nlb := filepath.Join(t.TempDir(), "nlb")
	if out, err := exec.Command("go", "build", "-o", nlb, "nlb/cmd/nlb").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return nlb
}

// TestTinyDisk: on a disk that takes no large profile, a node applies one, and says that it
// is not kept, until a small one is pushed.
func TestTinyDisk(t *testing.T) {
	if !*netlabtest.Full {
		t.Skip("SKIPPED, NOT PROVED: it builds the program; -full does")
	}
	t.Parallel()
	netlabtest.Packets(t)
	e := startEtcd(t, 1, false)
	a := newAdmin(t, e)
	const mount = `mkdir -p "$0" && mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"`
	state := e.Config("n1").State
	p := begin(t, e, netlabtest.NewWorld(t), "n1", "unshare", "--mount", "sh", "-c", mount, state, built(t))
	n := &node{t: t, name: "n1", host: p.host}
	a.seesAll(p)
	a.pushes("shop", yaml("shop", shopAt, "10.2.0.11"))
	a.well(n)
	a.pushes("shop", yaml("shop", shopAt, "10.2.0.12")+"# "+strings.Repeat("0123456789", 10<<10)+"\n")
	n.balances("shop 10.2.0.12")
	a.shows(n, "cannot be kept for the next start: write "+state)
	a.shows(n, "no space left on device")
	a.pushes("shop", yaml("shop", shopAt, "10.2.0.13"))
	n.balances("shop 10.2.0.13")
	a.well(n)
}
