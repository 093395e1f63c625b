//go:build linux

package firewall_test

// What others' rules make of packets: package firewall says it, and packets
// prove it.

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/nft/wire"
	"nlb/sysctl"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

type bed struct{ *netlabtest.Bed }

// newBed is a bed whose balancer has a service with one backend.
func newBed(t testing.TB) *bed {
	b := &bed{netlabtest.New(t)}
	b.Serve([]int{8080}, "10.2.0.11")
	b.Apply(`profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}
`)
	return b
}

// tables reads the tables of a host that are not nlb's.
func (b *bed) tables(h *netlab.Host) []*firewall.Table {
	b.T.Helper()
	var out []*firewall.Table
	b.Kernel(h, func(c *wire.Conn) (err error) {
		out, err = firewall.Read(c, func(family, name string) bool { return family == "inet" && name == "nlb" })
		return err
	})
	b.Check(h.Do(func() error {
		legacy, err := firewall.ReadLegacy(sysctl.Local.Net)
		out = append(out, legacy...)
		return err
	}))
	return out
}

// forwards is the verdict of all base chains at the hook forward.
func forwards(tables []*firewall.Table, p firewall.Packet) (firewall.Action, bool) {
	sure := true
	for _, t := range tables {
		for _, c := range t.Bases() {
			if c.Base.Hook != "forward" || t.Family == "ip6" {
				continue
			}
			j := t.Judge(c, &p)
			for a := range j.May {
				sure = sure && a == j.Action
			}
			if j.Action == firewall.Drop {
				return j.Action, sure
			}
		}
	}
	return firewall.Accept, sure
}

// TestForwardChains: what is said of a chain is what becomes of packets.
func TestForwardChains(t *testing.T) {
	t.Parallel()
	const chain = "table inet f {\n set v4 { type ipv4_addr; flags interval; elements = { 10.2.0.0/28, 192.0.2.1-192.0.2.9 } }\n" +
		" map m { type ipv4_addr . inet_service : verdict; elements = { 10.2.0.11 . 8080 : accept } }\n chain sub { ct status dnat accept; }\n" +
		" chain back { return; }\n chain f { type filter hook forward priority 0; policy %s;\n %r\n }\n}\n"
	drop := func(rules string) string {
		return strings.NewReplacer("%s", "drop", "%r", rules).Replace(chain)
	}
	accept := func(rules string) string {
		return strings.NewReplacer("%s", "accept", "%r", rules).Replace(chain)
	}
	const back = "ct state established,related accept; "
	tests := []struct {
		name, script string
		passes       bool
		unsure       bool // it cannot be told for certain
	}{
		{"nothing", "", true, false},
		{"policy accept", accept(""), true, false},
		{"policy drop", drop(""), false, false},
		{"dnat", drop("ct status dnat accept"), true, false},
		{"not dnat", accept("ct status & dnat == 0 accept; drop"), false, false},
		{"established only", drop(back), false, false},
		{"new, too", drop(back + "ct state new accept"), true, false},
		{"a map of states", drop("ct state vmap { established : accept, related : accept, new : jump sub, invalid : drop }"), true, false},
		{"by link", drop(back + `iifname "eth0" oifname "eth1" accept`), true, false},
		{"by the number of a link", drop(back + `iif "eth0" oif "eth1" accept`), true, false},
		{"by another link", drop(back + `iifname "eth1" oifname "eth1" accept`), false, false},
		{"by the beginning of a link", drop(back + `iifname "eth*" accept`), true, false},
		{"links in a set", drop(back + `oifname { "eth1", "eth7" } accept`), true, false},
		{"destination", drop(back + "ip daddr 10.2.0.11 tcp dport 8080 accept"), true, false},
		{"destination in a network", drop(back + "ip daddr 10.2.0.0/16 accept"), true, false},
		{"destination in an odd network", drop(back + "ip daddr 10.2.0.0/22 accept"), true, false},
		{"another destination", drop(back + "ip daddr 10.3.0.0/22 accept"), false, false},
		{"ports", drop(back + "tcp dport 8000-8100 accept"), true, false},
		{"ports in a set", drop(back + "tcp dport { 80, 8000-8100 } accept"), true, false},
		{"not these ports", drop(back + "tcp dport != 8000-8100 accept"), false, false},
		{"protocol", drop(back + "meta l4proto { udp, sctp } accept"), false, false},
		{"a named set", drop(back + "ip daddr @v4 accept"), true, false},
		{"not in a named set", drop(back + "ip daddr != @v4 accept"), false, false},
		{"a map of concatenations", drop(back + "ip daddr . tcp dport vmap @m"), true, false},
		{"another family", drop(back + "meta nfproto ipv6 accept"), false, false},
		{"jump and back", drop("jump back; jump sub"), true, false},
		{"goto and not back", drop("goto back; accept"), false, false},
		{"reject at the end", accept(back + "reject with icmpx admin-prohibited"), false, false},
		{"dropped before accepted", drop("ip saddr 10.1.0.0/24 drop; accept"), false, false},
		{"a source", drop(back + "ip saddr 10.1.0.0/24 accept"), true, false},
		{"source unknown here", drop(back + "ip saddr 10.1.0.2 tcp sport >= 1 accept"), true, true},
		{"a limit", drop(back + "limit rate 1000/second accept"), true, true},
		{"counted and logged", drop(`counter; log prefix "x"; meta mark set 7; counter accept`), true, false},
		{"a vmap with ranges", drop(back + "ip daddr vmap { 10.2.0.0/24 : accept, 10.3.0.0/24 : drop }"), true, false},
		{"dormant", "table ip x { flags dormant; chain f { type filter hook forward priority 0; policy drop; }\n}\n", true, false},
		{"two tables", drop("accept") + "table ip g { chain f { type filter hook forward priority 10; policy drop; ct status dnat accept; }\n}\n", true, false},
		{"a second table that drops", drop("accept") + "table ip g { chain f { type filter hook forward priority 10; tcp dport 8080 drop; }\n}\n", false, false},
	}
	b := newBed(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &bed{b.With(t)}
			b.NFT(b.Balancer, tt.script)
			defer b.flushOthers()
			b.compare(tt.passes, tt.unsure)
		})
	}
}

// compare judges the first packet of a connection to the bed's service, and
// its answers, and makes a connection.
func (b *bed) compare(passes, unsure bool) {
	b.T.Helper()
	tables := b.tables(b.Balancer)
	backend := firewall.AddrsOf(netip.MustParsePrefix("10.2.0.11/32"))
	client := firewall.AddrsOf(netip.MustParsePrefix("10.1.0.2/32"))
	port := firewall.Ports{First: 8080, Last: 8080}
	if unsure {
		client = firewall.Addrs{}
	}
	first := firewall.Packet{In: "eth0", Out: "eth1", Src: client, Dst: backend, DstPort: port, Protocol: 6, Translated: true, Local: firewall.False}
	first.InIndex, first.OutIndex = b.index("eth0"), b.index("eth1")
	reply := firewall.Packet{
		In: "eth1", Out: "eth0", Src: backend, Dst: client, SrcPort: port, Protocol: 6, Translated: true, Established: true, Local: firewall.False,
		InIndex: first.OutIndex, OutIndex: first.InIndex,
	}
	there, sure := forwards(tables, first)
	back, _ := forwards(tables, reply)
	said := there == firewall.Accept && back == firewall.Accept
	got := b.Reaches(b.Client, "tcp", "203.0.113.10:80", passes) != ""
	if got != passes {
		b.T.Errorf("packets pass: %v, expected %v", got, passes)
	}
	if sure == unsure {
		b.T.Errorf("it is told for certain: %v, want %v", sure, !unsure)
	}
	if sure && said != got {
		b.T.Errorf("it is said that packets pass: %v (%v, %v), and they do: %v", said, there, back, got)
	}
}

// index is the number of a link of the balancer.
func (b *bed) index(link string) int {
	b.T.Helper()
	var l *net.Interface
	b.Check(b.Balancer.Do(func() (err error) { l, err = net.InterfaceByName(link); return err }))
	return l.Index
}

// flushOthers deletes all tables but nlb's.
func (b *bed) flushOthers() {
	b.T.Helper()
	for line := range strings.Lines(b.Witness(b.Balancer, "", "nft", "list", "tables")) {
		words := strings.Fields(line)
		if len(words) == 3 && words[2] != "nlb" {
			b.Witness(b.Balancer, "", "nft", "delete", "table", words[1], words[2])
		}
	}
}

// TestConnectionMarks: what is said that rules do with the connection mark is
// what they do.
func TestConnectionMarks(t *testing.T) {
	t.Parallel()
	nft := func(rule string) string {
		return "nft add table ip m; nft add chain ip m c '{ type filter hook forward priority mangle; }'; nft -f - <<'END'\ntable ip m { chain c { " + rule + "; }; }\nEND\n"
	}
	iptables := func(program, options string) string {
		return "P='" + program + " -t mangle'; $P -A FORWARD -j MARK --set-mark 0x1234; $P -A FORWARD -j CONNMARK " + options
	}
	type test struct {
		rules string
		use   firewall.MarkUse
		mark  uint32 // the connection's, of connections without a mark
	}
	const all = 1<<32 - 1
	tests := []test{
		{nft("ct mark set 0x1234"), firewall.MarkUse{Sets: all}, 0x1234},
		{nft("ct mark set ct mark or 0x100"), firewall.MarkUse{Sets: 0x100}, 0x100},
		{nft("ct mark set ct mark and 0xffff00ff xor 0x300"), firewall.MarkUse{Sets: 0xff00}, 0x300},
		{nft("meta mark set 0x1234; ct mark set meta mark and 0xff"), firewall.MarkUse{Sets: all}, 0x34},
		{nft("meta mark set ct mark and 0xff"), firewall.MarkUse{Restores: 0xff}, 0},
		{nft("ct mark set tcp dport map { 8080 : 5 }"), firewall.MarkUse{Sets: all}, 5},
	}
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		tests = append(
			tests,
			test{iptables(program, "--set-mark 7"), firewall.MarkUse{Sets: all}, 7},
			test{iptables(program, "--set-xmark 0x700/0x3f00"), firewall.MarkUse{Sets: 0x3f00}, 0x700},
			test{iptables(program, "--or-mark 0x10"), firewall.MarkUse{Sets: 0x10}, 0x10},
			test{iptables(program, "--save-mark --nfmask 0xff --ctmask 0xff"), firewall.MarkUse{Sets: 0xff}, 0x34},
			test{iptables(program, "--restore-mark --nfmask 0xff --ctmask 0xf"), firewall.MarkUse{Restores: 0xf}, 0},
		)
	}
	for _, tt := range tests {
		t.Run(tt.rules, func(t *testing.T) {
			t.Parallel()
			b := &bed{netlabtest.New(t)}
			b.Serve([]int{8080}, "10.2.0.11")
			b.Witness(b.Balancer, "", "sh", "-ec", tt.rules)
			var use firewall.MarkUse
			for _, table := range b.tables(b.Balancer) {
				for _, c := range table.Bases() {
					for _, m := range table.Judge(c, &firewall.Packet{Protocol: 6}).Marks {
						use.Sets |= m.Sets
						use.Restores |= m.Restores
					}
				}
			}
			if use != tt.use {
				t.Errorf("got %#x, want %#x", use, tt.use)
			}
			b.Ask("tcp", "10.2.0.11:8080")
			if mark := b.OnlyMark(); mark != tt.mark || mark&^tt.use.Sets != 0 {
				t.Errorf("the connection has the mark %#x, want %#x", mark, tt.mark)
			}
		})
	}
}

// TestIptablesChains: the same of iptables, both kinds of it.
func TestIptablesChains(t *testing.T) {
	t.Parallel()
	const established = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
	tests := []struct {
		name   string
		rules  []string
		passes bool
		unsure bool
	}{
		{"policy drop", []string{"-P FORWARD DROP"}, false, false},
		{"policy accept", []string{"-P FORWARD ACCEPT"}, true, false},
		{"dnat", []string{"-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT"}, true, false},
		{"established", []string{"-P FORWARD DROP", established}, false, false},
		{"established and a port", []string{"-P FORWARD DROP", established, "-A FORWARD -d 10.2.0.11 -p tcp --dport 8080 -m comment --comment x -j ACCEPT"}, true, false},
		{"another port", []string{"-P FORWARD DROP", established, "-A FORWARD -p tcp --dport 8081 -j ACCEPT"}, false, false},
		{"ports", []string{"-P FORWARD DROP", established, "-A FORWARD -p tcp -m multiport --dports 80,8000:8100 -j ACCEPT"}, true, false},
		{"links", []string{"-P FORWARD DROP", established, "-A FORWARD -i eth+ -o eth1 -j ACCEPT"}, true, false},
		{"other links", []string{"-P FORWARD DROP", established, "-A FORWARD ! -i eth0 -j ACCEPT"}, false, false},
		{"reject", []string{established, "-A FORWARD -j REJECT"}, false, false},
		{"docker", []string{"-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -o docker0 -j ACCEPT"}, false, false},
		{"docker, mended", []string{"-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT", "-A DOCKER-USER -j RETURN"}, true, false},
		{"goto", []string{"-P FORWARD DROP", "-N X", "-A X -m addrtype --dst-type LOCAL -j DROP", "-A FORWARD -g X", "-A FORWARD -j ACCEPT"}, false, false},
		{"a type of address", []string{"-P FORWARD DROP", established, "-A FORWARD -m addrtype --dst-type UNICAST -j ACCEPT"}, true, false},
		{"a limit", []string{"-P FORWARD DROP", established, "-A FORWARD -m hashlimit --hashlimit-upto 1000/second --hashlimit-name x -j ACCEPT"}, true, true},
	}
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					b := &bed{b.With(t)}
					for _, rule := range slices.Concat([]string{"-P FORWARD ACCEPT", "-F", "-X"}, tt.rules) {
						b.Witness(b.Balancer, "", program, strings.Fields(rule)...)
					}
					b.compare(tt.passes, tt.unsure)
				})
			}
		})
	}
}
