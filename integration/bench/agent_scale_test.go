//go:build linux

package bench

// The agent with many backends: from a verdict to the commit, and what thousands of
// checks cost.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// crowd is a bed whose server machine has all addresses from firstBackend on, and
// takes connections at backendPort of each.
func crowd(b *testing.B) *netlabtest.Bed {
	b.Helper()
	bed := netlabtest.New(b)
	all := netip.PrefixFrom(firstBackend, 10).Masked()
	netlabtest.Must(b, bed.Server.AddLocal(all), bed.Balancer.AddRoute(all, dying.Addr()))
	var fd int
	netlabtest.Must(b, bed.Server.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: backendPort}); err != nil {
			return err
		}
		return unix.Listen(fd, 4096)
	}))
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			switch {
			case err == nil:
				unix.Close(c)
			case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
				return
			}
		}
	})
	b.Cleanup(func() {
		_ = unix.Shutdown(fd, unix.SHUT_RD) // ends accept
		wait.Wait()
		unix.Close(fd)
	})
	return bed
}

// checkedFleet is a fleet for TCP whose backends are checked at an interval.
func checkedFleet(services int, interval time.Duration) *lb.Profile {
	p := fleet("fleet", 0, services)
	for i := range p.Services {
		p.Services[i].Protocols = []lb.Protocol{lb.TCP}
		p.Services[i].Health = []lb.Check{checkOf(interval, 3)}
	}
	return p
}

// checkOf is the check of kind tcp as a reader makes it.
func checkOf(interval time.Duration, fall int) lb.Check {
	return lb.Check{Kind: lb.CheckTCP, Interval: interval, Timeout: min(time.Second, interval), Rise: 2, Fall: fall, Passive: true}
}

// verdicts has servers die, one after the other, each of which several services of a
// fleet have, and returns how long each took from the last verdict to the last
// commit, and how many commits that took.
func verdicts(b *testing.B, services, servers, users int, beside func(bed *netlabtest.Bed) (stop func())) (took []time.Duration, batches []int) {
	const firstPort = 20_000
	for b.Loop() {
		bed := crowd(b)
		p := checkedFleet(services, 20*time.Second)
		var all []*traffic.Server
		for i := range servers {
			e := lb.Endpoint{Addr: dying.Addr(), Port: uint16(firstPort + i)}
			for j := range users {
				s := &p.Services[i*users+j]
				s.Backends[0] = lb.Backend{Name: e.String(), Address: e, Weight: 1}
				s.Health = []lb.Check{checkOf(200*time.Millisecond, 3)}
			}
			s, err := traffic.Serve(bed.Server, e.String(), traffic.Port{Network: "tcp", At: netip.AddrPortFrom(e.Addr, e.Port)})
			netlabtest.Must(b, err)
			all = append(all, s)
		}
		d := runAgent(b, bed.Balancer, save(b, "verdicts.yaml", p))
		c := watchCommits(b, bed.Balancer)
		stop := beside(bed)
		time.Sleep(2 * time.Second) // first checks, and the heap of the first apply
		for _, s := range all {
			death := time.Now()
			s.Close()
			last := d.awaits(b, "msg=down", users, death)
			d.answers(b, func() bool { return len(c.after(death)) > 0 })
			time.Sleep(300 * time.Millisecond)
			at := c.after(death)
			took, batches = append(took, at[len(at)-1].Sub(last)), append(batches, len(at))
		}
		stop()
		d.end(syscall.SIGKILL)
	}
	return took, batches
}

func nothingBeside(*netlabtest.Bed) (stop func()) { return func() {} }

// sharedServer: many services have a server in common, which dies.
func sharedServer(b *testing.B) {
	services, fallen := size(3334), size(500)
	took, batches := verdicts(b, services, 1, fallen, nothingBeside)
	prove(b, fmt.Sprintf("%d of %s backends fall at once", fallen, grouped(services*3)),
		fmt.Sprintf("%d batch, committed %s after the last verdict", median(batches), short(median(took))), "", "one batch, at most 100 ms",
		median(batches) == 1 && median(took) <= 100*time.Millisecond)
}

// oneBackend: a backend of many falls, beside nobody and beside a busy writer.
func oneBackend(b *testing.B) {
	services := size(10_000)
	for _, beside := range []struct {
		name, what string
		f          func(bed *netlabtest.Bed) (stop func())
	}{
		{"alone", "", nothingBeside},
		{"beside a writer", ", beside a program that commits 50 times a second", func(bed *netlabtest.Bed) func() { return commitOften(b, bed.Balancer) }},
	} {
		b.Run(beside.name, func(b *testing.B) {
			took, _ := verdicts(b, services, 5, 1, beside.f)
			prove(b, fmt.Sprintf("one backend of %s services x 3 falls%s", grouped(services), beside.what),
				fmt.Sprintf("committed %s after the verdict", short(median(took))), "", "at most 5 ms", median(took) <= 5*time.Millisecond)
		})
	}
}

// commitOften changes a table of its own 50 times a second, until stop.
func commitOften(b *testing.B, h *netlab.Host) (stop func()) {
	var c *wire.Conn
	netlabtest.Must(b, h.Do(func() (err error) { c, err = wire.Dial(); return err }))
	var wait sync.WaitGroup
	var ended atomic.Bool
	wait.Go(func() {
		defer c.Close()
		for ; !ended.Load(); time.Sleep(20 * time.Millisecond) {
			err := wiretest.Send(c, func(batch *wire.Batch) {
				wiretest.AddTable(batch, unix.NFPROTO_IPV4, "other")
				wiretest.AddChain(batch, unix.NFPROTO_IPV4, "other", "chain")
				wiretest.FlushChain(batch, unix.NFPROTO_IPV4, "other", "chain")
				wiretest.AddCounter(batch, unix.NFPROTO_IPV4, "other", "chain")
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	return func() {
		ended.Store(true)
		wait.Wait()
	}
}

// balancerAddr is where checks come from.
var balancerAddr = netip.MustParseAddr("10.2.0.1")

// arrivals are the first packets of checks, as they come to the server machine.
type arrivals struct {
	from netip.Addr // who sends them

	mu    sync.Mutex
	count int
	first time.Time
	last  map[netip.Addr]time.Time
	gaps  []time.Duration // between two checks of one server
}

// hear listens for SYNs that come to the server machine, by the kernel's clock,
// until stop.
func (a *arrivals) hear(b *testing.B, h *netlab.Host) (stop func()) {
	b.Helper()
	a.last = map[netip.Addr]time.Time{}
	var fd int
	netlabtest.Must(b, h.Do(func() (err error) {
		if fd, err = packetSocket("eth0", unix.ETH_P_IP); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}))
	var wait sync.WaitGroup
	var ended atomic.Bool
	wait.Go(func() {
		frame, control := make([]byte, 128), make([]byte, 128)
		for !ended.Load() {
			n, nc, _, _, err := unix.Recvmsg(fd, frame, control, 0)
			const flags = ethHeader + ipHeader + 13
			if err == nil && n > flags && frame[ethHeader+9] == unix.IPPROTO_TCP && frame[flags]&0x12 == 0x02 && // SYN, no ACK
				netip.AddrFrom4([4]byte(frame[ethHeader+12:])) == a.from {
				a.note(netip.AddrFrom4([4]byte(frame[ethHeader+16:])), stamp(control[:nc]))
			}
		}
	})
	return func() {
		ended.Store(true)
		wait.Wait()
		unix.Close(fd)
	}
}

// stamp is the kernel's time of a packet.
func stamp(control []byte) time.Time {
	all, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(all) == 0 || len(all[0].Data) < 16 {
		return time.Now()
	}
	d := all[0].Data
	return time.Unix(int64(binary.NativeEndian.Uint64(d)), int64(binary.NativeEndian.Uint64(d[8:])))
}

func (a *arrivals) note(to netip.Addr, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == 0 {
		a.first = at
	}
	a.count++
	if last, ok := a.last[to]; ok {
		a.gaps = append(a.gaps, at.Sub(last))
	}
	a.last[to] = at
}

// checked is how many have come.
func (a *arrivals) checked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// burden is what a checker costs, in several rounds.
type burden struct {
	rate, cores []float64
	rss, files  []int64         // resident, and what of it is of files
	late        []time.Duration // the longest time between two checks of a server, beyond what was due
	tracked     []int           // the most entries of conntrack
}

func (u *burden) String() string {
	if len(u.rate) == 0 {
		return "not installed"
	}
	return fmt.Sprintf("%.0f checks a second, %.2f of a core, %d MiB resident, %d of them of files, the latest %s late, %s entries of conntrack",
		median(u.rate), median(u.cores), median(u.rss)>>20, median(u.files)>>20, short(median(u.late)), grouped(median(u.tracked)))
}

// measure watches a checker for a time.
func (u *burden) measure(b *testing.B, bed *netlabtest.Bed, d *daemon, due, during time.Duration) {
	time.Sleep(due + time.Second)
	a := &arrivals{from: balancerAddr}
	stop := a.hear(b, bed.Server)
	began, used := time.Now(), d.processor(b)
	time.Sleep(during)
	took, cpu := time.Since(began), d.processor(b)-used
	stop()
	now, files := d.memory(b)
	most := 0
	for range 20 { // over two seconds: checks may come in step
		most = max(most, remembered(b, bed.Balancer))
		time.Sleep(100 * time.Millisecond)
	}
	if len(a.gaps) == 0 {
		b.Fatal("nothing was checked twice")
	}
	var sum time.Duration
	for _, g := range a.gaps {
		sum += g
	}
	u.rate = append(u.rate, float64(len(a.last))/(sum/time.Duration(len(a.gaps))).Seconds())
	u.cores = append(u.cores, cpu.Seconds()/took.Seconds())
	u.rss, u.files, u.tracked = append(u.rss, now), append(u.files, files), append(u.tracked, most)
	u.late = append(u.late, slices.Max(a.gaps)-due)
}

// remembered is how many connections a host's conntrack has, without those that are
// over and not collected yet.
func remembered(b *testing.B, h *netlab.Host) int {
	b.Helper()
	var flows []*netlink.ConntrackFlow
	netlabtest.Must(b, h.Do(func() (err error) {
		flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		return err
	}))
	return len(flows)
}

// manyChecks is what 10,000 checks every two seconds cost.
func manyChecks(b *testing.B) {
	const interval = 2 * time.Second
	services, during := size(2500), 20*time.Second
	if *quick {
		during = 5 * time.Second
	}
	p := fleet("fleet", 0, services)
	var config strings.Builder
	for i := range p.Services {
		s := &p.Services[i]
		s.Protocols, s.Health, s.Backends = []lb.Protocol{lb.TCP}, []lb.Check{checkOf(interval, 3)}, nil
		fmt.Fprintf(&config, "backend s%d\n", i)
		for j := range 4 {
			s.Backends = append(s.Backends, backend(i*4+j))
			fmt.Fprintf(&config, "\tserver b%d %s check inter 2s\n", j, s.Backends[j].Address)
		}
	}
	file, checks := save(b, "checks.yaml", p), services*4
	var ours, theirs burden
	there := hasHAProxy(b)
	for b.Loop() {
		bed := crowd(b)
		d := runAgent(b, bed.Balancer, file)
		ours.measure(b, bed, d, interval*105/100, during)
		d.end(syscall.SIGKILL)
		if there {
			bed = crowd(b)
			d = runHAProxy(b, bed.Balancer, config.String())
			theirs.measure(b, bed, d, interval, during)
			d.end(syscall.SIGKILL)
		}
	}
	prove(b, grouped(checks)+" checks every 2 s", ours.String(), theirs.String(), "at most 0.5 of a core, 60 MiB, 100 ms late, entries of 1.5 s",
		median(ours.cores) <= 0.5 && median(ours.rss) <= 60<<20 && median(ours.late) <= 100*time.Millisecond && median(ours.tracked) <= checks*3/4)
}
