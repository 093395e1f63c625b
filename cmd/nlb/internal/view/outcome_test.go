package view

import (
	"bytes"
	"testing"
	"time"

	"nlb/lb"
)

// TestNoteHealth: an apply says whom health or an order keeps out, and once that
// nobody checks.
func TestNoteHealth(t *testing.T) {
	at := time.Now()
	clock := at.Format("15:04")
	for _, tt := range []struct {
		held      Held
		unchecked bool
		dryRun    bool
		want      string
	}{
		{Held{}, false, false, ""},
		{Held{}, true, false, "nlb: health needs nlb run; nothing is checked\n"},
		{Held{Down: 2, Newest: at}, true, false, "nlb: 2 backends are held down by health, and nobody checks: the last verdict is of " + clock + "; --forget-health lets them in\n"},
		{Held{Down: 2, Newest: at}, false, false, ""},
		{Held{Down: 1, Ordered: 3, Newest: at}, true, false, "nlb: 1 backend is held down by health, and nobody checks: the last verdict is of " + clock + "; --forget-health lets it in\n" +
			"nlb: 3 backends are drained or disabled by order; nlb enable lets them in\n"},
		{Held{Forgotten: 2}, false, true, "nlb: would let 2 backends in that health held down\n"},
		{Held{Forgotten: 1}, true, false, "nlb: health needs nlb run; nothing is checked\nnlb: let 1 backend in that health held down\n"},
	} {
		var b bytes.Buffer
		NewConsole("nlb", nil, &b, &b).NoteHealth(tt.held, tt.unchecked, "--forget-health", tt.dryRun)
		if b.String() != tt.want {
			t.Errorf("%+v: got\n%swant\n%s", tt, b.String(), tt.want)
		}
	}
}

// TestNoteUnfollowed: an apply says once that nobody counts connections.
func TestNoteUnfollowed(t *testing.T) {
	for scheduler, want := range map[lb.Scheduler]string{
		lb.RoundRobin:       "",
		lb.LeastConnections: "nlb: least-connections needs nlb run; without it, it is round-robin\n",
	} {
		var b bytes.Buffer
		s := lb.Service{Scheduler: scheduler}
		NewConsole("nlb", nil, &b, &b).NoteUnfollowed([]*lb.Profile{{Services: []lb.Service{s, s}}})
		if b.String() != want {
			t.Errorf("%s: got %q, want %q", scheduler, &b, want)
		}
	}
}

// TestNoteFleet: what is otherwise in a fleet is said once.
func TestNoteFleet(t *testing.T) {
	limit := lb.Limit{ConnectionsPerSource: 1}
	for _, tt := range []struct {
		service lb.Service
		want    string
	}{
		{lb.Service{Limit: limit, Affinity: &lb.Affinity{}, Scheduler: lb.Hash}, ""},
		{lb.Service{Fleet: lb.FleetAnycast, Scheduler: lb.Consistent}, ""},
		{lb.Service{Fleet: lb.FleetMesh, Limit: limit}, "nlb: shop/web is of a fleet: each balancer counts its limits for itself\n"},
		{lb.Service{Fleet: lb.FleetPair, Affinity: &lb.Affinity{}}, "nlb: shop/web is of a fleet: affinity and rates begin anew on the other balancer\n"},
		{lb.Service{Fleet: lb.FleetAnycast, Scheduler: lb.Hash}, "nlb: shop/web is of a fleet: with scheduler: consistent fewer clients move when backends change\n"},
	} {
		tt.service.Name = "web"
		var b bytes.Buffer
		NewConsole("nlb", nil, &b, &b).NoteFleet([]*lb.Profile{{Name: "shop", Services: []lb.Service{tt.service, tt.service}}})
		if b.String() != tt.want {
			t.Errorf("got %q, want %q", b.String(), tt.want)
		}
	}
}
