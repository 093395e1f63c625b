package names

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/lbtest"
)

// parse is a profile p with one service s: lines of the service, without
// indentation.
func parse(t *testing.T, service string) *lb.Profile {
	t.Helper()
	text := "profile: p\nservices:\n  - name: s\n"
	for line := range strings.Lines(service) {
		text += "    " + line
	}
	p, err := config.Parse("p.yaml", []byte(text+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// answers reads "web.example 10.0.0.1 10.0.0.2; srv:_x._tcp.e 10.0.0.1:80/WEIGHT/PRIORITY".
func answers(t *testing.T, text string) map[lb.Host][]Record {
	t.Helper()
	out := map[lb.Host][]Record{}
	for one := range strings.SplitSeq(text, ";") {
		words := strings.Fields(one)
		if len(words) == 0 {
			continue
		}
		name, srv := strings.CutPrefix(words[0], lb.SRVPrefix)
		h := lb.Host{Name: name, SRV: srv}
		for _, w := range words[1:] {
			var r Record
			if srv {
				parts := strings.Split(w, "/")
				at := netip.MustParseAddrPort(parts[0])
				r = Record{Addr: at.Addr(), Port: at.Port()}
				fmt.Sscan(parts[1], &r.Weight)
				fmt.Sscan(parts[2], &r.Priority)
			} else {
				r.Addr = netip.MustParseAddr(w)
			}
			out[h] = append(out[h], r)
		}
	}
	return out
}

// show is the backends of the first service, a line each.
func show(p *lb.Profile) string {
	var out []string
	for _, b := range p.Services[0].Backends {
		line := b.Address.String() + fmt.Sprintf(" weight %d priority %d", b.Weight, max(b.Priority, 1))
		if b.Name != b.Address.String() {
			line = b.Name + " " + line
		}
		if b.SNAT.Mode == lb.SNATPool {
			line += " snat " + b.SNAT.String()
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func lines(s ...string) string { return strings.Join(s, "\n") }

func TestResolve(t *testing.T) {
	const listen = "listen: 203.0.113.10:80\n"
	for _, tt := range []struct {
		name, service, answers string
		want                   string
		notes                  []string
	}{
		{
			name: "addresses", service: listen + "backends: ['web.example:8080']", answers: "web.example 10.0.0.2 10.0.0.1",
			want: lines("10.0.0.1:8080 weight 1 priority 1", "10.0.0.2:8080 weight 1 priority 1"),
		},
		{
			name: "without a port", service: listen + "backends: [web.example]", answers: "web.example 10.0.0.1",
			want: "10.0.0.1 weight 1 priority 1",
		},
		{name: "no answer", service: listen + "backends: [web.example, 10.0.0.9]", want: "10.0.0.9 weight 1 priority 1"},
		{
			name: "a name for one", service: listen + "backends: [{address: web.example, name: web, weight: 7}]", answers: "web.example 10.0.0.1",
			want: "web 10.0.0.1 weight 7 priority 1",
		},
		{
			name: "a name for several", service: "listen: [203.0.113.10:80, '[2001:db8::1]:80']\nbackends: [{address: 'web.example:80', name: web}]",
			answers: "web.example 10.0.0.1 10.0.0.2 fd00::1",
			want: lines("web-10.0.0.1 10.0.0.1:80 weight 1 priority 1", "web-10.0.0.2 10.0.0.2:80 weight 1 priority 1",
				"web-fd00--1 [fd00::1]:80 weight 1 priority 1"),
		},
		{
			name: "a long name", service: listen + "backends: [{address: 'web.example:80', name: " + strings.Repeat("w", 63) + "}]",
			answers: "web.example 10.0.0.1 10.0.0.2",
			want: lines(strings.Repeat("w", 54)+"-10.0.0.1 10.0.0.1:80 weight 1 priority 1",
				strings.Repeat("w", 54)+"-10.0.0.2 10.0.0.2:80 weight 1 priority 1"),
		},
		{
			name: "names that others have", answers: "web.example 10.0.0.1; api.example 10.0.0.2 10.0.0.3",
			service: listen + "backends:\n  - web.example\n  - {address: api.example, name: api}\n  - {address: 10.0.0.8, name: 10.0.0.1}\n" +
				"  - {address: 10.0.0.9, name: api-10.0.0.3}",
			want: lines("10.0.0.1-2 10.0.0.1 weight 1 priority 1", "api-10.0.0.2 10.0.0.2 weight 1 priority 1", "api-2 10.0.0.3 weight 1 priority 1",
				"10.0.0.1 10.0.0.8 weight 1 priority 1", "api-10.0.0.3 10.0.0.9 weight 1 priority 1"),
		},
		{
			name: "SRV", service: listen + "backends: [{address: 'srv:_x._tcp.e', name: x}]",
			answers: "srv:_x._tcp.e 10.0.0.1:80/10/20 10.0.0.1:81/20/20 10.0.0.4:80/0/20 10.0.0.2:80/0/10 10.0.0.3:80/5/30",
			want: lines("x-10.0.0.2-80 10.0.0.2:80 weight 1 priority 1", "x-10.0.0.1-80 10.0.0.1:80 weight 50 priority 2",
				"x-10.0.0.1-81 10.0.0.1:81 weight 100 priority 2", "x-10.0.0.4-80 10.0.0.4:80 weight 1 priority 2",
				"x-10.0.0.3-80 10.0.0.3:80 weight 5 priority 3"),
		},
		{
			name: "large weights", service: listen + "backends: ['srv:_x._tcp.e']",
			answers: "srv:_x._tcp.e 10.0.0.1:80/65535/0 10.0.0.2:80/32768/0 10.0.0.3:80/1/0 10.0.0.4:80/0/0",
			want: lines("10.0.0.1:80 weight 1000 priority 1", "10.0.0.2:80 weight 500 priority 1", "10.0.0.3:80 weight 1 priority 1",
				"10.0.0.4:80 weight 1 priority 1"),
		},
		{
			name: "all weights are 0", service: listen + "backends: ['srv:_x._tcp.e']", answers: "srv:_x._tcp.e 10.0.0.1:80/0/0 10.0.0.2:80/0/0",
			want: lines("10.0.0.1:80 weight 1 priority 1", "10.0.0.2:80 weight 1 priority 1"),
		},
		{
			name: "twice", service: listen + "backends: [web.example, api.example, {address: 10.0.0.2, weight: 5}]",
			answers: "web.example 10.0.0.1 10.0.0.2; api.example 10.0.0.3 10.0.0.1",
			want:    lines("10.0.0.1 weight 1 priority 1", "10.0.0.3 weight 1 priority 1", "10.0.0.2 weight 5 priority 1"),
		},
		{
			name: "what cannot be", service: listen + "backends: [web.example:80]",
			answers: "web.example 10.0.0.1 224.0.0.1 0.0.0.0 ::ffff:10.0.0.9 fe80::1%eth0 fd00::1 203.0.113.10",
			want:    "10.0.0.1:80 weight 1 priority 1",
			notes: []string{
				"p/s: web.example: 0.0.0.0 is not an address of a machine; it is left out",
				"p/s: web.example: 224.0.0.1 is multicast; it is left out",
				"p/s: web.example: ::ffff:10.0.0.9 is IPv4 in an IPv6 form; it is left out",
				"p/s: web.example: fe80::1%eth0 has a zone; it is left out",
				"p/s: web.example: backend [fd00::1]:80 is IPv6, and no listen is; it is left out",
				"p/s: web.example: backend 203.0.113.10:80 is what the service listens on; it is left out",
			},
		},
		{
			name: "pools", service: "listen: [203.0.113.10:80, '[2001:db8::1]:80']\nsnat: 198.51.100.1\n" +
				"backends:\n  - web.example\n  - {address: api.example, snat: [198.51.100.2, 2001:db8::2]}",
			answers: "web.example 10.0.0.1 fd00::1; api.example 10.0.0.2 fd00::2",
			want:    lines("10.0.0.1 weight 1 priority 1 snat 198.51.100.1", "10.0.0.2 weight 1 priority 1 snat 198.51.100.2", "fd00::2 weight 1 priority 1 snat 2001:db8::2"),
			notes:   []string{"p/s: web.example: fd00::1 is IPv6, and snat has no address of that; it is left out"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := parse(t, tt.service)
			known := answers(t, tt.answers)
			before := config.Write(p)
			out, notes := Resolve([]*lb.Profile{p}, func(h lb.Host) []Record { return known[h] })
			if d := cmp.Diff(tt.want, show(out[0])); d != "" {
				t.Error(d)
			}
			var said []string
			for _, n := range notes {
				said = append(said, n.String())
			}
			if d := cmp.Diff(tt.notes, said); d != "" {
				t.Error(d)
			}
			if after := config.Write(p); string(after) != string(before) {
				t.Errorf("the profile has changed:\n%s", after)
			}
			// What the kernel holds then is as good an answer as the one that made it.
			if len(Hosts([]*lb.Profile{p})) > 1 { // whose an address was is not known
				return
			}
			kept := Held([]*lb.Profile{p}, out)
			again, _ := Resolve([]*lb.Profile{p}, func(h lb.Host) []Record { return kept[h] })
			if d := cmp.Diff(show(out[0]), show(again[0])); d != "" {
				t.Errorf("from what is held: %s", d)
			}
		})
	}
}

// TestResolveRandom: whatever is answered, what comes of it is as valid as the
// profile, but that a family may have no backends left.
func TestResolveRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	addrs := []string{
		"10.0.0.1", "10.0.0.2", "10.0.0.255", "192.0.2.1", "2001:db8::", "fd00::1", "203.0.113.10", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::",
		"ff02::1", "fe80::1%eth0", "::ffff:10.0.0.1",
	}
	named, made := 0, 0
	for range 5000 {
		p := lbtest.Named(r, lbtest.Profile(r))
		known := map[lb.Host][]Record{}
		for _, h := range Hosts([]*lb.Profile{p}) {
			named++
			for range r.IntN(6) {
				one := Record{Addr: netip.MustParseAddr(addrs[r.IntN(len(addrs))])}
				if h.SRV {
					one.Port, one.Weight, one.Priority = uint16(1+r.IntN(3)), uint16(r.Uint32()>>r.IntN(32)), uint16(r.IntN(4))
				}
				known[h] = append(known[h], one)
			}
		}
		out, _ := Resolve([]*lb.Profile{p}, func(h lb.Host) []Record { return known[h] })
		for _, s := range lb.Services(out) {
			families := map[lb.Family]bool{}
			for _, b := range s.Backends {
				made++
				families[lb.FamilyOf(b.Address.Addr)] = true
			}
			s.Listen = slices.DeleteFunc(slices.Clone(s.Listen), func(l lb.Listen) bool {
				return l.Prefix.IsValid() && len(s.Backends) > 0 && !families[lb.FamilyOf(l.Prefix.Addr())]
			})
			s.SNAT.Pool = slices.Clone(s.SNAT.Pool)
			// How many there are of a family and of a priority is up to the DNS.
			if err := s.Validate(); err != nil && !strings.Contains(err.Error(), "the service has no") &&
				!strings.HasPrefix(err.Error(), "min-up") && !strings.HasPrefix(err.Error(), "no backend has priority 1") {
				t.Fatalf("%v\n%s\n%v", err, config.Write(out[0]), known)
			}
		}
	}
	if named < 1000 || made < 1000 {
		t.Errorf("%d names, %d backends: that proves little", named, made)
	}
}

// TestFit: a cycle that is too long is made shorter, and that is said.
func TestFit(t *testing.T) {
	t.Parallel()
	p := parse(t, "listen: 203.0.113.10:80\nbackends: [10.9.9.9:80, {address: 'web.example:80', weight: 999}, {address: 'api.example:80', weight: 1000}]")
	many := func(octet byte, n int) (out []Record) {
		for i := range n {
			out = append(out, Record{Addr: netip.AddrFrom4([4]byte{10, octet, byte(i >> 8), byte(i)})})
		}
		return out
	}
	for _, tt := range []struct {
		each, left int // addresses of each name; backends that are left
		weight     int // of the first address of web.example
		note       string
	}{
		{30, 61, 999, ""},
		{33, 67, 499, "the weights of the IPv4 backends make 65968 slots; they are rounded"},
		{256, 513, 124, "the weights of the IPv4 backends make 511745 slots; they are rounded"},
		{40000, 65535, 1, "the weights of the IPv4 backends make 79960001 slots; they are rounded"},
	} {
		if testing.Short() && tt.each > 1000 {
			continue
		}
		known := map[lb.Host][]Record{{Name: "web.example"}: many(1, tt.each), {Name: "api.example"}: many(2, tt.each)}
		out, notes := Resolve([]*lb.Profile{p}, func(h lb.Host) []Record { return known[h] })
		s := &out[0].Services[0]
		if len(s.Backends) != tt.left || s.Backends[1].Weight != tt.weight || s.Backends[0].Weight != 1 {
			t.Errorf("%d each: %d backends, %+v", tt.each, len(s.Backends), s.Backends[1])
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%d each: %v", tt.each, err)
		}
		if (len(notes) > 0) != (tt.note != "") || len(notes) > 0 && notes[0].Text != tt.note {
			t.Errorf("%d each: %v", tt.each, notes)
		}
	}
}

// TestFitConsistent: weights that need no more slots stay as they are.
func TestFitConsistent(t *testing.T) {
	p := parse(t, "listen: 203.0.113.10:80\nscheduler: consistent\nbackends: [{address: 'web.example:80', weight: 999}, {address: 'api.example:80', weight: 1000}]")
	for _, each := range []int{256, 40000} {
		known := func(h lb.Host) (out []Record) {
			for i := range each {
				out = append(out, Record{Addr: netip.AddrFrom4([4]byte{10, h.Name[0], byte(i >> 8), byte(i)})})
			}
			return out
		}
		out, notes := Resolve([]*lb.Profile{p}, known)
		s := &out[0].Services[0]
		if left := min(2*each, lb.MaxSlots); len(s.Backends) != left || s.Backends[0].Weight != 999 || s.Backends[left-1].Weight != 1000 {
			t.Errorf("%d each: %d backends, %+v", each, len(s.Backends), s.Backends[0])
		}
		if (len(notes) > 0) != (2*each > lb.MaxSlots) {
			t.Errorf("%d each: %v", each, notes)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%d each: %v", each, err)
		}
	}
}

// TestShared: what has no names is not copied.
func TestShared(t *testing.T) {
	plain := parse(t, "listen: 203.0.113.10:80\nbackends: 10.0.0.1:80")
	out, _ := Resolve([]*lb.Profile{plain}, nil)
	if out[0] != plain {
		t.Error("it was copied")
	}
}
