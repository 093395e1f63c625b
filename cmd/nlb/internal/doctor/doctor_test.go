package doctor

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/lb"
	"nlb/lb/config"
)

// shop is a service of both families.
func shop(t *testing.T, more string) *lb.Profile {
	t.Helper()
	p, err := config.Parse("shop.yaml", []byte(`profile: shop
services:
  - name: web
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    backends: ["10.2.0.11:8080", "10.2.0.12:8080", "[fd02::11]:8080"]
`+more))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func prefixes(texts ...string) []Addr {
	var out []Addr
	for _, s := range texts {
		out = append(out, Addr{Prefix: netip.MustParsePrefix(s)})
	}
	return out
}

// router is a host between clients on eth0 and backends on eth1, where all is
// well for these profiles.
func router(profiles ...*lb.Profile) *Host {
	h := &Host{
		Kernel: "6.18", Admin: true, Blind: map[string]bool{},
		Params: map[string]string{forward4: "1", forward6: "1"},
		Links: []Link{
			{Name: "lo", Index: 1, Up: true, Loopback: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "eth0", Index: 2, Up: true, Addrs: prefixes("10.1.0.1/24", "fd01::1/64", "203.0.113.10/32", "2001:db8::10/128")},
			{Name: "eth1", Index: 3, Up: true, Addrs: prefixes("10.2.0.1/24", "fd02::1/64")},
		},
		Routes: map[Question]Route{},
		Ours:   Table{Exists: true, Profiles: []string{"shop"}},
		Track:  Track{Known: true, Count: 10, Max: 1000, Counted: true, Listed: true, Uses: map[Key]Use{}},
	}
	for _, q := range Questions(h.Links, profiles) {
		h.Routes[q] = h.answer(q)
	}
	return h
}

// answer is what a kernel would say: own addresses, networks, and a default
// route by eth0.
func (h *Host) answer(q Question) Route {
	if h.holder(q.To) != nil {
		return Route{Way: Local, Link: "lo"}
	}
	if l, _ := h.neighbour(q.To); l != nil {
		source := l.Addrs[0].Addr()
		if q.To.Is6() {
			source = l.Addrs[1].Addr()
		}
		return Route{Way: Out, Link: l.Name, Source: source}
	}
	gateway, source := "10.1.0.254", "10.1.0.1"
	if q.To.Is6() {
		gateway, source = "fd01::254", "fd01::1"
	}
	return Route{Way: Out, Link: "eth0", Gateway: netip.MustParseAddr(gateway), Source: netip.MustParseAddr(source)}
}

// sick are the findings that are to be mended, as text.
func sick(h *Host, profiles ...*lb.Profile) []string {
	var out []string
	for _, f := range Examine(h, Ask{Table: "nlb", Profiles: profiles}) {
		if f.Level != OK {
			out = append(out, fmt.Sprintf("%s %s %s: %s", f.Level, f.Check, f.Subject, f.Problem))
		}
	}
	return out
}

func TestHealthy(t *testing.T) {
	p := shop(t, "")
	findings := Examine(router(p), Ask{Table: "nlb", Profiles: []*lb.Profile{p}})
	if Sick(findings) {
		t.Errorf("%+v", findings)
	}
	var have []string
	for _, f := range findings {
		have = append(have, f.Check)
	}
	// Each check says that it found nothing, those that have nothing to look at
	// do not.
	want := []string{
		"rights", "nftables", "rules", "forwarding", "router-advertisements", "listen", "socket", "chained", "rp-filter", "route", "return", "source",
		"filter", "nat", "mark", "notrack", "conntrack", "ports", "answers", "gone",
	}
	if !slices.Equal(have, want) {
		t.Errorf("got %v, want %v", have, want)
	}
}

// TestBlind: a check that could not look does not say that all is well.
func TestBlind(t *testing.T) {
	p := shop(t, "")
	h := router(p)
	h.Admin = false
	for _, c := range []string{"nftables", "rules", "filter", "nat", "mark", "ports", "answers", "gone"} {
		h.Blind[c] = true
	}
	for _, f := range Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}, Files: []string{"shop.yaml"}}) {
		if f.Level == OK && h.Blind[f.Check] {
			t.Errorf("%+v", f)
		}
		if f.Check == "rights" && (f.Level != Fail || f.Mend != "sudo nlb doctor shop.yaml") {
			t.Errorf("%+v", f)
		}
	}
}

// TestOtherVersion: what differs in a table that nobody has touched since an apply is of
// another version of nlb.
func TestOtherVersion(t *testing.T) {
	p := shop(t, "")
	for untouched, want := range map[bool]string{true: "warn another version of nlb made the table", false: "fail something else has changed what nlb put there"} {
		h := router(p)
		h.Ours.Drift, h.Ours.Untouched = []Drift{{Object: "chain wait", What: "it is missing"}}, untouched
		var got []string
		for _, f := range Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}}) {
			if f.Check == "rules" {
				got = append(got, f.Level.String()+" "+f.Why)
			}
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("untouched %t: %q, want %q", untouched, got, want)
		}
	}
}

func TestThresholds(t *testing.T) {
	p := shop(t, "")
	key := Key{"shop", "web", p.Services[0].Backends[0].Address}
	tcp := func(n int) map[lb.Protocol]int { return map[lb.Protocol]int{lb.TCP: n} }
	for _, test := range []struct {
		name   string
		change func(t *Track)
		want   string // empty: nothing
	}{
		{"room", func(t *Track) { t.Count = 799 }, ""},
		{"little room", func(t *Track) { t.Count = 800 }, "warn conntrack : the connection table is 80% full"},
		{"no room", func(t *Track) { t.Count = 950 }, "fail conntrack : the connection table is 95% full"},
		{"early drops", func(t *Track) { t.EarlyDrop = 1 }, "warn conntrack : 1 connection was forgotten to make room"},
		{"insert failures are drops, too", func(t *Track) { t.InsertFailed, t.Drop = 3, 3 }, "warn conntrack : 3 connections could not be entered"},
		{"drops", func(t *Track) { t.Drop = 2 }, "warn conntrack : 2 packets were dropped"},
		{"ports", func(t *Track) { t.Uses[key] = Use{Entries: tcp(51609)} }, ""},
		{"few ports", func(t *Track) { t.Uses[key] = Use{Entries: tcp(51610)} }, "warn ports shop/web 10.2.0.11:8080: 80% of the ports of its source addresses are in use"},
		{"no ports", func(t *Track) { t.Uses[key] = Use{Entries: tcp(64512)} }, "fail ports shop/web 10.2.0.11:8080: 100% of the ports of its source addresses are in use"},
		{"silence of a few", func(t *Track) { t.Uses[key] = Use{Live: tcp(4), Unanswered: 4} }, ""},
		{"silence", func(t *Track) { t.Uses[key] = Use{Live: tcp(5), Unanswered: 5} }, "warn answers shop/web 10.2.0.11:8080: it has not answered 5 of its 5 connections"},
		{"some silence", func(t *Track) { t.Uses[key] = Use{Live: tcp(100), Unanswered: 49} }, ""},
		{"much silence", func(t *Track) { t.Uses[key] = Use{Live: tcp(100), Unanswered: 50} }, "warn answers shop/web 10.2.0.11:8080: it has not answered 50 of its 100 connections"},
		{"gone", func(t *Track) { t.Gone = Use{Live: map[lb.Protocol]int{lb.TCP: 2, lb.UDP: 1}} }, "warn gone : live connections of backends that are gone: 2 tcp and 1 udp"},
		{"over", func(t *Track) { t.Gone = Use{Entries: tcp(2)} }, ""},
	} {
		h := router(p)
		test.change(&h.Track)
		if got := strings.Join(sick(h, p), "; "); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// TestCapacity: a backend with as many connections as it may have, and how long the
// most silent of them has been silent.
func TestCapacity(t *testing.T) {
	p := shop(t, "")
	b := &p.Services[0].Backends[0]
	b.MaxConnections = 10
	h := router(p)
	h.Params["net/netfilter/nf_conntrack_tcp_timeout_established"] = "432000"
	use := Use{Live: map[lb.Protocol]int{lb.TCP: 9}, Left: 432000 - 7200}
	key := Key{"shop", "web", b.Address}
	h.Track.Uses[key] = use
	if got := sick(h, p); len(got) > 0 {
		t.Errorf("9 of 10: %q", got)
	}
	use.Live[lb.TCP] = 10
	if got := sick(h, p); !slices.Equal(got, []string{"warn capacity shop/web 10.2.0.11:8080: it has 10 connections, of max-connections 10"}) {
		t.Errorf("10 of 10: %q", got)
	}
	found := Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}})
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.Check == "capacity" }); !strings.Contains(found[i].Why, "one of them has had no packet for 2h. Connections whose ends have vanished count, too, until the kernel forgets them, after 120h") {
		t.Errorf("%+v", found[i])
	}
	p.Services[0].Timeouts.Established, use.Left = time.Hour, 600
	h.Track.Uses[key] = use
	found = Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}})
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.Check == "capacity" }); !strings.Contains(found[i].Why, "no packet for 50m. Connections whose ends have vanished count, too, until the kernel forgets them, after 1h") {
		t.Errorf("with timeouts: %+v", found[i])
	}
}

// TestHalfOpen: a service with as many half-open connections as it may have, of all its
// backends.
func TestHalfOpen(t *testing.T) {
	for keys, why := range map[string]string{"": "other new ones are refused. ", "    syn-protection: synproxy\n": "other new ones have to answer a cookie first. "} {
		p := shop(t, keys)
		s := &p.Services[0]
		s.Limit.HalfOpen = 10
		h := router(p)
		at := func(i int) Key { return Key{"shop", "web", s.Backends[i].Address} }
		h.Track.Uses[at(0)], h.Track.Uses[at(1)] = Use{HalfOpen: 4}, Use{HalfOpen: 5}
		if got := sick(h, p); len(got) > 0 {
			t.Errorf("9 of 10: %q", got)
		}
		h.Track.Uses[at(1)] = Use{HalfOpen: 6}
		if got := sick(h, p); !slices.Equal(got, []string{"warn capacity shop/web: it has 10 half-open connections, of half-open 10"}) {
			t.Errorf("10 of 10: %q", got)
		}
		found := Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}})
		if i := slices.IndexFunc(found, func(f Finding) bool { return f.Check == "capacity" }); !strings.HasPrefix(found[i].Why, why) {
			t.Errorf("%+v", found[i])
		}
	}
}

// TestHelperModule: a helper whose other half is a module that nobody has loaded.
func TestHelperModule(t *testing.T) {
	p := shop(t, "")
	h := router(p)
	h.Reads = []string{"ftp", "tftp"}
	for helper, want := range map[lb.Helper]int{lb.HelperNone: 0, lb.FTP: 1, lb.SIP: 0} {
		p.Services[0].Helper = helper
		if got := sick(h, p); len(got) != want {
			t.Errorf("helper: %v: %q, want %d", helper, got, want)
		}
	}
}

// TestPace: where ports get few, doctor says how many connections a second the
// kernel's TIME_WAIT leaves room for.
func TestPace(t *testing.T) {
	p := shop(t, "")
	for _, test := range []struct {
		protocol lb.Protocol
		seconds  string // empty: the parameter is not there
		want     string // empty: nothing is said
	}{
		{lb.TCP, "120", "for 120 s (net.netfilter.nf_conntrack_tcp_timeout_time_wait), so they are enough for 537 new ones a second"},
		{lb.TCP, "30", "enough for 2150 new ones a second"},
		{lb.TCP, "", ""},
		{lb.UDP, "120", ""},
	} {
		h := router(p)
		p.Services[0].Protocols = []lb.Protocol{test.protocol}
		if test.seconds != "" {
			h.Params["net/netfilter/nf_conntrack_tcp_timeout_time_wait"] = test.seconds
		}
		h.Track.Uses[Key{"shop", "web", p.Services[0].Backends[0].Address}] = Use{Entries: map[lb.Protocol]int{test.protocol: 60000}}
		found := slices.DeleteFunc(Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}}), func(f Finding) bool { return f.Check != "ports" })
		if len(found) != 1 || !strings.Contains(found[0].Why, test.want) || strings.Contains(found[0].Why, "a second") != (test.want != "") {
			t.Errorf("%s, %q s: %+v", test.protocol, test.seconds, found)
		}
	}
}

// TestPortsOfPools: addresses multiply the ports, and services that share an
// endpoint share them.
func TestPortsOfPools(t *testing.T) {
	const most = portsOfAddress
	for _, test := range []struct {
		snat string
		used int
		want int // findings
	}{
		{"masquerade", most / 2, 1}, // in two services
		{"none", most, 0},
		{"[10.2.0.1, 10.1.0.1]", most / 2, 0},
		{"[10.2.0.1, 10.1.0.1]", most, 1},
		{"vip", most / 2, 0}, // of two addresses
	} {
		text := fmt.Sprintf(`profile: shop
defaults: {snat: %s}
services:
  - {name: a, listen: "203.0.113.10:80", backends: "10.2.0.11:8080"}
  - {name: b, listen: "10.1.0.1:80", backends: "10.2.0.11:8080"}
`, test.snat)
		p, err := config.Parse("shop.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		h := router(p)
		for _, s := range p.Services {
			h.Track.Uses[Key{"shop", s.Name, s.Backends[0].Address}] = Use{Entries: map[lb.Protocol]int{lb.TCP: test.used}}
		}
		got := slices.DeleteFunc(sick(h, p), func(f string) bool { return !strings.Contains(f, " ports ") })
		if len(got) != test.want {
			t.Errorf("%s, %d each: %v", test.snat, test.used, got)
		}
	}
}

// TestFold: what is the same of many is said once, with a few of their
// commands.
func TestFold(t *testing.T) {
	var all []Finding
	for i := range 5 {
		all = append(all, Finding{Warn, "route", fmt.Sprintf("s%d", i), "p", "w", fmt.Sprintf("m%d", i)}, Finding{Warn, "route", "s0", "p", "w", "m0"})
	}
	all = append(all, Finding{OK, "rights", "", "fine", "", ""}, Finding{Fail, "route", "s0", "p", "w", ""})
	got := fold(all)
	want := []Finding{
		{OK, "rights", "", "fine", "", ""},
		{Fail, "route", "s0", "p", "w", ""},
		{Warn, "route", "s0, s1, s2 and 2 others", "p", "w", "m0 && m1 && m2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	b, err := json.Marshal(want[1])
	if text := `{"level":"fail","check":"route","subject":"s0","problem":"p","why":"w","mend":""}`; err != nil || string(b) != text {
		t.Errorf("got %s, %v", b, err)
	}
}

// TestMends: the command fits the tool whose chain it is.
func TestMends(t *testing.T) {
	p := shop(t, "")
	for _, test := range []struct {
		table  string // family and name
		chain  string
		others []string // chains beside it
		legacy bool
		want   string
	}{
		{"inet f", "x", nil, false, "nft insert rule inet f x ct status dnat accept"},
		{"ip filter", "FORWARD", nil, false, "iptables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"},
		{"ip6 filter", "FORWARD", nil, false, "ip6tables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"},
		{"ip filter", "FORWARD", nil, true, "iptables-legacy -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"},
		{"ip mangle", "FORWARD", nil, true, "iptables-legacy -t mangle -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"},
		{"ip filter", "FORWARD", []string{"DOCKER-USER"}, false, "iptables -I DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT"},
		{"ip filter", "FORWARD", []string{"ufw-before-forward"}, false, "ufw route allow proto tcp to 10.2.0.11 port 8080"},
	} {
		h := router(p)
		family, name, _ := strings.Cut(test.table, " ")
		table := &firewall.Table{Family: family, Name: name, Legacy: test.legacy, Chains: map[string]*firewall.Chain{
			test.chain: {Name: test.chain, Base: &firewall.Base{Type: "filter", Hook: "forward", Drop: true}},
		}}
		for _, c := range test.others {
			table.Chains[c] = &firewall.Chain{Name: c}
		}
		h.Tables = []*firewall.Table{table}
		found := slices.DeleteFunc(Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}}), func(f Finding) bool { return f.Check != "filter" })
		if len(found) != 1 || found[0].Level != Fail || !strings.HasPrefix(found[0].Mend, test.want) {
			t.Errorf("%s: %+v", test.table, found)
		}
	}
}

// TestProtected: rules of others beside syn-protection, where no SYN is forwarded but those
// that half-open has room for.
func TestProtected(t *testing.T) {
	const isNew, isEstablished = 8, 2 // enum ip_conntrack_info
	state := func(bits uint32, r firewall.Rule) firewall.Rule {
		b := binary.NativeEndian.AppendUint32(nil, bits)
		r.Conditions = []firewall.Condition{{Fields: []firewall.Field{{Kind: firewall.State, Len: 4}}, Ranges: []firewall.Range{{Low: b, High: b}}}}
		return r
	}
	for _, test := range []struct {
		name     string
		base     firewall.Base
		rule     firewall.Rule
		halfOpen uint32
		want     string // empty: nothing
	}{
		{
			"a SYN behind nlb is not translated",
			firewall.Base{Type: "filter", Hook: "prerouting", Drop: true},
			firewall.Rule{},
			0,
			"fail filter: table ip f, chain c drops what comes in: nft insert rule ip f c ip daddr 203.0.113.10/32 accept",
		},
		{
			"translated at the same priority",
			firewall.Base{Type: "nat", Hook: "prerouting", Priority: natPriority},
			firewall.Rule{Action: firewall.Translate, Number: 5},
			0,
			"fail nat: table ip f, chain c takes what is for 203.0.113.10:80: nft delete rule ip f c handle 5",
		},
		{"new ones are not forwarded", firewall.Base{Type: "filter", Hook: "forward", Drop: true}, state(isEstablished, firewall.Rule{Action: firewall.Accept}), 0, ""},
		{
			"few new ones are",
			firewall.Base{Type: "filter", Hook: "forward", Drop: true},
			state(isEstablished, firewall.Rule{Action: firewall.Accept}), 100,
			"fail filter: table ip f, chain c drops what is forwarded: nft insert rule ip f c ct status dnat accept",
		},
		{"new ones are not marked", firewall.Base{Type: "filter", Hook: "forward"}, state(isNew, firewall.Rule{Mark: firewall.MarkUse{Sets: 1}}), 0, ""},
		{"cookies are not marked", firewall.Base{Type: "filter", Hook: "output"}, state(isEstablished, firewall.Rule{Mark: firewall.MarkUse{Sets: 1}}), 0, ""},
		{
			"what the kernel begins is",
			firewall.Base{Type: "filter", Hook: "output"},
			state(isNew, firewall.Rule{Mark: firewall.MarkUse{Sets: 1}}), 0,
			"warn mark: table ip f, chain c sets the connection mark (mask 0x1): ",
		},
	} {
		p := shop(t, "    syn-protection: synproxy\n")
		p.Services[0].Limit.HalfOpen = test.halfOpen
		h := router(p)
		h.Tables = []*firewall.Table{{Family: "ip", Name: "f", Chains: map[string]*firewall.Chain{"c": {Name: "c", Base: &test.base, Rules: []firewall.Rule{test.rule}}}}}
		var got []string
		for _, f := range Examine(h, Ask{Table: "nlb", Profiles: []*lb.Profile{p}}) {
			if f.Level != OK {
				got = append(got, fmt.Sprintf("%s %s: %s: %s", f.Level, f.Check, f.Problem, f.Mend))
			}
		}
		if strings.Join(got, "; ") != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// TestOffload: each chain that is passed by is named where a service insists, a service
// that is not offloaded is told of, and auto says why it is off.
func TestOffload(t *testing.T) {
	p := shop(t, "")
	for _, tt := range []struct {
		name    string
		offload Offload
		want    []string
	}{
		{"nobody wants it", Offload{}, nil},
		{"all is well", Offload{Services: []Offloaded{{"shop", "web", lb.OffloadSoftware, "software", "eth0"}}}, []string{"ok : live connections go by a flow table"}},
		{
			"software beside filters",
			Offload{Services: []Offloaded{{"shop", "web", lb.OffloadSoftware, "software", "eth0"}}, Bypassed: []string{"table ip a, chain b", "table ip c, chain d"}},
			[]string{"warn shop/web: what is offloaded passes by table ip a, chain b", "warn shop/web: what is offloaded passes by table ip c, chain d"},
		},
		{
			"auto beside a filter",
			Offload{Services: []Offloaded{{"shop", "web", lb.OffloadAuto, "", "it would pass by table ip a, chain b"}}, Bypassed: []string{"table ip a, chain b"}},
			[]string{"ok shop/web: it is not offloaded"},
		},
		{"no device", Offload{Services: []Offloaded{{"shop", "web", lb.OffloadHardware, "", "there is no device for it"}}}, []string{"warn shop/web: it is not offloaded"}},
		{
			"a device is missing",
			Offload{Services: []Offloaded{{"shop", "web", lb.OffloadAuto, "software", "eth0"}}, Left: []string{"eth7 is not offloaded: it is not there"}},
			[]string{"warn : eth7 is not offloaded"},
		},
	} {
		h := router(p)
		h.Offload = tt.offload
		var got []string
		for _, f := range Examine(h, Ask{Profiles: []*lb.Profile{p}, Table: "nlb"}) {
			if f.Check == "offload" {
				got = append(got, fmt.Sprintf("%s %s: %s", f.Level, f.Subject, f.Problem))
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestTunnel: a backend that no route leads to is a failure, a router on the way is none,
// and packets that are too large for the tunnel are told of.
func TestTunnel(t *testing.T) {
	p := shop(t, "    interface: eth0\n")
	s := &p.Services[0]
	s.Mode, s.Backends = lb.Tunnel, s.Backends[:1]
	backend := s.Backends[0]
	for _, tt := range []struct {
		route Route
		mtu   int
		want  []string
	}{
		{Route{Way: Nowhere}, 1520, []string{"fail: no tunnel can reach it"}},
		{Route{Way: Out, Link: "eth1", Gateway: netip.MustParseAddr("10.0.0.1")}, 1520, nil},
		{Route{Way: Out, Link: "eth1"}, 1500, []string{"ok: its tunnel takes packets of 1480 bytes, and eth0 lets in those of 1500"}},
	} {
		h := &Host{
			Links:  []Link{{Name: "eth0", MTU: 1500, Up: true}, {Name: "eth1", MTU: tt.mtu, Up: true}},
			Routes: map[Question]Route{{To: backend.Address.Addr}: tt.route},
		}
		var got []string
		for _, f := range Examine(h, Ask{Profiles: []*lb.Profile{p}, Table: "nlb"}) {
			if f.Check == "direct" && f.Subject != "" {
				got = append(got, fmt.Sprintf("%s: %s", f.Level, f.Problem))
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v: got %q, want %q", tt.route, got, tt.want)
		}
	}
}
