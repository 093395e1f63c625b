package integration

// The path between clients and servers: sizes of packets, ICMP errors.

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
	"nlb/integration/netlab/traffic"
)

var pathVIPs = []string{"203.0.113.10", "2001:db8::10"}

// TestFragments: datagrams in fragments, whose way is narrow at either side of the
// balancer or not, come whole and go back whole.
func TestFragments(t *testing.T) {
	t.Parallel()
	withSources(t, func(t *testing.T, b *bed) {
		b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
		for _, narrow := range []func(){func() {}, b.narrowServers, b.narrowClients} {
			narrow()
			for _, vip := range pathVIPs {
				for _, size := range []int{1250, 1350, 1450, 9000} {
					if err := b.echoes("udp", vip, size); err != nil {
						t.Errorf("%d bytes to %s: %v", size, vip, err)
					}
				}
			}
		}
	})
}

// TestPathMTU: a TCP connection that is open when its way gets narrow, at either side of
// the balancer, carries on in both directions.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	withSources(t, func(t *testing.T, b *bed) {
		b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
		var open []*traffic.Conn
		for _, vip := range pathVIPs {
			c, err := b.dial("tcp", net.JoinHostPort(vip, "80"))
			b.Check(err)
			defer c.Close()
			open = append(open, c)
		}
		for _, narrow := range []func(){func() {}, b.narrowServers, b.narrowClients} {
			narrow()
			for _, c := range open {
				if err := echo(c, 200_000); err != nil {
					t.Errorf("%s: %v", c.RemoteAddr(), err)
				}
			}
		}
	})
}

// TestErrorsOfServers: an ICMP error of a server reaches the client's socket, and names
// no address but that of the service.
func TestErrorsOfServers(t *testing.T) {
	t.Parallel()
	withSources(t, func(t *testing.T, b *bed) {
		for _, vip := range pathVIPs {
			heard := b.hearICMP(b.Client, vip)
			if err := b.echoes("udp", vip, 100); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%s: the socket says %v", vip, err)
			}
			from, message := heard()
			if from.String() != vip {
				t.Errorf("the error comes from %v, want %s", from, vip)
			}
			for _, private := range []string{"10.2.0.11", "10.2.0.1", "fd02::11", "fd02::1"} {
				if bytes.Contains(message, netip.MustParseAddr(private).AsSlice()) {
					t.Errorf("%s: the error tells of %s", vip, private)
				}
			}
		}
	})
}

// narrowServers has the servers' network take packets of 1,400 bytes, narrowClients that of
// clients 1,300.
func (b *bed) narrowServers() {
	b.shell(b.Server, "ip link set eth0 mtu 1400")
	b.shell(b.Balancer, "ip link set eth1 mtu 1400")
}

func (b *bed) narrowClients() {
	b.shell(b.Client, "ip link set eth0 mtu 1300")
	b.shell(b.Balancer, "ip link set eth0 mtu 1300")
}

// withSources runs a test with each source that backends can see.
func withSources(t *testing.T, test func(t *testing.T, b *bed)) {
	for _, snat := range []string{"masquerade", "none"} {
		t.Run(snat, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Apply(paths(snat))
			test(t, b)
		})
	}
}

func paths(snat string) string {
	return "profile: shop\nservices:\n" +
		"  - {name: web, protocol: [tcp, udp], listen: \"203.0.113.10:80\", snat: " + snat + ", backends: \"10.2.0.11:8080\"}\n" +
		"  - {name: six, protocol: [tcp, udp], listen: \"[2001:db8::10]:80\", snat: " + snat + ", backends: \"[fd02::11]:8080\"}\n"
}

// echoes sends a datagram, until one comes back whole: the first ones may find out how
// large they may be.
func (b *bed) echoes(network, vip string, size int) (err error) {
	b.T.Helper()
	for range 4 {
		err = b.Client.Do(func() error {
			c, err := net.Dial(network, net.JoinHostPort(vip, "80"))
			if err != nil {
				return err
			}
			defer c.Close()
			sent := bytes.Repeat([]byte("0123456789"), size/10)
			if _, err := c.Write(sent); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			answer := make([]byte, 1<<16)
			n, err := c.Read(answer)
			if err == nil && !bytes.HasSuffix(answer[:n], sent) {
				err = fmt.Errorf("%d bytes came back", n)
			}
			return err
		})
		if err == nil {
			return nil
		}
	}
	return err
}

// echo sends so much, and wants it back.
func echo(c net.Conn, size int) error {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := bytes.Repeat([]byte("0123456789"), size/10)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(append(sent, '\n'))
		wrote <- err
	}()
	got := make([]byte, len(sent)+1)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.HasPrefix(got, sent) {
		return fmt.Errorf("something else came back")
	}
	return <-wrote
}

// hearICMP hears errors on a host, in the family of an address. What it returns is the
// first one; nothing where there is none.
func (b *bed) hearICMP(h *netlab.Host, like string) (heard func() (netip.Addr, []byte)) {
	b.T.Helper()
	v4 := netip.MustParseAddr(like).Is4()
	var c net.PacketConn
	b.Check(h.Do(func() (err error) {
		c, err = net.ListenPacket(map[bool]string{true: "ip4:icmp", false: "ip6:ipv6-icmp"}[v4], "")
		return err
	}))
	b.T.Cleanup(func() { c.Close() })
	return func() (netip.Addr, []byte) {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for buffer := make([]byte, 2000); ; {
			n, from, err := c.ReadFrom(buffer)
			if err != nil {
				return netip.Addr{}, nil
			}
			if kind := buffer[0]; v4 && kind == 8 || !v4 && kind >= 128 { // no errors
				continue
			}
			a, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
			return a.Unmap(), buffer[:n]
		}
	}
}
