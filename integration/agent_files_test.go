package integration

// What the agent does with files that change, with a table that others change, and
// beside other applies; and what its checks leave behind.

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nlb/lb"
)

// TestAgentReads: a file that changes is applied, as a whole or not at all.
func TestAgentReads(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	// It takes a second to come back: whoever began with its check anew at each of many
	// reloads would never see that.
	const slow = "  - {name: slow, listen: \"203.0.113.11:80\", health: {check: tcp, interval: 400ms, rise: 10}, backends: [\"10.2.0.11:8080\", \"10.2.0.13:8080\"]}\n"
	health := func(check string) string { return web + "    health: {" + check + "}\n" }
	const fast = "check: tcp, interval: 100ms"
	a := b.agent(health(fast) + backends(8080, -1) + slow)
	b.fails("slow", "10.2.0.13")
	flow := b.stream("203.0.113.10:80", false)

	a.rewrite(health(fast) + backends(8080, -1, -1) + slow)
	b.becomes(lb.Up, "web", "10.2.0.12")
	said := len(a.log.String())
	a.rewrite("profile: shop\nservices: [{name: web, listen: nowhere}]\n")
	a.says(said, "what was read last stays")
	if text := a.log.String()[said:]; !strings.Contains(text, "nowhere") {
		t.Errorf("the log does not say what is wrong: %s", text)
	}
	b.becomes(lb.Up, "web", "10.2.0.12")

	// A check that nobody passes; the file is written in place.
	b.Check(os.WriteFile(a.file, []byte(health(fast+", fall: 1, expect: nobody")+backends(8080, -1, -1)+slow), 0o644))
	a.says(said, "all get connections")
	said = len(a.log.String())
	b.Check(os.WriteFile(a.file, []byte(health(fast)+backends(8080, -1, -1)+slow), 0o644))
	a.says(said, "enough backends are up again")

	// By another name of the file, which causes no event in its folder.
	hidden := filepath.Join(t.TempDir(), "hidden")
	b.Check(os.Link(a.file, hidden))
	b.Check(os.WriteFile(hidden, []byte(health(fast)+backends(8080, 2, 1)+slow), 0o644))
	said = len(a.log.String())
	b.Check(a.cmd.Process.Signal(syscall.SIGHUP))
	a.says(said, "told to reload")
	b.serve("10.2.0.13")
	a.eventually("a check whose definition stays goes on over reloads", func() bool {
		if code := a.ask(http.MethodPost, "/v1/reload"); code != http.StatusOK {
			t.Fatalf("the reload: %d", code)
		}
		time.Sleep(100 * time.Millisecond)
		s, _ := b.server("slow", "10.2.0.13")
		return s.State == lb.Up
	})
	b.wantNoFailures("while files changed", b.stopped(flow), time.Time{})
}

// TestAgentRepairs: what others do to the table is put back, with what is known of
// servers.
func TestAgentRepairs(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	a := b.agent(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1, -1, -1))
	a.fails("web", "10.2.0.13")
	known, _ := b.server("web", "10.2.0.13")
	for _, script := range []string{
		"flush ruleset\n",
		"delete chain inet nlb prerouting\n",
		"flush map inet nlb inline-slots\n",
	} {
		said := len(a.log.String())
		b.NFT(b.Balancer, script)
		a.says(said, "something else has changed the table")
		b.eventually("all is as it was", func() bool { s := b.Load(); return len(s.Profiles) == 1 && len(s.Drift()) == 0 })
		if now, _ := b.server("web", "10.2.0.13"); now.State != lb.Down || now.Standing != known.Standing {
			t.Errorf("after %q it is %s, and known of it is %+v, want %+v", script, now.State, now.Standing, known.Standing)
		}
		b.becomes(lb.Up, "web", "10.2.0.11", "10.2.0.12")
		b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 10)), map[string]int{"10.2.0.11": 5, "10.2.0.12": 5})
	}
}

// TestAgentKeepsShop: an apply or a flush beside it is refused its profile, and may have
// others.
func TestAgentKeepsShop(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	a := b.agent(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1))
	if code, text := a.process("apply", a.file); code == 0 || !strings.Contains(text, "nlb run keeps shop") {
		t.Errorf("apply of the agent's profile: %d\n%s", code, text)
	}
	mail := b.write("mail.yaml", "profile: mail\nservices: [{name: smtp, listen: \"203.0.113.11:25\", backends: [\"10.2.0.12:8080\"]}]\n")
	if code, text := a.process("apply", mail); code != 0 {
		t.Fatalf("apply of another profile: %d\n%s", code, text)
	}
	b.becomes(lb.Up, "smtp", "10.2.0.12")
	for _, args := range [][]string{{"flush"}, {"flush", "mail", "shop"}, {"apply", "--prune", mail}} {
		if code, text := a.process(args...); code != 1 || !strings.Contains(text, "nlb run keeps shop, and would put it back; nothing was changed") {
			t.Errorf("%v: %d\n%s", args, code, text)
		}
	}
	if code, text := a.process("flush", "mail"); code != 0 {
		t.Errorf("flush of another profile: %d\n%s", code, text)
	}
	if code, text := a.process("apply", mail); code != 0 {
		t.Fatalf("apply of another profile: %d\n%s", code, text)
	}
	a.rewrite(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1, -1))
	b.becomes(lb.Up, "web", "10.2.0.12")
	b.becomes(lb.Up, "smtp", "10.2.0.12")
}

// TestAgentChecksServers: a check goes to the server itself, also where a service
// listens on its address, and where nlb would balance what this host sends.
func TestAgentChecksServers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.serve("10.2.0.11")
	b.agent(`profile: shop
services:
  - {name: before, listen: "10.2.0.12:8080", backends: ["10.2.0.11:8080"]}
  - {name: web, listen: "203.0.113.10:80", health: {check: tcp, interval: 100ms}, backends: ["10.2.0.12:8080", "10.2.0.11:8080"]}
`)
	if got := b.Reaches(b.Balancer, "tcp", "10.2.0.12:8080", true); got != "10.2.0.11" {
		t.Fatalf("%q answers", got)
	}
	b.becomes(lb.Down, "web", "10.2.0.12")
	b.becomes(lb.Up, "web", "10.2.0.11")
	time.Sleep(300 * time.Millisecond)
	b.becomes(lb.Down, "web", "10.2.0.12")
}
