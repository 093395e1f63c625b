package fleet

// Blobs: the text of a profile, compressed and cut, under its hash.

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// MaxProfile is the size of the largest profile of a fleet, in bytes. 64,000
	// services with three backends each have 8 MB.
	MaxProfile = 8 << 20
	// chunk is the size of the largest value. etcd takes requests of 1.5 MiB.
	chunk     = 512 << 10
	maxChunks = MaxProfile/chunk + 1 // what does not compress gets a little longer
)

// HashOf is the hash of a profile's text.
func HashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// pack makes the chunks of a text.
func pack(text []byte) ([][]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return slices.Collect(slices.Chunk(b.Bytes(), chunk)), nil
}

// unpack is the text of chunks. It reads no more than a profile may have, whatever
// the chunks would become.
func unpack(chunks [][]byte, hash string) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(bytes.Join(chunks, nil)))
	if err != nil {
		return nil, fmt.Errorf("the blob is no gzip: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxProfile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the blob is no whole gzip: %w", err)
	case len(text) > MaxProfile:
		return nil, fmt.Errorf("the profile has more than %d bytes (%d MiB), which is too large for a fleet", MaxProfile, MaxProfile>>20)
	case HashOf(text) != hash:
		return nil, fmt.Errorf("the profile's hash is %.12s..., and %.12s... was pushed", HashOf(text), hash)
	}
	return text, nil
}
