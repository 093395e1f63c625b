//go:build linux

package agent

import (
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/web"
)

// TestLookerWaits: an agent that says another number ends a wait, and is asked with that
// one the next time. One that says no number is asked once.
func TestLookerWaits(t *testing.T) {
	var says, asked, known atomic.Value
	var times atomic.Int32
	path := filepath.Join(t.TempDir(), "nlb.sock")
	s, err := Listen(path, func(web.Ask) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			times.Add(1)
			asked.Store(r.URL.Path)
			known.Store(r.URL.Query().Get("known"))
			fmt.Fprint(w, says.Load())
		})
	}, slog.New(slog.DiscardHandler))
	must(t, err)
	defer s.Close()
	l := NewLooker(path, "nlb")
	for i, tt := range []struct {
		says, known string
		wait        time.Duration
	}{{"7", "0", time.Hour}, {"8", "7", time.Hour}, {"<html>", "8", 100 * time.Millisecond}} {
		says.Store(tt.says)
		l.Wait(t.Context(), tt.wait)
		if n := int(times.Load()); n != i+1 || asked.Load() != "/v1/changes" || known.Load() != tt.known {
			t.Errorf("%q: asked %d times, last %v of %v", tt.says, n, asked.Load(), known.Load())
		}
	}
}
