package health

import (
	"testing"
	"testing/synctest"
	"time"

	"nlb/lb"
)

func TestAll(t *testing.T) {
	judge := func(v lb.Verdict, second int) *Judge {
		at := start.Add(time.Duration(second) * time.Second)
		return New(check(1, 1), lb.Standing{Verdict: v, Since: at, Reason: at.Format("05")}, at)
	}
	const n, u, d = lb.VerdictNew, lb.VerdictUp, lb.VerdictDown
	for _, tt := range []struct {
		name    string
		judges  []*Judge
		verdict lb.Verdict
		reason  string // the second of start's minute
	}{
		{"one", []*Judge{judge(u, 1)}, u, "07"},
		{"all up: the last that came", []*Judge{judge(u, 1), judge(u, 3), judge(u, 2)}, u, "09"},
		{"one new", []*Judge{judge(u, 1), judge(n, 0), judge(u, 2)}, n, "06"},
		{"one down", []*Judge{judge(n, 1), judge(u, 3), judge(d, 2)}, d, "08"},
		{"two down: the first that fell", []*Judge{judge(d, 3), judge(d, 2), judge(n, 1)}, d, "08"},
	} {
		v, since, reason := All(tt.judges...)
		if v != tt.verdict || reason != tt.reason || since.Format("05") != tt.reason {
			t.Errorf("%s: got %v since %v: %s, want %v: %s", tt.name, v, since, reason, tt.verdict, tt.reason)
		}
	}
	if v, since, reason := All(); v != lb.VerdictNew || !since.IsZero() || reason != "" {
		t.Errorf("none: got %v, %v, %q", v, since, reason)
	}
}

// TestShare follows a slow start by its own steps.
func TestShare(t *testing.T) {
	for _, slow := range []time.Duration{time.Second, 10*time.Second + 1, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			up := time.Now()
			for want := uint8(1); ; want++ {
				share, next := Share(up, time.Now(), slow)
				if share == 0 {
					if want != lb.Shares || next != 0 {
						t.Errorf("%v: all of it at step %d, next %v", slow, want, next)
					}
					break
				}
				if share != want || next < slow/lb.Shares || next > slow/(lb.Shares-1)+1 {
					t.Fatalf("%v: got share %d for %v, want %d", slow, share, next, want)
				}
				if just, _ := Share(up, time.Now().Add(next-1), slow); just != want {
					t.Errorf("%v: step %d ends early", slow, want)
				}
				time.Sleep(next)
			}
			if got := time.Since(up); got != slow {
				t.Errorf("took %v, want %v", got, slow)
			}
		})
	}
	if share, next := Share(start, start, 0); share != 0 || next != 0 {
		t.Errorf("no slow start: got %d, %v", share, next)
	}
	if share, _ := Share(start, start.Add(-time.Minute), time.Minute); share != 1 {
		t.Errorf("not yet up: got %d, want 1", share)
	}
}
