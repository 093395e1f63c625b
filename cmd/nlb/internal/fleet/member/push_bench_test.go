//go:build linux

package member

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/fleet/fleettest"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
)

// wide is a profile of 10,000 services over three backends each, whose weights are
// this.
func wide(weight int) string {
	var b strings.Builder
	b.WriteString("profile: wide\nservices:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  - {name: s%d, listen: \"203.0.%d.%d:80\", backends: [", i, i>>8, i&255)
		for k := range 3 {
			fmt.Fprintf(&b, "{address: 10.%d.%d.%d, weight: %d}, ", k, i>>8, i&255, weight+k)
		}
		b.WriteString("]}\n")
	}
	return b.String()
}

// BenchmarkPush is the time of a push of 10,000 x 3 to three nodes of this machine, all
// of them processes, beside that of nlb apply of the same: first of all of it, then of a
// change of all weights. The figures are medians of all rounds: -benchtime 5x.
func BenchmarkPush(b *testing.B) {
	nlb := filepath.Join(b.TempDir(), "nlb")
	if out, err := exec.Command("go", "build", "-o", nlb, "nlb/cmd/nlb").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	figures := map[string][]float64{}
	for b.Loop() {
		comparePush(b, nlb, func(name string, value float64) { figures[name] = append(figures[name], value) })
	}
	for name, values := range figures {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], name)
	}
}

// comparePush is one round.
func comparePush(b *testing.B, nlb string, report func(name string, value float64)) {
	e := fleettest.Start(b, 1, false)
	w := netlabtest.NewWorld(b)
	alone := netlabtest.NewHost(b, w, "alone")
	a := newAdmin(b, e)
	var nodes []*process
	for i := range 3 {
		nodes = append(nodes, begin(b, nlb, e, w, fmt.Sprintf("n%d", i+1)))
	}
	file := filepath.Join(b.TempDir(), "wide.yaml")
	a.until(b, nodes)
	fleetFile := e.File(e.Config("admin"))
	for i, what := range []string{"first", "weights"} {
		netlabtest.Must(b, os.WriteFile(file, []byte(wide(i+1)), 0o600))
		began := time.Now()
		apply := alone.Command(b.Context(), nlb, "apply", "--quiet", file)
		out, err := apply.CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		took := time.Since(began)
		before := worked(nodes)
		began = time.Now()
		push := exec.Command(nlb, "push", "--fleet", fleetFile, "--quiet", file)
		if out, err := push.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		pushed := time.Since(began)
		report(what+"-apply-s", took.Seconds())
		report(what+"-push-s", pushed.Seconds())
		report(what+"-ratio", pushed.Seconds()/took.Seconds())
		report(what+"-apply-cpu-s", cpu(apply.ProcessState))
		report(what+"-pusher-cpu-s", cpu(push.ProcessState))
		report(what+"-nodes-cpu-s", worked(nodes)-before)
	}
	for _, n := range nodes {
		n.end()
	}
}

func cpu(s *os.ProcessState) float64 { return (s.UserTime() + s.SystemTime()).Seconds() }

// process is nlb run as a node, on a host from where etcd is reached by a relay.
type process struct {
	*netlab.Cmd
	name string
	log  bytes.Buffer
	end  func()
}

func begin(b *testing.B, nlb string, e *fleettest.Etcd, w *netlab.World, name string) *process {
	b.Helper()
	host := netlabtest.NewHost(b, w, name)
	c := e.Config(name)
	at := strings.TrimPrefix(c.Endpoints[0], "http://")
	var l net.Listener
	netlabtest.Must(b, host.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }))
	go relay(l, at)
	p := &process{name: name, Cmd: host.Command(b.Context(), nlb, "run", "--fleet", e.File(c), "--socket", filepath.Join(b.TempDir(), "sock"))}
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

// until waits until these are nodes.
func (a *admin) until(b *testing.B, nodes []*process) {
	for deadline := time.Now().Add(bound); ; time.Sleep(50 * time.Millisecond) {
		k, err := a.store.Known(b.Context())
		if err == nil && !slices.ContainsFunc(nodes, func(p *process) bool { return !k.Alive[p.name] || k.Nodes[p.name] == nil }) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal("not all nodes are there", err, nodes[0].log.String())
		}
	}
}

// worked is how long processors have worked for these processes, in seconds.
func worked(nodes []*process) (sum float64) {
	for _, p := range nodes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			continue
		}
		var user, system float64
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
		sum += (user + system) / 100 // USER_HZ
	}
	return sum
}
