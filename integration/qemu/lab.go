package qemu

// Three machines on two cables, and the configuration of ssh that names them.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nlb/integration/demand"
	"nlb/integration/netlab"
)

// Lab is a client, a balancer and a server that are up.
type Lab struct {
	Host   *netlab.Host // where QEMU runs, and ssh has to
	Config string       // path of the configuration of ssh
	Ups    []string     // what the machines said when they were up

	machines []*Machine
	end      context.CancelFunc
}

// bootLimit is how long three machines may take to get up. Emulated on two
// processors that have nothing else to do they take 10 s.
const bootLimit = 3 * time.Minute

// Close ends the machines.
func (l *Lab) Close() {
	l.end()
	for _, m := range l.machines {
		<-m.over
	}
}

// Consoles is the end of what each machine has printed.
func (l *Lab) Consoles() string {
	var b strings.Builder
	for _, m := range l.machines {
		fmt.Fprintf(&b, "console of %s:\n%s\n", m.Name, m.tail())
	}
	return b.String()
}

// Bench is a host of a world for QEMU: its loopback takes multicast, by which
// the machines' cables go.
func Bench(w *netlab.World) (*netlab.Host, error) {
	h, err := w.Host("bench")
	if err == nil {
		err = h.AddLinkRoute(netip.MustParsePrefix("224.0.0.0/4"), "lo")
	}
	return h, err
}

// Key makes a key pair of ssh in dir, and returns the path of the private one
// and the text of the public one.
func Key(dir string) (private, public string, err error) {
	private = filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nlb-lab", "-f", private).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("ssh-keygen: %w\n%s", err, out)
	}
	b, err := os.ReadFile(private + ".pub")
	return private, string(b), err
}

// Boot boots the three machines, and returns when all are up. They end with
// Close, and at the latest with the world that h is in.
func Boot(ctx context.Context, h *netlab.Host, image *Image, a Accelerator, dir, key string) (*Lab, error) {
	lab := &Lab{Host: h, Config: filepath.Join(dir, "ssh_config")}
	ctx, lab.end = context.WithCancel(ctx)
	if err := demand.Try(func() { lab.boot(ctx, image, a, dir, key) }); err != nil {
		lab.Close()
		return nil, err
	}
	return lab, nil
}

func (l *Lab) boot(ctx context.Context, image *Image, a Accelerator, dir, key string) {
	const front, back, ssh = 10001, 10002, 10022
	var config strings.Builder
	for i, one := range []struct {
		name   string
		boot   bool
		cables []segment
	}{
		{"client", false, []segment{{front, "192.168.56.10/24"}}},
		{"lb", true, []segment{{front, "192.168.56.2/24"}, {back, "192.168.57.2/24"}}},
		{"server", false, []segment{{back, "192.168.57.11/24"}}},
	} {
		m := &Machine{Name: one.name, image: image, dir: dir, accelerator: a, memory: 256}
		m.start(ctx, l.Host, ssh+i, one.boot, one.cables...)
		l.machines = append(l.machines, m)
		fmt.Fprintf(&config, "Host %s\n  HostName 127.0.0.1\n  Port %d\n  User root\n  IdentityFile %s\n", one.name, ssh+i, key)
		config.WriteString("  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n")
	}
	demand.OK(os.WriteFile(l.Config, []byte(config.String()), 0o600))
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	for _, m := range l.machines {
		l.Ups = append(l.Ups, m.await(ctx))
	}
}
