//go:build linux

package member

// The folder: the last good profiles, which a node begins with before it asks anybody.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nlb/cmd/nlb/internal/fleet"
	"nlb/cmd/nlb/internal/source"
	"nlb/lb"
)

// recordName has what is known of the profiles, which are beside it: shop.yaml.
const recordName = "fleet.json"

// held is what a node has of a profile.
type held struct {
	fleet.Version
	Seen  uint64    `json:"seen"`
	Since time.Time `json:"since"`

	source *source.Source // nil: it is absent
	kept   bool           // its file is written
}

type folder struct {
	path string
	held map[string]*held
	out  bool
}

// record is the file fleet.json.
type record struct {
	Out      bool             `json:"out"`
	Profiles map[string]*held `json:"profiles"`
}

// openFolder reads a folder, and makes it where it is missing. Files that are damaged
// are said, and left out: what the kernel has of them stays, and the fleet says them
// again.
func openFolder(path string, log *slog.Logger) (*folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	f := &folder{path: path, held: map[string]*held{}}
	b, err := os.ReadFile(filepath.Join(path, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		log.Error("the record of the fleet cannot be read; it begins anew", "file", filepath.Join(path, recordName), "error", err)
		return f, nil
	}
	f.out = r.Out
	var all []source.Source
	for _, name := range slices.Sorted(maps.Keys(r.Profiles)) {
		h := r.Profiles[name]
		if h == nil || lb.CheckName(name) != "" {
			continue
		}
		if !h.Absent {
			var text []byte
			if text, err = os.ReadFile(f.file(name)); err == nil {
				h.source, err = fleet.Parse(name, text)
			}
			if err == nil {
				err = fleet.Conflicts(append(slices.Clip(all), *h.source))
			}
			if err != nil {
				log.Error("a profile that was kept cannot be used", "file", f.file(name), "error", explain(err))
				continue
			}
			// Between the two files, power may have been lost: what is there counts.
			h.Hash, h.kept = fleet.HashOf(h.source.Text), true
			all = append(all, *h.source)
		}
		f.held[name] = h
	}
	return f, nil
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name+".yaml") }

// sources are the profiles that are held, sorted.
func (f *folder) sources() (out []source.Source) {
	for _, name := range slices.Sorted(maps.Keys(f.held)) {
		if h := f.held[name]; h.source != nil {
			out = append(out, *h.source)
		}
	}
	return out
}

// write brings the folder up to date: profiles first, then the record.
func (f *folder) write() error {
	for _, name := range slices.Sorted(maps.Keys(f.held)) {
		h := f.held[name]
		var err error
		switch {
		case h.kept:
		case h.source != nil:
			err = replace(f.file(name), h.source.Text)
		default:
			if err = os.Remove(f.file(name)); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
		h.kept = true
	}
	b, err := json.MarshalIndent(record{f.out, f.held}, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(f.path, recordName), b)
}

// replace puts a file in the place of another, whole or not at all, also when power is
// lost.
func replace(path string, b []byte) (err error) {
	next := filepath.Join(filepath.Dir(path), ".next")
	w, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
