//go:build linux

package member

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/integration/netlab/netlabtest"
)

// What is put into etcd past nlb, and done to a node.

const bad = "profile: shop\nservices:\n  - {name: web, listen: \":80\", bakends: [10.2.0.11]}\n"

var large = "# " + strings.Repeat("0123456789abcdef ", 10<<20/17) + "\n"

func pointer(seq int, hash string) string {
	return fmt.Sprintf(`{"seq": %d, "hash": %q, "chunks": 1, "by": "x", "at": %q}`, seq, hash, time.Now().UTC().Format(time.RFC3339))
}

func hashIn(pointer string) string {
	var p struct{ Hash string }
	_ = json.Unmarshal([]byte(pointer), &p)
	return p.Hash
}

func packed(t *testing.T, text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	netlabtest.Must(t, err, w.Close())
	return b.String()
}

// flush empties the kernel of the calling thread.
func flush() error {
	e, err := engine.Open("nlb")
	if err != nil {
		return err
	}
	defer e.Close()
	_, err = e.Flush(context.Background(), nil, engine.FlushOptions{})
	return err
}

// fullDisk has the files of a folder written where the disk is full.
func fullDisk(folder string) (fill, free func() error) {
	next := filepath.Join(folder, ".next")
	return func() error { return os.Symlink("/dev/full", next) }, func() error { return os.Remove(next) }
}

// damage overwrites all files of a folder.
func damage(folder string) error {
	files, err := os.ReadDir(folder)
	for _, f := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(folder, f.Name()), []byte("\x00}{"), 0o600))
	}
	return err
}
