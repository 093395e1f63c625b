//go:build linux

package agent

// Files: when the files that nlb run was given have changed, and are whole
// (inotify(7)).

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/source"
)

const (
	// quiet is how long nothing may happen before files are read.
	quiet = 200 * time.Millisecond
	// patience is how long a file may be open for writing before that is said.
	patience = 10 * time.Second
)

// ErrUnsettled says that files were changed while they were read.
var ErrUnsettled = errors.New("the files are being changed")

// Files watches files and folders of profiles, and all that leads to them: a
// folder or a link that is swapped is a change, too.
type Files struct {
	// Changed has a value when the files are to be read again: something was
	// changed, that is a moment ago, and none of them is open for writing.
	Changed chan struct{}

	args   []string
	log    *slog.Logger
	events *os.File
	raw    syscall.RawConn // of events; once these are closed, it does nothing

	mu      sync.Mutex
	folders map[int32]*folder   // by watch descriptor
	writing map[entry]time.Time // what is open for writing, since when
	dirty   bool                // something happened since the last value in Changed
	last    time.Time           // when something happened
	timer   *time.Timer
	said    map[string]bool // what cannot be watched
	closed  bool
}

// entry is a name in a watched folder.
type entry struct {
	wd   int32
	name string
}

// Watch begins to watch the arguments of nlb run. What cannot be watched is said
// in the log, once. An error says that this system has no inotify left.
func Watch(args []string, log *slog.Logger) (*Files, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: inotify: %w", err)
	}
	f := &Files{
		args: args, log: log, Changed: make(chan struct{}, 1), events: os.NewFile(uintptr(fd), "inotify"),
		writing: map[entry]time.Time{}, said: map[string]bool{},
	}
	if f.raw, err = f.events.SyscallConn(); err != nil {
		return nil, fmt.Errorf("watch files: inotify: %w", err)
	}
	f.timer = time.AfterFunc(time.Hour, f.settle)
	f.timer.Stop()
	f.rewatch()
	go f.run()
	return f, nil
}

// Close ends the watch.
func (f *Files) Close() error {
	f.mu.Lock()
	f.closed = true
	f.timer.Stop()
	f.mu.Unlock()
	return f.events.Close()
}

// Read reads all profiles, or none, and watches what was put in their place without a
// word of inotify, as a mount. Errors are those of source.Read, and ErrUnsettled: then
// Changed will have a value.
func (f *Files) Read(ctx context.Context) ([]source.Source, error) {
	f.mu.Lock()
	f.rewatch()
	f.mu.Unlock()
	sources, err := source.Read(ctx, nil, f.args)
	if !f.settled() {
		return nil, ErrUnsettled
	}
	return sources, err
}

// settled reports whether nothing happened since the last value in Changed.
func (f *Files) settled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.raw.Control(func(fd uintptr) { f.drain(int(fd)) })
	return !f.dirty
}

func (f *Files) run() {
	_ = f.raw.Read(func(fd uintptr) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drain(int(fd))
		return f.closed
	})
}

func (f *Files) drain(fd int) {
	var buf [16 << 10]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for e := range events(buf[:n]) {
			if f.note(e) {
				f.dirty, f.last = true, time.Now()
				f.timer.Reset(quiet)
			}
		}
	}
}

// note takes an event, and reports whether it is about one of the files.
func (f *Files) note(e event) bool {
	if e.mask&unix.IN_Q_OVERFLOW != 0 {
		clear(f.writing) // the end of it may be among what was lost
		return true
	}
	d := f.folders[e.wd]
	if d == nil || e.name != "" && !d.has(e.name) {
		return false
	}
	name := entry{e.wd, e.name}
	switch {
	case e.mask&(files|unix.IN_UNMOUNT) == 0:
		return false // the watch has ended
	case e.mask&unix.IN_CREATE != 0 && d.empty(e.name):
		return false // whoever made it will write, and close it
	case e.mask&unix.IN_MODIFY == 0 && e.mask&unix.IN_ATTRIB == 0:
		delete(f.writing, name)
	case e.mask&unix.IN_MODIFY != 0 && f.writing[name].IsZero():
		f.writing[name] = time.Now()
	}
	return true
}

// settle asks for the files to be read, once they are quiet and whole.
func (f *Files) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || !f.dirty {
		return
	}
	f.rewatch()
	wait := quiet - time.Since(f.last)
	for name, since := range f.writing {
		wait = max(wait, quiet)
		path := f.folders[name.wd].path + "/" + name.name
		if time.Since(since) > patience && !f.said[path] {
			f.said[path] = true
			f.log.Warn("waiting for a file that is open for writing", "file", path)
		}
	}
	if wait > 0 {
		f.timer.Reset(wait)
		return
	}
	f.dirty = false
	select {
	case f.Changed <- struct{}{}:
	default: // it was asked already
	}
}

// rewatch watches what the arguments stand for now.
func (f *Files) rewatch() {
	_ = f.raw.Control(func(fd uintptr) {
		w := &walk{fd: int(fd), folders: map[int32]*folder{}, failed: map[string]error{}}
		for _, arg := range f.args {
			w.argument(arg)
		}
		for wd := range f.folders {
			if w.folders[wd] == nil {
				_, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) // it may be gone by itself
			}
		}
		f.folders = w.folders
		for path, err := range w.failed {
			if !f.said[path] {
				f.said[path] = true
				f.log.Warn("cannot watch a folder; reload when it has changed", "folder", path, "error", err)
			}
		}
	})
	for name := range f.writing {
		if f.folders[name.wd] == nil {
			delete(f.writing, name)
		}
	}
}
