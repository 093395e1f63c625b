package scenario

// Programs of this machine: how drivers start them, and how those that the
// laboratories run are built.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"nlb/integration/netlab"
)

// Exec runs a program to its end.
type Exec func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, name string, args ...string) error

// patience is how long a program that has ended is waited for while others
// hold its files.
const patience = 5 * time.Second

// Here runs programs where this process is.
func Here(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = stdin, stdout, stderr, patience
	return c.Run()
}

// In runs programs in a host of a world.
func In(h *netlab.Host) Exec {
	return func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, name string, args ...string) error {
		c := h.Command(ctx, name, args...)
		c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = stdin, stdout, stderr, patience
		return c.Run()
	}
}

// result runs a program whose exit code is a result, not an error.
func (e Exec) result(ctx context.Context, stdin io.Reader, name string, args ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	err := e(ctx, stdin, &stdout, &stderr, name, args...)
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if ok && ctx.Err() == nil && exit.Exited() {
		r.Exit, err = exit.ExitCode(), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return r, err
}

// Build compiles a command of this module, such as ./cmd/nlb, into dir as one
// static program, and returns its path.
func Build(root, dir, command string) (string, error) {
	to := filepath.Join(dir, filepath.Base(command))
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, command)
	c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", command, err, out)
	}
	return to, nil
}
