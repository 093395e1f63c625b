package integration

// nlb doctor and the rules of others: those that drop, those that take the same
// packets first, and those that use the connection mark.

import (
	"slices"
	"strings"
	"testing"
)

// TestDoctorFilters: chains of others that drop this traffic.
func TestDoctorFilters(t *testing.T) {
	t.Parallel()
	diagnose(t, filterFaults)
}

// TestDoctorRivals: nat rules of others for the same packets.
func TestDoctorRivals(t *testing.T) {
	t.Parallel()
	diagnose(t, rivalFaults)
}

// TestDoctorMarks: rules of others that use the mark of balanced connections.
func TestDoctorMarks(t *testing.T) {
	t.Parallel()
	diagnose(t, markFaults)
}

// TestDoctorUntracked: rules of others that keep conntrack from this traffic.
func TestDoctorUntracked(t *testing.T) {
	t.Parallel()
	diagnose(t, untrackedFaults)
}

var untrackedFaults = []fault{
	{
		name: "what clients send", breaks: chain("inet r", "filter hook prerouting priority raw; policy accept", "tcp dport 80 ip daddr 203.0.113.10 notrack;"),
		level: "fail", check: "notrack", says: "table inet r, chain c leaves what clients send untracked", probe: "203.0.113.10:80",
	},
	{
		name: "answers", breaks: chain("ip6 r", "filter hook prerouting priority raw; policy accept", "tcp sport 8080 notrack;"),
		level: "fail", check: "notrack", says: "table ip6 r, chain c leaves answers untracked", probe: "[2001:db8::10]:80",
	},
	{
		name: "some clients", breaks: chain("ip r", "filter hook prerouting priority raw; policy accept", "ip saddr 10.1.0.0/16 notrack;"),
		level: "warn", check: "notrack", says: "chain c may leave what clients send untracked", probe: "203.0.113.10:80",
	},
	{
		name: "iptables", breaks: "iptables-nft -t raw -A PREROUTING -p tcp --dport 80 -j CT --notrack",
		level: "fail", check: "notrack", says: "table ip raw, chain PREROUTING leaves what clients send untracked", probe: "203.0.113.10:80",
	},
	{
		name: "legacy iptables", breaks: "iptables-legacy -t raw -A PREROUTING -p tcp --dport 80 -j CT --notrack",
		level: "fail", check: "notrack", says: "legacy iptables table raw, chain PREROUTING leaves what clients send untracked", probe: "203.0.113.10:80",
	},
	{
		name: "this host", ready: "ip route add 203.0.113.0/24 dev lo", profile: one(`{name: web, role: client, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: chain("ip r", "filter hook output priority raw; policy accept", "ip daddr 203.0.113.10 notrack;"),
		level:  "fail", check: "notrack", says: "table ip r, chain c leaves what clients send untracked",
	},
}

// What firewalls and container engines made of a host: testdata/firewalls.
const (
	docker    = "iptables-nft-restore < testdata/firewalls/docker-20.10.24.v4"
	podman    = "iptables-nft-restore < testdata/firewalls/netavark-1.4.0.v4"
	ufw       = "iptables-nft-restore < testdata/firewalls/ufw-0.36.2.v4\nip6tables-nft-restore < testdata/firewalls/ufw-0.36.2.v6"
	firewalld = "nft -f testdata/firewalls/firewalld-1.3.3.nft"
)

// published is a port that Docker publishes.
const published = `iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.2.0.11:8080`

// chain is a shell command that makes a table with one base chain.
func chain(table, hook, rules string) string {
	return "printf '%s\\n' 'table " + table + " {' 'chain c {' 'type " + hook + ";' '" + rules + "' '}' '}' | nft -f -"
}

const itself = `{name: web, role: server, listen: "10.1.0.1:80", backends: ["10.2.0.1:8080"]}`

const (
	protected = `{name: web, listen: "203.0.113.10:80", syn-protection: synproxy, backends: ["10.2.0.11:8080"]}`
	ownVIP    = "ip address add 203.0.113.10/32 dev lo"
)

var filterFaults = []fault{
	{
		name: "forward, policy drop", breaks: chain("inet f", "filter hook forward priority filter; policy drop", ""),
		level: "fail", check: "filter", says: "table inet f, chain c drops what is forwarded; its policy is drop, and no rule of it lets these connections through", probe: "203.0.113.10:80",
	},
	{
		name: "forward, answers only", breaks: chain("ip f", "filter hook forward priority filter; policy drop", "ct state established accept;"),
		level: "fail", check: "filter", says: "table ip f, chain c drops what is forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "forward, no answers", breaks: chain("ip f", "filter hook forward priority filter; policy drop", "ct state new accept;"),
		level: "fail", check: "filter", says: "table ip f, chain c drops answers", probe: "203.0.113.10:80",
	},
	{
		name: "forward, IPv6", breaks: chain("ip6 f", "filter hook forward priority filter; policy drop", ""),
		level: "fail", check: "filter", says: "table ip6 f, chain c drops what is forwarded", probe: "[2001:db8::10]:80",
	},
	{
		name: "forward, reject at the end", breaks: chain("inet f", "filter hook forward priority filter; policy accept", "ct state established accept; reject;"),
		level: "fail", check: "filter", says: "a rule of it drops, and no rule", probe: "203.0.113.10:80",
	},
	{
		name: "forward, some clients", breaks: chain("inet f", "filter hook forward priority filter; policy drop", "ip saddr 10.99.0.0/24 accept;"),
		level: "warn", check: "filter", says: "may drop what is forwarded; its policy is drop, and it has rules that let some through", probe: "203.0.113.10:80", also: []string{"filter"},
	},
	{
		name: "answers to cookies, begun in their middle", ready: ownVIP, profile: one(protected), breaks: "iptables-nft -t mangle -A PREROUTING -p tcp ! --syn -m conntrack --ctstate NEW -j DROP",
		level: "fail", check: "filter", says: "table ip mangle, chain PREROUTING drops clients' answers to cookies", probe: "203.0.113.10:80",
	},
	{
		name: "answers to cookies, invalid", ready: ownVIP, profile: one(protected),
		breaks: "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0; " + chain("inet f", "filter hook input priority -160; policy accept", "ct state invalid drop;"),
		level:  "fail", check: "filter", says: "table inet f, chain c drops clients' answers to cookies", probe: "203.0.113.10:80",
	},
	{
		name: "the kernel's answers to clients", ready: ownVIP, profile: one(protected), breaks: chain("ip f", "filter hook output priority filter; policy drop", "ct status dnat accept;"),
		level: "fail", check: "filter", says: "table ip f, chain c drops the kernel's answers to clients", probe: "203.0.113.10:80",
	},
	{
		name: "what the kernel sends for clients", ready: ownVIP, profile: one(protected), breaks: chain("ip f", "filter hook output priority filter; policy drop", "ct state established accept;"),
		level: "fail", check: "filter", says: "table ip f, chain c drops what the kernel sends for clients", probe: "203.0.113.10:80",
	},
	{
		name: "iptables", breaks: "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD ACCEPT",
		level: "fail", check: "filter", says: "table ip filter, chain FORWARD drops what is forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "legacy iptables", breaks: "iptables-legacy -P FORWARD DROP",
		level: "fail", check: "filter", says: "legacy iptables table filter, chain FORWARD drops what is forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "legacy ip6tables", breaks: "ip6tables-legacy -A FORWARD -d fd02::/64 -p tcp --dport 8080 -j REJECT",
		level: "fail", check: "filter", says: "legacy ip6tables table filter, chain FORWARD drops what is forwarded", probe: "[2001:db8::10]:80",
	},
	{
		name: "Docker", breaks: docker, level: "fail", check: "filter", says: "chain FORWARD drops what is forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "ufw", breaks: "sed /10.2.0.11/d testdata/firewalls/ufw-0.36.2.v4 | iptables-nft-restore",
		level: "fail", check: "filter", says: "chain FORWARD drops what is forwarded", probe: "203.0.113.10:80", lasts: true, // by ufw
	},
	{
		name: "input", profile: one(itself), breaks: chain("inet f", "filter hook input priority filter; policy drop", "ct state established,related accept; tcp dport 22 accept;"),
		level: "fail", check: "filter", says: "table inet f, chain c drops what comes in", probe: "10.1.0.1:80",
	},
	{
		name: "input, IPv6 neighbours", breaks: chain("inet f", "filter hook input priority filter; policy drop", `iif "lo" accept; ct state established,related accept;`),
		level: "fail", check: "filter", says: "drops IPv6 neighbours' questions for this host's address", probe: "[2001:db8::10]:80",
	},
	{
		name: "input, IPv6 neighbours and legacy ip6tables", breaks: "ip6tables-legacy -P INPUT DROP",
		level: "fail", check: "filter", says: "drops IPv6 neighbours' questions for this host's address", probe: "[2001:db8::10]:80",
	},
	{
		name:   "input, IPv6 neighbours and a hop limit that they do not have",
		breaks: chain("inet f", "filter hook input priority filter; policy drop", `iif "lo" accept; ct state established,related accept; icmpv6 type nd-neighbor-solicit ip6 hoplimit < 255 accept;`),
		level:  "fail", check: "filter", says: "drops IPv6 neighbours' questions for this host's address", probe: "[2001:db8::10]:80",
	},
	{
		name: "prerouting, before nlb", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: chain("ip f", "filter hook prerouting priority raw; policy accept", "ip daddr 203.0.113.0/24 tcp dport 80 drop;"),
		level:  "fail", check: "filter", says: "drops what comes in", probe: "203.0.113.10:80",
	},
	{
		name: "prerouting, behind nlb", breaks: chain("ip f", "filter hook prerouting priority filter; policy accept", "tcp dport 8080 drop;"),
		level: "fail", check: "filter", says: "drops what comes in", probe: "203.0.113.10:80",
	},
	{
		name: "postrouting", breaks: chain("inet f", "filter hook postrouting priority filter; policy accept", `oifname "eth1" ip daddr 10.2.0.0/24 drop;`),
		level: "fail", check: "filter", says: "drops what is forwarded", probe: "203.0.113.10:80",
	},
	{
		name: "ingress", profile: one(`{name: web, listen: "203.0.113.10:80", interface: eth0, backends: ["10.2.0.11:8080"]}`),
		breaks: chain("netdev f", "filter hook ingress device eth0 priority 0; policy accept", "ip daddr 203.0.113.10 tcp dport 80 drop;"),
		level:  "fail", check: "filter", says: "table netdev f, chain c drops what comes in", probe: "203.0.113.10:80",
	},
	{
		name: "output", ready: "ip route add default via 10.1.0.2", profile: one(`{name: web, role: client, listen: "198.51.100.1:80", backends: ["10.2.0.11:8080"]}`),
		breaks: chain("inet f", "filter hook output priority filter; policy drop", "ct state established accept;"),
		level:  "fail", check: "filter", says: "drops what this host sends",
	},
}

var rivalFaults = []fault{
	{
		name: "behind nlb, of what is protected", ready: ownVIP, profile: one(protected), breaks: chain("ip r", "nat hook prerouting priority -90; policy accept", "tcp dport 80 dnat to 10.2.0.12:80;"),
		level: "fail", check: "nat", says: "with syn-protection a SYN comes there as the client sent it", probe: "203.0.113.10:80",
	},
	{
		name: "a backend that is a published port", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.1.0.1:8081"]}`),
		breaks: published, level: "fail", check: "nat", says: "table ip nat, chain DOCKER would translate what is for it, and is not asked", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "a backend that Podman publishes", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.1.0.1:8081"]}`),
		breaks: podman, level: "fail", check: "nat", says: "table ip nat, chain NETAVARK-DN-1D8721804F16F would translate what is for it, and is not asked", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "a backend that somebody translates", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.99:8080"]}`),
		breaks: chain("ip n", "nat hook prerouting priority dstnat; policy accept", "ip daddr 10.2.0.99 tcp dport 8080 dnat to 10.2.0.11;"),
		level:  "warn", check: "nat", says: "table ip n, chain c would translate what is for it, and is not asked", probe: "203.0.113.10:80", lasts: true,
	},
	{
		name: "before nlb", breaks: chain("ip r", "nat hook prerouting priority -110; policy accept", "ip daddr 203.0.113.10 tcp dport 80 dnat to 10.2.0.12:80;"),
		level: "fail", check: "nat", says: "table ip r, chain c takes what is for 203.0.113.10:80; it translates the destination at priority -110, before nlb at -100", probe: "203.0.113.10:80",
	},
	{
		name: "at the same priority, later", breaks: chain("ip r", "nat hook prerouting priority dstnat; policy accept", "ip daddr 203.0.113.0/24 tcp dport { 80, 443 } dnat to 10.2.0.12:80;"),
		level: "warn", check: "nat", says: "probably this one, since its table is the younger", probe: "203.0.113.10:80",
	},
	{
		name: "at the same priority, earlier", ready: chain("ip r", "nat hook prerouting priority dstnat; policy accept", "tcp dport 80 dnat to 10.2.0.12:80;"),
		profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`), level: "warn", check: "nat", says: "probably nlb's, since its table is the younger",
	},
	{
		name: "redirect", breaks: chain("inet r", "nat hook prerouting priority -110; policy accept", "tcp dport 1-1000 redirect to :9;"),
		level: "fail", check: "nat", says: "takes what is for 203.0.113.10:80", probe: "203.0.113.10:80", also: []string{"nat"},
	},
	{
		name: "a map", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: "printf '%s\\n' 'table ip r {' 'chain d {' 'dnat to 10.2.0.12' '}' 'chain c {' 'type nat hook prerouting priority -110;' 'ip daddr . tcp dport vmap { 203.0.113.10 . 80 : goto d }' '}' '}' | nft -f -",
		level:  "fail", check: "nat", says: "chain c (a rule of d) takes what is for 203.0.113.10:80", probe: "203.0.113.10:80",
	},
	{
		name: "a part of the ports", profile: one(`{name: web, listen: "203.0.113.10:80-90", backends: ["10.2.0.11:8080"]}`),
		breaks: chain("ip r", "nat hook prerouting priority -110; policy accept", "tcp dport 85 dnat to 10.2.0.12:80;"),
		level:  "warn", check: "nat", says: "may take what is for 203.0.113.10:80-90", probe: "203.0.113.10:85",
	},
	{
		name: "Docker's port", ready: "ip address add 203.0.113.10/32 dev lo", profile: one(`{name: web, listen: "203.0.113.10:80", backends: ["10.2.0.11:8080"]}`),
		breaks: "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.12:80",
		level:  "warn", check: "nat", says: "(a rule of DOCKER) takes what is for 203.0.113.10:80", probe: "203.0.113.10:80",
	},
	{
		name: "legacy iptables", breaks: "iptables-legacy -t nat -A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.2.0.12:80",
		level: "warn", check: "nat", says: "legacy iptables table nat, chain PREROUTING takes what is for 203.0.113.10:80", probe: "203.0.113.10:80",
	},
	{
		name: "role client", ready: "ip route add default via 10.1.0.2", profile: one(`{name: web, role: client, listen: "198.51.100.1:80", backends: ["10.2.0.11:8080"]}`),
		breaks: chain("ip r", "nat hook output priority -110; policy accept", "ip daddr 198.51.100.1 dnat to 10.2.0.12;"),
		level:  "fail", check: "nat", says: "takes what is for 198.51.100.1:80",
	},
	{
		name: "masquerading what snat none leaves", profile: one(`{name: web, listen: "203.0.113.10:80", snat: none, backends: ["10.2.0.11:8080"]}`),
		breaks: chain("ip r", "nat hook postrouting priority srcnat; policy accept", `oifname "eth1" masquerade;`),
		level:  "warn", check: "nat", says: "with snat none the backend is to see the clients",
	},
}

var markFaults = []fault{
	{
		name: "set on the way in", breaks: chain("inet m", "filter hook prerouting priority mangle", `iifname "eth0" ct mark set ct mark or 0x100;`), lasts: true,
		level: "warn", check: "mark", says: "table inet m, chain c sets the connection mark (mask 0x100)",
	},
	{
		name: "set and restored, with two uplinks",
		breaks: chain("ip m", "filter hook prerouting priority mangle", `meta mark set ct mark and 0x3f00; meta mark 0 iifname "eth0" ct mark set ct mark or 0x200;`) +
			"; ip rule add fwmark 0x200/0x3f00 table 2; ip rule add fwmark 7 table 3",
		lasts: true, level: "warn", check: "mark",
		says: "chain c sets the connection mark (mask 0x200) and restores it (mask 0x3f00); nlb keeps the backend of a connection in its mark; what both write there is lost to one of them. Rules for routing look at packets' marks by the mask 0x3f00, 0xffffffff",
	},
	{
		name: "restored for answers only", breaks: chain("ip m", "filter hook prerouting priority mangle", `iifname "eth1" ct direction reply meta mark set ct mark;`), lasts: true,
		level: "warn", check: "mark", says: "restores the connection mark (mask 0xffffffff)",
	},
	{
		name: "saved on the way out", breaks: chain("ip m", "nat hook postrouting priority 0", `oifname "eth1" ct mark set meta mark;`), lasts: true,
		level: "warn", check: "mark", says: "sets the connection mark (mask 0xffffffff)",
	},
	{
		name: "by a map of verdicts", breaks: "printf '%s\\n' 'table ip m {' 'chain d {' 'ct mark set 7' '}' 'chain c {' 'type filter hook forward priority 0;' 'ip daddr vmap { 10.2.0.11 : jump d, 10.2.0.12 : drop }' '}' '}' | nft -f -", lasts: true,
		level: "warn", check: "mark", says: "table ip m, chain d sets the connection mark",
	},
	{
		name: "iptables, as Tailscale restores it", lasts: true,
		breaks: "iptables-nft -t mangle -A PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000",
		level:  "warn", check: "mark", says: "table ip mangle, chain PREROUTING restores the connection mark (mask 0xff0000)",
	},
	{
		name: "legacy iptables, in a chain of its own", lasts: true,
		breaks: "P='iptables-legacy -t mangle'; $P -N hook; $P -A PREROUTING -j hook; $P -A hook -i eth0 -j CONNMARK --set-xmark 0x100/0x3f00",
		level:  "warn", check: "mark", says: "legacy iptables table mangle, chain hook sets the connection mark (mask 0x3f00)",
	},
}

// forgetNeighbours has a test begin with the neighbours' questions.
const forgetNeighbours = "\nip -6 neigh flush dev eth0; ip -6 neigh flush dev eth1"

// healthy are rules of others that do no harm.
var healthy = map[string]string{
	"firewalld":               firewalld,
	"ufw":                     ufw + forgetNeighbours,
	"ufw, by legacy iptables": strings.ReplaceAll(ufw, "-nft-", "-legacy-") + forgetNeighbours,
	"Docker, mended":          docker + "\niptables-nft -I DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT",
	"Podman":                  podman,
	"all of them": firewalld + "\n" + ufw + "\n" + strings.ReplaceAll(docker, "restore", "restore -n") + "\n" + strings.ReplaceAll(podman, "restore", "restore -n") +
		"\niptables-nft -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT" + forgetNeighbours,
	"other traffic is not tracked": chain("inet r", "filter hook prerouting priority raw; policy accept", `udp dport 53 notrack; tcp dport 22 notrack; iifname "eth9" notrack; ip daddr 10.9.0.0/16 notrack;`) +
		"\nnft add chain inet r late '{ type filter hook prerouting priority filter; policy accept; }'; nft add rule inet r late notrack" +
		"\niptables-nft -t raw -A PREROUTING -p tcp --dport 80 -j CT --zone 0",
	"a list of enemies": chain("inet f", "filter hook forward priority filter; policy accept", "ip saddr { 192.0.2.1, 198.51.100.0/24 } drop; ct state invalid drop;"),
	"a router": chain("inet f", "filter hook forward priority filter; policy drop",
		`ct state vmap { established : accept, related : accept, invalid : drop }; oifname "eth1" accept;`),
	"a server's input": chain("inet f", "filter hook input priority filter; policy drop", `iif "lo" accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; tcp dport 22 accept;`),
	"hop limits": chain("inet f", "filter hook input priority filter; policy drop",
		`iif "lo" accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept;`) + forgetNeighbours,
	"marks of other connections": chain("inet m", "filter hook prerouting priority mangle", `ct mark 7 accept; tcp dport 22 ct mark set 7; iifname "eth9" meta mark set ct mark; meta mark set 7; ct mark set ct mark;`) +
		"\niptables-nft -t mangle -A FORWARD -p udp --dport 53 -j CONNMARK --set-mark 1",
	"other ports": "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 10.2.0.12:80\n" +
		"iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
	"legacy tables without rules":  "iptables-legacy -L; iptables-legacy -t nat -L; ip6tables-legacy -L",
	"a port that Docker publishes": published,
	"a proxy for all":              chain("ip n", "nat hook prerouting priority -90; policy accept", "tcp dport 8080 redirect to :3128;"),
	"behind nlb":                   chain("ip r", "nat hook prerouting priority -90; policy accept", "tcp dport 80 dnat to 10.2.0.12:80;"),
	"another table of nlb":         "sed 's/shop/other/; s/:80\"/:81\"/' NAME | nlb --table other apply -",
}

// TestDoctorHealthy: there is nothing to mend where connections are made.
func TestDoctorHealthy(t *testing.T) {
	t.Parallel()
	quick := []string{"all of them", "a router", "a server's input"}
	for name, rules := range healthy {
		t.Run(name, func(t *testing.T) { healthyBeside(t, rules, shop) })
		// With syn-protection SYNs pass nlb as they are, so a chain behind it takes them.
		if name == "behind nlb" || !*full && !slices.Contains(quick, name) {
			continue
		}
		t.Run(name+", with syn-protection", func(t *testing.T) {
			healthyBeside(t, rules, strings.ReplaceAll(shop, "protocol", "syn-protection: synproxy, protocol"))
		})
	}
}

func healthyBeside(t *testing.T, rules, profile string) {
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "fd02::11")
	b.Address(b.Balancer, "lo", "203.0.113.10/32", "2001:db8::10/128")
	path := b.write("shop.yaml", profile)
	b.shell(b.Balancer, "nlb apply "+path)
	b.shell(b.Balancer, named(rules, path))
	for _, to := range []string{"203.0.113.10:80", "[2001:db8::10]:80"} {
		if b.Reaches(b.Client, "tcp", to, true) == "" {
			t.Errorf("%s does not answer", to)
		}
	}
	for _, args := range [][]string{nil, {path}} {
		if sick := b.doctor(args...); len(sick) > 0 {
			t.Errorf("%v: %+v", args, sick)
		}
	}
}
