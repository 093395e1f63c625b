//go:build linux

package main

// docs/json.md and the values that commands print have the same fields.

import (
	"encoding"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/lb/lbtest"

	"github.com/google/go-cmp/cmp"
)

func TestJSONReference(t *testing.T) {
	const file = "../../docs/json.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	row := regexp.MustCompile("^\\| `([^`]+)` \\| ([^|]+) \\|")
	command := ""
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "## nlb "); ok {
			command = strings.TrimSpace(name)
		}
		if m := row.FindStringSubmatch(line); m != nil {
			documented[command] = append(documented[command], m[1]+": "+m[2])
		}
	}
	for command, value := range map[string]any{
		"show": shownFrame{}, "apply": appliedValue{}, "diff": diffValue{}, "flush": flushedValue{},
		"check": checked{}, "render": rendered{}, "doctor": examined{}, "import": imported{}, "version": built{},
	} {
		want := jsonFields("", reflect.TypeOf(value))
		if command == "show" {
			want = append(want, shownFields(t)...)
		}
		slices.Sort(want)
		got := documented[command]
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: nlb %s (-program +document)\n%s", file, command, d)
		}
	}
}

// shownFrame is what show prints around the services.
type shownFrame struct {
	Table      string `json:"table"`
	Generation uint32 `json:"generation"`
	Profiles   []struct {
		Name string `json:"name"`
	} `json:"profiles"`
}

// shownFields are the values of services that show prints. They follow from the
// keys that lb knows, so they are taken from services that have all of them, and
// from some that have little: what these have not may be missing.
func shownFields(t *testing.T) []string {
	t.Helper()
	live := 1
	profiles := append(lbtest.Full(), lbtest.Fleet(1))
	for _, p := range lbtest.Full()[:2] { // as the kernel has them, of one family
		s := &p.Services[0]
		s.Affinity, s.Limit, s.Log = &lb.Affinity{Timeout: time.Second, Bits: 24}, lb.Limit{New: s.Limit.New}, &lb.Log{Prefix: "x"}
		s.Backends[0].Log = &lb.Log{Prefix: "y"}
		profiles = append(profiles, p)
	}
	profiles[4].Services[0].Affinity = &lb.Affinity{Timeout: time.Second, Bits6: 64}
	profiles[4].Services[0].Limit = lb.Limit{ConnectionsPerSource: 1}
	seen, number := map[string]string{}, map[string]int{}
	for _, p := range profiles {
		s := &p.Services[0]
		one := shownService{service: s, Backends: []shownBackend{}}
		for i := range s.Backends {
			b := &s.Backends[i]
			one.Backends = append(one.Backends, shownBackend{Backend: b, values: b.Values(s), Live: &live})
		}
		text, err := json.Marshal(one)
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
	default:
		panic(fmt.Sprintf("%s is a %T", path, value))
	}
}

// jsonFields are the values inside a value, with their types. A mapping that may
// be missing has a line of its own.
func jsonFields(path string, typ reflect.Type) []string {
	if typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return []string{path + ": string"}
	}
	switch typ.Kind() {
	case reflect.Struct:
		var out []string
		for f := range typ.Fields() {
			name, options, ok := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || name == "" && !ok {
				continue
			}
			out = append(out, jsonField(strings.TrimPrefix(path+"."+name, "."), f.Type, options)...)
		}
		return out
	case reflect.Slice:
		return jsonFields(path+"[]", typ.Elem())
	case reflect.String:
		return []string{path + ": string"}
	case reflect.Bool:
		return []string{path + ": boolean"}
	case reflect.Int, reflect.Uint32, reflect.Uint64, reflect.Float64:
		return []string{path + ": number"}
	}
	panic(fmt.Sprintf("%s is a %v", path, typ))
}

func jsonField(path string, typ reflect.Type, options string) []string {
	absent := ""
	if typ.Kind() == reflect.Pointer {
		typ, absent = typ.Elem(), " or null"
	}
	if strings.Contains(options, "omit") {
		absent = ", or missing"
	}
	out := jsonFields(path, typ)
	switch {
	case absent == "":
	case typ.Kind() == reflect.Struct:
		out = append([]string{path + ": object" + absent}, out...)
	default:
		out[0] += absent
	}
	return out
}
