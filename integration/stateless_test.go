package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/netlab/traffic"
)

// sink counts the datagrams that its sockets get, by their addresses, and keeps where
// they came from and the longest.
type sink struct {
	sync.Mutex
	got  map[string]int
	from map[netip.AddrPort]int
	long []byte
}

// newSink listens on a port of addresses of the server machine.
func (b *bed) newSink(port uint16, addresses ...string) *sink {
	b.T.Helper()
	s := &sink{got: map[string]int{}, from: map[netip.AddrPort]int{}}
	for _, a := range addresses {
		c, err := listenUDP(b.Server, netip.AddrPortFrom(netip.MustParseAddr(a), port))
		b.Check(err)
		b.T.Cleanup(func() { c.Close() })
		go func() {
			in := make([]byte, 1<<16)
			for {
				n, from, err := c.ReadFromUDPAddrPort(in)
				if err != nil {
					return
				}
				s.Lock()
				s.got[a]++
				s.from[netip.AddrPortFrom(from.Addr().Unmap(), from.Port())]++
				if n > len(s.long) {
					s.long = bytes.Clone(in[:n])
				}
				s.Unlock()
			}
		}()
	}
	return s
}

// take waits until so many datagrams are there, and then that no more come, and
// returns who got how many since it was asked last.
func (s *sink) take(n int) map[string]int {
	for range 200 {
		s.Lock()
		sum := 0
		for _, one := range s.got {
			sum += one
		}
		s.Unlock()
		if sum >= n {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	s.Lock()
	defer s.Unlock()
	out := s.got
	s.got = map[string]int{}
	return out
}

// emit sends datagrams from one socket of the client.
func (b *bed) emit(from netip.AddrPort, to string, n int, payload []byte, options ...int) {
	b.T.Helper()
	b.Check(b.Client.Do(func() error {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(from), Control: func(_, _ string, c syscall.RawConn) (err error) {
			_ = c.Control(func(fd uintptr) {
				// A child process has a copy of the socket before, from fork to exec.
				for _, o := range append([]int{unix.SO_REUSEADDR}, options...) {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1)
				}
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
			})
			return err
		}}
		c, err := d.DialContext(b.T.Context(), "udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.Write(payload); err != nil {
				return err
			}
			time.Sleep(200 * time.Microsecond)
		}
		return nil
	}))
}

// emitRaw sends datagrams whose checksums no device is to complete: this host wrote them.
func (b *bed) emitRaw(from, to netip.AddrPort, n int) {
	b.T.Helper()
	segment := binary.BigEndian.AppendUint16(nil, from.Port())
	segment = binary.BigEndian.AppendUint16(segment, to.Port())
	segment = append(segment, 0, 13, 0, 0, 'h', 'e', 'l', 'l', 'o')
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(append(pseudo, 0, 17, 0, 13), segment...)
	pseudo = append(pseudo, 0)
	sum := 0
	for i := 0; i < len(pseudo); i += 2 {
		sum += int(pseudo[i])<<8 | int(pseudo[i+1])
	}
	binary.BigEndian.PutUint16(segment[6:], uint16(0xffff-sum%0xffff)) // RFC 768
	network := map[bool]string{true: "ip4:udp", false: "ip6:udp"}[to.Addr().Is4()]
	b.Check(b.Client.Do(func() error {
		c, err := net.Dial(network, to.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.Write(segment); err != nil {
				return err
			}
			time.Sleep(200 * time.Microsecond)
		}
		return nil
	}))
}

// tracked counts the entries of conntrack that the balancer has for UDP.
func (b *bed) tracked() int {
	b.T.Helper()
	n := 0
	b.Check(b.Balancer.Do(func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return err
			}
			for _, f := range all {
				if f.Forward.Protocol == unix.IPPROTO_UDP {
					n++
				}
			}
		}
		return nil
	}))
	return n
}

// TestDatagrams: the datagrams of one socket go to all servers by their weights, from
// the client, intact, and conntrack has nothing of them.
func TestDatagrams(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	keep := b.newSink(514, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	other := b.newSink(5140, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	b.Apply(`profile: logs
defaults: {protocol: udp, balance: datagrams, forward: balanced}
services:
  - {name: keep, listen: ["203.0.113.10:514", "[2001:db8::10]:514"], backends: [{address: 10.2.0.11, weight: 3}, 10.2.0.12, {address: "fd02::11", weight: 3}, "fd02::12"]}
  - {name: other, listen: ["203.0.113.11:514", "[2001:db8::11]:514"], backends: ["10.2.0.11:5140", "10.2.0.12:5140", "[fd02::11]:5140", "[fd02::12]:5140"]}
`)
	for _, family := range []struct{ client, one, two, vip, vipOther string }{
		{"10.1.0.2", "10.2.0.11", "10.2.0.12", "203.0.113.10", "203.0.113.11"},
		{"fd01::2", "fd02::11", "fd02::12", "2001:db8::10", "2001:db8::11"},
	} {
		from := netip.MustParseAddrPort(at(family.client, b.Client.NextPort()))
		want := func(what string, s *sink, one, two int) {
			t.Helper()
			if got := s.take(one + two); !maps.Equal(got, map[string]int{family.one: one, family.two: two}) {
				t.Errorf("%s to %s: got %v, want %d and %d", what, family.vip, got, one, two)
			}
		}
		b.emit(from, at(family.vip, 514), 200, []byte("line"))
		want("the same port", keep, 150, 50)
		b.emit(from, at(family.vipOther, 514), 200, []byte("line"))
		want("another port", other, 100, 100)
		b.emitRaw(from, netip.MustParseAddrPort(at(family.vip, 514)), 40)
		want("the same port, a checksum of the sender's", keep, 30, 10)
		b.emitRaw(from, netip.MustParseAddrPort(at(family.vipOther, 514)), 40)
		want("another port, a checksum of the sender's", other, 20, 20)
		if from.Addr().Is4() { // IPv6 has no datagrams without
			b.emit(from, at(family.vip, 514), 40, []byte("line"), unix.SO_NO_CHECK)
			want("the same port, no checksum", keep, 30, 10)
			b.emit(from, at(family.vipOther, 514), 40, []byte("line"), unix.SO_NO_CHECK)
			want("another port, no checksum", other, 20, 20)
		}
		whole := bytes.Repeat([]byte("0123456789"), 700) // five fragments
		b.emit(from, at(family.vip, 514), 4, whole)
		want("fragments", keep, 3, 1)
		if !bytes.Equal(keep.long, whole) {
			t.Errorf("a datagram of %d bytes came with %d, or changed", len(whole), len(keep.long))
		}
		for _, s := range []*sink{keep, other} {
			if len(s.from) != 1 || s.from[from] == 0 {
				t.Errorf("sources: got %v, want %v alone", s.from, from)
			}
			clear(s.from)
		}
		keep.long = nil
	}
	if n := b.tracked(); n != 0 {
		t.Errorf("conntrack has %d entries, want none", n)
	}
	s := b.Load()
	for _, d := range s.Drift() {
		t.Errorf("%+v", d)
	}
	for _, backend := range s.Profiles[0].Services[0].Backends {
		if n := s.Stats("logs", "keep", backend.Address, nil).Packets; n < 50 {
			t.Errorf("%s: %d datagrams were counted", backend.Address, n)
		}
	}
}

// TestDatagramsChange: servers come and go without a datagram that is lost, and who is
// not allowed, or finds no server, is turned away. What this host sends is answered.
func TestDatagramsChange(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	addresses := []string{"10.2.0.11", "10.2.0.12", "10.2.0.13"}
	s := b.newSink(514, addresses...)
	profile := func(keys string, backends ...int) string {
		list := ""
		for i, w := range backends {
			list += fmt.Sprintf("{address: %s, weight: %d}, ", addresses[i], w)
		}
		return "profile: logs\nservices:\n  - {name: syslog, protocol: udp, balance: datagrams, " + keys + "listen: \"203.0.113.10:514\", backends: [" + list + "]}"
	}
	from := netip.MustParseAddrPort(at("10.1.0.2", b.Client.NextPort()))
	for _, tt := range []struct {
		profile string
		want    map[string]int
	}{
		{profile("", 1, 1), map[string]int{addresses[0]: 30, addresses[1]: 30}},
		{profile("", 1, 1, 1), map[string]int{addresses[0]: 20, addresses[1]: 20, addresses[2]: 20}},
		{profile("", 0, 2, 1), map[string]int{addresses[1]: 40, addresses[2]: 20}},
		{profile("", 1), map[string]int{addresses[0]: 60}},
		{profile("deny: 10.1.0.0/24, ", 1), map[string]int{}},
		{profile("allow: 10.1.0.2, ", 1), map[string]int{addresses[0]: 60}},
		{profile("allow: 10.1.0.3, ", 1), map[string]int{}},
		{profile("on-empty: drop, ", 0), map[string]int{}},
		{profile("scheduler: random, ", 0, 1), map[string]int{addresses[1]: 60}},
	} {
		b.Apply(tt.profile)
		n := 0
		for _, one := range tt.want {
			n += one
		}
		b.emit(from, "203.0.113.10:514", 60, []byte("line"))
		if got := s.take(n); !maps.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.profile, got, tt.want)
		}
		b.undrifted(tt.profile)
	}
	b.Apply(profile("", 0))
	b.fate("without a server", b.Client, "udp", "203.0.113.10:514", "refused")
	// While datagrams come, nobody is lost over changes.
	b.Apply(profile("", 1, 1))
	s.take(0)
	var sending sync.WaitGroup
	sending.Go(func() { b.emit(from, "203.0.113.10:514", 2000, []byte("line")) })
	for i := range 6 {
		b.Apply(profile("", 1, 1+i%2, i%2))
		time.Sleep(30 * time.Millisecond)
	}
	sending.Wait()
	sum := 0
	for _, n := range s.take(2000) {
		sum += n
	}
	if figures(t, "%d of 2000 datagrams arrived while the servers changed six times", sum); sum < 1995 {
		t.Errorf("%d of 2000 datagrams arrived", sum)
	}
	b.Apply(profile("", 0, 0, 1) + "\n") // and connections again
	b.Apply("profile: logs\nservices:\n  - {name: syslog, protocol: udp, listen: \"203.0.113.10:514\", backends: [10.2.0.14]}")
	server, err := traffic.Serve(b.Server, "server", traffic.Port{Network: "udp", At: netip.MustParseAddrPort("10.2.0.14:514")})
	b.Check(err)
	defer server.Close()
	b.fate("as flows again", b.Client, "udp", "203.0.113.10:514", "served")
	b.Apply("profile: logs\nservices:\n  - {name: syslog, protocol: udp, balance: datagrams, listen: \"203.0.113.10:514\", backends: [10.2.0.14]}")
	b.Via(b.Balancer, "10.1.0.2")
	b.fate("what this host sends", b.Balancer, "udp", "203.0.113.10:514", "served")
}
