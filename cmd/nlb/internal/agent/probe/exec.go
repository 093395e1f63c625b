//go:build linux

package probe

// The kind exec: a command of the admin's.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run is the kind exec. The command has a process group of its own, and all that
// is in it is killed when the command ends, or the check does. What leaves the
// group, by setsid(2), is not found. The command is killed, too, when this
// process dies.
func run(ctx context.Context, t Target) Outcome {
	if len(t.Check.Command) == 0 {
		return unable("exec", "no command")
	}
	out, in, err := os.Pipe()
	if err != nil {
		return fault(ctx, "exec", err)
	}
	defer out.Close()
	// The kernel ends the command when the thread that began it does; a thread of
	// Go's can end before the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.Command(t.Check.Command[0], t.Check.Command[1:]...)
	command.Dir = "/"
	command.Env = environment(t)
	command.Stdout = in
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = command.Start()
	in.Close()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return unable("exec", "not found in PATH")
		}
		for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
			err = inner // without the path, for which there is no room
		}
		return unable("exec", "%s", err)
	}
	line := make(chan string, 1)
	go func() { line <- firstLine(out) }()
	err = wait(ctx, command)
	// Who left the group may hold the pipe.
	_ = out.SetReadDeadline(time.Now().Add(courtesy))
	said := <-line
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fault(ctx, "exec", ctx.Err())
	case err == nil && said == "":
		return passed("exec", "exit 0")
	case err == nil:
		return passed("exec", "%s", said)
	case !errors.As(err, &exit):
		return fault(ctx, "exec", err)
	case exit.ExitCode() < 0:
		return wrong("exec", "%s", exit) // by a signal
	case said == "":
		return wrong("exec", "exit %d", exit.ExitCode())
	}
	return wrong("exec", "exit %d: %s", exit.ExitCode(), said)
}

// environment is all that the command knows.
func environment(t Target) []string {
	port := ""
	if t.At.Port() != 0 {
		port = strconv.Itoa(int(t.At.Port()))
	}
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"NLB_ADDRESS=" + t.At.Addr().String(),
		"NLB_PORT=" + port,
		"NLB_SERVICE=" + t.Service,
		"NLB_BACKEND=" + t.Backend,
	}
}

// wait waits for a command, and kills its group. It does so before it takes the
// command's state: until then nobody else can have its number.
func wait(ctx context.Context, command *exec.Cmd) error {
	group := -command.Process.Pid
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = unix.Kill(group, unix.SIGKILL)
		close(killed)
	})
	for unix.Waitid(unix.P_PID, command.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	if !stop() {
		<-killed
	}
	_ = unix.Kill(group, unix.SIGKILL)
	return command.Wait()
}

// firstLine reads to the end, and keeps the first line, of at most maxLine bytes.
func firstLine(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, maxLine))
	_, _ = io.Copy(io.Discard, r)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimSpace(line))
}
