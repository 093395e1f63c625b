//go:build linux

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/source"
)

// bound is for what must happen; nothing waits for it where all is well.
const bound = 20 * time.Second

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// profile is one of a service over a server.
func profile(server int) []byte {
	return fmt.Appendf(nil, "services: [{name: web, listen: \"203.0.113.10:80\", backends: \"10.0.0.%d:80\"}]\n", server)
}

func write(path string, server int) error { return os.WriteFile(path, profile(server), 0o644) }

// tree is a folder with the links of a test: links is NAME=TARGET.
func tree(t *testing.T, links ...string) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, os.Mkdir("one", 0o755), os.Mkdir("two", 0o755), write("one/web.yaml", 1), write("two/web.yaml", 2))
	for _, l := range links {
		name, target, _ := strings.Cut(l, "=")
		must(t, os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(target, name))
	}
	return dir
}

func watch(t *testing.T, args ...string) *Files {
	t.Helper()
	f, err := Watch(args, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// servers are the last numbers of all backends that the files name.
func servers(t *testing.T, f *Files) (out []int, err error) {
	t.Helper()
	sources, err := f.Read(t.Context())
	for _, s := range sources {
		for _, b := range s.Profile.Services[0].Backends {
			out = append(out, int(b.Address.Addr.As4()[3]))
		}
	}
	return out, err
}

// await waits until the files are to be read, and reads them, until they are
// whole.
func await(t *testing.T, f *Files) ([]int, error) {
	t.Helper()
	deadline := time.After(bound)
	for {
		select {
		case <-f.Changed:
		case <-deadline:
			t.Fatal("nobody noticed")
		}
		if got, err := servers(t, f); !errors.Is(err, ErrUnsettled) {
			return got, err
		}
	}
}

// awaitServers waits until the files say this, in whatever steps.
func awaitServers(t *testing.T, f *Files, want ...int) {
	t.Helper()
	deadline := time.After(bound)
	var got []int
	var err error
	for {
		select {
		case <-f.Changed:
		case <-deadline:
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
		if got, err = servers(t, f); err == nil && slices.Equal(got, want) {
			return
		}
	}
}

func wantServers(t *testing.T, f *Files, want ...int) {
	t.Helper()
	if got, err := servers(t, f); err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
}

// swap makes a link stand for something else in one step, as ln -sfn does.
func swap(target, link string) error {
	return errors.Join(os.Symlink(target, link+"~"), os.Rename(link+"~", link))
}

// TestFiles: each way to change what the arguments stand for is noticed, and what
// is read then is the new state.
func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		name   string
		links  []string
		arg    string
		before int
		change func() error
		after  int
	}{
		{"a file is written", nil, "one/web.yaml", 1, func() error { return write("one/web.yaml", 3) }, 3},
		{"a file in a folder is written", nil, "one", 1, func() error { return write("one/web.yaml", 3) }, 3},
		{"a path with dots", nil, "two/../one/./web.yaml", 1, func() error { return write("one/web.yaml", 3) }, 3},
		{"a file is replaced", nil, "one/web.yaml", 1, func() error {
			return errors.Join(write("one/.web.yaml~", 3), os.Rename("one/.web.yaml~", "one/web.yaml"))
		}, 3},
		{"a file in a folder has another name", nil, "one", 1, func() error {
			return errors.Join(write("one/new.yaml", 3), os.Remove("one/web.yaml"))
		}, 3},
		{"a hard link comes", nil, "one", 1, func() error {
			return errors.Join(os.Remove("one/web.yaml"), os.Link("two/web.yaml", "one/web.yaml"))
		}, 2},
		{"a folder is swapped", nil, "one", 1, func() error {
			return errors.Join(os.Rename("one", "old"), os.Rename("two", "one"))
		}, 2},
		{"the folder of a file is swapped", nil, "one/web.yaml", 1, func() error {
			return errors.Join(os.Rename("one", "old"), os.Rename("two", "one"))
		}, 2},
		{"a link to a folder is swapped", []string{"now=one"}, "now", 1, func() error { return swap("two", "now") }, 2},
		{"a link to a folder is made anew", []string{"now=one"}, "now", 1, func() error {
			return errors.Join(os.Remove("now"), os.Symlink("two", "now"))
		}, 2},
		{"a link on the way to a file is swapped", []string{"now=one"}, "now/web.yaml", 1, func() error { return swap("two", "now") }, 2},
		{"a link behind a link is swapped", []string{"deep/now=../one", "start=deep/now"}, "start", 1, func() error { return swap("../two", "deep/now") }, 2},
		{"a file behind a link is written", []string{"now=one"}, "now", 1, func() error { return write("one/web.yaml", 3) }, 3},
		{"a file behind a link in a folder is written", []string{"etc/web.yaml=../one/web.yaml"}, "etc", 1, func() error { return write("one/web.yaml", 3) }, 3},
		// As kubelet does with a ConfigMap.
		{"..data is swapped", []string{"etc/..data=../one", "etc/web.yaml=..data/web.yaml"}, "etc", 1, func() error { return swap("../two", "etc/..data") }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree(t, tt.links...)
			f := watch(t, tt.arg)
			wantServers(t, f, tt.before)
			must(t, tt.change())
			awaitServers(t, f, tt.after)
			// What is there now is watched, too.
			path, err := filepath.EvalSymlinks(tt.arg)
			must(t, err)
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				all, err := filepath.Glob(path + "/*.yaml")
				must(t, err)
				path = all[0]
			}
			must(t, write(path, 9))
			awaitServers(t, f, 9)
		})
	}
}

// TestFilesMissing: what goes and comes back is noticed both times.
func TestFilesMissing(t *testing.T) {
	for _, arg := range []string{"one", "one/web.yaml", "far/away/web.yaml"} {
		t.Run(arg, func(t *testing.T) {
			tree(t)
			must(t, os.MkdirAll("far/away", 0o755), write("far/away/web.yaml", 4))
			f := watch(t, arg)
			top, _, _ := strings.Cut(arg, "/")
			must(t, os.Rename(top, "elsewhere"))
			if _, err := await(t, f); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("got %v, want that it is not there", err)
			}
			must(t, os.Rename("elsewhere", top))
			if got, err := await(t, f); err != nil || len(got) != 1 {
				t.Fatalf("got %v, %v", got, err)
			}
		})
	}
}

// TestFilesOthers: other files in the folder do not matter.
func TestFilesOthers(t *testing.T) {
	tree(t)
	f := watch(t, "one")
	must(t, write("one/notes.txt", 3), write("one/.hidden.yaml", 3), write("two/web.yaml", 3), os.Mkdir("three", 0o755), os.Remove("one/notes.txt"))
	if !f.settled() {
		t.Error("other files count")
	}
	must(t, write("one/web.yaml", 3))
	if f.settled() {
		t.Error("what was written a moment ago does not count")
	}
}

// TestFilesHalf: what is open for writing is not read, neither by whoever waits
// for Changed nor by whoever reads for another reason.
func TestFilesHalf(t *testing.T) {
	for name, open := range map[string]func() (*os.File, error){
		"a file that is there": func() (*os.File, error) { return os.OpenFile("one/web.yaml", os.O_WRONLY|os.O_TRUNC, 0) },
		"a new file":           func() (*os.File, error) { return os.Create("one/new.yaml") },
	} {
		t.Run(name, func(t *testing.T) {
			tree(t)
			f := watch(t, "one")
			w, err := open()
			must(t, err)
			defer w.Close()
			text := profile(3)
			if name == "a new file" {
				if !f.settled() {
					t.Error("an empty file that was made just now counts")
				}
				text = append([]byte("profile: new\n"), strings.ReplaceAll(string(text), ".10:80", ".10:81")...)
			}
			_, err = w.Write(text[:20])
			must(t, err)
			if _, err := f.Read(t.Context()); !errors.Is(err, ErrUnsettled) {
				t.Fatalf("read half: %v", err)
			}
			// As if it had been quiet for an hour.
			f.mu.Lock()
			f.last = f.last.Add(-time.Hour)
			f.mu.Unlock()
			f.settle()
			select {
			case <-f.Changed:
				t.Fatal("asked to read half a file")
			default:
			}
			_, err = w.Write(text[20:])
			must(t, err, w.Close())
			got, err := await(t, f)
			if err != nil || !slices.Contains(got, 3) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// TestFilesWriterGone: nobody waits for a file that was open for writing when it
// went.
func TestFilesWriterGone(t *testing.T) {
	for name, remove := range map[string]func() error{
		"removed":             func() error { return os.Remove("one/web.yaml") },
		"moved":               func() error { return os.Rename("one/web.yaml", "web.old") },
		"the folder is moved": func() error { return os.Rename("one", "old") },
	} {
		t.Run(name, func(t *testing.T) {
			tree(t)
			f := watch(t, "one")
			w, err := os.OpenFile("one/web.yaml", os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			defer w.Close()
			if f.settled() {
				t.Fatal("it is not noticed that the file is emptied")
			}
			must(t, remove())
			if _, err := await(t, f); err == nil {
				t.Error("what is gone was read")
			}
		})
	}
}

// TestFilesOverflow: where the kernel has lost events, the files are read again.
func TestFilesOverflow(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	if most > 100_000 {
		t.Skipf("SKIPPED, NOT PROVED: the queue has room for %d events", most)
	}
	tree(t)
	f := watch(t, "one")
	must(t, write("one/a.txt", 1), write("one/b.txt", 1))
	f.mu.Lock()
	for range most {
		must(t, os.Chmod("one/a.txt", 0o600), os.Chmod("one/b.txt", 0o600))
	}
	f.mu.Unlock()
	if got, err := await(t, f); err != nil || !slices.Equal(got, []int{1}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestFilesInvalid: a mistake is that of source.Read.
func TestFilesInvalid(t *testing.T) {
	tree(t)
	f := watch(t, "one")
	must(t, os.WriteFile("one/web.yaml", []byte("services: 1\n"), 0o644))
	_, err := await(t, f)
	if _, ok := errors.AsType[*source.InvalidError](err); !ok {
		t.Errorf("got %v", err)
	}
}
