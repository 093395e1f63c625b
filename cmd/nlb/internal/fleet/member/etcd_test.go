//go:build linux

package member

// Real members of etcd: processes on loopback that end with the test, and can be killed
// and started again.

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"nlb/cmd/nlb/internal/fleet"
	"nlb/integration/netlab/netlabtest"
)

// cluster is an etcd of one or more members.
type cluster struct {
	Client    *etcd.Client // as root, past all that nlb does
	Endpoints []string

	t       testing.TB
	dir     string
	pki     *pki // nil: without TLS
	members []*etcdMember
}

type etcdMember struct {
	args []string
	cmd  *exec.Cmd
	done chan struct{}
	log  bytes.Buffer
}

// startEtcd starts so many members, and waits until they are ready. With TLS, they want
// certificates.
func startEtcd(t testing.TB, members int, withTLS bool) *cluster {
	t.Helper()
	netlabtest.Needs(t, "etcd")
	e := &cluster{t: t, dir: t.TempDir()}
	scheme, secrets := "http", []string(nil)
	if withTLS {
		e.pki = newPKI(t, e.dir)
		cert, key := e.pki.issue("etcd", -time.Hour, time.Hour)
		scheme, secrets = "https", []string{"--cert-file", cert, "--key-file", key, "--trusted-ca-file", e.pki.file, "--client-cert-auth"}
	}
	ports := freePorts(2 * members)
	var cluster []string
	for i := range members {
		cluster = append(cluster, fmt.Sprintf("m%d=http://127.0.0.1:%d", i, ports[2*i]))
	}
	for i := range members {
		peer, client := fmt.Sprintf("http://127.0.0.1:%d", ports[2*i]), fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[2*i+1])
		e.Endpoints = append(e.Endpoints, client)
		e.members = append(e.members, &etcdMember{args: append([]string{
			"--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(e.dir, fmt.Sprintf("m%d", i)), "--logger", "zap", "--log-level", "error",
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--listen-client-urls", client, "--advertise-client-urls", client,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new",
		}, secrets...)})
	}
	for i := range members {
		e.Begin(i)
	}
	t.Cleanup(func() {
		for i := range e.members {
			e.Kill(i)
		}
	})
	e.Client = e.As("root")
	e.Await()
	return e
}

// As is a client of somebody, past nlb; empty: of somebody without a certificate.
func (e *cluster) As(name string) *etcd.Client {
	e.t.Helper()
	c := etcd.Config{Endpoints: e.Endpoints, Logger: zap.NewNop()}
	if e.pki != nil {
		c.TLS = e.pki.client(name)
	}
	client, err := etcd.New(c)
	netlabtest.Must(e.t, err)
	e.t.Cleanup(func() { client.Close() })
	return client
}

// Begin starts a member.
func (e *cluster) Begin(i int) {
	m := e.members[i]
	m.cmd, m.done = exec.Command("etcd", m.args...), make(chan struct{})
	m.cmd.Stderr = &m.log
	netlabtest.Must(e.t, m.cmd.Start())
	go func() { defer close(m.done); _ = m.cmd.Wait() }()
}

// Kill ends a member at once, as a power failure does.
func (e *cluster) Kill(i int) {
	m := e.members[i]
	_ = m.cmd.Process.Kill()
	<-m.done
}

// Await waits until writing works.
func (e *cluster) Await() {
	e.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := e.Client.Put(ctx, "ready", "")
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("etcd is not ready: %v\n%s", err, e.members[0].log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Config is the configuration of a node or an admin, with a state folder of its own.
func (e *cluster) Config(name string) *fleet.Config {
	c := &fleet.Config{Name: name, Endpoints: e.Endpoints, State: filepath.Join(e.dir, "state-"+name)}
	if e.pki != nil {
		c.CA = e.pki.file
		c.Cert, c.Key = e.pki.issue(name, -time.Hour, time.Hour)
	}
	return c
}

// Issue makes a certificate for a name in the place of the one that it has, which
// holds from one time to another, both seen from now.
func (e *cluster) Issue(name string, from, to time.Duration) { e.pki.issue(name, from, to) }

// File writes a fleet.yaml of a configuration.
func (e *cluster) File(c *fleet.Config) string {
	path := filepath.Join(e.dir, c.Name+".yaml")
	text := fmt.Sprintf("name: %s\nendpoints: [%s]\nstate: %s\n", c.Name, strings.Join(c.Endpoints, ", "), c.State)
	if c.Cert != "" {
		text += fmt.Sprintf("ca: %s\ncert: %s\nkey: %s\n", c.CA, c.Cert, c.Key)
	}
	netlabtest.Must(e.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// Put writes a value past nlb.
func (e *cluster) Put(key, value string) {
	e.t.Helper()
	_, err := e.Client.Put(e.t.Context(), key, value)
	netlabtest.Must(e.t, err)
}

// Delete removes a key past nlb.
func (e *cluster) Delete(key string, o ...etcd.OpOption) {
	e.t.Helper()
	_, err := e.Client.Delete(e.t.Context(), key, o...)
	netlabtest.Must(e.t, err)
}

// Get reads a value past nlb; empty: there is none.
func (e *cluster) Get(key string) string {
	e.t.Helper()
	r, err := e.Client.Get(e.t.Context(), key)
	netlabtest.Must(e.t, err)
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

// Copy copies the data of the only member, and Back puts them in the place of those
// that it has by then, as a restore from a backup does.
func (e *cluster) Copy() (back func()) {
	e.t.Helper()
	data, backup := filepath.Join(e.dir, "m0"), filepath.Join(e.dir, "backup")
	e.Kill(0)
	err := os.CopyFS(backup, os.DirFS(data))
	e.Begin(0)
	e.Await()
	netlabtest.Must(e.t, err)
	return func() {
		e.Kill(0)
		netlabtest.Must(e.t, os.RemoveAll(data), os.CopyFS(data, os.DirFS(backup)))
		e.Begin(0)
		e.Await()
	}
}

// Ctl runs a line that begins with etcdctl, as root.
func (e *cluster) Ctl(line string) {
	e.t.Helper()
	netlabtest.Needs(e.t, "etcdctl")
	args := []string{"--endpoints", strings.Join(e.Endpoints, ",")}
	if e.pki != nil {
		cert, key := e.pki.issue("root", -time.Hour, time.Hour)
		args = append(args, "--cacert", e.pki.file, "--cert", cert, "--key", key)
	}
	c := exec.Command("etcdctl", append(args, strings.Fields(line)[1:]...)...)
	c.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := c.CombinedOutput(); err != nil {
		e.t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func freePorts(n int) (out []int) {
	for range n {
		for {
			port := firstPort + int(nextPort.Add(1))%portsOfTests
			if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
				l.Close()
				out = append(out, port)
				break
			}
		}
	}
	return out
}

// Ports of etcd are below those that the kernel gives to whoever asks for any, and no two
// of a process are the same: an etcd that was killed finds its own again.
const firstPort, portsOfTests = 12_000, 20_000

var nextPort atomic.Uint32

func init() { nextPort.Store(uint32(os.Getpid()) * 97) }
