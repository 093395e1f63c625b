package integration

// SYN floods: SYNs from sources that do not exist, and the clients that do.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
)

// flood sends SYNs from forged sources, half of them over IPv6, to port 80 of addresses.
func flood(h *netlab.Host, n int, vip4, vip6 netip.Addr) error {
	return h.Do(func() error {
		r := rand.New(rand.NewPCG(1, 2))
		var fd [2]int
		for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
			var err error
			if fd[i], err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
				return err
			}
			defer unix.Close(fd[i])
		}
		for range n / 2 {
			port, seq := uint16(1024+r.IntN(60000)), r.Uint32()
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(r.Uint32()), byte(r.Uint32())}), port)
			syn := packet(from.Addr(), vip4, unix.IPPROTO_TCP, segment(from, netip.AddrPortFrom(vip4, 80), flagSYN, seq, 0))
			six := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xba, 0xd0, 14: byte(r.Uint32()), 15: byte(r.Uint32())})
			syn6 := segment(netip.AddrPortFrom(six, port), netip.AddrPortFrom(vip6, 80), flagSYN, seq, 0)
			h := []byte{0x60, 0, 0, 0, 0, byte(len(syn6)), unix.IPPROTO_TCP, 64}
			syn6 = append(append(append(h, six.AsSlice()...), vip6.AsSlice()...), syn6...)
			if err := errors.Join(unix.Sendto(fd[0], syn, 0, &unix.SockaddrInet4{Addr: vip4.As4()}),
				unix.Sendto(fd[1], syn6, 0, &unix.SockaddrInet6{Addr: vip6.As16()})); err != nil {
				return err
			}
		}
		return nil
	})
}

// echoes fails where a server does not send back what a client sends, whatever its size.
func echoes(c *traffic.Conn, size int) error {
	sent, got := make([]byte, size), make([]byte, size)
	for i := range size / 8 {
		binary.NativeEndian.PutUint64(sent[8*i:], rand.Uint64())
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- err
	}()
	_, err := io.ReadFull(c, got)
	if err == nil && !bytes.Equal(sent, got) {
		err = errors.New("what came back is not what was sent")
	}
	return errors.Join(<-wrote, err)
}

// entries is how many connections of any kind the balancer's conntrack has.
func (b *bed) entries() int {
	b.T.Helper()
	text, err := b.Balancer.Sysctl("net.netfilter.nf_conntrack_count")
	b.Check(err)
	n, err := strconv.Atoi(text)
	b.Check(err)
	return n
}

// handshakes counts on the servers' machine: SYNs that came, and answers to them.
func (b *bed) handshakes() (syns, answers int) {
	const table = "add table inet seen\nadd counter inet seen syn\nadd counter inet seen answer\n"
	listed := b.Witness(b.Server, table+"list counters table inet seen\n", "nft", "-f", "-")
	if _, err := fmt.Sscanf(strings.Join(strings.Fields(listed), " "),
		"table inet seen { counter syn { packets %d bytes %d } counter answer { packets %d", &syns, new(int), &answers); err != nil {
		b.T.Fatalf("%v in %s", err, listed)
	}
	return syns, answers
}

const proven = `profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    syn-protection: synproxy
    backends: ["10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080", "[fd02::12]:8080"]
`

// newFlooded is a bed whose balancer has the addresses of proven on lo, or by a route
// back to where the packets came from.
func newFlooded(t *testing.T, own bool) *bed {
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12")
	b.Via(b.Balancer, "10.1.0.2", "fd01::2")
	if own {
		b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
	}
	b.NFT(b.Server, "add table inet seen\nadd counter inet seen syn\nadd counter inet seen answer\n"+
		"add chain inet seen in { type filter hook prerouting priority -400; }\nadd rule inet seen in tcp flags syn / syn,ack counter name syn\n"+
		"add chain inet seen out { type filter hook output priority -400; }\nadd rule inet seen out tcp flags syn,ack / syn,ack counter name answer\n")
	return b
}

// persist dials for as long as it takes where segments are lost, and come again.
func (b *bed) persist(to string) (*traffic.Conn, error) {
	c := b.From()
	c.Timeout = time.Minute
	return c.Dial(b.T.Context(), "tcp", netip.MustParseAddrPort(to))
}

// TestSYNFlood: forged SYNs leave nothing behind and reach no backend, and clients that
// exist are served meanwhile, over both families, with all that they send and get. Each
// server answers one SYN once: it has taken the ACK that completes the handshake.
func TestSYNFlood(t *testing.T) {
	t.Parallel()
	syns := 20_000
	if *full {
		syns = 70_000
	}
	for _, own := range []bool{true, false} {
		for _, loose := range []string{"0", "1"} {
			t.Run(fmt.Sprintf("own %v, loose %s", own, loose), func(t *testing.T) {
				t.Parallel()
				b := newFlooded(t, own)
				b.Apply(proven)
				b.Check(b.Balancer.SetSysctl("net.netfilter.nf_conntrack_tcp_loose", loose))
				b.Check(b.Balancer.SetSysctl("net.ipv4.tcp_syncookies", "0")) // is about sockets of this host
				vip4, vip6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")
				done := make(chan error, 1)
				go func() { done <- flood(b.Client, syns, vip4, vip6) }()
				served, most := map[string]int{}, 0
				honest := func() {
					for _, vip := range []netip.Addr{vip4, vip6} {
						for _, size := range []int{1, 1 << 20} {
							c, err := b.persist(at(vip.String(), 80))
							if err != nil {
								t.Fatalf("a client of %s: %v", vip, err)
							}
							served[c.Reply.Backend]++
							if err := echoes(c, size); err != nil {
								t.Errorf("%d bytes to %s and back: %v", size, vip, err)
							}
							c.Close()
						}
					}
				}
				for flooding := true; flooding; {
					select {
					case err := <-done:
						b.Check(err)
						flooding = false
					default:
					}
					honest()
					most = max(most, b.entries())
				}
				clients := 0
				for _, n := range served {
					clients += n
				}
				figures(t, "%d forged SYNs, %d clients served, %d connections tracked at most", syns, clients, most)
				if most > clients+100 {
					t.Errorf("%d connections were tracked at a time, for %d clients", most, clients)
				}
				if came, answered := b.handshakes(); came != clients || answered != clients {
					t.Errorf("the servers had %d SYNs, and answered %d times, for %d clients", came, answered, clients)
				}
				for server := range served {
					if len(served) != 4 || served[server] != clients/4 {
						t.Errorf("in turn: %v", served)
						break
					}
				}
			})
		}
	}
}

// TestSYNProtectionMeets: what else a service has goes on to hold, and all of it goes with
// the key.
func TestSYNProtectionMeets(t *testing.T) {
	t.Parallel()
	b := newFlooded(t, false)
	with := func(keys string) string {
		return strings.Replace(proven, "    syn-protection: synproxy\n", "    syn-protection: synproxy\n"+keys, 1)
	}
	both := []string{"203.0.113.10", "2001:db8::10"}
	fates := func(keys, want string) {
		t.Helper()
		b.Apply(with(keys))
		for _, vip := range both {
			b.fate(keys, b.Client, "tcp", at(vip, 80), want)
		}
	}
	fates("    deny: [10.1.0.0/16, \"fd01::/64\"]\n", "refused")
	fates("    deny: [10.1.0.0/16, \"fd01::/64\"]\n    on-refuse: drop\n", "silence")
	fates("    allow: [10.1.0.0/16, \"fd01::/64\"]\n    unserved: reject\n", "served")
	for _, vip := range both {
		b.fate("unserved: reject", b.Client, "tcp", at(vip, 81), "refused")
		b.fate("what this host sends", b.Balancer, "tcp", at(vip, 80), "served")
	}
	fates("    forward: balanced\n    snat: vip\n", "served")
	fates("    snat: none\n    log: true\n    timeouts: {half-open: 5s}\n", "served")

	// Of a limit, an answered client that is one too many hears nothing.
	b.Apply(with("    limit: {new: 2/hour}\n"))
	b.fate("the first", b.Client, "tcp", at(both[0], 80), "served")
	b.fate("the second", b.Client, "tcp", at(both[1], 80), "served")
	b.fate("the third", b.Client, "tcp", at(both[0], 80), "silence")
	if b.Load().Refused("shop", "web") == 0 {
		t.Error("the third is not counted as refused")
	}

	// A client stays with its backend, until that drains.
	b.Apply(with("    affinity: 10m\n"))
	if got := count(b.Row("tcp", at(both[0], 80), 6)); len(got) != 1 {
		t.Errorf("with affinity: %v", got)
	}
	c, err := b.persist(at(both[0], 80))
	b.Check(err)
	open := []*traffic.Conn{c}
	for i := range 15 {
		c, err := b.persist(at(both[i%2], 80))
		b.Check(err)
		open = append(open, c)
	}
	drained := strings.Replace(with("    affinity: 10m\n"), `"`+c.Reply.Local.String()+`"`, "{address: \""+c.Reply.Local.String()+"\", weight: 0}", 1)
	b.Apply(drained)
	if got := count(b.Row("tcp", at(both[0], 80), 6)); got[c.Reply.Backend] != 0 {
		t.Errorf("%s drains: %v", c.Reply.Backend, got)
	}

	// Without a server, clients are told so at once.
	empty := strings.NewReplacer("\"10.2.0.11:8080\"", "{address: \"10.2.0.11:8080\", weight: 0}", "\"10.2.0.12:8080\"", "{address: \"10.2.0.12:8080\", weight: 0}")
	b.Apply(empty.Replace(proven))
	b.fate("no server of IPv4", b.Client, "tcp", at(both[0], 80), "refused")
	b.fate("servers of IPv6", b.Client, "tcp", at(both[1], 80), "served")

	// What is open goes on without the key. What nobody needs for that is gone.
	b.Apply(strings.Replace(proven, "synproxy", "none", 1))
	for _, c := range open {
		if err := echoes(c, 1<<16); err != nil {
			t.Errorf("%s: %v", c.RemoteAddr(), err)
		}
		c.Close()
	}
	if listed := b.Witness(b.Balancer, "", "nft", "list", "table", "inet", "nlb"); strings.Contains(listed, "synproxy-input") || strings.Contains(listed, "protected") {
		t.Errorf("without the key:\n%s", listed)
	}
	b.fate("without the key", b.Client, "tcp", at(both[0], 80), "served")
}
