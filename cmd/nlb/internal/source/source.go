// Package source reads profiles from where arguments say: files, folders of
// them, and stdin.
package source

// Sources: the profiles that arguments name, read and checked.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/config"
)

// maxRead bounds what is read of a file: one byte more than config.Parse takes, so
// that it says what is wrong.
const maxRead = config.MaxFile + 1

// Stdin is the argument that stands for it.
const Stdin = "-"

// Source is a profile and where it came from.
type Source struct {
	File    string // as it is called in messages
	Text    []byte
	Profile *lb.Profile
}

// InvalidError has all mistakes of all files.
type InvalidError struct{ Errors lb.Errors }

// Error counts the mistakes; they themselves are to be printed one by one.
func (e *InvalidError) Error() string {
	var files []string
	for _, err := range e.Errors {
		if !slices.Contains(files, err.Pos.File) {
			files = append(files, err.Pos.File)
		}
	}
	where := files[0]
	if len(files) > 1 {
		where = text.Count(len(files), "file")
	}
	return text.Count(len(e.Errors), "error") + " in " + where
}

// ErrTwice says that arguments name a file twice.
var ErrTwice = errors.New("is given twice")

// Read reads and checks the profiles that arguments name, which must be free of
// conflicts. Errors: *InvalidError, ErrTwice, ctx's, and those of the files.
func Read(ctx context.Context, stdin io.Reader, args []string) ([]Source, error) {
	files, err := expand(args)
	if err != nil {
		return nil, err
	}
	var out []Source
	var errs lb.Errors
	for _, file := range files {
		data, err := ReadFile(ctx, stdin, file)
		if err != nil {
			return nil, err
		}
		file = Title(file)
		p, err := config.Parse(file, data)
		if mistakes, ok := errors.AsType[lb.Errors](err); ok {
			errs = append(errs, mistakes...)
		} else if err != nil {
			return nil, err
		} else {
			out = append(out, Source{file, data, p})
		}
	}
	if len(errs) == 0 && len(out) > 1 { // Parse has found those within one
		errs = lb.Conflicts(Profiles(out))
		Quote(errs, out)
	}
	if len(errs) > 0 {
		return nil, &InvalidError{errs}
	}
	return out, nil
}

// Quote gives mistakes the lines that they are in.
func Quote(errs lb.Errors, sources []Source) {
	for _, s := range sources {
		config.Quote(errs, s.File, s.Text)
	}
}

// Profiles are those of the sources.
func Profiles(sources []Source) []*lb.Profile {
	out := make([]*lb.Profile, len(sources))
	for i, s := range sources {
		out[i] = s.Profile
	}
	return out
}

// expand returns the files that arguments stand for: a folder for its *.yaml
// and *.yml, sorted, without hidden ones.
func expand(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case arg == Stdin:
			files = append(files, Stdin)
		case err != nil:
			return nil, unread(arg, err)
		case info.IsDir():
			found, err := folder(arg)
			if err != nil {
				return nil, err
			}
			files = append(files, found...)
		default:
			files = append(files, filepath.Clean(arg))
		}
	}
	sorted := slices.Sorted(slices.Values(files))
	for i, file := range sorted[1:] {
		if file == sorted[i] {
			return nil, fmt.Errorf("%s %w", Title(file), ErrTwice)
		}
	}
	return files, nil
}

// IsProfile reports whether a name in a folder is that of a profile: *.yaml or
// *.yml, not hidden.
func IsProfile(name string) bool {
	ext := filepath.Ext(name)
	return !strings.HasPrefix(name, ".") && (ext == ".yaml" || ext == ".yml")
}

// folder returns the profiles in a folder: regular files; symbolic links are
// followed. To read anything else may take for ever.
func folder(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, unread(dir, err)
	}
	var files []string
	for _, e := range entries {
		if !IsProfile(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return nil, unread(path, err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: not a regular file", Title(path))
		}
		files = append(files, path)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no *.yaml or *.yml in this folder", Title(dir))
	}
	return files, nil
}

// ReadFile reads a file, or stdin, up to a bound that no profile may exceed. A
// pipe may make it wait, so ctx ends it.
func ReadFile(ctx context.Context, stdin io.Reader, file string) ([]byte, error) {
	type answer struct {
		data []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		data, err := func() ([]byte, error) {
			if file == Stdin {
				return io.ReadAll(io.LimitReader(stdin, maxRead))
			}
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			var text bytes.Buffer
			if info, err := f.Stat(); err == nil && info.Size() < maxRead {
				text.Grow(int(info.Size()) + bytes.MinRead)
			}
			_, err = text.ReadFrom(io.LimitReader(f, maxRead))
			return text.Bytes(), err
		}()
		done <- answer{data, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return nil, unread(file, a.err)
		}
		return a.data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// unread says why a file or folder was not read. Units run nlb as a user of its own, who
// has to be allowed to read what root has written.
func unread(name string, err error) error {
	err = fmt.Errorf("%s: %w", Title(name), Cause(err))
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w to user %d, as whom nlb runs (chmod a+rX lets all read it)", err, os.Getuid())
	}
	return err
}

// Title is what to call a file in a message: quoted, where its name would be
// none there.
func Title(file string) string {
	switch {
	case file == Stdin:
		return "stdin"
	case file == "" || strings.ContainsFunc(file, func(r rune) bool { return !strconv.IsPrint(r) }):
		return strconv.Quote(file)
	}
	return file
}

// Cause is an error without the path, which the message has already.
func Cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
