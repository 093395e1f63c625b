package shell

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nlb/lb/importer"
)

// recorder notes the commands of program x, those that may run with a '?', and
// what they read.
type recorder struct {
	said []string
}

func (r *recorder) Command(c *Command) (Outcome, bool) {
	if name := path.Base(c.Words[0].Text); name != "iptables" && name != "iptables-restore" {
		return Succeeds, false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d", c.Place.Line, c.Place.Column)
	if c.May != "" {
		b.WriteString("?")
	}
	if c.Where != "" {
		b.WriteString(" [" + c.Where + "]")
	}
	for _, w := range c.Words[1:] {
		b.WriteString(" " + w.Text)
		if w.Unknown != "" {
			b.WriteString("(" + w.Unknown + "?)")
		}
	}
	if c.Input != nil {
		fmt.Fprintf(&b, " < %d %q", c.Input.First, c.Input.Lines)
	}
	r.said = append(r.said, b.String())
	if len(c.Words) > 1 && c.Words[1].Text == "-C" {
		return Fails, true
	}
	return Succeeds, true
}

func (r *recorder) Line(int) bool { return false }

func read(text string) (*recorder, *importer.Import) {
	lines, err := importer.Lines("wg7.conf", []byte(text))
	if err != nil {
		panic(err)
	}
	r := &recorder{}
	d := importer.New("wg7.conf", "test", lines)
	Read("wg7.conf", lines, d, r)
	return r, d.Finish()
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"quotes", `iptables a "b c" 'd"e' f\ g "$(" `, nil},
		{"quoting", `iptables a "b c" 'd"e' f\ g "\$h" # not this`, []string{`1:1 a b c d"e f g $h`}},
		{"lines", "iptables a \\\n   b; iptables c && iptables d\n", []string{"1:1 a b", "2:7 c", "2:21 d"}},
		{"variables", "A='1 2'\nB=$A\niptables $A \"$A\" ${B}x $C y\n", []string{"3:1 1 2 1 2 1 2x $C($C?) y"}},
		{"the program is a variable with arguments", "X='sudo -n iptables -w'\n$X a", []string{"2:1 -w a"}},
		{"a variable that changes", "A=1\niptables $A\nA=2\niptables $A", []string{"2:1 1", "4:1 2"}},
		{"a variable that may change", "A=1\nif x; then A=2; iptables $A; fi\niptables $A", []string{}},
		{"arrays", "A=(1 2)\nA+=(3)\nfor x in \"${A[@]}\"; do iptables $x; done; iptables ${A[1]}", []string{"3:24 1", "3:24 2", "3:24 3", "3:43 2"}},
		{"loops", "for i in a $(seq 1 2) {8..9}; do iptables $i; done", []string{"1:34 a", "1:34 1", "1:34 2", "1:34 8", "1:34 9"}},
		{"loops that count", "for ((i = 1; i <= 3; i++)); do iptables $i; done\nfor ((i=4; i!=0; i-=2)); do iptables $i; done", []string{"1:32 1", "1:32 2", "1:32 3", "2:29 4", "2:29 2"}},
		{"a loop that counts to what is not known", "for ((i=1; i<=$N; i++)); do iptables $i; done", []string{"1:29? 1"}},
		{"a loop that does not end", "for ((i=1; i; i+=0)); do x; done", nil},
		{"loops over what is not known", "for i in $(hosts); do iptables $i; done", []string{"1:23? $i($i?)"}},
		{"arithmetic", "N=3; iptables $((8000+N*2)) $((N-1))", []string{"1:6 8006 2"}},
		{"conditions", "[ -f x ] && iptables a\nif id; then iptables b; else iptables c; fi\n[ x ] || exit 1\niptables d", []string{"1:13? a", "2:13? b", "2:30? c", "4:1 d"}},
		{"checked before", "iptables -C a || iptables b\nif ! iptables -C c; then iptables d; fi", []string{"1:1 -C a", "1:18 b", "2:6 -C c", "2:26 d"}},
		{"exit", "iptables a; exit; iptables b", []string{"1:1 a"}},
		{"functions", "f() { iptables \"$1\"; }\nstop() { iptables -F; }\nf 'a b'\ncase $1 in stop) stop;; esac", []string{"3:1 a b", "2:10? -F"}},
		{"a function that nothing calls", "f() { iptables a; }", []string{"1:7? a"}},
		{"a function that may be called twice", "f() { iptables a; }\nif x; then f; fi\nif y; then f; fi", []string{"1:7? a"}},
		{"a function that calls itself", "f() { iptables a; f; }", nil},
		{"wrappers", "ipt() { iptables -w \"$@\"; }\nipt a \"b c\"", []string{"2:1 -w a b c"}},
		{
			"what runs a command", "sudo -u root env A=1 nice -n 5 iptables a\nip netns exec red iptables b\ndocker exec -it web iptables c\nkubectl exec -n x pod -- iptables d\nssh -p 22 root@lb 'iptables e; iptables f'\nsh -c 'iptables g'",
			[]string{"1:1 a", "2:1 [namespace red] b", "3:1 [docker web] c", "4:1 [kubectl pod] d", "5:19 [ssh root@lb] e", "5:19 [ssh root@lb] f", "6:7 g"},
		},
		{"here-documents", "A=1\niptables-restore <<E\nx $A\nE\niptables-restore <<'E'\n$A\nE", []string{`2:1 < 2 ["x 1"]`, `5:1 < 5 ["$A"]`}},
		{"pipes and files", "echo '*nat' | iptables-restore\ncat > /r <<E\nx\nE\niptables-restore -n < /r\niptables-restore </other", []string{`1:15 < 0 ["*nat"]`, `5:1 -n < 2 ["x"]`, "6:1"}},
		{"files that grow", "echo '*nat' > /r\necho \"x\ny\" >> /r\n\necho z >> /r\niptables-restore /r", []string{`6:1 /r < 0 ["*nat" "x" "y" "" "z"]`}},
		{"a file that nothing loads", "cat > /r <<E\n*nat\nE", []string{`2:1? < 1 ["*nat"]`}},
		{"prompts", "[root@lb ~]# iptables a\nsome output\nme@lb:~/x$ sudo iptables b \\\n   c\n$ iptables d", []string{"1:14 a", "3:12 b c", "5:3 d"}},
		{"root's prompt", "Do this:\n  # iptables -A a\n  # iptables -A b", []string{"2:5 -A a", "3:5 -A b"}},
		{"prose", "Don't do this\niptables a\nit's 'wrong\niptables b", []string{"2:1 a", "4:1 b"}},
		{"prose around a script", "Don't\nif x; then\niptables a\nfi", []string{"3:1? a"}},
		{"interfaces", "iface br0 inet static\n  post-up iptables a $IFACE # x\n  post-down iptables b\n  up iptables c \\\n    d", []string{"2:11 a br0", "4:6 c d"}},
		{"wg-quick", "[Interface]\nPostUp = iptables a %i; iptables b\nPostDown = iptables c", []string{"2:10 a wg7", "2:25 b"}},
		{"a part of wg-quick", "Add this:\nPostUp = iptables a %i\nPostDown = iptables b", []string{"2:10 a wg7"}},
		{"units", "[Service]\nEnvironment=V=1\nExecStart=-/sbin/iptables a $V\nExecStartPost=/bin/sh -c \"iptables b\"\nExecStop=/sbin/iptables c", []string{"3:12 a 1", "4:26 b"}},
		{"cloud-init", "#cloud-config\nruncmd:\n  - iptables a\n  - [iptables, -t, nat]\n  - [ \"iptables\", 'b' ]\n  - 'iptables c'\n  - |\n    x=1\n    iptables d", []string{"3:5 a", "4:6 -t nat", "5:8 b", "6:6 c", "9:5 d"}},
		{"Ansible", "- hosts: all\n  tasks:\n  - name: x\n    command: iptables a {{ vip }}:80\n  - shell: \"iptables b\"", []string{"4:14 a ${_vip__}:80(${_vip__}?)", "5:13 b"}},
		{
			"Ansible's module", "- hosts: lb\n  tasks:\n  - name: web\n    ansible.builtin.iptables:\n      table: nat\n      chain: PREROUTING\n      in_interface: '!lo'\n      protocol: tcp\n      destination_ports: [80, '443']\n" +
				"      ctstate: NEW\n      comment: a b\n      jump: DNAT\n      to_destination: 10.0.0.1:{{ port }}\n  - block:\n    - iptables: {chain: FORWARD, action: insert, policy: DROP}\n    - iptables:\n        chain: X\n        state: absent\n" +
				"    - iptables: {chain: Y, jump: ACCEPT, source: '{{ item }}', ip_version: ipv4}\n      loop: [a, b]\n    - iptables: {flush: true, table: nat}\n      when: x",
			[]string{
				"4:5 -t nat -A PREROUTING -p tcp -j DNAT ! -i lo -m multiport --dports 80,443 -m conntrack --ctstate NEW -m comment --comment a b --to-destination 10.0.0.1:${_port__}(${_port__}?)",
				"15:5 -t filter -P FORWARD DROP", "16:5 -t filter -D X", "19:5 -t filter -A Y -s a -j ACCEPT", "19:5 -t filter -A Y -s b -j ACCEPT", "21:5? -t nat -F",
			},
		},
		{"Markdown that undoes", "```\niptables -A a\n```\nand back:\n```\niptables -D a\n```", []string{"2:1 -A a"}},
		{"Markdown without an end", "```sh\nwords only\n```sh\niptables a\n```", []string{"4:1 a"}},
		{"Markdown", "Don't use iptables x\n```sh\niptables a\n```\nthen\n```\n$ iptables b\noutput\n```\n~~~\niptables c", []string{"3:1 a", "7:3 b", "11:1 c"}},
	} {
		r, m := read(tt.text)
		if tt.name == "quotes" {
			if m.Findings == nil {
				t.Errorf("%s: nothing is said of a quote that does not end", tt.name)
			}
			continue
		}
		switch tt.name {
		case "a variable that may change":
			tt.want = []string{"2:17? 2", "3:1 $A($A?)"}
		case "a loop that does not end":
			if !warned(m) {
				t.Errorf("%s: nothing is said", tt.name)
			}
			continue
		case "a function that calls itself":
			if len(r.said) == 0 || len(r.said) > maxDepth {
				t.Errorf("%s: %d commands", tt.name, len(r.said))
			}
			continue
		}
		if diff := cmp.Diff(tt.want, r.said); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

// warned reports whether there are warnings beside the one that there are no
// services.
func warned(m *importer.Import) bool {
	return slices.ContainsFunc(m.Findings, func(f importer.Finding) bool { return f.Level == importer.Lost && len(f.Places) > 0 })
}

// TestUnread: what looks as if it balances, and is not read, is said.
func TestUnread(t *testing.T) {
	for _, text := range []string{
		"echo iptables -t nat -A PREROUTING -j DNAT --to-destination 10.0.0.1",
		"trap 'iptables -t nat -I PREROUTING -j REDIRECT' EXIT",
		"```\nx\n```\nRun iptables -t nat -A PREROUTING -j DNAT now.",
		"- hosts: x\n  tasks:\n  - x: &y iptables -t nat --append PREROUTING -j DNAT",
		"Don't 'x\nfoo \"$(iptables -A PREROUTING -j DNAT",
	} {
		if r, m := read(text); !warned(m) {
			t.Errorf("%s\nis complete: %q", text, r.said)
		}
	}
	for _, text := range []string{"iptables -t nat -A PREROUTING -j DNAT", "# iptables -t nat -A PREROUTING -j DNAT\niptables -L", "iface x inet manual\n post-down iptables -t nat -D PREROUTING -j DNAT"} {
		if _, m := read(text); warned(m) {
			t.Errorf("%s\nis not complete: %v", text, m.Findings)
		}
	}
}

// TestBounds: texts that nest, or grow, end soon.
func TestBounds(t *testing.T) {
	const n = 1 << 15
	for name, text := range map[string]string{
		"parentheses": strings.Repeat("(", n), "braces": strings.Repeat("{ ", n), "ifs": strings.Repeat("if ", n),
		"substitutions": strings.Repeat("$(", n), "defaults": strings.Repeat("${a:-", n), "quotes": strings.Repeat(`"$(`, n),
		"tests": "[[" + strings.Repeat(" !", n) + " a ]]", "chain": strings.Repeat("a && ", n) + "b", "pipe": strings.Repeat("a | ", n) + "b",
		"arithmetic": "iptables $((" + strings.Repeat("1+", n) + "1))",
		"doubling":   "A=xxxxxxxxxxxxxxxx\n" + strings.Repeat("A=$A$A\n", 1000) + "iptables $A",
		"loops":      strings.Repeat("for i in {1..60000}; do ", 20) + "iptables $i" + strings.Repeat("; done", 20),
		"functions":  "a() { iptables; }\n" + strings.Repeat("a() { a; a; }\n", 1) + "a",
		"backslash":  strings.Repeat("\\\n", n), "prompts": strings.Repeat("a@b:c# \\\n", n/16),
		"growing": strings.Repeat("echo '*nat' >> /r\n", n),
		"here":    strings.Repeat("cat <<E\n", n/16),
	} {
		began := time.Now()
		_, m := read(text)
		t.Logf("%s: %v, %d findings", name, time.Since(began), len(m.Findings))
		if m.Findings == nil && name != "arithmetic" && name != "doubling" {
			t.Errorf("%s: nothing is said", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("f() { iptables \"$@\"; }\nfor i in 1 2; do f $i; done\ncat <<E | iptables-restore\n*nat\nE\n")
	f.Add("[Interface]\nPostUp = iptables a %i\n")
	f.Add("#cloud-config\nruncmd:\n- [iptables, {{ x }}]\n")
	f.Add("```\noutput\na@b:~# ssh x 'iptables ${A[@]} $((1+$A))'\n```")
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := importer.Lines("x", []byte(text))
		if err != nil {
			return
		}
		d := importer.New("x", "x", lines)
		Read("x", lines, d, &recorder{})
		for _, found := range d.Finish().Findings {
			found.Format()
		}
	})
}
