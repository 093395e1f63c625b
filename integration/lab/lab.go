//go:build linux

// Package lab rehearses profiles: it builds a world of network namespaces with
// clients, the balancer and stand-in backends at the profiles' own addresses,
// applies the profiles in it, sends connections, and compares what came of them
// with what is due.
package lab

// The lab: a world that stands, and the rehearsal in it.

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/lab/plan"
	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
)

// Balancer makes the kernel of the host that it is called in balance what the
// profiles say, and nothing else that a former call made it balance, and sets
// the kernel parameters that this takes. It is called on a thread in that host,
// and must open its sockets there, not in goroutines that it starts.
type Balancer interface {
	Apply(ctx context.Context, profiles []*lb.Profile) error
}

// DefaultConnections is what Options.Connections means by 0.
const DefaultConnections = 600

// Options of a rehearsal.
type Options struct {
	// Connections is how many there are for each service, family and protocol,
	// about: whole cycles of a round robin, fewer where a limit would take
	// long. 0: DefaultConnections.
	Connections int
	// Progress is told what comes next; nil: nobody.
	Progress func(what string)
	// Agent watches services with health, whose backends fail then; nil: nobody, and
	// they do not.
	Agent Agent
	// Plan says which backends fail, and how; nil: some of each service.
	Plan []plan.Step

	patience time.Duration // for a call; 0: callLimit
}

// Lab is a world with the profiles applied. It ends with the process, if not
// closed before.
type Lab struct {
	world    *netlab.World
	site     *site
	balancer *netlab.Host
	clients  []*netlab.Host // one for each link of the site
	backends *netlab.Host
	direct   map[netip.Addr]*netlab.Host // of backends with mode: dsr
	servers  map[traffic.Port]*traffic.Server
	agent    Balancer
	options  Options
	started  time.Time
	made     int // connections, for the report
}

// New builds a lab and applies the profiles in it, which are free of conflicts
// among each other. The process must be able to make namespaces; see
// netlab.Isolate.
func New(ctx context.Context, profiles []*lb.Profile, b Balancer, o Options) (*Lab, error) {
	if o.Connections == 0 {
		o.Connections = DefaultConnections
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	l := &Lab{agent: b, options: o, started: time.Now(), servers: map[traffic.Port]*traffic.Server{}, direct: map[netip.Addr]*netlab.Host{}}
	o.Progress("building hosts")
	var err error
	if l.world, err = netlab.New(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	// Backends of a priority that is not in use stand by.
	l.site = draft(lb.Overlay(profiles, nil, nil), o.Connections, traffic.Supported("sctp"))
	if err = l.build(); err == nil {
		o.Progress("applying " + names(profiles))
		err = l.apply(ctx, l.site.profiles)
		l.shorten()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.world.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

// Close takes the lab down.
func (l *Lab) Close() error { return l.world.Close() }

// WriteDoors writes how to step into the lab's hosts and out of them.
func (l *Lab) WriteDoors(w io.Writer) error {
	hosts := append([]*netlab.Host{l.balancer}, l.clients...)
	for _, a := range l.site.direct {
		hosts = append(hosts, l.direct[a])
	}
	return netlab.WriteDoors(w, append(hosts, l.backends)...)
}

func (l *Lab) apply(ctx context.Context, profiles []*lb.Profile) error {
	err := l.balancer.Do(func() error { return l.agent.Apply(ctx, profiles) })
	if err != nil {
		return fmt.Errorf("apply %s: %w", names(profiles), err)
	}
	return nil
}

// short are kernel parameters of connection tracking that keep its table small
// on a small machine, and have it ignore what comes late of a connection that
// it has forgotten. Such a packet would count as a new connection, and take
// somebody's turn in a round robin.
var short = []struct{ key, value string }{
	{"net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2"},
	{"net.netfilter.nf_conntrack_tcp_timeout_close", "2"},
	{"net.netfilter.nf_conntrack_udp_timeout", "5"},
	{"net.netfilter.nf_conntrack_udp_timeout_stream", "5"},
	{"net.netfilter.nf_conntrack_tcp_loose", "0"},
}

// shorten sets them. A kernel that does not let a user namespace do it works
// as well, up to its limit of connections.
func (l *Lab) shorten() {
	for _, s := range short {
		_ = l.balancer.SetSysctl(s.key, s.value)
	}
}

// settled is how long connections take to end, and to be counted no longer.
const settled = 25 * time.Millisecond

// A connection that is no longer half-open is over for the kernel's collector after the first
// time (docs/profile.md, half-open). The collector takes the second one.
const over, collected = 130 * time.Millisecond, 70 * time.Millisecond

// forget has connection tracking forget all connections, so that none counts
// for a limit of a trial. Where the kernel cannot do it, limits may be found too low.
func (l *Lab) forget(t *trial) {
	time.Sleep(settled)
	_ = l.balancer.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	time.Sleep(settled)
	if t.halfOpen() > 0 {
		time.Sleep(over)
		wake()
		time.Sleep(collected)
	}
}

// tick is no shorter than a kernel's.
const tick = 12 * time.Millisecond

// wake keeps each processor at work for a moment. One that idles does not collect until it
// has something to do (INIT_DEFERRABLE_WORK in net/netfilter/nft_set_hash.c).
func wake() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			var one unix.CPUSet
			one.Set(cpu)
			_ = unix.SchedSetaffinity(0, &one)
			for end := time.Now().Add(tick); time.Now().Before(end); {
			}
		}
	}
	_ = unix.SchedSetaffinity(0, &all)
}

func names(profiles []*lb.Profile) string {
	var out []string
	for _, p := range profiles {
		out = append(out, p.Name)
	}
	return strings.Join(out, ", ")
}
