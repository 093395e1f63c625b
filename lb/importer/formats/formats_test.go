package formats

import (
	"fmt"
	"strings"
	"testing"
)

// texts are some of each kind.
var texts = []struct{ format, text string }{
	{"iptables", "*nat\n-A PREROUTING -d 203.0.113.1/32 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1\nCOMMIT\n"},
	{"iptables", "-A DOCKER -d 203.0.113.1/32 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1\n-A PREROUTING -j DOCKER"},
	{"iptables", "sudo iptables -t nat -A PREROUTING -d 203.0.113.1/32 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1\n"},
	{"ipvs", "-A -t 203.0.113.1:80 -s rr\n-a -t 203.0.113.1:80 -r 10.0.0.1:80 -m\n"},
	{"ipvs", "ipvsadm -A -t 203.0.113.1:80 -s rr\nipvsadm -a -t 203.0.113.1:80 -r 10.0.0.1:80 -m\n"},
	{"ipvs", "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  203.0.113.1:80 rr\n  -> 10.0.0.1:80 Masq 1 0 0\n"},
	{"nftlb", `{"farms": [{"name": "a", "virtual-addr": "203.0.113.1", "virtual-ports": "80", "mode": "snat", "backends": [{"name": "b", "ip-addr": "10.0.0.1"}]}]}`},
	{"keepalived", "virtual_server 203.0.113.1 80 {\n  real_server 10.0.0.1 80 {\n    MISC_CHECK {\n misc_path \"iptables -A x\"\n }\n  }\n}\n"},
	{"haproxy", "global\n  daemon\n\nlisten web\n  bind 203.0.113.1:80\n  server a 10.0.0.1:80\n"},
	{"haproxy", "defaults tcp\n  mode tcp\nfrontend web from tcp # the web\n  bind 203.0.113.1:80\n  default_backend b\nbackend b\n  server a 10.0.0.1:80\n"},
	{"nginx", "events {}\nstream {\n  server { listen 203.0.113.1:80; proxy_pass 10.0.0.1:80; }\n}\n"},
	{"nginx", "server {\n  listen 203.0.113.1:80;\n  proxy_pass 10.0.0.1:80;\n}\n"},
	{"nft", `{"nftables": [{"table": {"family": "ip", "name": "nat"}}, {"chain": {"family": "ip", "table": "nat", "name": "p", "type": "nat", "hook": "prerouting", "prio": -100}},
 {"rule": {"family": "ip", "table": "nat", "chain": "p", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "203.0.113.1"}},
 {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}}, {"dnat": {"addr": "10.0.0.1"}}]}}]}`},
	{"iptlb", "a:\n  source: 203.0.113.1:80\n  destination:\n    - 10.0.0.1:80\n"},
}

// TestRead: a text is recognised, and one of another format is refused with one
// error that says what it is.
func TestRead(t *testing.T) {
	for _, tt := range texts {
		for _, format := range append(Names(), "") {
			m, err := Read(format, "text", []byte(tt.text))
			switch {
			case format == tt.format || format == "":
				if err != nil || len(m.Profile.Services) != 1 {
					t.Errorf("%q as %q: %v %v", tt.text, format, m, err)
				}
			case err == nil || !strings.Contains(err.Error(), "this is ") || strings.Contains(err.Error(), "\n"):
				t.Errorf("%q as %s: %v", tt.text, format, err)
			}
		}
	}
}

func TestForeign(t *testing.T) {
	for text, want := range map[string]string{
		"Chain PREROUTING (policy ACCEPT)\ntarget     prot opt source               destination\n": "`iptables -L`",
		"table ip nat {\n\tchain prerouting {\n\t}\n}\n":                                           "`nft list ruleset`",
		"profile: web\nservices: []\n":                                                             "a profile of nlb",
		"config redirect\n\toption target 'DNAT'\n":                                                "OpenWrt",
		"<zone>\n  <forward-port port=\"80\" protocol=\"tcp\" to-port=\"8080\"/>\n</zone>\n":       "firewalld",
		"Lorem ipsum\n": "not known",
		"":              "not known",
	} {
		for _, format := range append(Names(), "") {
			m, err := Read(format, "text", []byte(text))
			if err == nil && m.Complete() {
				t.Errorf("%q as %q is complete", text, format)
			}
			if format == "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	}
}

// TestParts: configurations are found where they stand in other texts, with their
// places, and what else such a text has is said.
func TestParts(t *testing.T) {
	const proxy = "frontend a\n  mode tcp\n  bind 203.0.113.1:80\n  default_backend b\nbackend b\n  mode tcp\n  server s 10.0.0.1:80\n"
	const relay = "stream {\n  upstream u { hash \\$remote_addr; server 10.0.0.1:80; }\n  server { listen 203.0.113.1:80; proxy_pass u; }\n}\n"
	const virtual = "virtual_server 203.0.113.1 80 {\n  protocol TCP\n  lb_kind NAT\n  real_server 10.0.0.1 80 {\n  }\n}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"a script", "set -e\ncat > /etc/haproxy.cfg <<'EOF'\n" + proxy + "EOF\nsystemctl start haproxy\n", "haproxy 1 true"},
		{"a script with variables", "cat <<EOF >x\n" + relay + "EOF\n", "nginx 1 true"},
		{"an echo that begins at once", "echo it's\necho 'global\n" + proxy + "# the end' > /etc/haproxy.cfg\n", "haproxy 1 true"},
		{"an echo", "set -e\necho \"\\\n" + proxy + "\" > /etc/haproxy.cfg\nsystemctl start haproxy\n", "haproxy 1 true"},
		{"Markdown", "# Proxy\n```\napt install haproxy\n```\nthen\n~~~ conf\n" + proxy + "~~~\n", "haproxy 1 true"},
		{"a script in Markdown", "```sh\ncat <<EOF | tee x\n" + virtual + "EOF\n```\n", "keepalived 1 true"},
		{"two formats", "cat >a <<A\n" + virtual + "A\ncat >b <<B\n" + proxy + "B\n", "keepalived 1 false"},
		{"commands beside", "cat >b <<B\n" + proxy + "B\niptables -t nat -A PREROUTING -p tcp --dport 81 -j DNAT --to-destination 10.0.0.1\n", "haproxy 1 false"},
		{"a template", strings.ReplaceAll(proxy, "203.0.113.1", "{{ vip }}"), "haproxy 0 false"},
		{"a template that repeats", strings.Replace(proxy, "  server", "{% for s in all %}\n  server x {{ s }}:80\n{% endfor %}\n  server", 1), "haproxy 1 false"},
		{"a template of commands", "{{- range .All }}\niptables -t nat -A PREROUTING -d {{ .IP }} -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1\n{{- end }}\n", "iptables 0 false"},
		{"a variable with arguments", "IPT=/sbin/iptables\n$IPT -t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1\n", "iptables 1 true"},
		{"a variable of ipvsadm", "ipv=/sbin/ipvsadm\n$ipv -A -t 203.0.113.1:80 -s rr\n$ipv -a -t 203.0.113.1:80 -r 10.0.0.1 -m\n", "ipvs 1 true"},
		{"a program that runs commands", `os.popen("iptables -t nat -I PREROUTING -p tcp -j DNAT --to-destination " + ip)`, "iptables 0 false"},
	} {
		m, err := Read("", "text", []byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		_, format, _ := strings.Cut(string(m.YAML()), "(")
		format, _, _ = strings.Cut(format, ")")
		if got := fmt.Sprint(format, " ", len(m.Profile.Services), " ", m.Complete()); got != tt.want {
			t.Errorf("%s: %s, want %s\n%v", tt.name, got, tt.want, m.Findings)
		}
		for _, f := range m.Findings {
			if len(f.Places) > 0 && strings.TrimSpace(strings.Split(tt.text, "\n")[f.Places[0].Line-1]) == "" {
				t.Errorf("%s: %s is said of an empty line", tt.name, f.Msg)
			}
		}
	}
}
