// Package qemu is a laboratory of virtual machines that need nothing but QEMU
// and packages of Debian's: a cloud kernel, busybox, dropbear or systemd, and
// our own static programs, in an initramfs. Nothing is installed, and the
// machine's own network is not touched: QEMU and ssh run in a network namespace
// that has a loopback and nothing else.
package qemu

// The initramfs as a cpio archive.
// https://docs.kernel.org/driver-api/early-userspace/buffer-format.html

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"nlb/integration/demand"
)

// archive writes files in the "newc" format.
type archive struct {
	w     *bufio.Writer
	n     int // the last inode number
	made  map[string]bool
	bytes int64
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), made: map[string]bool{"/": true, ".": true}}
}

const (
	dirMode  = 0o040755
	linkMode = 0o120777
	fileMode = 0o100000
)

// entry writes one file, and the folders that it is in. Names have no leading
// slash in the archive.
func (a *archive) entry(name string, mode uint32, size int64, data io.Reader) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if parent := path.Dir(name); !a.made[parent] && name != "TRAILER!!!" {
		a.entry(parent, dirMode, 0, nil)
	}
	if a.made[name] {
		return
	}
	a.made[name] = true
	a.n++
	a.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.n, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	a.printf("%s\x00", name)
	a.pad()
	if data != nil {
		n := demand.Of(io.Copy(a.w, data))
		if n != size {
			demand.Fail("%s: %d bytes, want %d", name, n, size)
		}
		a.bytes += n
	}
	a.pad()
}

func (a *archive) printf(format string, args ...any) {
	a.bytes += int64(demand.Of(fmt.Fprintf(a.w, format, args...)))
}

// pad fills up to a multiple of four.
func (a *archive) pad() { a.printf("%s", "\x00\x00\x00"[:(4-a.bytes%4)%4]) }

func (a *archive) text(name string, mode uint32, text string) {
	a.entry(name, fileMode|mode, int64(len(text)), strings.NewReader(text))
}

func (a *archive) link(name, to string) {
	a.entry(name, linkMode, int64(len(to)), strings.NewReader(to))
}

// file copies a file. What it is a link to is copied, not the link.
func (a *archive) file(name, from string) {
	f := demand.Of(os.Open(from))
	defer f.Close()
	info := demand.Of(f.Stat())
	a.entry(name, fileMode|uint32(info.Mode().Perm()), info.Size(), f)
}

// tree copies the files below a folder that keep wants, links as links.
func (a *archive) tree(root string, keep func(name string) bool) {
	demand.OK(filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		switch {
		case err != nil || d.IsDir() || !keep(name):
			return err
		case d.Type() == fs.ModeSymlink:
			a.link(name, demand.Of(os.Readlink(p)))
		default:
			a.file(name, p)
		}
		return nil
	}))
}

func (a *archive) close() {
	a.entry("TRAILER!!!", 0, 0, nil)
	demand.OK(a.w.Flush())
}
