package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"nlb/integration/netlab"
)

// listen is net.ListenTCP on a host, until the test ends.
func (b *bed) listen(h *netlab.Host, at netip.AddrPort) *net.TCPListener {
	b.T.Helper()
	var l *net.TCPListener
	b.Check(h.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	}))
	b.T.Cleanup(func() { l.Close() })
	return l
}

// dial connects from an address of a host; with a zero port of any.
func dial(h *netlab.Host, network string, from, to netip.AddrPort) (c net.Conn, err error) {
	err = h.Do(func() error {
		d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(from)}
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
		c, err = d.Dial(network, to.String())
		return err
	})
	if err == nil {
		err = c.SetDeadline(time.Now().Add(3 * time.Second))
	}
	return c, err
}

var (
	sixNumbers = regexp.MustCompile(`(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)`) // RFC 959, PORT and 227
	extended   = regexp.MustCompile(`\|\|\|(\d+)\|`)                       // RFC 2428, 229
	extendedTo = regexp.MustCompile(`\|[12]\|([^|]+)\|(\d+)\|`)            // RFC 2428, EPRT
)

func number(s string) uint16 { n, _ := strconv.ParseUint(s, 10, 16); return uint16(n) }

// endpointIn is the address and port in a line of FTP, of a peer with this address.
func endpointIn(line string, peer netip.Addr) netip.AddrPort {
	if m := sixNumbers.FindStringSubmatch(line); m != nil {
		a, _ := netip.ParseAddr(strings.Join(m[1:5], "."))
		return netip.AddrPortFrom(a, number(m[5])<<8|number(m[6]))
	}
	if m := extended.FindStringSubmatch(line); m != nil {
		return netip.AddrPortFrom(peer, number(m[1]))
	}
	if m := extendedTo.FindStringSubmatch(line); m != nil {
		a, _ := netip.ParseAddr(m[1])
		return netip.AddrPortFrom(a, number(m[2]))
	}
	return netip.AddrPort{}
}

// announce is the same, written: as PORT and EPRT have it, or as answers to PASV and EPSV.
func announce(at netip.AddrPort, answer bool) string {
	six := fmt.Sprintf("%s,%d,%d", strings.ReplaceAll(at.Addr().String(), ".", ","), at.Port()>>8, at.Port()&255)
	switch {
	case at.Addr().Is4() && answer:
		return "227 Entering Passive Mode (" + six + ").\r\n"
	case at.Addr().Is4():
		return "PORT " + six + "\r\n"
	case answer:
		return fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)\r\n", at.Port())
	}
	return fmt.Sprintf("EPRT |2|%s|%d|\r\n", at.Addr(), at.Port())
}

// serveFTP is a server of FTP that lists its own address, by a connection that the client
// makes (PASV, EPSV) or that it makes itself (PORT, EPRT).
func (b *bed) serveFTP(address string) {
	own := netip.MustParseAddr(address)
	control := b.listen(b.Server, netip.AddrPortFrom(own, 21))
	data := b.listen(b.Server, netip.AddrPortFrom(own, 0))
	talk := func(c net.Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		var active netip.AddrPort
		fmt.Fprint(c, "220 ready\r\n")
		for lines := bufio.NewScanner(c); lines.Scan(); {
			switch word, _, _ := strings.Cut(lines.Text(), " "); word {
			case "USER":
				fmt.Fprint(c, "230 welcome\r\n")
			case "PASV", "EPSV":
				fmt.Fprint(c, announce(data.Addr().(*net.TCPAddr).AddrPort(), true))
			case "PORT", "EPRT":
				active = endpointIn(lines.Text(), own)
				fmt.Fprint(c, "200 so be it\r\n")
			case "LIST":
				fmt.Fprint(c, "150 here it comes\r\n")
				var d net.Conn
				var err error
				if active.IsValid() {
					d, err = dial(b.Server, "tcp", netip.AddrPortFrom(own, 0), active)
				} else {
					_ = data.SetDeadline(time.Now().Add(3 * time.Second))
					d, err = data.Accept()
				}
				if err != nil {
					fmt.Fprintf(c, "425 %v\r\n", err)
					continue
				}
				fmt.Fprint(d, own)
				d.Close()
				fmt.Fprint(c, "226 done\r\n")
			}
		}
	}
	go func() {
		for {
			c, err := control.Accept()
			if err != nil {
				return
			}
			go talk(c)
		}
	}()
}

// files has a server of FTP list, and returns what came by the data connection.
func (b *bed) files(from netip.Addr, to netip.AddrPort, active bool) (string, error) {
	c, err := dial(b.Client, "tcp", netip.AddrPortFrom(from, 0), to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	lines := bufio.NewScanner(c)
	say := func(s string) string {
		if s != "" {
			fmt.Fprint(c, s)
		}
		lines.Scan()
		return lines.Text()
	}
	say("")
	say("USER anonymous\r\n") // the helper reads from a client's second line on
	var d net.Conn
	if active {
		l := b.listen(b.Client, netip.AddrPortFrom(from, 0))
		_ = l.SetDeadline(time.Now().Add(3 * time.Second))
		say(announce(l.Addr().(*net.TCPAddr).AddrPort(), false))
		say("LIST\r\n")
		if d, err = l.Accept(); err != nil {
			return "", err
		}
		if a := d.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); a != to.Addr() {
			return "", fmt.Errorf("the data came from %v", a)
		}
	} else {
		at := endpointIn(say(map[bool]string{true: "PASV\r\n", false: "EPSV\r\n"}[from.Is4()]), to.Addr())
		if at.Addr() != to.Addr() {
			return "", fmt.Errorf("the server named %v", at)
		}
		say("LIST\r\n")
		if d, err = dial(b.Client, "tcp", netip.AddrPortFrom(from, 0), at); err != nil {
			return "", err
		}
	}
	defer d.Close()
	_ = d.SetDeadline(time.Now().Add(3 * time.Second))
	got, err := io.ReadAll(d)
	return string(got), err
}

// TestHelperFTP: the data connections that FTP announces, both ways, whatever the
// backend sees as the source, and where nothing else is forwarded.
func TestHelperFTP(t *testing.T) {
	t.Parallel()
	for _, snat := range []string{"masquerade", "none", "vip", `[10.2.0.1, "fd02::1"]`} {
		t.Run(snat, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			for _, a := range []string{"10.2.0.11", "10.2.0.12", "fd02::11", "fd02::12"} {
				b.serveFTP(a)
			}
			profile := func(helper string) string {
				return "profile: shop\nservices:\n  - {name: ftp, helper: " + helper + ", forward: balanced, snat: " + snat +
					`, listen: ["203.0.113.10:21", "[2001:db8::10]:21"], backends: [10.2.0.11, 10.2.0.12, "fd02::11", "fd02::12"]}`
			}
			b.Apply(profile("none"))
			if got, err := b.files(netip.MustParseAddr("10.1.0.2"), netip.MustParseAddrPort("203.0.113.10:21"), false); err == nil {
				t.Errorf("without a helper: %q", got)
			}
			b.Apply(profile("ftp"))
			for _, family := range []struct {
				from, to string
				backends []string
			}{{"10.1.0.2", "203.0.113.10:21", []string{"10.2.0.11", "10.2.0.12"}}, {"fd01::2", "[2001:db8::10]:21", []string{"fd02::11", "fd02::12"}}} {
				for _, active := range []bool{false, true} {
					seen := map[string]bool{}
					for range 2 {
						got, err := b.files(netip.MustParseAddr(family.from), netip.MustParseAddrPort(family.to), active)
						if err != nil {
							t.Errorf("%s, active %v: %v", family.to, active, err)
						}
						seen[got] = true
					}
					for _, want := range family.backends {
						if !seen[want] {
							t.Errorf("%s, active %v: no data of %s", family.to, active, want)
						}
					}
				}
			}
		})
	}
}

// TestHelperTFTP: the server answers from another port (RFC 1350, 4).
func TestHelperTFTP(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, a := range []string{"10.2.0.11", "fd02::11"} {
		own := netip.MustParseAddr(a)
		c, err := listenUDP(b.Server, netip.AddrPortFrom(own, 69))
		b.Check(err)
		defer c.Close()
		go func() {
			in := make([]byte, 100)
			for {
				_, client, err := c.ReadFromUDPAddrPort(in)
				if err != nil {
					return
				}
				other, err := listenUDP(b.Server, netip.AddrPortFrom(own, 0))
				if err != nil {
					return
				}
				_, _ = other.WriteToUDPAddrPort([]byte("\x00\x03\x00\x01"+a), client)
				other.Close()
			}
		}()
	}
	for _, helper := range []string{"none", "tftp"} {
		b.Apply("profile: shop\nservices:\n  - {name: tftp, protocol: udp, helper: " + helper + `, listen: ["203.0.113.10:69", "[2001:db8::10]:69"], backends: [10.2.0.11, "fd02::11"]}`)
		for from, to := range map[string]string{"10.1.0.2": "203.0.113.10:69", "fd01::2": "[2001:db8::10]:69"} {
			at := netip.MustParseAddrPort(to)
			c, err := listenUDP(b.Client, netip.AddrPortFrom(netip.MustParseAddr(from), 0))
			b.Check(err)
			_, err = c.WriteToUDPAddrPort([]byte("\x00\x01file\x00octet\x00"), at)
			b.Check(err)
			_ = c.SetReadDeadline(time.Now().Add(map[string]time.Duration{"none": 200 * time.Millisecond, "tftp": 3 * time.Second}[helper]))
			in := make([]byte, 100)
			n, peer, err := c.ReadFromUDPAddrPort(in)
			if served := err == nil && peer.Addr() == at.Addr() && peer.Port() != 69 && strings.HasPrefix(string(in[:n]), "\x00\x03"); served != (helper == "tftp") {
				t.Errorf("helper: %s, %s: %q from %v, %v", helper, to, in[:n], peer, err)
			}
			c.Close()
		}
	}
}

// TestHelperSIP: a call's media go where both sides have announced it (RFC 3261, RFC
// 4566), by the addresses that each of them knows.
func TestHelperSIP(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	body := func(a string, port int) string {
		return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0\r\n", a, port)
	}
	media := regexp.MustCompile(`c=IN IP4 (\S+)\r\n(?s:.*)m=audio (\d+)`)
	where := func(message []byte) netip.AddrPort {
		m := media.FindStringSubmatch(string(message))
		if m == nil {
			return netip.AddrPort{}
		}
		a, _ := netip.ParseAddr(m[1])
		return netip.AddrPortFrom(a, number(m[2]))
	}
	socket := func(h *netlab.Host, at string) *net.UDPConn {
		c, err := listenUDP(h, netip.MustParseAddrPort(at))
		b.Check(err)
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		return c
	}
	signal, callee := socket(b.Server, "10.2.0.11:5060"), socket(b.Server, "10.2.0.11:6000")
	phone, caller := socket(b.Client, "10.1.0.2:5060"), socket(b.Client, "10.1.0.2:4000")
	b.Apply(`profile: shop
services:
  - {name: sip, protocol: udp, helper: sip, forward: balanced, listen: "203.0.113.10:5060", backends: [10.2.0.11]}
`)
	headers := func(length int) string {
		return fmt.Sprintf("Via: SIP/2.0/UDP 10.1.0.2:5060;branch=z9hG4bK1\r\nFrom: <sip:a@10.1.0.2>;tag=1\r\nTo: <sip:b@203.0.113.10>\r\nCall-ID: 1@10.1.0.2\r\nCSeq: 1 INVITE\r\nContact: <sip:%%s:5060>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n", length)
	}
	offer := body("10.1.0.2", 4000)
	_, err := phone.WriteToUDPAddrPort([]byte("INVITE sip:b@203.0.113.10 SIP/2.0\r\n"+fmt.Sprintf(headers(len(offer)), "a@10.1.0.2")+offer), netip.MustParseAddrPort("203.0.113.10:5060"))
	b.Check(err)
	in := make([]byte, 4096)
	n, proxy, err := signal.ReadFromUDPAddrPort(in)
	b.Check(err)
	toCaller := where(in[:n])
	answer := body("10.2.0.11", 6000)
	_, err = signal.WriteToUDPAddrPort([]byte("SIP/2.0 200 OK\r\n"+fmt.Sprintf(headers(len(answer)), "b@10.2.0.11")+answer), proxy)
	b.Check(err)
	n, _, err = phone.ReadFromUDPAddrPort(in)
	b.Check(err)
	toCallee := where(in[:n])
	if toCallee.Addr() != netip.MustParseAddr("203.0.113.10") {
		t.Errorf("the caller is to send media to %v, want the listen address", toCallee)
	}
	for _, way := range []struct {
		from, to *net.UDPConn
		at       netip.AddrPort
	}{{caller, callee, toCallee}, {callee, caller, toCaller}} {
		_, err = way.from.WriteToUDPAddrPort([]byte("voice"), way.at)
		b.Check(err)
		if n, _, err := way.to.ReadFromUDPAddrPort(in); err != nil || string(in[:n]) != "voice" {
			t.Errorf("media to %v: %q, %v", way.at, in[:n], err)
		}
	}
}
