//go:build linux

package view

// docs/json.md and the JSON of a snapshot have the same fields.

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/lbtest"
)

func TestSnapshotReference(t *testing.T) {
	const file = "../../../../docs/json.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "## nlb show\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(section, -1) {
		got = append(got, m[1]+": "+m[2])
	}
	want := append(snapshotFields(t), "table: string", "generation: number", "announced[]: string, or missing", "trouble: string, or missing", "profiles[].name: string")
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: nlb show (-program +document)\n%s", file, d)
	}
}

// snapshotFields are the values of services that show prints. They follow from the
// keys that lb knows, so they are taken from services that have all of them, and
// from some that have little: what these have not may be missing.
func snapshotFields(t *testing.T) []string {
	t.Helper()
	live := 1
	profiles := append(lbtest.Full(), lbtest.Fleet(1))
	for _, p := range lbtest.Full()[:2] { // as the kernel has them, of one family
		s := &p.Services[0]
		s.Affinity, s.Limit, s.Log = &lb.Affinity{Timeout: time.Second, Bits: 24}, lb.Limit{New: s.Limit.New}, &lb.Log{Prefix: "x"}
		s.Backends[0].Log = &lb.Log{Prefix: "y"}
		profiles = append(profiles, p)
	}
	profiles[len(profiles)-2].Services[0].Affinity = &lb.Affinity{Timeout: time.Second, Bits6: 64}
	profiles[len(profiles)-2].Services[0].Limit = lb.Limit{ConnectionsPerSource: 1}
	seen, number := map[string]string{}, map[string]int{}
	for _, p := range profiles {
		s := &p.Services[0]
		one := ShownService{Service: s, Backends: []ShownBackend{}}
		if s.Mode == lb.DSR {
			packets := uint64(5)
			one.Backends = append(one.Backends, ShownBackend{Backend: &s.Backends[0], of: s, Packets: &packets})
		}
		for i := range s.Backends {
			b := &s.Backends[i]
			one.Backends = append(one.Backends, ShownBackend{Backend: b, of: s, Live: &live})
			b.Standing = lb.Standing{Verdict: lb.VerdictDown, Since: time.Unix(1, 0), Reason: "tcp: refused", Order: lb.OrderDrain, By: "root", Until: time.Unix(2, 0)}
			b.Share = 3
			one.Backends = append(one.Backends, ShownBackend{Backend: b, of: s, Live: &live, known: &Known{Checks: []Check{{}}}})
			one.Backends = append(one.Backends, ShownBackend{Backend: &lb.Backend{Address: b.Address}, of: s, Live: &live})
		}
		text, err := one.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		var value map[string]any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		valueFields("profiles[].services[]", value, seen, number)
	}
	var out []string
	for path, kind := range seen {
		parent := path[:strings.LastIndexByte(path, '.')]
		switch {
		case strings.HasSuffix(path, ".live"):
			kind += " or null"
		case number[path] < max(number[parent], number[parent+"[]"]):
			kind += ", or missing"
		}
		out = append(out, path+": "+kind)
	}
	return out
}

// valueFields notes the fields of a value, with their types, and how many times
// each is there.
func valueFields(path string, value any, seen map[string]string, number map[string]int) {
	number[path]++
	switch v := value.(type) {
	case map[string]any:
		if !strings.HasSuffix(path, "[]") {
			seen[path] = "object"
		}
		for key, inner := range v {
			valueFields(path+"."+key, inner, seen, number)
		}
	case []any:
		number[path]--
		if len(v) == 0 {
			return
		}
		if reflect.TypeOf(v[0]).Kind() == reflect.Map {
			for _, inner := range v {
				valueFields(path+"[]", inner, seen, number)
			}
			return
		}
		number[path+"[]"]++
		seen[path+"[]"] = "string"
	case string:
		seen[path] = "string"
	case float64:
		seen[path] = "number"
	case bool:
		seen[path] = "boolean"
	default:
		panic(fmt.Sprintf("%s is a %T", path, value))
	}
}
