//go:build linux

package member

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	nlb := built(b)
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
	e := startEtcd(b, 1, false)
	w := netlabtest.NewWorld(b)
	alone := netlabtest.NewHost(b, w, "alone")
	a := newAdmin(b, e)
	var nodes []*process
	for i := range 3 {
		nodes = append(nodes, begin(b, e, w, fmt.Sprintf("n%d", i+1), nlb))
	}
	file := filepath.Join(b.TempDir(), "wide.yaml")
	a.seesAll(nodes...)
	fleetFile := e.File(e.Config("admin"))
	for i, what := range []string{"first", "weights"} {
		netlabtest.Must(b, os.WriteFile(file, []byte(wide(i+1)), 0o600))
		began := time.Now()
		apply := alone.Command(b.Context(), nlb, "apply", file)
		out, err := apply.CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		took := time.Since(began)
		before := worked(nodes)
		began = time.Now()
		push := exec.Command(nlb, "push", "--fleet", fleetFile, file)
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
