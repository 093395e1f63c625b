//go:build linux

package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/cmd/nlb/internal/view"
)

// schema is a part of the document.
type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 any                `json:"type"` // a word, or several
	Properties           map[string]*schema `json:"properties"`
	Required             []string           `json:"required"`
	Items                *schema            `json:"items"`
	Enum                 []string           `json:"enum"`
	AdditionalProperties any                `json:"additionalProperties"`
}

type document struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]struct {
				Schema *schema `json:"schema"`
			} `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

func readDocument(t *testing.T) *document {
	t.Helper()
	var d document
	must(t, json.Unmarshal(openAPI, &d))
	return &d
}

// faults are where a value is not as a schema has it.
func (d *document) faults(at string, s *schema, v any) (out []string) {
	if s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	if s == nil {
		return []string{at + ": there is no such schema"}
	}
	kind := map[bool]string{true: "null"}[v == nil]
	switch v := v.(type) {
	case string:
		if kind = "string"; len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			out = append(out, at+": "+v+" is not in the list")
		}
	case float64:
		kind = "number"
	case bool:
		kind = "boolean"
	case []any:
		kind = "array"
		for i, one := range v {
			out = append(out, d.faults(fmt.Sprintf("%s[%d]", at, i), s.Items, one)...)
		}
	case map[string]any:
		kind = "object"
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				out = append(out, at+"."+name+" is missing")
			}
		}
		for name, one := range v {
			if p := s.Properties[name]; p != nil {
				out = append(out, d.faults(at+"."+name, p, one)...)
			} else if s.AdditionalProperties == false {
				out = append(out, at+"."+name+" is not in the document")
			}
		}
	}
	if types := fmt.Sprint(s.Type); !slices.Contains(strings.Fields(strings.Trim(types, "[]")), kind) {
		out = append(out, at+": is of type "+kind+", not "+types)
	}
	return out
}

// TestAnswers: what comes is what the document says.
func TestAnswers(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	b := applied(t, shop)
	b.Log(slog.New(slog.DiscardHandler)).Warn("down", "backend", "shop/web/b3")
	h := New(b, func(_ context.Context, profile, service string) (map[string]*view.Known, error) {
		if profile != "shop" || service != "web" {
			t.Errorf("asked for %s/%s", profile, service)
		}
		return map[string]*view.Known{"b3": {Verdict: "down", Reason: "tcp: refused", Checks: []view.Check{{Check: "tcp", Past: "--"}}}}, nil
	}).Handler()
	for _, tt := range []struct {
		path, of string
		code     int
		has      string
	}{
		{"/healthz", "", 200, "goes on"},
		{"/readyz", "", 200, "Balances"},
		{"/v1/show", "", 200, `"name":"mail"`},
		{"/v1/show/shop", "/v1/show/{name}", 200, `"name":"mail"`},
		{"/v1/show/shop/web", "/v1/show/{name}", 200, `"state":"down","verdict":"down"`},
		{"/v1/show/shop/web/b3", "/v1/show/{name}", 200, `"past":"--"`},
		{"/v1/show/shop/web/b4", "/v1/show/{name}", 404, "backend shop/web/b4 is not kept here"},
		{"/v1/show/store", "/v1/show/{name}", 404, "profile store"},
		{"/v1/events", "", 200, `"event":"down"`},
		{"/v1/openapi.json", "", 200, `"openapi"`},
	} {
		if tt.of == "" {
			tt.of = tt.path
		}
		code, header, body := get(t, h, tt.path)
		kind, _, _ := strings.Cut(header.Get("Content-Type"), ";")
		content, there := d.Paths[tt.of]["get"].Responses[fmt.Sprint(tt.code)].Content[kind]
		if code != tt.code || !there || !bytes.Contains(body, []byte(tt.has)) {
			t.Errorf("%s: got %d, %s (in the document: %v)\n%s", tt.path, code, kind, there, body)
		}
		if kind != "application/json" {
			continue
		}
		var value any
		must(t, json.Unmarshal(body, &value))
		for _, f := range d.faults(tt.path, content.Schema, value) {
			t.Error(f)
		}
	}
	// What one answer has taken apart, the next one has whole.
	if _, _, body := get(t, h, "/v1/show"); !bytes.Contains(body, []byte(`"name":"b1"`)) || bytes.Contains(body, []byte(`"checks"`)) {
		t.Errorf("afterwards: %s", body)
	}
}

// TestDocument: the document has the fields of docs/json.md.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/json.md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "## nlb show\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var want, got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(section, -1) {
		want = append(want, m[1]+": "+m[2])
	}
	d := readDocument(t)
	d.fields("", d.Components.Schemas["Snapshot"], true, &got)
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("docs/json.md and openapi.json (-json.md +openapi.json)\n%s", d)
	}
}

// fields are those of a schema, as docs/json.md has them.
func (d *document) fields(at string, s *schema, required bool, out *[]string) {
	missing := map[bool]string{false: ", or missing"}[required]
	switch s.Type {
	case "array":
		d.fields(at+"[]", s.Items, required || s.Items.Type == "object", out)
	case "object":
		if missing != "" {
			*out = append(*out, at+": object"+missing)
		}
		for name, p := range s.Properties {
			d.fields(strings.TrimPrefix(at+"."+name, "."), p, slices.Contains(s.Required, name), out)
		}
	case "string", "number", "boolean":
		*out = append(*out, at+": "+s.Type.(string)+missing)
	default:
		*out = append(*out, at+": number or null")
	}
}
