package integration

// Limits: where the machine has no more of something, there is a clear error or
// a right result.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
)

// TestNothingLostMemory: the kernel has no memory for the table. Where a group
// of processes can be limited (cgroup v1, by root), it is the kernel that says
// so; where not, the transport says it in its place. It is not parallel: what
// other tests allocate would count, too.
func TestNothingLostMemory(t *testing.T) {
	b := newBed(t)
	b.Apply(shopBefore)
	before := b.generation()
	after := []string{shopBefore, many("p", 0, 250), many("q", 1, 250), many("r", 2, 250), many("s", 3, 250)}
	refused, who := 0, "the kernel"
	try := func(t wire.Transport) error {
		c := wire.NewConn(t)
		defer c.Close()
		_, err := nft.Apply(b.T.Context(), c, b.all(after), nft.Options{Table: "nlb"})
		return err
	}
	starve := func() error {
		limit, release, err := limitMemory()
		if err != nil {
			who = "the transport"
			limit, release = func(int) error { return nil }, func() error { return nil }
		}
		// From little to enough.
		for kilobytes := 256; kilobytes <= 1<<17; kilobytes = kilobytes * 5 / 4 {
			real, e := wire.Open()
			if e != nil {
				return errors.Join(e, release())
			}
			transport := &starving{Transport: real, limit: func() error { return limit(kilobytes) }, release: func() error { return limit(1 << 30) }}
			transport.injected = err != nil && kilobytes < 1<<10
			e = try(transport)
			if e == nil {
				break
			}
			if transport.unset {
				continue // less than the thread has already
			}
			refused++
			if !errors.Is(e, unix.ENOMEM) && !errors.Is(e, unix.ENOBUFS) {
				t.Errorf("%d KiB: %v", kilobytes, e)
			}
			if now := b.generation(); now != before {
				t.Errorf("%d KiB: %v, and something was committed", kilobytes, e)
				break
			}
		}
		return release()
	}
	b.Check(b.Balancer.Do(func() error {
		if unix.Gettid() == unix.Getpid() {
			return b.Balancer.Do(starve) // on another thread: see limitMemory
		}
		return starve()
	}))
	if refused < 3 {
		t.Errorf("refused %d times", refused)
	}
	if wrong := b.differs(after); wrong != "" {
		t.Error(wrong)
	}
	figures(t, "memory: %s had none for the table %d times, and nothing was changed", who, refused)
}

// starving lets the kernel have little memory while it works on a batch.
type starving struct {
	wire.Transport
	limit, release func() error
	injected       bool
	unset          bool // the limit could not be set
	answer         []byte
}

func (s *starving) Send(b []byte) error {
	if !netlabtest.IsBatch(b) {
		return s.Transport.Send(b)
	}
	if s.injected {
		s.answer = refusal(b, s.Port(), unix.ENOMEM)
		return nil
	}
	if err := s.limit(); err != nil {
		s.unset, s.answer = true, refusal(b, s.Port(), unix.ENOMEM)
		return nil
	}
	return errors.Join(s.Transport.Send(b), s.release())
}

func (s *starving) Receive(b []byte) (int, error) {
	if n := copy(b, s.answer); n > 0 {
		s.answer = nil
		return n, nil
	}
	return s.Transport.Receive(b)
}

// limitMemory puts the calling thread, which must be locked, into a memory
// group of its own. The kernel's objects that it makes count there; the
// program's own memory counts where its first thread is, so it must not be that.
func limitMemory() (limit func(kilobytes int) error, release func() error, err error) {
	const root = "/sys/fs/cgroup/memory"
	group := filepath.Join(root, fmt.Sprintf("nlb-test-%d", os.Getpid()))
	write := func(dir, file, value string) error {
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0) // it is there, or this is no group
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		return errors.Join(err, f.Close())
	}
	tid := strconv.Itoa(unix.Gettid())
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, nil, err
	}
	release = func() error { return errors.Join(write(root, "tasks", tid), os.Remove(group)) }
	limit = func(kilobytes int) error { return write(group, "memory.limit_in_bytes", strconv.Itoa(kilobytes<<10)) }
	// Without the killer, what has no memory fails.
	if err := errors.Join(write(group, "memory.oom_control", "1"), write(group, "tasks", tid)); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return limit, release, nil
}

// TestNothingLostTrackFull: conntrack is full of connections that last. An
// apply is right all the same, what is connected goes on, and what is new is
// accepted as soon as there is room.
func TestNothingLostTrackFull(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	b.Apply(shopBefore)
	live, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
	b.Check(err)
	defer live.Close()
	text, err := b.Balancer.Sysctl("net.netfilter.nf_conntrack_max")
	b.Check(err)
	size, err := strconv.Atoi(text)
	b.Check(err)
	if size > 1<<20 {
		t.Logf("nf_conntrack_max is %d: too many to fill", size)
		size = 1 << 20
	}
	full := b.fill(size, netip.MustParseAddrPort("10.2.0.99:9"), false)
	quick := traffic.Client{Host: b.Client, Timeout: 500 * time.Millisecond}
	_, refused := quick.Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
	if full && refused == nil {
		t.Error("there was room for a connection more")
	}
	b.Apply(shopAfter, otherShop)
	if wrong := b.differs([]string{shopAfter, otherShop}); wrong != "" {
		t.Error(wrong)
	}
	if _, err := live.Again(); err != nil {
		t.Errorf("a live connection broke: %v", err)
	}
	b.Check(b.Balancer.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	b.Ask("tcp", "203.0.113.10:80")
	figures(t, "conntrack full with %d connections: applied, 0 of 1 live connections broken, new ones accepted when there was room", size)
}

// TestNothingLostPorts: all ports of a masquerade are used up. Other backends
// are none the worse, and a second source address mends it.
func TestNothingLostPorts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Address(b.Balancer, "eth1", "10.2.0.2/24")
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.Apply(web + backends(8080, -1, -1))
	b.fill(64512, netip.MustParseAddrPort("10.2.0.11:8080"), true)
	quick := traffic.Client{Host: b.Client, Timeout: 500 * time.Millisecond}
	answers := map[string]int{}
	for range 6 {
		r, err := quick.Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
		if err != nil {
			r.Backend = "none"
		}
		answers[r.Backend]++
	}
	b.WantShares(answers, map[string]int{"10.2.0.12": 3, "none": 3})
	b.Apply(web + "    snat: [10.2.0.1, 10.2.0.2]\n" + backends(8080, -1, -1))
	row := map[string]int{}
	for i := 0; i < 16 || i < 100 && row["10.2.0.11"] == 0; i++ {
		if r, err := quick.Exchange(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80")); err == nil {
			row[r.Backend]++
		}
	}
	if row["10.2.0.11"] == 0 {
		t.Errorf("with a second source address: %v", row)
	}
	figures(t, "64512 ports of a masquerade used up: 6 connections went to %v; with a second source address, which is drawn half of the time, 16 or more to %v", answers, row)
}

// fill gives the balancer's conntrack lasting TCP connections, so many, or until
// it is full; then it returns true. With spread each has another port of
// 10.2.0.1 towards the backend.
func (b *bed) fill(n int, backend netip.AddrPort, spread bool) (full bool) {
	b.T.Helper()
	b.Check(b.Balancer.Do(func() error {
		t, err := wire.Open()
		if err != nil {
			return err
		}
		defer t.Close()
		const run = 256 // connections in a datagram
		for first := 0; first < n && !full; first += run {
			var datagram []byte
			last := min(n, first+run) - 1
			for i := first; i <= last; i++ {
				flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_CREATE)
				if i == last {
					flags |= unix.NLM_F_ACK
				}
				datagram = append(datagram, tracking(i, flags, backend, spread)...)
			}
			if err := t.Send(datagram); err != nil {
				return err
			}
			for seq := -1; seq != last; {
				answer := make([]byte, 1<<16)
				if _, err := t.Receive(answer); err != nil {
					return err
				}
				seq = int(binary.NativeEndian.Uint32(answer[8:]))
				switch errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[16:]))); errno {
				case 0:
				case unix.ENOMEM:
					full = true
				default:
					return errno
				}
			}
		}
		return nil
	}))
	return full
}

// tracking is the message that makes the i-th connection of fill.
func tracking(i int, flags uint16, backend netip.AddrPort, spread bool) []byte {
	const create = unix.NFNL_SUBSYS_CTNETLINK << 8 // IPCTNL_MSG_CT_NEW
	const status = 1<<1 | 1<<2 | 1<<3              // IPS_SEEN_REPLY, ASSURED, CONFIRMED
	port := uint16(1024 + i%64512)
	client := netip.AddrFrom4([4]byte{10, 9, byte(i / 64512), 1})
	own := netip.AddrFrom4([4]byte{10, 3, byte(i / 64512), 1})
	if spread {
		own = netip.MustParseAddr("10.2.0.1")
	}
	var e wire.Encoder
	tuple(&e, 1, lb.TCP, netip.AddrPortFrom(client, port), netip.MustParseAddrPort("203.0.113.77:80"))
	tuple(&e, 2, lb.TCP, backend, netip.AddrPortFrom(own, port))
	e.Uint32(3, status)
	e.Uint32(7, 600) // CTA_TIMEOUT
	info := e.Nest(4)
	tcp := e.Nest(1)
	e.Data(1, "\x03") // TCP_CONNTRACK_ESTABLISHED
	e.Unnest(tcp)
	e.Unnest(info)
	m := binary.NativeEndian.AppendUint32(nil, uint32(20+e.Len()))
	m = binary.NativeEndian.AppendUint16(m, create)
	m = binary.NativeEndian.AppendUint16(m, flags)
	m = binary.NativeEndian.AppendUint32(m, uint32(i))
	m = append(m, 0, 0, 0, 0, unix.AF_INET, 0, 0, 0)
	return append(m, e.Bytes()...)
}
