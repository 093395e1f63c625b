package fleet

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestFor: who is in a stage has the new version, the others the one before.
func TestFor(t *testing.T) {
	p, err := parsePointer([]byte(`{"seq": 7, "hash": "` + hash + `", "chunks": 2, "previous": {"seq": 6, "absent": true}, "stage": ["n1"], "by": "a", "at": "2026-01-02T03:04:05Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	if v := p.For("n1"); v.Seq != 7 || v.Absent {
		t.Errorf("n1: %+v", v)
	}
	if v := p.For("n2"); v.Seq != 6 || !v.Absent {
		t.Errorf("n2: %+v", v)
	}
	p.Previous = nil
	if v := p.For("n2"); v != nil {
		t.Errorf("n2, of a first push: %+v", v)
	}
	p.Stage = nil
	if v := p.For("n2"); v.Seq != 7 {
		t.Errorf("n2, of all: %+v", v)
	}
}

// TestParse: what no nlb writes is refused.
func TestParse(t *testing.T) {
	for value, want := range map[string]string{
		``:              "it is nothing that this nlb writes: EOF",
		`[]`:            "cannot unmarshal array",
		`{"seq": 1} {}`: "something follows",
		`{"seq": 1, "absent": true, "color": "red"}`:                                     `unknown field "color"`,
		`{"seq": 1, "absent": true, "hash": "` + hash + `"}`:                             "it is absent, and has a hash",
		`{"seq": 1, "hash": "ABC", "chunks": 1}`:                                         "hash is no SHA-256",
		`{"seq": 1, "hash": "` + hash + `"}`:                                             "0 chunks, want 1 to 17",
		`{"seq": 1, "hash": "` + hash + `", "chunks": 1000000}`:                          "1000000 chunks",
		`{"seq": -1, "absent": true}`:                                                    "cannot unmarshal number -1",
		`{"seq": 1, "absent": true, "previous": {"seq": 0}}`:                             "seq is 0",
		`{"seq": 1, "absent": true, "stage": [` + strings.Repeat(`"a",`, 1000) + `"a"]}`: "a stage of 1001 nodes",
	} {
		if _, err := parsePointer([]byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: got %v, want %s", value, err, want)
		}
	}
	if _, err := parseOut([]byte(`{"node": "../n1"}`)); err == nil {
		t.Error("a node of a strange name is out")
	}
	s, err := parseStatus([]byte(`{"trouble": "a\u001b[2Jb", "profiles": {"shop": {"seq": 1, "refused": {"seq": 2, "error": "` + strings.Repeat("x", 5000) + `"}}}}`))
	if err != nil || s.Trouble != "a [2Jb" || len(s.Profiles["shop"].Refused.Error) > maxSaid+10 {
		t.Errorf("%v %+v", err, s)
	}
	if _, err := parseStatus([]byte(`{"profiles": {"a b": {}}}`)); err == nil {
		t.Error("a profile of a strange name is held")
	}
}

// TestBlob: a text becomes chunks that a value takes, and comes back.
func TestBlob(t *testing.T) {
	noise := make([]byte, MaxProfile)
	for i, x := 0, uint64(1); i < len(noise); i++ { // it does not compress
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		noise[i] = byte(x)
	}
	for _, text := range [][]byte{nil, []byte("services: []\n"), noise} {
		chunks, err := pack(text)
		if err != nil || len(chunks) > maxChunks || slices.ContainsFunc(chunks, func(c []byte) bool { return len(c) > chunk }) {
			t.Fatalf("%d bytes: %d chunks: %v", len(text), len(chunks), err)
		}
		got, err := unpack(chunks, HashOf(text))
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes come back as %d: %v", len(text), len(got), err)
		}
	}
}

// FuzzRecords: whatever is in etcd is a value that is written as it was read, or an
// error.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"seq": 7, "hash": "` + hash + `", "chunks": 2, "previous": {"seq": 6, "absent": true}, "stage": ["n1"], "by": "a", "at": "2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"version": "v1", "at": "2026-01-02T03:04:05Z", "out": true, "draining": 1, "profiles": {"shop": {"seq": 1, "up": 3, "refused": {"seq": 2, "error": "x"}}}}`))
	f.Add([]byte(`{"node": "n1", "by": "a", "at": "2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePointer(b); err == nil {
			again, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			back, err := parsePointer(again)
			if err != nil || !cmp.Equal(p, back) {
				t.Errorf("%s: %v\n%s", again, err, cmp.Diff(p, back))
			}
		}
		w := Wanted{Pointers: map[string]Entry{}}
		w.take(keyDesired+"shop", b, 1)
		w.take(keyOut, b, 1)
		k := Known{Wanted: w, Nodes: map[string]*Status{}, Alive: map[string]bool{}}
		if s, err := parseStatus(b); err == nil {
			k.Nodes["n1"] = s
		}
		k.Report()
		_, _ = unpack([][]byte{b}, hash)
	})
}

// TestConfig: what a fleet.yaml must not say.
func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	for text, want := range map[string]string{
		"endpoints: []":                                                        "endpoints: 0 of them",
		"endpoints: [10.0.0.1]":                                                "want https://HOST:PORT",
		"endpoints: ['http://10.0.0.1:2379']":                                  "is not on this host, so it needs TLS",
		"endpoints: ['https://10.0.0.1:2379']":                                 "needs ca, cert and key",
		"endpoints: ['http://u:p@127.0.0.1:2379']":                             "want https://HOST:PORT",
		"endpoints: ['http://localhost:2379']\nca: ca.pem":                     "ca, cert and key belong together",
		"endpoints: ['http://[::1]:2379']\nname: a b":                          `name: "a b"; want 1 to 63`,
		"endpoints: ['http://[::1]:2379']\nannounce: nlb0":                     "want the keys endpoints",
		"endpoints: ['http://[::1]:2379']\n#" + strings.Repeat("x", maxConfig): "more than 65536 bytes",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %s", text, err, want)
		}
	}
	if err := os.WriteFile(path, []byte("endpoints: ['http://127.0.0.1:2379']\nname: n1\nstate: here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(path)
	if err != nil || c.Name != "n1" || c.State != filepath.Join(filepath.Dir(path), "here") {
		t.Errorf("%+v %v", c, err)
	}
}
