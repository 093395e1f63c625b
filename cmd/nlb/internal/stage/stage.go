//go:build linux

// Package stage lets a rehearsal use what is real: the engine of nlb apply, and nlb
// run as a program in a host of the lab.
package stage

// The balancer and the agent of a lab.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/config"
)

// Stage is a lab.Balancer and a lab.Agent.
type Stage struct {
	Table string
	// Busy is told when there is something to clear away, and when there is not any
	// more.
	Busy func(bool)
}

// auto are profiles that keep no kernel parameters: the lab's hosts are new, so that
// there are none that could be kept. They announce nothing: its clients have routes.
func auto(profiles []*lb.Profile) []*lb.Profile {
	out := make([]*lb.Profile, len(profiles))
	for i, p := range profiles {
		q := *p
		q.Sysctl, q.Announce = lb.SysctlAuto, nil
		out[i] = &q
	}
	return out
}

// Apply is what nlb apply does.
func (s Stage) Apply(ctx context.Context, profiles []*lb.Profile) error {
	e, err := engine.Open(s.Table)
	if err != nil {
		return err
	}
	defer e.Close()
	_, err = e.Apply(ctx, auto(profiles), engine.Options{Prune: true, Full: true})
	return err
}

// Known is what nlb show reads.
func (s Stage) Known() ([]*lb.Profile, error) {
	e, err := engine.Open(s.Table)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	state, err := e.State()
	if err != nil {
		return nil, err
	}
	return state.Profiles, nil
}

// patience is how long the agent may take to end.
const patience = 5 * time.Second

// Run runs nlb run in a host until ctx ends: this program once more, since all of
// its threads are to be there. Its files and its socket are in a folder that goes
// with it.
func (s Stage) Run(ctx context.Context, h *netlab.Host, profiles []*lb.Profile) error {
	s.Busy(true)
	defer s.Busy(false)
	dir, err := os.MkdirTemp("", "nlb-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := []string{"run", "--no-color", "--table=" + s.Table, "--socket=" + filepath.Join(dir, "sock")}
	for i, p := range auto(profiles) {
		file := filepath.Join(dir, fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(file, config.Write(p), 0o600); err != nil {
			return err
		}
		args = append(args, file)
	}
	var out tail
	c := h.Command(ctx, "/proc/self/exe", args...)
	c.Stdout, c.Stderr = &out, &out
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = patience
	// Ctrl-C is for this program, which ends the other one.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// It is nobody's service, whatever this program is.
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_") || strings.HasPrefix(v, "STATE_DIRECTORY=")
	})
	err = c.Run()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("nlb run ended: %w", errors.Join(err, errors.New(strings.TrimSpace(out.String()))))
}

// tail keeps the end of what is written.
type tail struct{ bytes.Buffer }

// mostKept is how much of it, in bytes.
const mostKept = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	n, err := t.Buffer.Write(b)
	if more := t.Len() - mostKept; more > 0 {
		t.Next(more)
	}
	return n, err
}
