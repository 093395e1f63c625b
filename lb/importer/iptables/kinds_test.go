package iptables

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

// summary is what a text becomes, a line for each service, and whether that is
// all.
func summary(t *testing.T, text string) []string {
	t.Helper()
	m, err := Import("kinds", []byte(text))
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, s := range m.Profile.Services {
		var b strings.Builder
		for _, l := range s.Listen {
			b.WriteString(l.String() + " ")
		}
		for _, p := range s.Protocols {
			b.WriteString(p.String() + " ")
		}
		if s.Interface != "" {
			b.WriteString("at " + s.Interface + " ")
		}
		if s.Role != lb.RoleProxy {
			b.WriteString(s.Role.String() + " ")
		}
		for _, a := range s.Allow {
			b.WriteString("allow " + a.String() + " ")
		}
		if len(s.Backends) > 1 {
			b.WriteString(s.Scheduler.String() + " ")
		}
		b.WriteString("->")
		for _, d := range s.Backends {
			b.WriteString(" " + d.Address.String())
			if d.Weight != 1 {
				fmt.Fprintf(&b, "*%d", d.Weight)
			}
		}
		b.WriteString(" snat " + s.SNAT.String())
		if s.RandomPorts {
			b.WriteString(" random ports")
		}
		out = append(out, b.String())
	}
	if m.Complete() {
		return append(out, "complete")
	}
	return append(out, "partial")
}

// textKind is a text and what it becomes.
type textKind struct {
	name, text string
	want       []string
}

func testKinds(t *testing.T, kinds []textKind) {
	t.Helper()
	for _, k := range kinds {
		if diff := cmp.Diff(k.want, summary(t, k.text)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", k.name, diff)
		}
	}
}

// TestZones: firewalls have a chain for each zone, to which rules with its interface lead.
func TestZones(t *testing.T) {
	const zones = "*nat\n:pre_wan -\n:pre_lan -\n:post_wan -\n:post_lan -\n-A PREROUTING -i br-lan -j pre_lan\n-A PREROUTING -i eth1 -j pre_wan\n-A POSTROUTING -o br-lan -j post_lan\n-A POSTROUTING -o eth1 -j post_wan\n-A post_wan -j MASQUERADE\n"
	const web = "-A pre_wan -p tcp --dport 80 -j DNAT --to-destination 192.168.1.10:8080\n"
	const reflected = "-A post_lan -s 192.168.1.0/24 -d 192.168.1.10 -p tcp --dport 8080 -j SNAT --to-source 192.168.1.1\n"
	testKinds(t, []textKind{
		{"the zone of the backend is said", zones + web + "-A pre_lan -s 192.168.1.0/24 -d 198.51.100.1 -p tcp --dport 81 -j ACCEPT\nCOMMIT", []string{"0.0.0.0/0:80 tcp at eth1 -> 192.168.1.10:8080 snat none", "complete"}},
		{"with reflection", zones + web + reflected + "-A pre_lan -s 192.168.1.0/24 -d 203.0.113.5 -p tcp --dport 80 -j DNAT --to-destination 192.168.1.10:8080\nCOMMIT", []string{
			"0.0.0.0/0:80 tcp at eth1 -> 192.168.1.10:8080 snat none", "203.0.113.5:80 tcp at br-lan allow 192.168.1.0/24 -> 192.168.1.10:8080 snat 192.168.1.1", "partial",
		}},
		{"a zone of two", zones + web + reflected + "-A PREROUTING -i wg0 -j pre_lan\n-A POSTROUTING -o wg0 -j post_lan\nCOMMIT", []string{"0.0.0.0/0:80 tcp at eth1 -> 192.168.1.10:8080 snat none", "partial"}},
		{"it is not said", zones + web + "COMMIT", []string{"0.0.0.0/0:80 tcp at eth1 -> 192.168.1.10:8080 snat masquerade", "partial"}},
	})
}

// TestWays: whether a rule for an interface of POSTROUTING applies.
func TestWays(t *testing.T) {
	const dnat = "iptables -t nat -A PREROUTING -i wan -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.11\n"
	to := func(snat string) string { return "203.0.113.1:80 tcp at wan -> 10.2.0.11 snat " + snat }
	testKinds(t, []textKind{
		{"nothing else is said", dnat + "iptables -t nat -A POSTROUTING -o lan -j MASQUERADE", []string{to("masquerade"), "partial"}},
		{"what may leave by another interface goes past it", dnat + "iptables -t nat -A POSTROUTING -o lan -j RETURN\niptables -t nat -A POSTROUTING -j MASQUERADE", []string{to("masquerade"), "partial"}},
		{"a zone that does not masquerade, with goto", dnat + "iptables -t nat -N L\niptables -t nat -N W\niptables -t nat -A W ! -o lo -j MASQUERADE\niptables -t nat -A POSTROUTING -o lan -g L\niptables -t nat -A POSTROUTING -o wan -g W", []string{to("masquerade"), "partial"}},
		{"zones that do not masquerade", dnat + "iptables -t nat -A POSTROUTING -o lan -j RETURN\niptables -t nat -A POSTROUTING -o wan -j ACCEPT", []string{to("none"), "complete"}},
		{"a zone that is known", dnat + "iptables -t nat -A POSTROUTING -o lan -d 10.2.0.0/24 -j RETURN\niptables -t nat -A POSTROUTING -j MASQUERADE", []string{to("none"), "complete"}},
		{"one interface for both", dnat + "iptables -t nat -A POSTROUTING -o wan -j MASQUERADE", []string{to("masquerade"), "partial"}},
		{"the rule names the backend", dnat + "iptables -t nat -A POSTROUTING -o wan -d 10.2.0.0/24 -j MASQUERADE", []string{to("masquerade"), "complete"}},
		{"the network leaves by it", dnat + "iptables -t nat -A POSTROUTING -s 10.2.0.0/24 -o wan -j MASQUERADE", []string{to("none"), "complete"}},
		{"another network leaves by it", dnat + "iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -o wan -j MASQUERADE\niptables -t nat -A POSTROUTING -o lan -j MASQUERADE", []string{to("masquerade"), "partial"}},
		{"a bridge", dnat + "iptables -t nat -A POSTROUTING -s 10.2.0.0/24 ! -o br0 -j MASQUERADE", []string{to("none"), "complete"}},
		{"behind the bridge", dnat + "iptables -t nat -A POSTROUTING -s 10.2.0.0/24 ! -o br0 -j MASQUERADE\niptables -t nat -A POSTROUTING -o br0 -j MASQUERADE", []string{to("masquerade"), "complete"}},
		{"connections are forwarded to another", dnat + "iptables -A FORWARD -i wan -o lan -j ACCEPT\niptables -t nat -A POSTROUTING -o wan -j MASQUERADE", []string{to("none"), "complete"}},
		{"replies are forwarded to it", dnat + "iptables -A FORWARD -i wan -o lan -j ACCEPT\niptables -A FORWARD -i lan -o wan -m state --state ESTABLISHED -j ACCEPT\niptables -t nat -A POSTROUTING -o lan -j MASQUERADE", []string{to("masquerade"), "complete"}},
		{"the backend is forwarded to", dnat + "iptables -A FORWARD -o lan -d 10.2.0.11 -j ACCEPT\niptables -t nat -A POSTROUTING -o wan -j MASQUERADE", []string{to("none"), "complete"}},
		{"what is dropped says nothing", dnat + "iptables -A FORWARD -o lan -d 10.2.0.11 -j DROP\niptables -t nat -A POSTROUTING -o wan -j MASQUERADE", []string{to("masquerade"), "partial"}},
		{"clients of its own network", "iptables -t nat -A PREROUTING -i br0 -s 10.2.0.0/24 -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.11\n" +
			"iptables -t nat -A POSTROUTING -o br0 -s 10.2.0.0/24 -d 10.2.0.11 -p tcp --dport 80 -j SNAT --to-source 10.2.0.1", []string{"203.0.113.1:80 tcp at br0 allow 10.2.0.0/24 -> 10.2.0.11 snat 10.2.0.1", "partial"}},
		{"all clients but some say nothing", dnat + "iptables -t nat -A POSTROUTING -o wan -j MASQUERADE\niptables -A FORWARD -o lan -d 10.2.0.0/24 -j ACCEPT\niptables -A INPUT -i wan ! -s 10.9.0.0/24 -j ACCEPT", []string{to("none"), "complete"}},
		{"this host's own connections", "iptables -t nat -A OUTPUT -o wan -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.11", []string{"203.0.113.1:80 tcp client -> 10.2.0.11 snat none", "partial"}},
	})
}

// TestKinds: rules as programs and people write them.
func TestKinds(t *testing.T) {
	const nat = "iptables -t nat -A PREROUTING "
	const vip = nat + "-d 203.0.113.1 -p tcp "
	const web = vip + "--dport 80 "
	one := func(to string) []string { return []string{"203.0.113.1:80 tcp -> " + to + " snat none", "complete"} }
	const bridge = "*nat\n-A PREROUTING -m addrtype --dst-type LOCAL -j D\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j D\n-N D\n-A D -p tcp --dport 81 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n"
	published := []string{":81 tcp -> 172.17.0.2:80 snat none", "complete"}
	testKinds(t, []textKind{
		{"a counter", web + "-m nfacct --nfacct-name x -j DNAT --to-destination 10.2.0.1", one("10.2.0.1")},
		{"a short network", nat + "-s 10/8 -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.1", []string{"203.0.113.1:80 tcp allow 10.0.0.0/8 -> 10.2.0.1 snat none", "partial"}},
		{"all networks", nat + "-s 0/0 -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.1", one("10.2.0.1")},
		{"ports at random", web + "-j DNAT --to-destination 10.2.0.1:8001-8003 --random", []string{"203.0.113.1:80 tcp random -> 10.2.0.1:8001 10.2.0.1:8002 10.2.0.1:8003 snat none", "complete"}},
		{"ports in a row", web + "-j DNAT --to-destination 10.2.0.1:8001-8003", one("10.2.0.1:8001")},
		{"the old random match", web + "-m random --average 25 -j DNAT --to-destination 10.2.0.1\n" + web + "-j DNAT --to-destination 10.2.0.2", []string{"203.0.113.1:80 tcp random -> 10.2.0.1 10.2.0.2*3 snat none", "partial"}},
		{"this host, no address", nat + "-p tcp --dport 80 -j REDIRECT --to-ports 8080", []string{":80 tcp server -> :8080 snat masquerade", "partial"}},
		{"this host, one address", web + "-j REDIRECT --to-ports 8080", []string{"203.0.113.1:80 tcp -> :8080 snat masquerade", "complete"}},
		{"this host, a port as it is", nat + "-i lan -p udp --dport 53 -j REDIRECT", []string{"0.0.0.0/0:53 udp at lan -> :53 snat masquerade", "complete"}},
		{"this host, ports as they are", vip + "--dport 80:81 -j REDIRECT", []string{
			"203.0.113.1:80 tcp -> :80 snat masquerade", "203.0.113.1:81 tcp -> :81 snat masquerade", "complete",
		}},
		{"this host, many ports as they are", vip + "-j REDIRECT", []string{"partial"}},
		{"this host, ports at random", web + "-j REDIRECT --to-ports 8001-8003 --random", []string{"203.0.113.1:80 tcp random -> :8001 :8002 :8003 snat masquerade", "complete"}},
		{"this host, both families", nat + "-p tcp --dport 80 -j REDIRECT --to-ports 8080\nip6tables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080", []string{
			":80 tcp server round-robin -> :8080 [::]:8080 snat masquerade", "partial",
		}},
		{"a port of its own addresses", nat + "-m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination :8080", []string{":80 tcp server -> :8080 snat masquerade", "complete"}},
		{"a port of one address", web + "-j DNAT --to-destination :8080", []string{"203.0.113.1:80 tcp -> 203.0.113.1:8080 snat none", "complete"}},
		{"a port of addresses of others", nat + "-d 203.0.113.0/24 -p tcp --dport 80 -j DNAT --to-destination :8080", []string{"partial"}},
		{"this host and another", web + "-m statistic --mode nth --every 2 -j REDIRECT --to-ports 8080\n" + web + "-j DNAT --to-destination 10.2.0.1\niptables -t nat -A POSTROUTING -d 10.2.0.1 -j MASQUERADE", []string{
			"203.0.113.1:80 tcp round-robin -> :8080 10.2.0.1 snat masquerade", "complete",
		}},
		{"a quoted !", web[:len(web)-len("--dport 80 ")] + "'!' --dport 22 -j DNAT --to-destination 10.2.0.1", []string{"203.0.113.1:1-21,23-65535 tcp -> 10.2.0.1 snat none", "complete"}},
		{"this host, at its loopback addresses", "iptables -t nat -A OUTPUT -o lo -p tcp --dport 80 -j REDIRECT --to-ports 8080\n" + nat + "-m addrtype --dst-type LOCAL -p tcp --dport 80 -j REDIRECT --to-ports 8080", []string{
			":80 127.0.0.0/8:80 tcp -> :8080 snat masquerade", "complete",
		}},
		{"this host, not at its loopback addresses", "iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -p tcp --dport 80 -j REDIRECT --to-ports 8080", []string{"0.0.0.0/0:80 tcp client -> :8080 snat masquerade", "complete"}},
		{"this host in both families, at its loopback addresses", "iptables -t nat -A OUTPUT -o lo -p tcp --dport 80 -j REDIRECT --to-ports 8080\nip6tables -t nat -A OUTPUT -o lo -p tcp --dport 80 -j REDIRECT --to-ports 8080", []string{
			":80 127.0.0.0/8:80 [::1]:80 tcp client round-robin -> :8080 [::]:8080 snat masquerade", "complete",
		}},
		{"a loopback address", web + "-j DNAT --to-destination 127.0.0.1:8080", []string{"partial"}},
		{"what this host sends", "iptables -t nat -A OUTPUT -o eth0 -p tcp -d 198.51.100.7 --dport 80 -j REDIRECT --to-ports 8080", []string{"198.51.100.7:80 tcp client -> :8080 snat masquerade", "partial"}},
		{"ports one to one", vip + "--dport 5001:5003 -j DNAT --to-destination 10.2.0.1:8001-8003/5001", []string{
			"203.0.113.1:5001 tcp -> 10.2.0.1:8001 snat none", "203.0.113.1:5002 tcp -> 10.2.0.1:8002 snat none", "203.0.113.1:5003 tcp -> 10.2.0.1:8003 snat none", "complete",
		}},
		{"both families", nat + "-p tcp --dport 80 -j DNAT --to-destination 10.2.0.1\nip6tables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination fd02::1", []string{":80 tcp server round-robin -> 10.2.0.1 fd02::1 snat none", "partial"}},
		{"a container", bridge, published},
		{"a container that nobody else reaches", "*raw\n-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\nCOMMIT\n" + bridge, published},
		{"a container for this host alone", strings.Replace(bridge, "-N D\n", "-N D\n-A D -d 127.0.0.1/32 ! -i docker0 -p tcp --dport 82 -j DNAT --to-destination 172.17.0.3:80\n", 1), published},
		{"its loopback addresses, as this host sends", "iptables -t nat -A PREROUTING -j D\niptables -t nat -A OUTPUT -j D\niptables -t nat -N D\niptables -t nat -A D -d 127.0.0.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.1", []string{
			"127.0.0.1:80 tcp client -> 10.2.0.1 snat none", "complete",
		}},
		{"a chain that nothing leads to", "-N D\n-A D -p tcp --dport 80 -j DNAT --to-destination 10.2.0.1", []string{"partial"}},
		{"bytes of another time", "# r\xe8gles\n" + web + "-j DNAT --to-destination 10.2.0.1", one("10.2.0.1")},
		{"rules that may go", web + "-j DNAT --to-destination 10.2.0.1\nif x; then iptables -t nat -F; iptables -t nat -P PREROUTING DROP; fi", []string{"203.0.113.1:80 tcp -> 10.2.0.1 snat none", "partial"}},
		{"rules that go", web + "-j DNAT --to-destination 10.2.0.1\niptables -t nat -F", []string{"partial"}},
	})
}

// TestRandomPorts: what backends see of the ports of clients.
func TestRandomPorts(t *testing.T) {
	const nth = "iptables -t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 80 -m statistic --mode random --probability 0.25 -j DNAT --to-destination 10.2.0.1\n" +
		"iptables -t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.2\n"
	const every = "iptables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.2.0.1\niptables -t nat -A POSTROUTING -j MASQUERADE"
	const every6 = "\nip6tables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination fd02::1\nip6tables -t nat -A POSTROUTING -j MASQUERADE"
	own := []string{":80 tcp server round-robin -> 10.2.0.1 fd02::1 snat masquerade random ports", "partial"}
	testKinds(t, []textKind{
		{"of all", nth + "iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully", []string{"203.0.113.1:80 tcp random -> 10.2.0.1 10.2.0.2*3 snat masquerade random ports", "complete"}},
		{"of one that gets less", nth + "iptables -t nat -A POSTROUTING -d 10.2.0.1 -j MASQUERADE --random-fully", []string{"203.0.113.1:80 tcp random -> 10.2.0.1 10.2.0.2*3 snat none random ports", "complete"}},
		{"of IPv4", every + " --random" + every6, own},
		{"of IPv6", every + every6 + " --random", own},
	})
}

// TestKnocks: who is on a list has been somewhere before.
func TestKnocks(t *testing.T) {
	testKinds(t, []textKind{{"a port that opens another", "iptables -t nat -A PREROUTING -p tcp --dport 4444 -m recent --set --name knock\n" +
		"iptables -t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 22 -m recent --rcheck --seconds 30 --name knock -j DNAT --to-destination 10.2.0.13\n" +
		"iptables -t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.11", []string{"203.0.113.1:80 tcp -> 10.2.0.11 snat none", "partial"}}})
}

// TestListings: what iptables -S prints of several tables, in a text that explains. A
// chain may be in all of them, and other programs have options, too.
func TestListings(t *testing.T) {
	const filter = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N WEB\n-A FORWARD -j WEB\n-A WEB -j RETURN\n"
	const raw = "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-A PREROUTING -d 10.2.0.11/32 ! -i br0 -j DROP\n"
	const nat = "-P PREROUTING ACCEPT\n-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-P POSTROUTING ACCEPT\n-N WEB\n-A PREROUTING -i eth0 -d 203.0.113.1/32 -j WEB\n-A WEB -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.11:8080\n-A POSTROUTING -d 10.2.0.11/32 -j MASQUERADE\n"
	const web = "203.0.113.1:80 tcp at eth0 -> 10.2.0.11:8080 snat masquerade"
	testKinds(t, []textKind{
		{"three tables", filter + "\n" + nat + "\n" + raw, []string{web, "complete"}},
		{"without a line between", filter + nat + raw, []string{web, "complete"}},
		{"without rules in one", "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n" + nat, []string{web, "complete"}},
		{"in Markdown", "# It runs\n\n    docker run \\\n      -p 80:8080 \\\n      --name web shop (once)\n\n<summary>filter</summary>\n\n" + filter + "\n<summary>nat</summary>\n\n" + nat, []string{web, "complete"}},
		{"the second listing of a table has all of it", nat + "\n" + strings.Replace(nat, "8080", "8081", 1), []string{strings.Replace(web, "8080", "8081", 1), "partial"}},
	})
}

// TestUnknownProtocol: options are not blamed for a protocol that is not known.
func TestUnknownProtocol(t *testing.T) {
	m, err := Import("x", []byte("iptables -t nat -A PREROUTING -p $PROTO --dport 80 -j DNAT --to-destination 10.2.0.1"))
	if err != nil || m.Complete() {
		t.Fatalf("%v, or complete", err)
	}
	for _, f := range m.Findings {
		if strings.Contains(f.Msg, "--dport") {
			t.Error(f.Format())
		}
	}
}
