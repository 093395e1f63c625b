package resolve

// The server on loopback, and the host that asks it.

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"nlb/cmd/nlb/internal/agent/resolve/resolvetest"
)

func serve(t *testing.T, answer resolvetest.Answerer) *resolvetest.Server {
	t.Helper()
	s, err := resolvetest.Listen("127.0.0.1:0", answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func zone(t *testing.T, lines ...string) resolvetest.Answerer {
	t.Helper()
	answer, err := resolvetest.Zone(lines...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// options are those of a host that asks servers at 127.0.0.1, and has these lines
// in its files.
func options(t *testing.T, port uint16, conf, hosts string) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{Conf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"), Port: port}
	write(t, o.Conf, conf)
	write(t, o.Hosts, hosts)
	return o
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const one = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

// manyA are n records of a name.
func manyA(name string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s 60 IN A 10.0.%d.%d", name, i/256, i%256)
	}
	return out
}

// unusedPort is a port that nobody listens on.
func unusedPort(t *testing.T) uint16 {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, port, _ := net.SplitHostPort(p.LocalAddr().String())
	n, _ := strconv.Atoi(port)
	return uint16(n)
}
