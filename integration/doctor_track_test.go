package integration

// nlb doctor and conntrack: its room, its losses, the ports of SNAT, and the
// connections of backends that do not answer or are gone.

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/wire"
)

// remember gives the balancer's conntrack UDP connections of clients to the
// service, as they are towards a backend of a mark: those with the numbers
// from first to last.
func (b *bed) remember(first, last int, mark uint32) {
	b.T.Helper()
	const create = unix.NFNL_SUBSYS_CTNETLINK << 8 // IPCTNL_MSG_CT_NEW
	backend, vip := netip.MustParseAddrPort("10.2.0.11:8080"), netip.MustParseAddrPort("203.0.113.10:80")
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		for i := first; i <= last; i++ {
			client := netip.AddrFrom4([4]byte{10, 8, 0, byte(i / 64000)})
			own := netip.AddrFrom4([4]byte{10, 2, 0, byte(100 + i/64000)})
			port := uint16(1024 + i%64000)
			var e wire.Encoder
			tuple(&e, 1, lb.UDP, netip.AddrPortFrom(client, port), vip)
			tuple(&e, 2, lb.UDP, backend, netip.AddrPortFrom(own, port))
			e.Uint32(7, 600) // CTA_TIMEOUT
			e.Uint32(8, mark)
			if err := c.Do(create, unix.AF_INET, unix.NLM_F_CREATE, e.Bytes()); err != nil {
				return err
			}
		}
		return nil
	})
}

// tuple writes CTA_TUPLE_ORIG or CTA_TUPLE_REPLY.
func tuple(e *wire.Encoder, typ uint16, protocol lb.Protocol, from, to netip.AddrPort) {
	text := func(b []byte) string { return string(b) }
	port := func(p uint16) string { return string(binary.BigEndian.AppendUint16(nil, p)) }
	at := e.Nest(typ)
	ip := e.Nest(1)
	e.Data(1, text(from.Addr().AsSlice()))
	e.Data(2, text(to.Addr().AsSlice()))
	e.Unnest(ip)
	proto := e.Nest(2)
	e.Data(1, string([]byte{byte(protocol)}))
	e.Data(2, port(from.Port()))
	e.Data(3, port(to.Port()))
	e.Unnest(proto)
	e.Unnest(at)
}

// mark is that of the only backend which a datagram to the service gets.
func (b *bed) mark() uint32 {
	b.T.Helper()
	b.Ask("udp", "203.0.113.10:80")
	return b.OnlyMark()
}

// tracked is a bed with the shop and its profile.
func tracked(t *testing.T) (b *bed, path string) {
	b = newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	path = b.write("shop.yaml", shop)
	b.shell(b.Balancer, "nlb apply "+path)
	if sick := b.doctor(); len(sick) > 0 {
		t.Fatalf("before the fault: %+v", sick)
	}
	return b, path
}

func (b *bed) sees(level, check, says string) *finding {
	b.T.Helper()
	return b.found(fault{level: level, check: check, says: says}, nil)
}

func TestDoctorPorts(t *testing.T) {
	t.Parallel()
	b, _ := tracked(t)
	mark := b.mark()
	b.remember(1, 51000, mark)
	if sick := b.doctor(); len(sick) > 0 {
		t.Fatalf("79%% of the ports: %+v", sick)
	}
	b.remember(51001, 52000, mark)
	b.sees("warn", "ports", "80% of the ports of its source addresses are in use; 52001 of 64512 over udp")
	b.remember(52001, 62000, mark)
	b.sees("fail", "ports", "96% of the ports")
}

// TestDoctorRoom fills the connection table, whose size is the machine's.
func TestDoctorRoom(t *testing.T) {
	if !*full {
		t.Skip("SKIPPED, NOT PROVED: it fills the table that all namespaces share; -full does")
	}
	t.Parallel()
	b, _ := tracked(t)
	number := func(key string) int {
		text, err := b.Balancer.Sysctl("net.netfilter.nf_conntrack_" + key)
		b.Check(err)
		n, err := strconv.Atoi(text)
		b.Check(err)
		return n
	}
	size := number("max")
	if most := 1 << 20; size > most {
		t.Skipf("SKIPPED, NOT PROVED: nf_conntrack_max is %d, too many to fill", size)
	}
	b.remember(1, size*8/10+1, 0)
	b.sees("warn", "conntrack", "the connection table is 80% full")
	b.remember(size*8/10+2, size, 0)
	last := size
	for lack := size - number("count"); lack > 0; lack = size - number("count") { // the kernel takes some away meanwhile
		b.remember(last+1, last+lack, 0)
		last += lack
	}
	for range 3 {
		b.Ask("udp", "203.0.113.10:80")
	}
	found := b.doctor()
	if len(found) != 2 || !strings.Contains(found[0].Problem, "the connection table is") || found[0].Level != "fail" ||
		!strings.Contains(found[1].Problem, "forgotten to make room") || found[1].Mend != found[0].Mend {
		t.Errorf("the table is full: %+v", found)
	}
}

// TestDoctorInsertFailed: two connections that have to share a port.
func TestDoctorInsertFailed(t *testing.T) {
	t.Parallel()
	b, _ := tracked(t)
	b.Serve([]int{9999}, "10.2.0.11")
	b.NFT(b.Balancer, "table ip x {\nchain c { type nat hook postrouting priority 90;\nudp dport 9999 snat to 10.2.0.1:5000\n}\n}\n")
	for range 3 {
		b.Reaches(b.Client, "udp", "10.2.0.11:9999", false)
	}
	b.sees("warn", "conntrack", "2 connections could not be entered")
}

func TestDoctorAnswers(t *testing.T) {
	t.Parallel()
	b, _ := tracked(t)
	b.NFT(b.Server, "table ip x {\nchain c { type filter hook input priority 0;\ntcp dport 8080 drop\n}\n}\n")
	for range 6 {
		b.Reaches(b.Client, "tcp", "203.0.113.10:80", false)
	}
	b.sees("warn", "answers", "it has not answered 6 of its 6 connections")
}

// TestDoctorSilent: a server that answers no datagrams, while another one does. Where
// none answers, there may be nothing to answer.
func TestDoctorSilent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
	b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", one(`{name: dns, protocol: udp, listen: "203.0.113.10:53", backends: ["10.2.0.11:8080", "10.2.0.12:8080"]}`)))
	b.NFT(b.Server, "table ip x {\nchain c { type filter hook input priority 0;\nip daddr 10.2.0.12 udp dport 8080 drop\n}\n}\n")
	for range 12 {
		b.Reaches(b.Client, "udp", "203.0.113.10:53", false)
	}
	b.sees("warn", "answers", "it has answered none of its 6 UDP flows, and others of its service answer")
	b.shell(b.Balancer, "conntrack -D -p udp --reply-src 10.2.0.11")
	if sick := b.doctor(); len(sick) > 0 {
		t.Errorf("nobody answers: %+v", sick)
	}
}

// TestDoctorHairpin: a server that is a client of its own service.
func TestDoctorHairpin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		service string
		works   bool
		says    string // empty: it does not know
	}{
		"masquerade": {`{name: web, listen: "10.1.0.1:80", backends: ["10.2.0.11:8080"]}`, true, ""},
		"snat none": {
			`{name: web, listen: "10.1.0.1:80", snat: none, backends: ["10.2.0.11:8080"]}`, false,
			"1 connection that it made to its own service came to itself, and got no answer",
		},
		"a bridge": {
			`{name: web, listen: "10.1.0.1:80", allow: [10.0.0.0/8], backends: ["10.2.0.11:8080"]}`, false,
			"is 1, so br0 passes such a frame on",
		},
		"a bridge, and clients that it may not have": {`{name: web, listen: "10.1.0.1:80", backends: ["10.2.0.11:8080"]}`, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12")
			if strings.Contains(name, "bridge") {
				b.shell(b.Balancer, "sysctl -qw net.bridge.bridge-nf-call-iptables=1; ip link add br0 type bridge; ip address flush dev eth1; ip link set eth1 master br0; ip link set br0 up; ip address add 10.2.0.1/24 dev br0")
			}
			b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", one(test.service)))
			if b.Reaches(b.Client, "tcp", "10.1.0.1:80", true) == "" {
				t.Error("clients get no answer")
			}
			if works := b.Reaches(b.Server, "tcp", "10.1.0.1:80", test.works) != ""; works != test.works {
				t.Errorf("it works: %v", works)
			}
			if test.says == "" {
				if sick := b.doctor(); len(sick) > 0 {
					t.Errorf("%+v", sick)
				}
				return
			}
			found := b.sees("warn", "hairpin", test.says)
			if found == nil || found.Mend == "" {
				return
			}
			b.shell(b.Balancer, found.Mend)
			if b.Reaches(b.Server, "tcp", "10.1.0.1:80", true) == "" {
				t.Errorf("after %q: it does not work", found.Mend)
			}
			if sick := b.doctor(); len(sick) > 0 {
				t.Errorf("after %q: %+v", found.Mend, sick)
			}
		})
	}
}

// TestDoctorCapacity: connections of vanished ends count until conntrack forgets them.
func TestDoctorCapacity(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", one(`{name: web, listen: "203.0.113.10:80", backends: [{address: "10.2.0.11:8080", max-connections: 2}]}`)))
	for i := range 2 {
		if sick := b.doctor(); len(sick) > 0 {
			t.Errorf("%d of 2: %+v", i, sick)
		}
		conn, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
		b.Check(err)
		defer conn.Close()
	}
	b.Reaches(b.Client, "tcp", "203.0.113.10:80", false)
	b.sees("warn", "capacity", "it has 2 connections, of max-connections 2; new ones go to other backends, or are refused")
}

// TestDoctorHalfOpen: a service that has all the half-open connections that it may have.
func TestDoctorHalfOpen(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11")
	b.shell(b.Balancer, "nlb apply "+b.write("shop.yaml", one(`{name: web, listen: "203.0.113.10:80", limit: {half-open: 2}, backends: ["10.2.0.11:8080"]}`)))
	for i := range 2 {
		if sick := b.doctor(); len(sick) > 0 {
			t.Errorf("%d of 2: %+v", i, sick)
		}
		c := b.From()
		c.Source = netip.MustParseAddr("10.1.0.2")
		open, err := c.Knock(netip.MustParseAddrPort("203.0.113.10:80"))
		b.Check(err)
		defer open.Close()
	}
	b.sees("warn", "capacity", "it has 2 half-open connections, of half-open 2; other new ones are refused")
}

func TestDoctorGone(t *testing.T) {
	t.Parallel()
	b, path := tracked(t)
	conn, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.10:80"))
	b.Check(err)
	defer conn.Close()
	b.shell(b.Balancer, "sed -i s/10.2.0.11/10.2.0.12/ "+path+"; nlb apply "+path)
	b.sees("warn", "gone", "live connections of backends that are gone: 1 tcp")
	found := b.doctor(path)
	if len(found) != 1 || found[0].Mend != "nlb apply --cut "+path {
		t.Fatalf("with the profile: %+v", found)
	}
	b.shell(b.Balancer, found[0].Mend)
	if sick := b.doctor(path); len(sick) > 0 {
		t.Errorf("after the cut: %+v", sick)
	}
	if _, err := conn.Again(); err == nil {
		t.Error("the connection goes on")
	}
}
