package integration

// The agent as a process, and its kit: nlb run beside servers that come and go.

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// agent is nlb run on the balancer of a bed.
type agent struct {
	*bed
	file   string // its profile
	socket string
	flags  []string
	as     []string // what runs it; nil: it runs as it is
	log    journal
	cmd    *netlab.Cmd
	ended  chan error
}

// journal is what an agent has logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// agent starts nlb run with a profile and flags. Its log is part of what a test that
// fails says.
func (b *bed) agent(profile string, flags ...string) *agent {
	b.T.Helper()
	a := &agent{bed: b, file: b.write("shop.yaml", profile), socket: filepath.Join(b.T.TempDir(), "nlb.sock"), flags: flags}
	a.begin()
	b.T.Cleanup(func() {
		a.end(syscall.SIGKILL)
		if b.T.Failed() {
			b.T.Logf("the agent's log:\n%s", a.log.String())
		}
	})
	return a
}

// begin starts it, and waits until it answers.
func (a *agent) begin() {
	a.T.Helper()
	args := slices.Concat(a.as, []string{a.command(), "run", "--socket", a.socket, a.file}, a.flags)
	a.cmd = a.Command(a.Balancer, args[0], args[1:]...)
	a.cmd.Stderr = &a.log
	a.Check(a.cmd.Start())
	ended, c := make(chan error, 1), a.cmd
	a.ended = ended
	go func() { ended <- c.Wait() }()
	a.eventually("the agent answers", func() bool { return a.ask(http.MethodGet, "/healthz") == http.StatusOK })
}

// ask asks through its socket, and returns the code of the answer; 0: there is none.
func (a *agent) ask(method, path string) int {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
		},
	}}
	r, err := http.NewRequestWithContext(a.T.Context(), method, "http://nlb"+path, nil)
	a.Check(err)
	answer, err := c.Do(r)
	if err != nil {
		return 0
	}
	answer.Body.Close()
	return answer.StatusCode
}

// process runs another command that knows the agent's socket.
func (a *agent) process(args ...string) (code int, stderr string) {
	a.T.Helper()
	c := a.Command(a.Balancer, a.command(), args...)
	c.Env = append(c.Env, "NLB_SOCKET="+a.socket)
	var text bytes.Buffer
	c.Stderr = &text
	if err := c.Run(); c.ProcessState == nil {
		return -1, err.Error()
	}
	return c.ProcessState.ExitCode(), text.String()
}

// end ends it by a signal.
func (a *agent) end(by syscall.Signal) error {
	a.T.Helper()
	if a.ended == nil {
		return nil
	}
	_ = a.cmd.Process.Signal(by)
	err := <-a.ended
	a.ended = nil
	return err
}

// eventually is that for a bed.
func (b *bed) eventually(what string, is func() bool) {
	b.T.Helper()
	eventually(b.T, what, is)
}

// says waits for a line of the log, after what was there at a moment.
func (a *agent) says(after int, text string) {
	a.T.Helper()
	a.eventually("the log says "+text, func() bool { return strings.Contains(a.log.String()[after:], text) })
}

// server is what the table has of a backend; false: it has none.
func (b *bed) server(service, address string) (lb.Backend, bool) {
	b.T.Helper()
	for _, s := range lb.Services(b.Load().Profiles) {
		for _, backend := range s.Backends {
			if s.Name == service && backend.Address.Addr.String() == address {
				return backend, true
			}
		}
	}
	return lb.Backend{}, false
}

// becomes waits until backends have a state.
func (b *bed) becomes(state lb.BackendState, service string, addresses ...string) {
	b.T.Helper()
	for _, address := range addresses {
		b.eventually(fmt.Sprintf("%s of %s is %s", address, service, state), func() bool {
			got, ok := b.server(service, address)
			return ok && got.State == state
		})
	}
}

// fails waits until the table says of backends that their checks failed: a newcomer
// is down before that.
func (b *bed) fails(service string, addresses ...string) {
	b.T.Helper()
	for _, address := range addresses {
		b.eventually(address+" fails its checks", func() bool {
			got, _ := b.server(service, address)
			return got.Standing.Verdict == lb.VerdictDown
		})
	}
}

// serve starts a stand-in backend on the server machine, for TCP and UDP at 8080.
func (b *bed) serve(address string) *traffic.Server {
	b.T.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(address), 8080)
	s, err := traffic.Serve(b.Server, address, traffic.Port{Network: "tcp", At: at}, traffic.Port{Network: "udp", At: at})
	b.Check(err)
	return s
}

// serveWeb is serve for a web server.
func (b *bed) serveWeb(address string) *traffic.Web {
	b.T.Helper()
	w, err := traffic.ServeWeb(b.Server, address, netip.AddrPortFrom(netip.MustParseAddr(address), 8080))
	b.Check(err)
	return w
}

// silence has the server machine drop what comes to addresses, until undo.
func (b *bed) silence(addresses ...string) (undo func()) {
	b.T.Helper()
	var rules strings.Builder
	for _, a := range addresses {
		family := "ip"
		if strings.Contains(a, ":") {
			family = "ip6"
		}
		fmt.Fprintf(&rules, "\t\t%s daddr %s drop\n", family, a)
	}
	b.NFT(b.Server, "table inet silence {\n\tchain in {\n\t\ttype filter hook prerouting priority raw\n"+rules.String()+"\t}\n}\n")
	return func() { b.NFT(b.Server, "delete table inet silence\n") }
}

// stream makes new connections, 300 a second, to an address of the client's choice.
func (b *bed) stream(to string, http bool) *traffic.Loading {
	return traffic.Load{From: b.Client, To: netip.MustParseAddrPort(to), Rate: 300, Timeout: 10 * time.Second, HTTP: http}.Start(b.T.Context())
}

// stopped are the attempts of a stream, which ends here.
func (b *bed) stopped(f *traffic.Loading) []traffic.Attempt {
	b.T.Helper()
	all, err := f.Stop()
	b.Check(err)
	if len(all) == 0 {
		b.T.Error("there was no traffic")
	}
	return all
}

// wantNoFailures fails where a connection did, which began after a moment; the zero
// moment is the beginning.
func (b *bed) wantNoFailures(what string, all []traffic.Attempt, after time.Time) {
	b.T.Helper()
	n := 0
	for _, a := range all {
		if a.Err != nil && a.Began.After(after) {
			if n++; n == 1 {
				b.T.Errorf("%s: a connection that began %s after the moment failed after %s: %v", what, a.Began.Sub(after), a.Took, a.Err)
			}
		}
	}
	if n > 1 {
		b.T.Errorf("%s: so did %d more of %d", what, n-1, len(all))
	}
}

// holdOpen opens a connection, or a UDP flow, that a backend has.
func (b *bed) holdOpen(network, to, backend string) *traffic.Conn {
	b.T.Helper()
	client := traffic.Client{Host: b.Client, Reset: true}
	if network == "udp" {
		client.Timeout = 300 * time.Millisecond // what is lost is asked again
	}
	for range 100 {
		c, err := client.Dial(b.T.Context(), network, netip.MustParseAddrPort(to))
		b.Check(err)
		if c.Reply.Backend == backend {
			b.T.Cleanup(func() { c.Close() })
			return c
		}
		c.Close()
	}
	b.T.Fatalf("%s never comes to %s", to, backend)
	return nil
}

// webConn is a connection to a web server, which stays open.
type webConn struct {
	net.Conn
	r *bufio.Reader
}

// ask asks once more, and returns who answers.
func (c *webConn) ask() (string, error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: service\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(answer.Body)
	name, _, _ := strings.Cut(string(body), " ")
	return name, err
}

// holdWeb opens a connection to a web server that a backend has.
func (b *bed) holdWeb(to, backend string) *webConn {
	b.T.Helper()
	for range 100 {
		var conn net.Conn
		b.Check(b.Client.Do(func() (err error) { conn, err = net.DialTimeout("tcp", to, traffic.DefaultTimeout); return err }))
		c := &webConn{conn, bufio.NewReader(conn)}
		got, err := c.ask()
		b.Check(err)
		if got == backend {
			b.T.Cleanup(func() { c.Close() })
			return c
		}
		c.Close()
	}
	b.T.Fatalf("%s never comes to %s", to, backend)
	return nil
}

// rewrite replaces the agent's profile, as an editor does.
func (a *agent) rewrite(profile string) {
	a.T.Helper()
	a.Check(os.WriteFile(a.file+".new", []byte(profile), 0o644))
	a.Check(os.Rename(a.file+".new", a.file))
}

// agentFamilies are the addresses of a service and of its servers.
var agentFamilies = []struct {
	vip      string
	backends []string
}{
	{"203.0.113.10:80", []string{"10.2.0.11", "10.2.0.12", "10.2.0.13"}},
	{"[2001:db8::10]:80", []string{"fd02::11", "fd02::12", "fd02::13"}},
}

// shopOf is a profile with one service, of n backends of each family.
func shopOf(n int, keys string) string {
	var s strings.Builder
	s.WriteString("profile: shop\nservices:\n  - name: web\n    listen: [\"203.0.113.10:80\", \"[2001:db8::10]:80\"]\n    protocol: [tcp, udp]\n    " + keys + "\n    backends:\n")
	for _, f := range agentFamilies {
		for _, a := range f.backends[:n] {
			fmt.Fprintf(&s, "      - %q\n", netip.AddrPortFrom(netip.MustParseAddr(a), 8080))
		}
	}
	return s.String()
}
