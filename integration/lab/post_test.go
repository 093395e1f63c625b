//go:build linux

package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/integration/netlab/traffic"
	"nlb/lb/config"
)

// TestAnswers: a stand-in passes all checks of a service, at the ports where they ask.
func TestAnswers(t *testing.T) {
	p, err := config.Parse("test.yaml", []byte(`profile: p
services:
  - name: web
    listen: 203.0.113.10:80
    health: [{check: http, path: /a, status: 401}, {check: http, path: /b, body: well}, {check: tcp, expect: hi}]
    backends: [{address: "10.0.0.11:80", check-at: ":8081"}, {address: "10.0.0.12:80", check-at: ":8082"}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &traffic.Answers{
		Pages:  map[string]traffic.Page{"/a": {Status: 401}, "/b": {Status: 200, Body: "well"}},
		Talk:   map[string]string{},
		Speaks: map[uint16]string{8081: "hi", 8082: "hi"},
	}
	if d := cmp.Diff(want, answersOf(&p.Services[0])); d != "" {
		t.Errorf("-want +got: %s", d)
	}
}
