//go:build linux

package lab

import (
	"testing"
	"time"

	"nlb/lb"
)

// What a flood shows, by how fast the machine made it: at 20 a second with a
// burst of 20, 30 connections are too many for the first half of a second.
func TestWeigh(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answered, refused int
		took              time.Duration
		found, problem    string
	}{
		{21, 9, 10 * time.Millisecond, "of 30 connections in 10 ms 9 were refused", ""},
		{
			30, 0, 440 * time.Millisecond, "of 30 connections in 440 ms 0 were refused",
			"of 30 connections in 440 ms 30 were let through, due were 20 to 29",
		},
		{30, 0, time.Second, "not tried, since 30 connections in 1000 ms are no more than it lets through", ""},
		{29, 1, time.Second, "of 30 connections in 1000 ms 1 were refused", ""},
		{
			19, 11, time.Second, "of 30 connections in 1000 ms 11 were refused",
			"of 30 connections in 1000 ms 19 were let through, due were 20 to 41",
		},
	} {
		var l Limit
		l.weigh(c.answered, c.refused, c.took, 20, 20, lb.Rate{Events: 20, Per: time.Second})
		problem := ""
		if len(l.Problems) > 0 {
			problem = l.Problems[0]
		}
		if l.Found != c.found || problem != c.problem || l.Skipped != (c.refused == 0 && c.problem == "") {
			t.Errorf("%d of %d in %v: %+v", c.answered, c.answered+c.refused, c.took, l)
		}
	}
}
