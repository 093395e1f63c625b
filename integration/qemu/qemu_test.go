package qemu

// The scenario on three virtual machines, for each of several kernels.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/scenario"
)

const root = "../.."

func TestMain(m *testing.M) { netlabtest.Main(m) }

// kernels are those to boot: NLB_LAB_KERNELS, such as "6.1 6.12". Without it
// nothing is booted, which takes a minute for each; in CI that is a failure.
func kernels(t testing.TB) []string {
	t.Helper()
	err := Installed()
	list := strings.Fields(os.Getenv("NLB_LAB_KERNELS"))
	if err == nil && len(list) == 0 {
		err = errors.New("NLB_LAB_KERNELS names no kernel; .ci/vm does")
	}
	switch {
	case err == nil:
		return list
	case os.Getenv("CI") != "" && os.Getenv("NLB_LAB_KERNELS") != "":
		t.Fatal("NOT PROVED, and this is CI: ", err)
	}
	t.Skip("SKIPPED, NOT PROVED: no virtual machine was booted: ", err)
	return nil
}

// cache is where fetch.sh put the packages.
func cache(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("NLB_LAB_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "nlb-lab")
}

func bench(t testing.TB) *netlab.Host {
	t.Helper()
	w := netlabtest.NewWorld(t)
	h, err := Bench(w)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func build(t testing.TB, dir, command string) string {
	t.Helper()
	program, err := scenario.Build(root, dir, command)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// known is what accelerate has found out.
var known struct {
	sync.Mutex
	*Accelerator
}

// accelerate finds out, once, how machines run here.
func accelerate(t *testing.T, h *netlab.Host, version string) Accelerator {
	t.Helper()
	known.Lock()
	defer known.Unlock()
	if known.Accelerator == nil {
		dir := t.TempDir()
		image, err := Build(cache(t), dir, version, Contents{})
		netlabtest.Must(t, err)
		a := Probe(t.Context(), h, image, dir)
		t.Logf("accelerator: %s %s", a.Name, a.Why)
		known.Accelerator = &a
	}
	return *known.Accelerator
}

func TestScenario(t *testing.T) {
	list := kernels(t)
	dir := t.TempDir()
	nlb, peer := build(t, dir, "./cmd/nlb"), build(t, dir, "./integration/scenario/peer")
	private, public, err := Key(dir)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := scenario.Boot(root, "/etc/nlb")
	if err != nil {
		t.Fatal(err)
	}
	contents := Contents{
		Extra:    []string{"bench"}, // nft shows the ruleset where a phase fails
		Programs: map[string]string{"usr/sbin/nlb": nlb},
		Texts:    map[string]string{"root/.ssh/authorized_keys": public, "etc/nlb.boot": "/usr/sbin/nlb " + boot + "\n"},
	}
	for _, version := range list { // one after the other: three machines are enough for one
		t.Run("linux "+version, func(t *testing.T) {
			dir := t.TempDir()
			image, err := Build(cache(t), dir, version, contents)
			if err != nil {
				t.Fatal(err)
			}
			h := bench(t)
			a := accelerate(t, h, version)
			start := time.Now()
			lab, err := Boot(t.Context(), h, image, a, dir, private)
			if err != nil {
				t.Logf("BOOTED AGAIN, since linux %s did not get up: %v", image.Release, err)
				if lab, err = Boot(t.Context(), h, image, a, dir, private); err != nil {
					t.Fatal(err)
				}
			}
			defer lab.Close()
			defer func() {
				if t.Failed() {
					t.Log(lab.Consoles())
				}
			}()
			connections, err := scenario.Dial(t.Context(), scenario.In(h), lab.Config)
			if err != nil {
				t.Fatal(err)
			}
			defer connections.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			machines, err := connections.Lab(ctx, peer)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("linux %s: three machines are up after %.1f s; %s", image.Release, time.Since(start).Seconds(), strings.Join(lab.Ups, "; "))
			start = time.Now()
			scenario.Play(t, machines)
			t.Logf("linux %s: the scenario took %.1f s", image.Release, time.Since(start).Seconds())
		})
	}
}
