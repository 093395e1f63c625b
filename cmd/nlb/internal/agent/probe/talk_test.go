//go:build linux

package probe

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

func TestTalk(t *testing.T) {
	onBoth(t, func(t *testing.T, host string) {
		at := answer(t, host, func(c net.Conn) {
			b := make([]byte, 6)
			if _, err := io.ReadFull(c, b); err == nil && string(b) == "PING\r\n" {
				_, _ = io.WriteString(c, strings.Repeat("-", 60_000)+"+PO")
				_, _ = io.WriteString(c, "NG\r\n")
			}
		})
		for _, tt := range []struct {
			send, expect string
			want         Outcome
		}{
			{"PING\r\n", "+PONG", Outcome{OK: true, Reason: "tcp: as expected"}},
			{"PING\r\n", "", Outcome{OK: true, Reason: "tcp: connected"}},
			{"PING\r\n", "-ERR", Outcome{Reason: "tcp: not as expected"}},
			{"PONG\r\n", "+PONG", Outcome{Reason: "tcp: closed by the server"}},
		} {
			wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckTCP, Send: tt.send, Expect: tt.expect}, at, generous), tt.want)
		}
		greets := answer(t, host, func(c net.Conn) { _, _ = io.WriteString(c, "220 ready\r\n") })
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckTCP, Expect: "220 "}, greets, generous), Outcome{OK: true, Reason: "tcp: as expected"})
	})
}

// TestContainsLimit: a text behind the first 64 KiB is not found.
func TestContainsLimit(t *testing.T) {
	for before, want := range map[int]bool{0: true, maxAnswer - 2: true, maxAnswer - 1: false, maxAnswer: false} {
		r := strings.NewReader(strings.Repeat("-", before) + "OK")
		if got, err := contains(r, "OK"); got != want || err != nil {
			t.Errorf("behind %d bytes: %t, %v", before, got, err)
		}
	}
}

func TestDatagram(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, host string) {
		c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		netlabtest.Must(t, err)
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := c.ReadFrom(b)
				switch {
				case err != nil:
					return
				case string(b[:n]) == "empty":
					_, _ = c.WriteTo(nil, from)
				case string(b[:n]) == "ask":
					_, _ = c.WriteTo([]byte("noise"), from)
					_, _ = c.WriteTo([]byte("the answer is 42"), from)
				case string(b[:n]) == "flood":
					for range 20 {
						_, _ = c.WriteTo(make([]byte, 8000), from)
					}
				}
			}
		}()
		at := c.LocalAddr().String()
		answered := Outcome{OK: true, Reason: "udp: answered"}
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckUDP, Send: "ask"}, at, generous), answered)
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckUDP, Send: "empty"}, at, generous), answered)
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckUDP, Send: "ask", Expect: "42"}, at, generous), answered)
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckUDP, Send: "ask", Expect: "43"}, at, short), Outcome{Reason: "udp: not as expected"})
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckUDP, Send: "flood", Expect: "43"}, at, generous), Outcome{Reason: "udp: not as expected"})
		wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckUDP, Send: "silence"}, at, short), Outcome{Reason: "udp: timeout"})
	})
}

// FuzzContains: however the bytes come, a text is found where it is.
func FuzzContains(f *testing.F) {
	f.Add([]byte("-+PO+PONG"), "+PONG")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		if text == "" || len(b) > maxAnswer {
			return // it is bounded, and asks for something
		}
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.HalfReader(bytes.NewReader(b))} {
			if got, _ := contains(r, text); got != bytes.Contains(b, []byte(text)) {
				t.Errorf("%q in %q: %t", text, b, got)
			}
		}
	})
}
