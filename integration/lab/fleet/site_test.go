//go:build linux

package fleet

import (
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
)

// TestDraft: what balancers cannot take over from each other is left out, and said.
func TestDraft(t *testing.T) {
	for _, tt := range []struct{ service, want string }{
		{"mode: dsr, scheduler: hash, ", "with mode: dsr answers go past the balancers"},
		{"mode: tunnel, scheduler: hash, ", "with mode: tunnel answers go past the balancers"},
		{"protocol: udp, ", "it has no TCP"},
		{"", ""},
	} {
		p, err := config.Parse("shop.yaml", []byte("services: [{name: web, listen: \"203.0.113.10:80\", "+tt.service+"backends: 10.0.0.1}]"))
		if err != nil {
			t.Fatal(err)
		}
		s := draft([]*lb.Profile{p})
		if got := strings.Join(s.notes, "\n"); !strings.Contains(got, tt.want) || (len(s.targets) == 0) != (tt.want != "") {
			t.Errorf("%s: %d targets, %q, want %q", tt.service, len(s.targets), got, tt.want)
		}
	}
}
