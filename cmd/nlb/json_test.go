//go:build linux

package main

// docs/json.md and the values that commands print have the same fields.

import (
	"encoding"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/fleet"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb/announce"
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
		// show's are tested where they are made.
		"apply": appliedValue{}, "diff": diffValue{}, "flush": flushedValue{}, "healthy": announce.Health{},
		"check": checkedValue{}, "render": renderedValue{}, "doctor": examinedValue{}, "import": view.Imported{}, "version": buildValue{}, "drain": agent.Done{},
		"push": fleet.Pushed{}, "fleet": fleet.Report{},
	} {
		want := jsonFields("", reflect.TypeOf(value))
		slices.Sort(want)
		got := documented[command]
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: nlb %s (-program +document)\n%s", file, command, d)
		}
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
			if f.Anonymous {
				out = append(out, jsonFields(path, f.Type)...)
				continue
			}
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
	case typ.Kind() == reflect.Struct && len(out) > 1:
		out = append([]string{path + ": object" + absent}, out...)
	default:
		out[0] += absent
	}
	return out
}
