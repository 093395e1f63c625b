//go:build linux

package probe

import (
	"io"
	"net"
	"strings"
	"testing"

	"nlb/lb"
)

func TestAdvice(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Outcome
	}{
		{"up\n", Outcome{OK: true, Percent: -1, Reason: "agent: up"}},
		{"UP\r\n", Outcome{OK: true, Percent: -1, Reason: "agent: up"}},
		{"ready", Outcome{OK: true, Percent: -1, Reason: "agent: ready"}},
		{"75%\n", Outcome{OK: true, Percent: 75, Reason: "agent: 75%"}},
		{"0%", Outcome{OK: true, Percent: 0, Reason: "agent: 0%"}},
		{"250%", Outcome{OK: true, Percent: 100, Reason: "agent: 250%"}},
		{"ready,up\t50%", Outcome{OK: true, Percent: 50, Reason: "agent: ready up 50%"}},
		{"drain", Outcome{OK: true, Drain: true, Percent: -1, Reason: "agent: drain"}},
		{"up drain 10%", Outcome{OK: true, Drain: true, Percent: 10, Reason: "agent: up drain 10%"}},
		{"drain ready", Outcome{OK: true, Percent: -1, Reason: "agent: drain ready"}},
		{"maint", Outcome{Percent: -1, Reason: "agent: maint"}},
		{"up,maint", Outcome{Percent: -1, Reason: "agent: up maint"}},
		{"down", Outcome{Percent: -1, Reason: "agent: down"}},
		{"down#no db\n", Outcome{Percent: -1, Reason: "agent: down: no db"}},
		{"stopped # for today ", Outcome{Percent: -1, Reason: "agent: stopped: for today"}},
		{"fail", Outcome{Percent: -1, Reason: "agent: fail"}},
		{"failed", Outcome{Percent: -1, Reason: "agent: failed"}},
		{"down up", Outcome{OK: true, Percent: -1, Reason: "agent: down up"}},
		{"up maxconn:30 new", Outcome{OK: true, Percent: -1, Reason: "agent: up"}},
		{"", Outcome{Ours: true, Percent: -1, Reason: "agent: no word that is known"}},
		{"#down", Outcome{Ours: true, Percent: -1, Reason: "agent: no word that is known"}},
		{"75 -5% 5.5% % 99999999999999999999%", Outcome{Ours: true, Percent: -1, Reason: "agent: no word that is known"}},
		{"HTTP/1.1 400 Bad Request", Outcome{Ours: true, Percent: -1, Reason: "agent: no word that is known"}},
	} {
		if got := advice(tt.line); got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.line, got, tt.want)
		}
	}
}

// TestAgent: the first line counts, with its end or that of the connection.
func TestAgent(t *testing.T) {
	onBoth(t, func(t *testing.T, host string) {
		for said, want := range map[string]Outcome{
			"50%\ndown\n": {OK: true, Percent: 50, Reason: "agent: 50%"},
			"drain":       {OK: true, Drain: true, Percent: -1, Reason: "agent: drain"},
			"down " + strings.Repeat("x", maxLine) + "\n": {Percent: -1, Reason: "agent: down"},
			strings.Repeat("x", maxLine) + " down\n":      {Ours: true, Percent: -1, Reason: "agent: no word that is known"},
			"":                                            {Ours: true, Percent: -1, Reason: "agent: closed by the server"},
		} {
			at := answer(t, host, func(c net.Conn) { _, _ = io.WriteString(c, said) })
			if got := carry(t, lb.Check{Kind: lb.CheckAgent}, at, generous); got != want {
				t.Errorf("%.20q: got %+v, want %+v", said, got, want)
			}
		}
	})
}

// FuzzAdvice: whatever an agent says makes an outcome that can be shown, and
// raises nothing.
func FuzzAdvice(f *testing.F) {
	for _, s := range []string{"up 75% # \x00ok", "drain,maint", "down#x;\"y\\", "\xff% 101%", "ſtopped 1%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		o := advice(line)
		o.Reason = tidy(o.Reason)
		wantSound(t, o)
		if !strings.HasPrefix(o.Reason, "agent: ") {
			t.Errorf("reason %q", o.Reason)
		}
		words := strings.ToLower(line)
		if !o.OK && !o.Ours && !strings.Contains(words, "down") && !strings.Contains(words, "stop") && !strings.Contains(words, "fail") && !strings.Contains(words, "maint") {
			t.Errorf("%q takes the server out", line)
		}
		if o.Drain && !strings.Contains(words, "drain") || o.Percent >= 0 && !strings.Contains(line, "%") {
			t.Errorf("%q: %+v", line, o)
		}
	})
}
