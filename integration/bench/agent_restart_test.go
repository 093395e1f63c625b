//go:build linux

package bench

// The agent that ends and begins again, in any way, under load.

import (
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// restarts has the agent killed, stopped and upgraded in turn, 200 times with -full.
func restarts(b *testing.B) {
	n := 10
	if *netlabtest.Full {
		n = 200
	}
	bed := netlabtest.New(b)
	bed.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	file := write(b, "restarts.yaml", "profile: shop\nservices:\n  - {name: web, listen: \"203.0.113.10:80\", health: tcp, backends: [\"10.2.0.11:8080\", \"10.2.0.12:8080\", \"10.2.0.13:8080\", \"10.2.0.14:8080\"]}\n")
	programs := []string{*program, upgraded(b)}
	d := runAgent(b, bed.Balancer, file)
	d.awaits(b, "msg=down", 2, time.Time{})
	states := func() (s string) {
		for _, x := range bed.Load().Profiles[0].Services[0].Backends {
			s += fmt.Sprintln(x.Name, x.State, x.Standing)
		}
		return s
	}
	time.Sleep(500 * time.Millisecond)
	before := states()
	flow := traffic.Load{From: bed.Client, To: vip, Rate: 300, Timeout: clientsWait}.Start(b.Context())
	changed := 0
	var first []time.Duration
	b.ResetTimer()
	for i := range n {
		d.end([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGTERM}[i%3])
		if i%3 == 2 {
			programs[0], programs[1] = programs[1], programs[0]
		}
		a := &arrivals{from: balancerAddr}
		stop := a.hear(b, bed.Server)
		began := time.Now()
		d = runProgram(b, programs[0], bed.Balancer, file)
		for a.checked() == 0 && time.Since(began) < 10*time.Second {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		stop()
		first = append(first, a.first.Sub(began))
		if states() != before {
			changed++
		}
	}
	all, err := flow.Stop()
	netlabtest.Must(b, err)
	d.end(syscall.SIGKILL)
	lost, late := 0, 0
	for _, a := range all {
		if a.Err != nil {
			lost++
		} else if a.Late() {
			late++
		}
	}
	worst := slices.Max(first)
	prove(b, fmt.Sprintf("killed, stopped and upgraded, %d times in all", n), fmt.Sprintf("of %s connections %d lost and %d late, %d verdicts changed, first check within %s", grouped(len(all)), lost, late, changed, short(worst)), "",
		"0 lost, 0 changed, within a second", lost == 0 && late == 0 && changed == 0 && worst <= time.Second)
}

// upgraded is another version of the program that is measured, which applies all anew.
func upgraded(b *testing.B) string {
	b.Helper()
	file := filepath.Join(scratch, "upgraded")
	build(b, file, "-ldflags=-X main.packaged=2")
	return file
}
