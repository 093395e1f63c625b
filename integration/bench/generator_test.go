//go:build linux

package bench

// The generator: packets of distinct flows, made beforehand and sent with as
// few system calls as can be.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab/netlabtest"
)

const (
	frameSize = 60 // the smallest that Ethernet has
	ethHeader = 14
	ipHeader  = 20
	udpHeader = 8
	// perCall is how many frames one system call sends.
	perCall = 256
	// lostAfter is how long the sink may see nothing new.
	lostAfter = 200 * time.Millisecond
	// sources is how many ports one client address uses.
	sources = 60_000
)

// train is packets in a row.
type train struct {
	frames  []byte
	vectors []unix.Iovec
	headers []mmsghdr
	lost    bool // none of it will arrive
}

// mmsghdr is what sendmmsg(2) takes.
type mmsghdr struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

// train makes one packet of each of n flows: flow i goes to to(i). No two
// have the same source, and below `sources` flows no two have the same source
// port, so that masquerading never looks for another one.
func (p *path) train(n int, to func(i int) netip.AddrPort) *train {
	frames := make([]byte, n*frameSize)
	for i := range n {
		source := netip.AddrPortFrom(after(generatorAddr, i/sources), uint16(1024+i%sources))
		writeFrame(frames[i*frameSize:(i+1)*frameSize], p.in, source, to(i))
	}
	return newTrain(frames)
}

// newTrain makes a train of frames of one size in a row.
func newTrain(frames []byte) *train {
	n := len(frames) / frameSize
	t := &train{frames: frames, vectors: make([]unix.Iovec, n), headers: make([]mmsghdr, n)}
	for i := range n {
		t.vectors[i].Base = &frames[i*frameSize]
		t.vectors[i].SetLen(frameSize)
		t.headers[i].header.Iov = &t.vectors[i]
		t.headers[i].header.SetIovlen(1)
	}
	return t
}

// misdirect addresses the train to nobody, so that the balancer's kernel drops
// it at once.
func (t *train) misdirect() {
	t.lost = true
	for i := 0; i < len(t.frames); i += frameSize {
		copy(t.frames[i:], nobody)
	}
}

// writeFrame fills a frame with a UDP datagram, its checksums included.
func writeFrame(f []byte, to []byte, source, destination netip.AddrPort) {
	pseudo := writeHeader(f, to, source, destination, unix.IPPROTO_UDP)
	udp := f[ethHeader+ipHeader:]
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], checksum(udp, pseudo))
}

const (
	tcpFIN, tcpSYN, tcpPSH, tcpACK = 1, 2, 8, 16
)

// writeSegment fills a frame with a TCP segment of some bytes.
func writeSegment(f []byte, to []byte, source, destination netip.AddrPort, flags byte) {
	pseudo := writeHeader(f, to, source, destination, unix.IPPROTO_TCP)
	tcp := f[ethHeader+ipHeader:]
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcp, pseudo))
}

// writeHeader fills a frame up to the ports, and returns what the checksum behind them
// begins with: the sum of addresses, protocol and length.
func writeHeader(f []byte, to []byte, source, destination netip.AddrPort, protocol byte) (pseudo uint32) {
	copy(f, to)
	copy(f[6:], nobody)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[ethHeader:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], frameSize-ethHeader)
	ip[8], ip[9] = 64, protocol
	src, dst := source.Addr().As4(), destination.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipHeader], 0))
	ports := ip[ipHeader:]
	binary.BigEndian.PutUint16(ports, source.Port())
	binary.BigEndian.PutUint16(ports[2:], destination.Port())
	return sum(ip[12:20], uint32(protocol)+uint32(len(ports)))
}

// checksum is that of RFC 1071, begun with a sum.
func checksum(b []byte, begun uint32) uint16 {
	s := sum(b, begun)
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func sum(b []byte, s uint32) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return s
}

// send sends a train and waits until all of it has arrived: it returns the time
// until the last packet that did, and how many were lost.
func (p *path) send(b *testing.B, t *train) (took time.Duration, lost int) {
	b.Helper()
	before := p.arrived(b)
	began := time.Now()
	netlabtest.Must(b, t.send(p.socket))
	last := time.Now()
	// A virtual cable delivers on the sender's processor, as a rule before the
	// system call is over.
	for seen := -1; ; time.Sleep(100 * time.Microsecond) {
		now := p.arrived(b) - before
		if seen >= 0 && now != seen {
			last = time.Now()
		}
		seen = now
		if lost = len(t.headers) - now; t.lost {
			lost = 0
		}
		if lost <= 0 || time.Since(last) > lostAfter {
			return last.Sub(began), lost
		}
	}
}

func (t *train) send(fd int) error {
	for at := 0; at < len(t.headers); {
		n := min(perCall, len(t.headers)-at)
		done, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&t.headers[at])), uintptr(n), 0, 0, 0)
		switch {
		case errno == unix.EINTR || errno == unix.ENOBUFS:
		case errno != 0:
			return fmt.Errorf("sendmmsg: %w", errno)
		default:
			at += int(done)
		}
	}
	runtime.KeepAlive(t)
	return nil
}

// answered sends a train and has the sink answer every packet once, so that
// its flows are established. It returns the answers.
func (p *path) answered(t *train) (answers [][]byte, err error) {
	var mirror int
	err = p.Server.Do(func() (err error) {
		mirror, err = packetSocket("eth0", unix.ETH_P_IP)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(mirror)
	var frame [2048]byte
	// A few at a time: the sink's socket holds only so many.
	const some = 64
	for at := 0; at < len(t.headers); at += some {
		part := &train{headers: t.headers[at:min(at+some, len(t.headers))]}
		if err := part.send(p.socket); err != nil {
			return nil, err
		}
		for range part.headers {
			n, _, err := unix.Recvfrom(mirror, frame[:], 0)
			if err != nil {
				return nil, fmt.Errorf("the sink misses a packet: %w", err)
			}
			reverse(frame[:n], p.out)
			if err := unix.Send(mirror, frame[:n], 0); err != nil {
				return nil, err
			}
			answers = append(answers, bytes.Clone(frame[:n]))
		}
	}
	runtime.KeepAlive(t)
	return answers, nil
}

// reverse makes a datagram the answer to itself. The checksums are sums, so
// they stay.
func reverse(f []byte, to []byte) {
	copy(f, to)
	copy(f[6:], nobody)
	swap := func(a, b []byte) {
		var keep [4]byte
		n := copy(keep[:], a)
		copy(a, b)
		copy(b, keep[:n])
	}
	ip := f[ethHeader:]
	swap(ip[12:16], ip[16:20])
	swap(ip[ipHeader:ipHeader+2], ip[ipHeader+2:ipHeader+4])
}

// pin keeps this goroutine on the last processor, where nothing but a higher
// priority takes it away, until undo. Without root it is only kept there.
func pin() (undo func(), err error) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, err
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, err
	}
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, err
	}
	err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	if err != nil && !errors.Is(err, unix.EPERM) {
		return nil, err
	}
	return func() {
		_ = unix.SchedSetAttr(0, before, 0)
		_ = unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	}, nil
}

// TestFrame: what the generator sends has checksums that the kernel takes, and
// so has the answer to it.
func TestFrame(t *testing.T) {
	f := make([]byte, frameSize)
	writeFrame(f, nobody, netip.MustParseAddrPort("10.1.0.2:1024"), netip.MustParseAddrPort("198.18.0.1:80"))
	check := func() {
		t.Helper()
		ip, udp := f[ethHeader:ethHeader+ipHeader], f[ethHeader+ipHeader:]
		if got := checksum(ip, 0); got != 0 {
			t.Errorf("IP checksum: %#x is left", got)
		}
		if got := checksum(udp, sum(ip[12:20], 17+uint32(len(udp)))); got != 0 {
			t.Errorf("UDP checksum: %#x is left", got)
		}
	}
	check()
	reverse(f, nobody)
	check()
	if to := netip.AddrFrom4([4]byte(f[ethHeader+16:])); to != netip.MustParseAddr("10.1.0.2") {
		t.Errorf("the answer goes to %s", to)
	}
}
