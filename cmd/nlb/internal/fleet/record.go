package fleet

// Records: what is in etcd, as values and as JSON. All of it is hostile until it was
// parsed.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"nlb/lb"
)

// Keys. Nodes read what is wanted and the blobs, and write the last two of their own
// name alone.
const (
	root       = "nlb/v1/"
	keyBlob    = root + "blob/"    // HASH/0000: gzip in chunks, which never changes
	keyDesired = root + "desired/" // PROFILE: a Pointer
	keyHistory = root + "history/" // PROFILE/SEQ: the Pointers that were
	keyOut     = root + "out"      // an Out
	keyNode    = root + "node/"    // NAME: a Status
	keyAlive   = root + "alive/"   // NAME: with a lease
)

const (
	maxPointer = 64 << 10
	maxStatus  = 1 << 20
	maxStage   = 1000
	// MaxMessage is the length of what a push says, and maxSaid that of an error in a
	// status, in bytes.
	MaxMessage = 200
	maxSaid    = 2000
)

// Version is a profile at one time.
type Version struct {
	Seq    uint64 `json:"seq"`
	Hash   string `json:"hash,omitempty"`   // SHA-256 of the YAML
	Chunks int    `json:"chunks,omitempty"` // of the blob
	// Absent says that there is to be none.
	Absent bool `json:"absent,omitempty"`
}

// Same reports whether two versions have the same content.
func (v *Version) Same(o *Version) bool { return v.Hash == o.Hash && v.Absent == o.Absent }

// Pointer says which version of a profile is wanted.
type Pointer struct {
	Version
	// Previous is the last one that all nodes were to have; nil: there was none.
	Previous *Version `json:"previous,omitempty"`
	// Stage are the nodes that are to have this version; none: all. The others stay
	// with the previous one.
	Stage   []string  `json:"stage,omitempty"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Message string    `json:"message,omitempty"`
}

// For is the version that a node is to have; nil: that is not said.
func (p *Pointer) For(node string) *Version {
	if len(p.Stage) == 0 || slices.Contains(p.Stage, node) {
		return &p.Version
	}
	return p.Previous
}

// Settled is the last version that all nodes were to have; nil: none.
func (p *Pointer) Settled() *Version {
	if len(p.Stage) == 0 {
		return &p.Version
	}
	return p.Previous
}

// parsePointer reads the value of a key under desired.
func parsePointer(b []byte) (*Pointer, error) {
	var p Pointer
	if err := parse(b, maxPointer, &p); err != nil {
		return nil, err
	}
	for _, v := range []*Version{&p.Version, p.Previous} {
		if v == nil {
			continue
		}
		if err := v.check(); err != nil {
			return nil, err
		}
	}
	if len(p.Stage) > maxStage {
		return nil, fmt.Errorf("a stage of %d nodes, want at most %d", len(p.Stage), maxStage)
	}
	return &p, nil
}

// check says what no push of nlb writes.
func (v *Version) check() error {
	isHex := len(v.Hash) == 64 && strings.Trim(v.Hash, "0123456789abcdef") == ""
	switch {
	case v.Seq == 0:
		return errors.New("seq is 0, want 1 or more")
	case v.Absent && (v.Hash != "" || v.Chunks != 0):
		return errors.New("it is absent, and has a hash")
	case !v.Absent && !isHex:
		return errors.New("hash is no SHA-256 in hex")
	case !v.Absent && (v.Chunks < 1 || v.Chunks > maxChunks):
		return fmt.Errorf("%d chunks, want 1 to %d", v.Chunks, maxChunks)
	}
	return nil
}

// Status is how a node is, as it says itself.
type Status struct {
	Version string    `json:"version"` // of nlb
	At      time.Time `json:"at"`      // when it was written
	Out     bool      `json:"out"`     // by order
	// Draining is how many backends get no new connections, and still have some.
	Draining int `json:"draining"`
	// Clock is how far its clock is ahead of that of who pushed last, in seconds, where
	// it is far.
	Clock    int              `json:"clock,omitempty"`
	Trouble  string           `json:"trouble,omitempty"`
	Profiles map[string]*Held `json:"profiles"`
}

// Held is what a node has of a profile.
type Held struct {
	Version           // that it has applied; seq 0: none
	Since   time.Time `json:"since,omitzero"`
	// Seen is the highest sequence that it has been pointed to.
	Seen uint64 `json:"seen,omitempty"`
	Health
	Refused *Refusal `json:"refused,omitempty"`
}

// Health is how many backends are up, down, and not yet known; and of how many
// services too few are up.
type Health struct {
	Up   int `json:"up"`
	Down int `json:"down"`
	New  int `json:"new"`
	Open int `json:"open"`
}

// Fit shortens what a status says of refusals, where it would be too long to be
// written.
func (s *Status) Fit() {
	const many, short = 200, 100
	refused := 0
	for _, h := range s.Profiles {
		if h.Refused != nil {
			refused++
		}
	}
	for _, h := range s.Profiles {
		if h.Refused != nil && refused > many && len(h.Refused.Error) > short {
			h.Refused = &Refusal{h.Refused.Seq, strings.ToValidUTF8(h.Refused.Error[:short], "") + " ..."}
		}
	}
}

// Refusal says why a node does not have what is wanted.
type Refusal struct {
	Seq   uint64 `json:"seq"`
	Error string `json:"error"` // with its place
}

// Refuse makes a refusal of an error.
func Refuse(seq uint64, err error) *Refusal { return &Refusal{seq, Said(err)} }

// Said is an error as a status has it: not endless, and safe to print.
func Said(err error) string {
	s := strings.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r != 0x7f {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(err.Error(), "?"))
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + " ..."
	}
	return s
}

// parseStatus reads the value of a key under node.
func parseStatus(b []byte) (*Status, error) {
	var s Status
	if err := parse(b, maxStatus, &s); err != nil {
		return nil, err
	}
	for name, h := range s.Profiles {
		if lb.CheckName(name) != "" || h == nil {
			return nil, errors.New("it has a profile that can be none")
		}
		if h.Refused != nil {
			h.Refused.Error = Said(errors.New(h.Refused.Error))
		}
	}
	s.Trouble, s.Version = Said(errors.New(s.Trouble)), Said(errors.New(s.Version))
	return &s, nil
}

// Out says which node is to be out. It is one key, so there is one at most.
type Out struct {
	Node string    `json:"node"` // empty: none
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

func parseOut(b []byte) (*Out, error) {
	var o Out
	if err := parse(b, maxPointer, &o); err != nil {
		return nil, err
	}
	if o.Node != "" && lb.CheckName(o.Node) != "" {
		return nil, errors.New("it names no node")
	}
	return &o, nil
}

// parse reads one JSON value without fields that are unknown: they might change what
// it means.
func parse(b []byte, most int, v any) error {
	if len(b) > most {
		return fmt.Errorf("it has %d bytes, want at most %d", len(b), most)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("it is nothing that this nlb writes: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("it is nothing that nlb writes: something follows the value")
	}
	return nil
}
