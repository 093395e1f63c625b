package compile

import (
	"strings"
	"testing"
	"time"

	"nlb/lb"
)

var since = time.Date(2026, 11, 26, 4, 5, 6, 0, time.UTC)

// TestStanding: what is written is read back, as far as the table keeps it.
func TestStanding(t *testing.T) {
	until := since.Add(time.Hour)
	longest := lb.Standing{
		Verdict: lb.VerdictDown, Since: since, Reason: strings.Repeat("r", lb.MaxReason),
		Order: lb.OrderDisable, By: strings.Repeat("b", lb.MaxBy), Until: until,
	}
	for want, s := range map[string]lb.Standing{
		"":                               {Verdict: lb.VerdictUp, Since: since, Reason: "200"},
		"down 2026-11-26T04:05:06Z":      {Verdict: lb.VerdictDown, Since: since.Add(time.Millisecond).In(time.FixedZone("", 3600))},
		"down 2026-11-26T04:05:06Z a; b": {Verdict: lb.VerdictDown, Since: since, Reason: "a; b"},
		"down 2026-11-26T04:05:06Z ?x??": {Verdict: lb.VerdictDown, Since: since, Reason: "\"x\\é"},
		"drain":                          {Order: lb.OrderDrain},
		"drain by admin until 2026-11-26T05:05:06Z": {Order: lb.OrderDrain, By: "admin", Until: until, Reason: "x"},
		"disable; down 2026-11-26T04:05:06Z no; drain": {
			Order: lb.OrderDisable, By: "no name", Verdict: lb.VerdictDown, Since: since, Reason: "no; drain",
		},
	} {
		kept := KeptStanding(s)
		if got := standingComment(s); got != want || standingComment(kept) != want || KeptStanding(kept) != kept {
			t.Errorf("%+v: got %q, want %q; kept %+v", s, got, want, kept)
		}
	}
	if n := len(standingComment(longest)); n != 122 || KeptStanding(longest) != longest {
		t.Errorf("the longest has %d bytes, and reads as %+v", n, KeptStanding(longest))
	}
}

// TestReadStandingHostile: a part that nlb did not write so counts for nothing,
// and nothing of it comes to be longer than a standing may.
func TestReadStandingHostile(t *testing.T) {
	down := lb.Standing{Verdict: lb.VerdictDown, Since: since}
	for comment, want := range map[string]lb.Standing{
		"":                                    {},
		"up 2026-11-26T04:05:06Z":             {},
		"down":                                {},
		"down yesterday":                      {},
		"down 2026-11-26T04:05:06+01:00":      {},
		"down 99999-11-26T04:05:06Z":          {},
		"drain by":                            {},
		"drain by a b":                        {},
		"drain by " + strings.Repeat("a", 17): {},
		"drain until never":                   {},
		"drain until 2026-11-26T04:05:06Z by admin": {},
		"drain; drain":                          {Order: lb.OrderDrain},
		"drained; down 2026-11-26T04:05:06Z":    down,
		"drain by é; down 2026-11-26T04:05:06Z": down,
		"down 2026-11-26T04:05:06Z \x1b[2J" + strings.Repeat("x", 99): {
			Verdict: lb.VerdictDown, Since: since, Reason: "?[2J" + strings.Repeat("x", lb.MaxReason-4),
		},
	} {
		var got lb.Standing
		if ReadStanding(comment, &got); got != want {
			t.Errorf("%q: got %+v, want %+v", comment, got, want)
		}
	}
}

// TestBackendComment: what the slots do not say of a backend is read back.
func TestBackendComment(t *testing.T) {
	b := lb.Backend{Name: "b1", Weight: 5, Priority: 2, Share: 3, State: lb.Standby}
	comment := backendComment(b, 7, false)
	if comment != "name b1 weight 5 priority 2 share 3 standby" {
		t.Error(comment)
	}
	for text, want := range map[string]lb.Backend{
		comment: b,
		"weight 1001 weight -1 priority 101 priority 0 share 33 share x": {Priority: 1},
		"name down down":    {Name: "down", Priority: 1, State: lb.Down},
		"weight down":       {Priority: 1, State: lb.Down},
		"name":              {Priority: 1},
		"priority 2 junk 3": {Priority: 2},
	} {
		got := lb.Backend{Priority: 1}
		if ReadBackend(text, &got); got.Name != want.Name || got.Weight != want.Weight || got.Priority != want.Priority ||
			got.Share != want.Share || got.State != want.State {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}
