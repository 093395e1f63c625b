//go:build linux

package member

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nlb/cmd/nlb/internal/fleet"
)

// TestAloneForAnHour: a node that nobody answers for an hour says all the time since when,
// logs it once, and asks again every 15 to 30 s: so it is back half a minute after etcd is.
func TestAloneForAnHour(t *testing.T) {
	c := &fleet.Config{Name: "n1", Endpoints: []string{"http://127.0.0.1:1"}, State: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m, err := Open(c, "test", slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now().UTC()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var tries []time.Time
		go func() {
			for {
				select {
				case s := <-m.sentences:
					if want := "Alone in its fleet since " + began.Format(time.RFC3339) + ": etcd cannot be asked: 127.0.0.1:1: "; !strings.HasPrefix(s, want) {
						t.Errorf("it says %q, want %q", s, want)
					}
					tries = append(tries, time.Now())
				case <-ctx.Done():
					return
				}
			}
		}()
		m.Run(ctx)
		synctest.Wait()
		if n := len(tries); n < 120 || n > 260 {
			t.Errorf("%d tries in an hour, want one in each 15 to 30 s", n)
		}
		for i := 1; i < len(tries); i++ {
			gap, least := tries[i].Sub(tries[i-1]), time.Duration(0)
			if i > 10 {
				least = longest / 2
			}
			if gap < least || gap > longest {
				t.Errorf("try %d came %s after the one before, want %s to %s", i, gap, least, longest)
			}
		}
		if n := strings.Count(log.String(), "the fleet cannot be reached"); n != 1 {
			t.Errorf("it is logged %d times, want once\n%s", n, &log)
		}
	})
}
