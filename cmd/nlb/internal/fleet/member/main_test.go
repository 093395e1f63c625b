//go:build linux

package member

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/fleet"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/view"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// bound is how long a busy machine may take for what is due at once.
const bound = 40 * time.Second

// node is a running agent of a fleet on a host.
type node struct {
	t      testing.TB
	name   string
	host   *netlab.Host
	config *fleet.Config
	socket string
	stop   func()
	tweak  func(*Member)

	mu  sync.Mutex
	log bytes.Buffer
}

func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(p)
}

func (n *node) logged() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

// join starts a node.
func join(t testing.TB, c *fleet.Config, host *netlab.Host, tweak func(*Member)) *node {
	n := &node{t: t, name: c.Name, host: host, config: c, socket: filepath.Join(t.TempDir(), "nlb.sock"), tweak: tweak}
	n.start()
	return n
}

func (n *node) start() {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(n, nil))
	m, err := Open(n.config, "test", log)
	netlabtest.Must(n.t, err)
	if n.tweak != nil {
		n.tweak(m)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	f := m.Fleet()
	running.Go(func() { m.Run(ctx) })
	running.Go(func() {
		if err := n.host.Do(func() error {
			return agent.Run(ctx, agent.Config{Table: "nlb", Fleet: f, Socket: n.socket, Log: log})
		}); err != nil {
			n.t.Errorf("agent of %s: %v", n.name, err)
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	n.t.Cleanup(n.stop)
}

// sentence is what the agent says of itself.
func (n *node) sentence() string {
	var s agent.Status
	if err := agent.Dial(n.socket).Status(context.Background(), &s); err != nil {
		return err.Error()
	}
	return s.Status
}

// kernel is what the kernel of the node balances.
func (n *node) kernel() string {
	n.t.Helper()
	var out []string
	netlabtest.Must(n.t, n.host.Do(func() error {
		e, err := engine.Open("nlb")
		if err != nil {
			return err
		}
		defer e.Close()
		state, err := e.State()
		for p, s := range lb.Services(state.Profiles) {
			out = append(out, p.Name)
			for i := range s.Backends {
				out = append(out, s.Backends[i].Address.Addr.String())
			}
		}
		return err
	}))
	return strings.Join(out, " ")
}

// until waits until something is empty: what it is otherwise is why it is not so.
func (n *node) until(otherwise func() string) {
	n.t.Helper()
	why := ""
	for deadline := time.Now().Add(bound); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if why = otherwise(); why == "" {
			return
		}
	}
	n.t.Fatalf("%s: %s\n%s", n.name, why, n.logged())
}

func (n *node) balances(want string) {
	n.t.Helper()
	n.until(func() string {
		if got := n.kernel(); got != want {
			return fmt.Sprintf("the kernel has %q, want %q", got, want)
		}
		return ""
	})
}

func (n *node) says(want string) {
	n.t.Helper()
	n.until(func() string {
		if got := n.sentence(); !strings.Contains(got, want) {
			return fmt.Sprintf("the agent says %q, want %q", got, want)
		}
		return ""
	})
}

// serves waits until the file that keepalived tracks says whether the node serves. What
// it announces follows from the same.
func (n *node) serves(want bool) {
	n.t.Helper()
	n.until(func() string {
		got, err := os.ReadFile(filepath.Join(filepath.Dir(n.socket), "fault"))
		if err != nil || string(got) == "0\n" != want {
			return fmt.Sprintf("the track file has %q, serves: want %v: %v", got, want, err)
		}
		return ""
	})
}

// fine: the agent says nothing of its fleet.
func (n *node) fine() {
	n.t.Helper()
	n.until(func() string {
		if got := n.sentence(); !strings.HasPrefix(got, "Balances") {
			return fmt.Sprintf("the agent says %q", got)
		}
		return ""
	})
}

// admin pushes, and looks at the fleet.
type admin struct {
	t     testing.TB
	store *fleet.Store
	soak  time.Duration // of canaries; 0: as long as nodes may take
}

func newAdmin(t testing.TB, e *cluster) *admin {
	s, err := fleet.Dial(e.Config("admin"))
	for end := time.Now().Add(bound); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // a busy etcd answers late
		s, err = fleet.Dial(e.Config("admin"))
	}
	netlabtest.Must(t, err)
	t.Cleanup(s.Close)
	return &admin{t: t, store: s}
}

// yaml is a profile of a service over some servers.
func yaml(name, listen string, servers ...string) string {
	return fmt.Sprintf("profile: %s\nservices:\n  - {name: web, listen: %q, backends: [%s]}\n", name, listen, strings.Join(servers, ", "))
}

func sourceOf(t testing.TB, name, text string) source.Source {
	t.Helper()
	s, err := fleet.Parse(name, []byte(text))
	netlabtest.Must(t, err)
	return *s
}

// push pushes, and returns what the admin reads.
func (a *admin) push(ask fleet.Ask, wait time.Duration) (said string, err error) {
	var b bytes.Buffer
	ask.By = "alice@ops"
	err = fleet.Push(a.t.Context(), view.NewConsole("nlb", nil, &b, &b), a.store, ask, wait, cmp.Or(a.soak, wait), func() error { return nil })
	return b.String(), err
}

// pushes is a push of a profile that succeeds.
func (a *admin) pushes(name, text string) {
	a.t.Helper()
	if said, err := a.push(fleet.Ask{Read: these(sourceOf(a.t, name, text))}, bound); err != nil {
		a.t.Fatalf("push: %v\n%s", err, said)
	}
}

// these are profiles as a push reads them.
func these(all ...source.Source) func() ([]source.Source, error) {
	return func() ([]source.Source, error) { return all, nil }
}

// report is what nlb fleet prints, and whether all is well.
func (a *admin) report() (string, bool) {
	a.t.Helper()
	var b bytes.Buffer
	ok, err := fleet.Show(a.t.Context(), view.NewConsole("nlb", nil, &b, &b), a.store, false)
	netlabtest.Must(a.t, err)
	return b.String(), ok
}

// shows waits until nlb fleet says something, which is a fault.
func (a *admin) shows(n *node, want string) {
	a.t.Helper()
	n.until(func() string {
		if got, ok := a.report(); ok || !strings.Contains(got, want) {
			return fmt.Sprintf("nlb fleet says %q (all well: %v), want %q", got, ok, want)
		}
		return ""
	})
}

// sees waits until nodes are there.
func (a *admin) sees(nodes ...*node) {
	a.t.Helper()
	for _, n := range nodes {
		n.until(func() string {
			if k, err := a.store.Known(a.t.Context()); err != nil || !k.Alive[n.name] || k.Nodes[n.name] == nil {
				return fmt.Sprintf("it is not there: %v", err)
			}
			return ""
		})
	}
}

// well waits until nlb fleet finds nothing.
func (a *admin) well(n *node) {
	a.t.Helper()
	n.until(func() string {
		if got, ok := a.report(); !ok {
			return fmt.Sprintf("nlb fleet says %q", got)
		}
		return ""
	})
}

// crowd are nodes n1, n2 and so on, which balance shop over a server that is not there.
func crowd(t *testing.T, members, nodes int, withTLS bool) (*cluster, *admin, []*node) {
	t.Parallel()
	netlabtest.Packets(t)
	e := startEtcd(t, members, withTLS)
	w := netlabtest.NewWorld(t)
	a := newAdmin(t, e)
	var out []*node
	for i := range nodes {
		name := fmt.Sprintf("n%d", i+1)
		out = append(out, join(t, e.Config(name), netlabtest.NewHost(t, w, name), nil))
	}
	a.sees(out...)
	a.pushes("shop", yaml("shop", shopAt, "10.2.0.11"))
	return e, a, out
}

// site is a bed whose balancer is the node n1, which balances shop over a real server.
type site struct {
	*netlabtest.Bed
	*node
	etcd  *cluster
	admin *admin
}

const shopAt = "203.0.113.10:80"

func newSite(t *testing.T, withTLS bool, tweak func(*Member)) *site {
	t.Parallel()
	netlabtest.Packets(t)
	e := startEtcd(t, 1, withTLS)
	b := netlabtest.New(t)
	b.Serve([]int{80}, "10.2.0.11")
	s := &site{Bed: b, etcd: e, admin: newAdmin(t, e), node: join(t, e.Config("n1"), b.Balancer, tweak)}
	s.admin.sees(s.node)
	s.admin.pushes("shop", yaml("shop", shopAt, "10.2.0.11"))
	s.goesOn()
	return s
}

// goesOn: connections reach the server, and the kernel has what it had.
func (s *site) goesOn() {
	s.T.Helper()
	s.balances("shop 10.2.0.11")
	c := traffic.Client{Host: s.Client}
	if r, err := c.Exchange(s.T.Context(), "tcp", netip.MustParseAddrPort(shopAt)); err != nil || r.Backend != "10.2.0.11" {
		s.T.Fatalf("traffic: %v %v\n%s", r, err, s.logged())
	}
}

func isRefused(err error, want string) bool {
	r, ok := errors.AsType[*fleet.RefusedError](err)
	return ok && strings.Contains(r.Message, want)
}
