package scenario

// The driver for machines that an OpenSSH configuration file names: client, lb
// and server. One connection to each carries all scripts.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nlb/integration/demand"
)

// Connections are the machines of one configuration file.
type Connections struct {
	exec   Exec
	config string
	dir    string // of the sockets that scripts share connections by
	cancel context.CancelFunc
	ctx    context.Context
	wait   sync.WaitGroup
}

// Dial prepares connections to the hosts of an OpenSSH configuration file.
// exec says from where ssh is to run.
func Dial(ctx context.Context, exec Exec, config string) (*Connections, error) {
	// Not in t.TempDir, whose path may be longer than that of a socket may be.
	dir, err := os.MkdirTemp("", "nlb-ssh-")
	if err != nil {
		return nil, err
	}
	c := &Connections{exec: exec, config: config, dir: dir}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c, nil
}

// Close ends the connections.
func (c *Connections) Close() error {
	c.cancel()
	c.wait.Wait()
	return os.RemoveAll(c.dir)
}

// machine is a Host.
type machine struct {
	*Connections
	name string
}

// Host is a machine by its name in the configuration file. Scripts become root
// by sudo, unless they are it.
func (c *Connections) Host(name string) Host { return &machine{c, name} }

func (m *machine) Run(ctx context.Context, stdin io.Reader, script string) (Result, error) {
	script = "if [ $(id -u) = 0 ]; then exec sh -c " + quote(script) + "; else exec sudo -n sh -c " + quote(script) + "; fi"
	r, err := m.exec.result(ctx, stdin, "ssh", m.args("-o", "ControlMaster=no", m.name, script)...)
	if err == nil && r.Exit == 255 {
		err = fmt.Errorf("ssh %s: %s", m.name, strings.TrimSpace(r.Stderr))
	}
	return r, err
}

func (m *machine) args(args ...string) []string {
	return append([]string{
		"-F", m.config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
		// A machine that boots forgets its connections without a word.
		"-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
		"-o", "ControlPath=" + filepath.Join(m.dir, m.name),
	}, args...)
}

// connect waits until the machine can be reached, and keeps the connection
// that scripts share.
func (m *machine) connect(ctx context.Context) {
	socket := filepath.Join(m.dir, m.name)
	for {
		attempt := make(chan error, 1)
		_ = os.Remove(socket) // of a connection that a reboot has ended
		m.wait.Go(func() {
			_, err := m.exec.result(m.ctx, nil, "ssh", m.args("-M", "-N", m.name)...)
			attempt <- err
		})
		for waiting := true; waiting; {
			select {
			case <-attempt:
				waiting = false
			case <-ctx.Done():
				demand.Fail("connect to %s: %w", m.name, ctx.Err())
			case <-time.After(50 * time.Millisecond):
				if _, err := os.Stat(socket); err == nil {
					return
				}
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Lab makes a laboratory of the machines client, lb and server, and copies the
// program peer to two of them. nlb is at hand on lb already.
func (c *Connections) Lab(ctx context.Context, peer string) (*Lab, error) {
	client, balancer, server := &machine{c, "client"}, &machine{c, "lb"}, &machine{c, "server"}
	const to = "/usr/local/bin/nlb-peer"
	err := demand.Try(func() {
		for _, m := range []*machine{client, balancer, server} {
			m.connect(ctx)
		}
		for _, m := range []*machine{client, server} {
			m.install(ctx, peer, to)
		}
	})
	if err != nil {
		return nil, err
	}
	return &Lab{
		Client: client, Balancer: balancer, Server: server,
		Nlb: "/usr/sbin/nlb", Peer: to, Folder: "/etc/nlb", Machines: true,
		Prepare: func(ctx context.Context) {
			for m, script := range map[*machine]string{client: clientScript, balancer: balancerScript, server: serverScript} {
				demand.In("prepare "+m.name, func() { must(ctx, m, nil, addressing+script) })
			}
		},
		Reboot: balancer.reboot,
	}, nil
}

// install copies a program to the machine.
func (m *machine) install(ctx context.Context, program, to string) {
	f := demand.Of(os.Open(program))
	defer f.Close()
	must(ctx, m, f, "mkdir -p "+filepath.Dir(to)+"; cat >"+to+".new && chmod 755 "+to+".new && mv "+to+".new "+to)
}

// addressing are functions of the scripts below. Addresses of IPv4 are there
// before; those of IPv6, and routes, come on top. Both busybox and iproute2
// understand it.
const addressing = `set -eu
link() { # the interface that has an address
	l=$(ip -o -f inet addr show | awk -v a="$1/" 'index($4, a) == 1 {print $2; exit}')
	[ -n "$l" ] || { echo "no interface has the address $1" >&2; exit 1; }
	echo 0 >/proc/sys/net/ipv6/conf/$l/accept_dad
	echo $l
}
add() { # PREFIX LINK
	ip addr show dev $2 | grep -qF " $1 " || ip addr add $1 dev $2
}
`

const (
	clientScript = `
front=$(link ` + clientAddress + `)
add ` + clientAddress6 + `/64 $front
ip route replace ` + servicesNet + ` via ` + balancerFront + `
ip -6 route replace ` + servicesNet6 + ` via ` + balancerFront6 + `
`
	balancerScript = `
front=$(link ` + balancerFront + `)
back=$(link ` + balancerBack + `)
add ` + balancerFront6 + `/64 $front
add ` + balancerBack6 + `/64 $back
# As in a world: every refused datagram is told so, not one each second.
echo 0 >/proc/sys/net/ipv4/icmp_ratemask
`
	serverScript = `
back=$(link 192.168.57.11)
for n in 11 12 13; do
	add 192.168.57.$n/24 $back
	add fd57::$n/64 $back
done
ip route replace ` + frontNet + ` via ` + balancerBack + `
ip -6 route replace ` + frontNet6 + ` via ` + balancerBack6 + `
`
)

// rebootLimit is for a machine with systemd that is emulated by a busy one.
const rebootLimit = 10 * time.Minute

// reboot boots the machine and waits until it is up: systemd says so, or sshd,
// which an init without systemd starts last.
func (m *machine) reboot(ctx context.Context) {
	const id = "cat /proc/sys/kernel/random/boot_id"
	before := must(ctx, m, nil, id)
	must(ctx, m, nil, `sync
if [ -d /run/systemd/system ]; then do="systemctl reboot"; else do="reboot -f"; fi
(sleep 0.3; $do) </dev/null >/dev/null 2>&1 &`)
	ctx, cancel := context.WithTimeout(ctx, rebootLimit)
	defer cancel()
	// The old connection may hang; new ones tell whether it is a new boot.
	_ = os.Remove(filepath.Join(m.dir, m.name))
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Minute)
		var after string
		err := demand.Try(func() {
			after = must(attempt, m, nil, "[ ! -d /run/systemd/system ] || systemctl is-system-running --wait >/dev/null || :; "+id)
		})
		cancel()
		if err == nil && after != before {
			m.connect(ctx)
			return
		}
		if ctx.Err() != nil {
			demand.OK(errors.Join(fmt.Errorf("%s did not come back", m.name), err))
		}
		time.Sleep(300 * time.Millisecond)
	}
}
