//go:build linux

package agent

// Paths: the folders whose entries decide what a path stands for, each link in it
// included.

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/source"
)

// event is an inotify_event.
type event struct {
	wd   int32
	mask uint32
	name string // in the folder; empty: the folder itself
}

// events are those in a buffer that the kernel filled:
//
//	struct inotify_event { __s32 wd; __u32 mask, cookie, len; char name[len]; };
func events(b []byte) iter.Seq[event] {
	return func(yield func(event) bool) {
		for len(b) >= unix.SizeofInotifyEvent {
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if size > len(b) {
				return
			}
			e := event{wd: int32(binary.NativeEndian.Uint32(b)), mask: binary.NativeEndian.Uint32(b[4:])}
			e.name = strings.TrimRight(string(b[unix.SizeofInotifyEvent:size]), "\x00")
			if !yield(e) {
				return
			}
			b = b[size:]
		}
	}
}

// folder is a folder that is watched.
type folder struct {
	path     string
	names    map[string]bool // what is of interest in it
	profiles bool            // and every profile
}

func (d *folder) has(name string) bool { return d.names[name] || d.profiles && source.IsProfile(name) }

// empty reports whether there is a file of this name without content. A link,
// and a file that has another name, come whole.
func (d *folder) empty(name string) bool {
	info, err := os.Lstat(filepath.Join(d.path, name))
	return err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// What is watched of a folder on the way: that a name stands for something else;
// and of the last folder: that a file has other content or rights.
const (
	swaps = unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CREATE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	files = swaps | unix.IN_CLOSE_WRITE | unix.IN_MODIFY | unix.IN_ATTRIB

	// mostLinks is how many links the kernel follows in a path.
	mostLinks = 40
)

// walk watches the folders that lead to some paths. Each is watched before
// anybody looks into it, so that nothing is missed.
type walk struct {
	fd      int
	folders map[int32]*folder
	failed  map[string]error // folders that cannot be watched
}

func (w *walk) argument(arg string) {
	path, err := filepath.Abs(arg)
	if err != nil {
		w.failed[arg] = err
		return
	}
	path = w.path(path)
	if path == "" {
		return
	}
	if d := w.watch(path, files); d != nil {
		d.profiles = true
		entries, err := os.ReadDir(path)
		if err != nil {
			w.failed[path] = err
		}
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink != 0 && source.IsProfile(e.Name()) {
				w.path(filepath.Join(path, e.Name()))
			}
		}
	}
}

// path watches what leads to a path, and returns where it leads if that is a
// folder.
func (w *walk) path(path string) string {
	at := "/"
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		d := w.watch(at, swaps)
		if d != nil {
			d.names[name] = true
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return "" // it may come
		case info.IsDir():
			at = next
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(next)
			if links++; err != nil || links > mostLinks {
				return ""
			}
			if filepath.IsAbs(to) {
				at = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
		default:
			w.watch(at, files)
			return ""
		}
	}
	return at
}

// watch watches a folder; nil: it cannot be watched.
func (w *walk) watch(path string, what uint32) *folder {
	wd, err := unix.InotifyAddWatch(w.fd, path, what|unix.IN_MASK_ADD|unix.IN_ONLYDIR)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // swapped just now, or a file
	}
	if err != nil {
		w.failed[path] = err
		return nil
	}
	d := w.folders[int32(wd)]
	if d == nil {
		d = &folder{path: path, names: map[string]bool{}}
		w.folders[int32(wd)] = d
	}
	return d
}
