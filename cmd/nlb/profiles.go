package main

// The profiles that the arguments name: files, folders of them, and stdin.

import (
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

	"nlb/lb"
	"nlb/lb/config"
)

// maxRead bounds what is read of a file: one byte more than config.Parse takes, so
// that it says what is wrong.
const maxRead = config.MaxFile + 1

// stdin is the argument that stands for it.
const stdin = "-"

// source is a profile and where it came from.
type source struct {
	file    string
	text    []byte
	profile *lb.Profile
}

// sources reads and checks what the arguments name. An *invalidError has all
// mistakes of all files.
func (j *job) sources(ctx context.Context) ([]source, error) {
	files, err := expand(j.args)
	if err != nil {
		return nil, err
	}
	var out []source
	var errs lb.Errors
	for _, file := range files {
		data, err := j.read(ctx, file)
		if err != nil {
			return nil, err
		}
		file = title(file)
		p, err := config.Parse(file, data)
		if mistakes, ok := errors.AsType[lb.Errors](err); ok {
			errs = append(errs, mistakes...)
		} else if err != nil {
			return nil, err
		} else {
			out = append(out, source{file, data, p})
		}
	}
	if len(errs) == 0 {
		errs = lb.Conflicts(profilesOf(out))
		quote(errs, out)
	}
	if len(errs) > 0 {
		return nil, &invalidError{errs}
	}
	return out, nil
}

// quote gives mistakes the lines that they are in.
func quote(errs lb.Errors, sources []source) {
	for _, s := range sources {
		config.Quote(errs, s.file, s.text)
	}
}

func profilesOf(sources []source) []*lb.Profile {
	out := make([]*lb.Profile, len(sources))
	for i, s := range sources {
		out[i] = s.profile
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
		case arg == stdin:
			files = append(files, stdin)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", title(arg), cause(err))
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
			return nil, usagef("%s is given twice", title(file))
		}
	}
	return files, nil
}

// folder returns the profiles in a folder; symbolic links are followed.
func folder(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("%s: %w", title(dir), cause(err))
	}
	var files []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", title(path), cause(err))
		}
		if !info.IsDir() {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no *.yaml in this folder", title(dir))
	}
	return files, nil
}

// read reads a file, at most maxRead bytes of it. A pipe may make us wait, so
// ctx ends that.
func (j *job) read(ctx context.Context, file string) ([]byte, error) {
	type answer struct {
		data []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		data, err := func() ([]byte, error) {
			if file == stdin {
				return io.ReadAll(io.LimitReader(j.in, maxRead))
			}
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return io.ReadAll(io.LimitReader(f, maxRead))
		}()
		done <- answer{data, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return nil, fmt.Errorf("%s: %w", title(file), cause(a.err))
		}
		return a.data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// title is what to call a file in a message: quoted, where its name would be
// none there.
func title(file string) string {
	switch {
	case file == stdin:
		return "stdin"
	case file == "" || strings.ContainsFunc(file, func(r rune) bool { return !strconv.IsPrint(r) }):
		return strconv.Quote(file)
	}
	return file
}

// cause is an error without the path, which the message has already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// totals counts the services and backends of profiles.
func totals(profiles ...*lb.Profile) (services, backends int) {
	for _, p := range profiles {
		services += len(p.Services)
		for i := range p.Services {
			backends += len(p.Services[i].Backends)
		}
	}
	return services, backends
}

// size says how much there is in profiles.
func size(profiles ...*lb.Profile) string {
	services, backends := totals(profiles...)
	return count(services, "service") + ", " + count(backends, "backend")
}
