//go:build linux

// Package browser looks at the page of nlb run with Debian's chromium, as a person does.
// It is a module of its own, so that what drives a browser is no dependency of nlb.
package browser

// The kit: an agent in a network namespace, servers that come and go, and a browser.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// inside says that the tests are in a network namespace of their own.
const inside = "NLB_BROWSER_INSIDE"

// nlb is the program, and shots the folder for pictures; git ignores it.
var (
	nlb   string
	shots = "screenshots"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	for _, program := range []string{"chromium", "unshare", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Printf("--- SKIP: TestPage (0.00s)\n    SKIPPED, NOT PROVED: %s is not installed\n", program)
			return 0
		}
	}
	if os.Getenv(inside) == "" {
		args := []string{"--net"}
		if os.Getuid() != 0 {
			args = append(args, "--map-root-user")
		}
		c := exec.Command("unshare", append(args, os.Args...)...)
		c.Stdin, c.Stdout, c.Stderr, c.Env = os.Stdin, os.Stdout, os.Stderr, append(os.Environ(), inside+"=1")
		if err := c.Run(); err != nil {
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "nlb-browser")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	nlb = filepath.Join(dir, "nlb")
	build := exec.Command("go", "build", "-o", nlb, "./cmd/nlb")
	build.Dir = "../.."
	for _, c := range []*exec.Cmd{exec.Command("ip", "link", "set", "lo", "up"), build} {
		if out, err := c.CombinedOutput(); err != nil {
			fmt.Printf("%v: %v\n%s", c, err, out)
			return 1
		}
	}
	if err := os.MkdirAll(shots, 0o755); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// bed is an agent and its servers.
type bed struct {
	*testing.T
	url     string
	socket  string
	servers map[string]net.Listener
	browser context.Context
}

const profile = `profile: shop
services:
  - {name: web, listen: ["203.0.113.10:80", "203.0.113.9:8080"], scheduler: random, health: {check: tcp, interval: 200ms}, backends: [{name: b1, address: ":8081"}, {name: b2, address: ":8082", weight: 3}, {name: b3, address: ":8083"}]}
  - {name: mail, listen: "203.0.113.10:25", deny: 10.9.0.0/16, limit: {new-per-source: 100/second}, backends: ["10.0.0.11:25", {address: "10.0.0.12:25", max-connections: 5}]}
  - {name: dns, listen: "203.0.113.10:53", protocol: udp, backends: [":53"]}
  - {name: api, listen: "203.0.113.11:443", backends: ["10.0.0.21:443", "10.0.0.22:443"]}
`

// start starts an agent with a profile, all servers of service web, and a browser.
func start(t *testing.T, profile string) *bed {
	t.Helper()
	dir := t.TempDir()
	b := &bed{T: t, url: "http://127.0.0.1:9469", socket: filepath.Join(dir, "nlb.sock"), servers: map[string]net.Listener{}}
	for _, at := range []string{"127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"} {
		b.serve(at)
	}
	t.Cleanup(func() {
		for _, l := range b.servers {
			l.Close()
		}
	})
	file := filepath.Join(dir, "shop.yaml")
	must(t, os.WriteFile(file, []byte(profile), 0o644))
	var log bytes.Buffer
	c := exec.Command(nlb, "run", "--socket", b.socket, "--listen", "127.0.0.1:9469", file)
	c.Stderr = &log
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", log.String())
		}
		out, err := exec.Command(nlb, "flush").CombinedOutput()
		if err != nil {
			t.Errorf("flush: %v\n%s", err, out)
		}
	})
	b.eventually("the agent is ready", func() bool {
		answer, err := http.Get(b.url + "/readyz")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == 200
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(dir, "chromium")),
		chromedp.WSURLReadTimeout(2*time.Minute), chromedp.WindowSize(1200, 900))
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	var stop context.CancelFunc
	b.browser, stop = chromedp.NewContext(allocator)
	t.Cleanup(stop)
	must(t, chromedp.Run(b.browser))
	return b
}

// serve has somebody take connections.
func (b *bed) serve(at string) {
	b.Helper()
	l, err := net.Listen("tcp", at)
	must(b.T, err)
	b.servers[at] = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// kill ends who serves.
func (b *bed) kill(at string) {
	b.servers[at].Close()
	delete(b.servers, at)
}

// eventually waits until something is so, for as long as a busy machine takes.
func (b *bed) eventually(what string, is func() bool) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("not so: %s", what)
		}
	}
}

// tab is a page in the browser.
type tab struct {
	*bed
	context.Context
}

// visit opens a path in a new tab.
func (b *bed) visit(path string, before ...chromedp.Action) *tab {
	b.Helper()
	ctx, end := chromedp.NewContext(b.browser)
	b.Cleanup(end)
	t := &tab{b, ctx}
	must(b.T, chromedp.Run(ctx)) // whose time is that of the tab
	t.do(append(before, chromedp.Navigate(b.url+path))...)
	return t
}

func (t *tab) do(actions ...chromedp.Action) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context, time.Minute)
	defer cancel()
	must(t.T, chromedp.Run(ctx, actions...))
}

// reads is what a person reads in a part of the page.
func (t *tab) reads(selector string) string {
	t.Helper()
	var text string
	t.do(chromedp.Text(selector, &text, chromedp.ByQuery))
	return strings.Join(strings.Fields(text), " ")
}

// evaluate is the value of an expression in the page.
func evaluate[T any](t *tab, script string) (out T) {
	t.Helper()
	t.do(chromedp.Evaluate(script, &out, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return out
}

// sees brings the tab to the front, and waits until a part of the page has a text.
func (t *tab) sees(selector, text string) {
	t.Helper()
	t.do(page.BringToFront())
	last := ""
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if last = t.reads(selector); strings.Contains(last, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has %q, want %q", selector, last, text)
		}
	}
}

// keep takes a picture for who wants to look.
func (t *tab) keep(name string) {
	t.Helper()
	var picture []byte
	t.do(chromedp.FullScreenshot(&picture, 100))
	must(t.T, os.WriteFile(filepath.Join(shots, name+".png"), picture, 0o644))
}

// foreign is a tab with a page of another site.
func (b *bed) foreign(l net.Listener) *tab {
	b.Helper()
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!DOCTYPE html><title>another</title><p>another site")
		}))
	}()
	ctx, end := chromedp.NewContext(b.browser)
	b.Cleanup(end)
	t := &tab{b, ctx}
	must(b.T, chromedp.Run(ctx))
	t.do(chromedp.Navigate("http://" + l.Addr().String()))
	return t
}

// size is that of the window.
func size(width, height int64) chromedp.Action {
	return emulation.SetDeviceMetricsOverride(width, height, 1, false)
}
