package resolve

// What anybody may send or write.

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzRead: an answer of any bytes is read without a panic, and says nothing but
// what was asked.
func FuzzRead(f *testing.F) {
	for _, lines := range [][]string{
		{"web.example. 60 IN A 10.0.0.1", "web.example. 60 IN AAAA ::ffff:10.0.0.1"},
		{"web.example. 60 IN CNAME www.example.", "www.example. 4294967295 IN AAAA 2001:db8::1"},
		{"web.example. 60 IN SRV 1 2 3 a.example.", "a.example. 60 IN A 10.0.0.1", "web.example. 60 IN SRV 0 0 0 ."},
		{"web.example. 60 CH A \\# 0"},
	} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			m := new(dns.Msg).SetQuestion("web.example.", kind)
			m.Response, m.RecursionAvailable = true, true
			for i, l := range lines {
				rr, err := dns.NewRR(l)
				if err != nil || rr == nil {
					continue
				}
				if i == 1 {
					m.Extra = append(m.Extra, rr)
				}
				m.Answer = append(m.Answer, rr)
			}
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(kind, b)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint16, b []byte) {
		m := new(dns.Msg)
		if len(b) < 12 || m.Unpack(b) != nil {
			return
		}
		q := question{"web.example.", kind}
		r, err := read(q, m)
		switch {
		case err != nil:
			if len(r.addrs)+len(r.targets) > 0 {
				t.Errorf("%v, and yet %+v", err, r)
			}
			return
		case len(r.addrs) == 0 && len(r.targets) == 0:
			t.Error("no error, and nothing in it")
		case kind != dns.TypeSRV && len(r.targets) > 0, kind == dns.TypeSRV && len(r.addrs) > 0:
			t.Errorf("that was not asked: %+v", r)
		case r.ttl < 0 || r.ttl > longestTTL:
			t.Errorf("ttl %v", r.ttl)
		}
		for _, a := range r.addrs {
			if a.Is4() != (kind == dns.TypeA) {
				t.Errorf("type %d has %v", kind, a)
			}
		}
		for _, x := range r.targets {
			if x.port == 0 || x.name == "." || x.name != dns.CanonicalName(x.name) {
				t.Errorf("%+v", x)
			}
		}
	})
}

// FuzzFiles: resolv.conf and hosts of any bytes come to something within bounds.
func FuzzFiles(f *testing.F) {
	f.Add("nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a b\noptions ndots:99999999999 timeout:-1 attempts:x\n", "web")
	f.Add("10.0.0.1 web.example # x\n::1 WEB.example localhost\nx y\n", "web.example.")
	f.Add("10.0.0.1 web\\ x\\.y\n", "web")
	f.Add("options timeout:99 attempts:99\nsearch"+strings.Repeat(" x", 99), "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		c := parseConf(strings.NewReader(text))
		if n := len(c.Servers); n < 1 || n > mostServers || c.Timeout < 1 || c.Timeout > longestTry || c.Attempts < 1 || c.Attempts > mostAttempts {
			t.Errorf("%+v", c)
		}
		for _, s := range c.Servers {
			if _, err := netip.ParseAddr(s); err != nil {
				t.Error(err)
			}
		}
		tried := 0
		_, err := search(c, name, func(full string) ([]int, error) {
			tried++
			if full != dns.CanonicalName(full) {
				t.Errorf("%q is not complete", full)
			}
			return nil, errNothing
		})
		if !errors.Is(err, errNothing) || tried > mostSearch+1 {
			t.Errorf("%d names were tried: %v", tried, err)
		}
		for name, addrs := range parseHosts(strings.NewReader(text)) {
			if len(addrs) == 0 || name != dns.CanonicalName(name) {
				t.Errorf("%q: %v", name, addrs)
			}
		}
	})
}
