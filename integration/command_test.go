package integration

// The command as a process: what it starts, and what it needs.

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// builtIn is the folder of what is built once for all tests; TestMain removes it.
var builtIn string

// folder makes builtIn, and is it.
var folder = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nlb-integration-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	return dir, os.Chmod(dir, 0o755) // for nobody, too
})

// built is the path of the command.
var built = sync.OnceValues(func() (string, error) {
	dir, err := folder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "nlb")
	c := exec.Command("go", "build", "-trimpath", "-o", path, "nlb/cmd/nlb")
	c.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	if out, err := c.CombinedOutput(); err != nil {
		return "", &buildError{string(out), err}
	}
	return path, nil
})

type buildError struct {
	output string
	err    error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.output }

// command returns the path of the built command.
func (b *bed) command() string {
	b.T.Helper()
	path, err := built()
	b.Check(err)
	return path
}

// write puts a profile into a file that goes with the test.
func (b *bed) write(name, text string) string {
	b.T.Helper()
	path := filepath.Join(b.T.TempDir(), name)
	b.Check(os.WriteFile(path, []byte(text), 0o644))
	return path
}

// TestRunsNothingElse: one execve, its own, whatever the command does.
func TestRunsNothingElse(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	nlb, profile := b.command(), b.write("shop.yaml", web+backends(8080, -1, -1))
	for _, args := range [][]string{
		{"apply", profile}, {"diff", profile}, {"show"}, {"render", profile}, {"check", profile}, {"flush", "--sysctl"},
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		b.Witness(b.Balancer, "", "strace", append([]string{"-f", "-e", "trace=execve,execveat", "-o", trace, nlb}, args...)...)
		text, err := os.ReadFile(trace)
		b.Check(err)
		if n := strings.Count(string(text), "execve("); n != 1 || strings.Contains(string(text), "execveat(") {
			t.Errorf("nlb %s started other programs:\n%s", strings.Join(args, " "), text)
		}
	}
}
