package fleet

// The store: etcd, as far as a fleet uses it. A profile is in it as a blob: its text,
// compressed and cut, under its hash.

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcd "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"nlb/lb"
)

const (
	askTime = 5 * time.Second // for one request
	// aliveTime is after how long a node counts as lost that says nothing.
	aliveTime = 15 * time.Second
	// maxKeys bounds how many profiles and nodes there are.
	maxKeys   = 2000
	maxAnswer = 64 << 20
)

// Store is a connection with etcd.
type Store struct {
	config *Config
	client *etcd.Client
}

// Open is Dial with the configuration that a file has; empty: DefaultFile.
func Open(file string) (*Store, error) {
	c, err := ReadConfig(cmp.Or(file, DefaultFile))
	if err != nil {
		return nil, err
	}
	return Dial(c)
}

// Dial makes sure that somebody answers, and prepares a connection.
func Dial(c *Config) (*Store, error) {
	secret, err := c.reach()
	if err != nil {
		return nil, err
	}
	client, err := etcd.New(etcd.Config{
		Endpoints: c.Endpoints, TLS: secret, Logger: zap.NewNop(), MaxCallRecvMsgSize: maxAnswer,
		DialKeepAliveTime: askTime, DialKeepAliveTimeout: askTime,
	})
	if err != nil {
		return nil, err
	}
	return &Store{c, client}, nil
}

// Close ends the connection.
func (s *Store) Close() { _ = s.client.Close() }

// Entry is a pointer as it was read; where it is none, Err says why.
type Entry struct {
	*Pointer
	Err      error
	Revision int64 // of its last change
}

// Wanted is what is wanted of all nodes, at one revision.
type Wanted struct {
	Revision int64
	Pointers map[string]Entry // by profile
	Out      *Out             // nil: not said
	Strange  []string         // keys that are not nlb's
	outAt    int64
}

// Known is all that is known of a fleet, at one revision.
type Known struct {
	Wanted
	Nodes map[string]*Status
	Alive map[string]bool
}

// Wanted reads what is wanted.
func (s *Store) Wanted(ctx context.Context) (*Wanted, error) {
	r, err := s.commit(ctx, nil, etcd.OpGet(keyDesired, etcd.WithPrefix(), etcd.WithLimit(maxKeys)), etcd.OpGet(keyOut))
	if err != nil {
		return nil, err
	}
	return wantedOf(r), nil
}

// Known reads all of it, as an admin may.
func (s *Store) Known(ctx context.Context) (*Known, error) {
	r, err := s.commit(ctx, nil, etcd.OpGet(keyDesired, etcd.WithPrefix(), etcd.WithLimit(maxKeys)), etcd.OpGet(keyOut),
		etcd.OpGet(keyNode, etcd.WithPrefix(), etcd.WithLimit(maxKeys)), etcd.OpGet(keyAlive, etcd.WithPrefix(), etcd.WithLimit(maxKeys)))
	if err != nil {
		return nil, err
	}
	k := &Known{Wanted: *wantedOf(r), Nodes: map[string]*Status{}, Alive: map[string]bool{}}
	for _, kv := range r.Responses[2].GetResponseRange().Kvs {
		name := strings.TrimPrefix(string(kv.Key), keyNode)
		status, err := parseStatus(kv.Value)
		switch {
		case lb.CheckName(name) != "":
			k.strange(string(kv.Key))
			continue
		case err != nil:
			status = &Status{Trouble: Said(fmt.Errorf("its status cannot be read: %w", err))}
		}
		k.Nodes[name] = status
	}
	for _, kv := range r.Responses[3].GetResponseRange().Kvs {
		k.Alive[strings.TrimPrefix(string(kv.Key), keyAlive)] = true
	}
	return k, nil
}

func wantedOf(r *etcd.TxnResponse) *Wanted {
	w := &Wanted{Revision: r.Header.Revision, Pointers: map[string]Entry{}}
	for _, part := range r.Responses[:2] {
		for _, kv := range part.GetResponseRange().Kvs {
			w.take(string(kv.Key), kv.Value, kv.ModRevision)
		}
	}
	return w
}

func (w *Wanted) take(key string, value []byte, revision int64) {
	if key == keyOut {
		if out, err := parseOut(value); err == nil {
			w.Out = out
		} else {
			w.strange(key)
		}
		w.outAt = revision
		return
	}
	name := strings.TrimPrefix(key, keyDesired)
	if lb.CheckName(name) != "" {
		w.strange(key)
		return
	}
	p, err := parsePointer(value)
	if err != nil {
		err = fmt.Errorf("%s: %w", key, err)
	}
	w.Pointers[name] = Entry{p, err, revision}
}

const mostStrange = 20

func (w *Wanted) strange(key string) {
	if key = Said(fmt.Errorf("%.100q", key)); len(w.Strange) < mostStrange {
		w.Strange = append(w.Strange, key)
	}
}

// ErrRaced says that what was read has changed meanwhile.
var ErrRaced = errors.New("somebody else was faster")

// commit does what is asked, if the conditions hold; else the error is ErrRaced.
func (s *Store) commit(ctx context.Context, conditions []etcd.Cmp, ops ...etcd.Op) (*etcd.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	r, err := s.client.Txn(ctx).If(conditions...).Then(ops...).Commit()
	switch {
	case err != nil:
		return nil, s.explain(err)
	case !r.Succeeded:
		return nil, ErrRaced
	}
	for _, part := range r.Responses {
		if part.GetResponseRange() != nil && part.GetResponseRange().More {
			return nil, fmt.Errorf("etcd has more than %d profiles or nodes; a fleet takes no more", maxKeys)
		}
	}
	return r, nil
}

// explain is an error of the client with its reason.
func (s *Store) explain(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrUserNotFound):
		return fmt.Errorf("etcd does not let %s do that; nlb fleet roles says which roles there are to be: %w", s.config.Name, err)
	case errors.Is(err, context.Canceled):
		return err
	}
	if _, why := s.config.reach(); why != nil {
		return why
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("etcd does not answer in %s; it may have no leader", askTime)
	}
	return fmt.Errorf("etcd: %w", err)
}

// Blob is the text of a version.
func (s *Store) Blob(ctx context.Context, v *Version) ([]byte, error) {
	chunks := make([][]byte, v.Chunks)
	for i := range chunks {
		r, err := s.commit(ctx, nil, etcd.OpGet(chunkKey(v.Hash, i)))
		if err != nil {
			return nil, &ReadError{err}
		}
		kvs := r.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return nil, fmt.Errorf("the blob %.12s... lacks part %d of %d", v.Hash, i+1, v.Chunks)
		}
		if len(kvs[0].Value) > chunk {
			return nil, fmt.Errorf("part %d of the blob %.12s... is too large", i+1, v.Hash)
		}
		chunks[i] = kvs[0].Value
	}
	return unpack(chunks, v.Hash)
}

// ReadError says that etcd could not be read, whatever is in it.
type ReadError struct{ err error }

func (e *ReadError) Error() string { return e.err.Error() }
func (e *ReadError) Unwrap() error { return e.err }

func chunkKey(hash string, i int) string { return fmt.Sprintf("%s%s/%04d", keyBlob, hash, i) }

// putBlob stores a text, unless it is there, and returns its version without a
// sequence.
func (s *Store) putBlob(ctx context.Context, text []byte) (*Version, error) {
	chunks, err := pack(text)
	if err != nil {
		return nil, err
	}
	v := &Version{Hash: HashOf(text), Chunks: len(chunks)}
	if _, err := s.Blob(ctx, v); err == nil {
		return v, nil
	}
	for i, c := range chunks {
		if _, err := s.commit(ctx, nil, etcd.OpPut(chunkKey(v.Hash, i), string(c))); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func put(key string, value any, o ...etcd.OpOption) etcd.Op {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // all of them are plain values
	}
	return etcd.OpPut(key, string(b), o...)
}

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
