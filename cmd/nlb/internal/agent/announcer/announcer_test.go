//go:build linux

package announcer

import (
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/announce"
	"nlb/lb/config"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// announcer is one on a host of its own, with an address to announce on a device.
func announcer(t *testing.T, device string) (*netlab.Host, *Announcer, []*lb.Profile) {
	t.Helper()
	h := netlabtest.NewHost(t, netlabtest.NewWorld(t), "balancer")
	p, err := config.Parse("shop.yaml", []byte("announce: {interface: "+device+", delay: none, drain: none}\nservices: [{name: web, listen: \"203.0.113.10:80\", backends: 10.0.0.1}]\n"))
	netlabtest.Must(t, err)
	file := filepath.Join(t.TempDir(), "run", "fault")
	r := New(engine.Announcing, "", file, slog.New(slog.NewTextHandler(io.Discard, nil)))
	return h, r, []*lb.Profile{p}
}

// update is an update, with everybody up or nobody.
func update(t *testing.T, h *netlab.Host, r *Announcer, profiles []*lb.Profile, up bool) {
	t.Helper()
	netlabtest.Must(t, h.Do(func() error {
		r.Update(profiles, func(*lb.Profile, *lb.Service, lb.Family) bool { return up }, true)
		return nil
	}))
}

// TestTroubleEnds: trouble with addresses is none any more once nobody wants them.
func TestTroubleEnds(t *testing.T) {
	t.Parallel()
	h, r, profiles := announcer(t, "eth0")
	netlabtest.Must(t, h.World().Link(h, "eth0", netlabtest.NewHost(t, h.World(), "other"), "eth0"))
	update(t, h, r, profiles, true)
	if r.Trouble == "" {
		t.Fatal("a device on a network has the address, and nobody minds")
	}
	update(t, h, r, nil, true)
	if r.Trouble != "" {
		t.Errorf("nothing is to be announced, and: %s", r.Trouble)
	}
}

// TestWaitsAnew: an address that was not wanted for a while waits for all of its delay.
func TestWaitsAnew(t *testing.T) {
	t.Parallel()
	h, r, profiles := announcer(t, "lo")
	profiles[0].Announce.Delay = time.Hour
	update(t, h, r, profiles, true)
	update(t, h, r, nil, true)
	if due, next := r.judge.Due(announce.VIPs(profiles, announce.Anybody), func(a netip.Addr) bool { return false }, time.Now().Add(time.Hour)); len(due) > 0 || next.IsZero() {
		t.Errorf("due: %v, next: %v", due, next)
	}
}

// TestFaultAgain: a file that could not be written is written as soon as it can be.
func TestFaultAgain(t *testing.T) {
	t.Parallel()
	h, r, profiles := announcer(t, "lo")
	update(t, h, r, profiles, true)
	netlabtest.Must(t, os.Mkdir(filepath.Dir(r.path), 0o755))
	update(t, h, r, profiles, true)
	if text, err := os.ReadFile(r.path); string(text) != "0\n" {
		t.Errorf("the file says %q (%v)", text, err)
	}
}
