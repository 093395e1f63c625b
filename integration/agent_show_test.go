package integration

// What nlb show says where an agent runs: the same as without, and more of it.

import (
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// shown has one of each that show says something of: who is down, drained, stands by,
// has connections, was turned away, is sent packets as they are.
const shown = `profile: shop
services:
  - name: web
    listen: 203.0.113.10:80
    health: {check: tcp, interval: 100ms}
    affinity: 10s
    backends: [{name: b1, address: "10.2.0.11:8080"}, {name: b2, address: "10.2.0.12:8080", weight: 3}, {name: b3, address: "10.2.0.13:8080"}, {name: b4, address: "10.2.0.14:8080", priority: 2}]
  - {name: closed, listen: "203.0.113.10:81", deny: [10.1.0.0/16], backends: ["10.2.0.11:8080"]}
  - {name: dns, listen: "203.0.113.10:54", protocol: udp, scheduler: random, log: {prefix: dns}, limit: {new: 100/second}, backends: [{address: "10.2.0.13:8080", log: none, max-connections: 3000}]}
`

// said is all that a command says, and how it ends.
func (b *bed) said(command ...string) string {
	b.T.Helper()
	c := b.Command(b.Balancer, command[0], command[1:]...)
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		b.Check(err)
	}
	return string(out) + c.ProcessState.String()
}

// powerless is what nlb show says that has no right but that to the agent's socket.
func (a *agent) powerless(args ...string) string {
	return a.said(append([]string{"setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", a.command(), "show", "--socket", a.socket}, args...)...)
}

// shows is what nlb show says by the agent. It fails where the kernel says otherwise.
func (a *agent) shows(args ...string) (said string) {
	a.T.Helper()
	others := regexp.MustCompile("nlb_conntrack_entries [0-9]+") // checks are among them
	kernel := func() string {
		return others.ReplaceAllString(a.said(append([]string{a.command(), "show", "--socket", "/nonexistent"}, args...)...), "")
	}
	var want string
	a.eventually("the kernel says the same twice", func() bool { // ages and figures change
		want, said = kernel(), others.ReplaceAllString(a.powerless(args...), "")
		return want == kernel()
	})
	if said != want {
		a.T.Errorf("nlb show %v: the agent says\n%s\nthe kernel\n%s", args, said, want)
	}
	return said
}

// TestAgentShow: nlb show says the same, byte for byte, whether the agent is asked or the
// kernel; the agent it may ask without any right but that to the socket.
func TestAgentShow(t *testing.T) {
	t.Parallel()
	netlabtest.Needs(t, "setpriv")
	b := newBed(t)
	b.serve("10.2.0.11")
	dying := b.serve("10.2.0.12")
	b.serve("10.2.0.13")
	b.serve("10.2.0.14")
	a := b.agent(shown)
	dying.Close()
	b.fails("web", "10.2.0.12")
	if code, text := a.process("drain", "shop/web/b3", "--for", "1h"); code != 0 {
		t.Fatal(text)
	}
	b.holdOpen("tcp", "203.0.113.10:80", "10.2.0.11")
	b.Row("tcp", "203.0.113.10:80", 5)
	b.Row("udp", "203.0.113.10:54", 3)
	_, _ = b.From().Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:81"))

	var all string
	for _, args := range [][]string{nil, {"--json"}, {"--prometheus"}, {"shop"}, {"shop/web"}, {"shop/web", "--json"}, {"shop/wbe"}, {"other", "--json"}} {
		all += a.shows(args...)
	}
	for _, want := range []string{"draining", "2 of 4 up, 1 standby", "refused 1", "standby", `"live": 1`} {
		if !strings.Contains(strings.Join(strings.Fields(all), " "), want) {
			t.Errorf("there is no %q in what is compared", want)
		}
	}
	if got := a.powerless("--table", "other"); !strings.Contains(got, needsNetAdmin) {
		t.Errorf("the agent is asked of another table:\n%s", got)
	}
	if got := a.powerless("shop/web/b1"); !strings.Contains(got, "passed ") {
		t.Errorf("of one backend it says\n%s", got)
	}
	// What the agent does not keep, the kernel says, to those who may ask it.
	other := b.write("other.yaml", "profile: other\nservices: [{name: more, listen: \"203.0.113.10:90\", backends: [\"10.2.0.11:8080\"]}]\n")
	if code, text := a.process("apply", other); code != 0 {
		t.Fatal(text)
	}
	a.says(0, "something else has changed the table")
	if code, text := a.process("enable", "shop/web/b3"); code != 0 { // it has looked after the table by then
		t.Fatal(text)
	}
	if got := b.said(a.command(), "show", "--socket", a.socket); !strings.Contains(got, "other/more") || !strings.Contains(got, "shop/web") {
		t.Errorf("with a profile beside it:\n%s", got)
	}
	if got := a.powerless(); !strings.Contains(got, needsNetAdmin) {
		t.Errorf("with a profile beside it, the agent says\n%s", got)
	}
}

// TestAgentShowDirect: the same of services with mode: dsr, whose packets are counted.
func TestAgentShowDirect(t *testing.T) {
	t.Parallel()
	netlabtest.Needs(t, "setpriv")
	l := newLAN(t)
	a := l.agent(direct + members())
	l.Ask("udp", "203.0.113.10:80")
	if got := a.shows("--json"); !regexp.MustCompile(`"packets": [1-9]`).MatchString(got) {
		t.Errorf("no packets were counted:\n%s", got)
	}
	a.shows()
	if got := a.shows("--prometheus"); !regexp.MustCompile(`\nnlb_backend_packets_total{.*} [1-9]`).MatchString(got) || strings.Contains(got, "\nnlb_backend_connections_total{") {
		t.Errorf("its metrics:\n%s", got)
	}
}

// TestAgentWatch: nlb show --watch says at once what changes, once each, as the agent
// tells, though it would look but seldom; also when the agent has ended by itself.
func TestAgentWatch(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dying := b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	a := b.agent(web + "    health: {check: tcp, interval: 100ms}\n" + backends(8080, -1, -1))
	b.becomes(lb.Up, "web", "10.2.0.11", "10.2.0.12")
	c := b.Command(b.Balancer, a.command(), "show", "--watch", "--interval", "1h", "--socket", a.socket)
	var out journal
	c.Stdout, c.Stderr = &out, &out
	b.Check(c.Start())
	blocks := func() int { return strings.Count(out.String(), "shop/web ") }
	b.eventually("the first block", func() bool { return blocks() == 1 })
	dying.Close()
	b.eventually("the second block", func() bool { return blocks() == 2 && strings.Contains(out.String(), "1 of 2 up") })
	if code, text := a.process("drain", "shop/web/10.2.0.12:8080"); code != 0 {
		t.Fatal(text)
	}
	b.eventually("another block", func() bool { return strings.Contains(out.String(), "draining") })
	b.Check(c.Process.Signal(syscall.SIGINT))
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v:\n%s", err, out.String())
	}
	if n := blocks(); n > 4 { // the drained one may be open for a moment
		t.Errorf("%d blocks:\n%s", n, out.String())
	}
}
