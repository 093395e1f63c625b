package resolve

// Lookups, with real questions to servers on loopback.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"nlb/cmd/nlb/internal/agent/resolve/resolvetest"
	"nlb/lb"
	"nlb/lb/names"
)

// show is what was found, as a test writes it: records, TTL, and what went wrong.
func show(f found) string {
	var out []string
	for _, r := range f.records {
		s := r.Addr.String()
		if r.Port != 0 {
			s += fmt.Sprintf(":%d w%d p%d", r.Port, r.Weight, r.Priority)
		}
		out = append(out, s)
	}
	s := strings.Join(out, ", ")
	if len(f.records) > 0 {
		s += fmt.Sprintf("; %v", f.ttl)
	}
	if f.stale {
		s += "; stale"
	}
	if f.err != nil {
		s += "; " + f.err.Error()
	}
	return strings.TrimPrefix(s, "; ")
}

func host(name string) lb.Host {
	name, srv := strings.CutPrefix(name, "srv:")
	return lb.Host{Name: name, SRV: srv}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	srv := []string{
		"_http._tcp.web.example. 60 IN SRV 2 0 8080 b.example.",
		"_http._tcp.web.example. 50 IN SRV 1 10 80 A.example.",
		"_http._tcp.web.example. 50 IN SRV 1 20 81 a.example.",
		"a.example. 30 IN A 10.0.0.1",
		"a.example. 40 IN AAAA 2001:db8::1",
		"b.example. 7 IN A 10.0.0.2",
		"_gone._tcp.web.example. 60 IN SRV 0 0 0 .",
		"_half._tcp.web.example. 60 IN SRV 0 0 80 a.example.",
		"_half._tcp.web.example. 60 IN SRV 0 0 80 nowhere.example.",
		"_none._tcp.web.example. 60 IN SRV 0 0 80 nowhere.example.",
	}
	loop := []string{"l0.example. 60 IN CNAME l1.example.", "l1.example. 60 IN CNAME l0.example."}
	var chain []string
	for i := range 9 {
		chain = append(chain, fmt.Sprintf("c%d.example. %d IN CNAME c%d.example.", i, 90-i, i+1))
	}
	chain = append(chain, "c9.example. 300 IN A 10.9.9.9")
	for _, tt := range []struct {
		name, conf, hosts string
		answer            resolvetest.Answerer
		host, want        string
	}{
		{
			name: "both families", answer: zone(t, "web.example. 60 IN AAAA 2001:db8::1", "web.example. 90 IN A 10.0.0.2", "web.example. 90 IN A 10.0.0.1"),
			host: "web.example", want: "10.0.0.1, 10.0.0.2, 2001:db8::1; 1m0s",
		},
		{
			name: "the same twice", answer: zone(t, "web.example. 60 IN A 10.0.0.1", "web.example. 90 IN A 10.0.0.1"),
			host: "web.example", want: "10.0.0.1; 1m0s",
		},
		{name: "upper case", answer: zone(t, "web.example. 60 IN A 10.0.0.1"), host: "WEB.example.", want: "10.0.0.1; 1m0s"},
		{name: "no such name", answer: zone(t), host: "web.example", want: errNothing.Error()},
		{name: "no addresses", answer: zone(t, "web.example. 60 IN TXT x"), host: "web.example", want: errNothing.Error()},
		{name: "server fails", answer: resolvetest.Code(dns.RcodeServerFailure), host: "web.example", want: "127.0.0.1: SERVFAIL"},
		{name: "unknown code", answer: resolvetest.Code(14), host: "web.example", want: "127.0.0.1: code 14"},
		{name: "slow", answer: resolvetest.Silent, host: "web.example", want: "127.0.0.1: no answer in time"},
		{name: "garbage", answer: func(w dns.ResponseWriter, m *dns.Msg, _ bool) {
			b, _ := new(dns.Msg).SetReply(m).Pack()
			_, _ = w.Write(append(b[:6], 0, 9, 0, 9, 0, 9, 0xc0, 0x0c, 1, 2, 3))
		}, host: "web.example", want: "127.0.0.1: not an answer: bad question name: dns: too many compression pointers"},
		{name: "of another name", answer: func(w dns.ResponseWriter, m *dns.Msg, _ bool) {
			r := new(dns.Msg).SetReply(m)
			r.Question[0].Name = "evil.example."
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "evil.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{10, 6, 6, 6}}}
			_ = w.WriteMsg(r)
		}, host: "web.example", want: "127.0.0.1: not an answer to this question"},
		{name: "records of another name", answer: func(w dns.ResponseWriter, m *dns.Msg, _ bool) {
			r := new(dns.Msg).SetReply(m)
			r.RecursionAvailable = true
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "evil.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{10, 6, 6, 6}}}
			_ = w.WriteMsg(r)
		}, host: "web.example", want: errNothing.Error()},
		{
			name: "refers", answer: func(w dns.ResponseWriter, m *dns.Msg, _ bool) { _ = w.WriteMsg(new(dns.Msg).SetReply(m)) },
			host: "web.example", want: "127.0.0.1: refers to other servers",
		},
		{name: "by TCP", answer: zone(t, manyA("web.example.", 200)...), host: "web.example", want: manyWant(200) + "; 1m0s"},
		{
			name: "too many", answer: zone(t, manyA("web.example.", 300)...), host: "web.example",
			want: manyWant(256) + "; 1m0s; 300 addresses, only the first 256 are used",
		},
		{name: "truncated by TCP, too", answer: func(w dns.ResponseWriter, m *dns.Msg, _ bool) {
			r := new(dns.Msg).SetReply(m)
			r.Truncated = true
			_ = w.WriteMsg(r)
		}, host: "web.example", want: "127.0.0.1: truncated by TCP, too"},
		{name: "truncated in a record", answer: func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
			if tcp {
				zone(t, "web.example. 60 IN A 10.0.0.1")(w, m, true)
				return
			}
			r := new(dns.Msg).SetReply(m)
			r.Truncated = true
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "web.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{10, 6, 6, 6}}}
			b, _ := r.Pack()
			_, _ = w.Write(b[:len(b)-2])
		}, host: "web.example", want: "10.0.0.1; 1m0s"},
		{name: "CNAME loop", answer: zone(t, loop...), host: "l0.example", want: "127.0.0.1: more than 8 CNAMEs"},
		{name: "eight CNAMEs", answer: zone(t, chain...), host: "c1.example", want: "10.9.9.9; 1m22s"},
		{name: "nine CNAMEs", answer: zone(t, chain...), host: "c0.example", want: "127.0.0.1: more than 8 CNAMEs"},
		{name: "one family fails", answer: func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
			if m.Question[0].Qtype == dns.TypeAAAA {
				resolvetest.Code(dns.RcodeRefused)(w, m, tcp)
				return
			}
			zone(t, "web.example. 60 IN A 10.0.0.1")(w, m, tcp)
		}, host: "web.example", want: "10.0.0.1; 1m0s; 127.0.0.1: REFUSED"},
		{
			name: "SRV", answer: zone(t, srv...), host: "srv:_http._tcp.web.example",
			want: "10.0.0.1:80 w10 p1, 10.0.0.1:81 w20 p1, 2001:db8::1:80 w10 p1, 2001:db8::1:81 w20 p1, 10.0.0.2:8080 w0 p2; 7s",
		},
		{name: "SRV that is no more", answer: zone(t, srv...), host: "srv:_gone._tcp.web.example", want: errNothing.Error()},
		{
			name: "SRV with a target that is nowhere", answer: zone(t, srv...), host: "srv:_half._tcp.web.example",
			want: "10.0.0.1:80 w0 p0, 2001:db8::1:80 w0 p0; 30s; nowhere.example: no such name, or no addresses",
		},
		{
			name: "SRV without addresses", answer: zone(t, srv...), host: "srv:_none._tcp.web.example",
			want: "nowhere.example: no such name, or no addresses",
		},
		{
			name: "SRV with a target in hosts", hosts: "10.5.5.5 b.example\n", answer: zone(t, "_x._tcp.e. 60 IN SRV 0 0 80 b.example."),
			host: "srv:_x._tcp.e", want: "10.5.5.5:80 w0 p0; 1m0s",
		},
		{
			name: "hosts", hosts: "10.5.5.5 Web.Example other # comment\n2001:db8::5 web.example\nx web.example\n", answer: zone(t),
			host: "web.example", want: "10.5.5.5, 2001:db8::5; 5s",
		},
		{
			name: "search list", conf: one + "search a.example b.example\n", answer: zone(t, "web.b.example. 60 IN A 10.0.0.1", "web. 60 IN A 10.0.0.9"),
			host: "web", want: "10.0.0.1; 1m0s",
		},
		{
			name: "complete name", conf: one + "search b.example\n", answer: zone(t, "web.b.example. 60 IN A 10.0.0.1", "web. 60 IN A 10.0.0.9"),
			host: "web.", want: "10.0.0.9; 1m0s",
		},
		{
			name: "ndots", conf: one + "search b.example\noptions ndots:2", answer: zone(t, "web.c.b.example. 60 IN A 10.0.0.1", "web.c. 60 IN A 10.0.0.9"),
			host: "web.c", want: "10.0.0.1; 1m0s",
		},
		{name: "a failure does not go on to another name", conf: one + "search a.example b.example\n", answer: func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
			if m.Question[0].Name == "web.a.example." {
				resolvetest.Code(dns.RcodeServerFailure)(w, m, tcp)
				return
			}
			zone(t, "web.b.example. 60 IN A 10.0.0.1")(w, m, tcp)
		}, host: "web", want: "127.0.0.1: SERVFAIL"},
		{
			name: "search list that makes names too long", conf: one + "search " + strings.Repeat("abcdefgh.", 27) + "\n",
			answer: zone(t, "web-of-too-many. 60 IN A 10.0.0.1"), host: "web-of-too-many", want: "10.0.0.1; 1m0s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, tt.answer)
			if tt.conf == "" {
				tt.conf = one
			}
			c := newClient(options(t, s.Port(), tt.conf, tt.hosts))
			if got := show(c.look(t.Context(), host(tt.host), nil)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func manyWant(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("10.0.%d.%d", i/256, i%256))
	}
	return strings.Join(out, ", ")
}

// TestExtra: addresses that come with SRV records are used for their targets, and
// only for these; what is missing is asked for.
func TestExtra(t *testing.T) {
	rr := func(s string) dns.RR {
		r, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	rest := zone(t, "a.example. 60 IN A 10.0.0.66", "a.example. 60 IN AAAA 2001:db8::1", "b.example. 60 IN A 10.0.0.2")
	s := serve(t, func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
		if m.Question[0].Qtype != dns.TypeSRV {
			rest(w, m, tcp)
			return
		}
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{rr("_x._tcp.e. 60 IN SRV 1 0 80 a.example."), rr("_x._tcp.e. 60 IN SRV 2 0 80 b.example.")}
		r.Extra = []dns.RR{rr("a.example. 60 IN A 10.0.0.1"), rr("other.example. 5 IN A 10.6.6.6")}
		_ = w.WriteMsg(r)
	})
	c := newClient(options(t, s.Port(), one, ""))
	f := c.look(t.Context(), host("srv:_x._tcp.e"), nil)
	if got, want := show(f), "10.0.0.1:80 w0 p1, 2001:db8::1:80 w0 p1, 10.0.0.2:80 w0 p2; 1m0s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if n := s.Asked(); n != 4 {
		t.Errorf("%d questions, want 4: SRV, AAAA of a, A and AAAA of b", n)
	}
	// When SRV fails, the addresses are asked for, since what came with it is old.
	s.Set(func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
		if m.Question[0].Qtype == dns.TypeSRV {
			resolvetest.Code(dns.RcodeServerFailure)(w, m, tcp)
			return
		}
		rest(w, m, tcp)
	})
	f = c.look(t.Context(), host("srv:_x._tcp.e"), f.known)
	if got, want := show(f), "10.0.0.66:80 w0 p1, 2001:db8::1:80 w0 p1, 10.0.0.2:80 w0 p2; 1m0s; stale; 127.0.0.1: SERVFAIL"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestMemory: a question that fails changes nothing of what another one finds.
func TestMemory(t *testing.T) {
	s := serve(t, zone(t, "web.example. 60 IN A 10.0.0.1", "web.example. 60 IN AAAA 2001:db8::1"))
	c := newClient(options(t, s.Port(), one, ""))
	f := c.look(t.Context(), host("web.example"), nil)
	newer := zone(t, "web.example. 60 IN A 10.0.0.2")
	s.Set(func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
		if m.Question[0].Qtype == dns.TypeAAAA {
			resolvetest.Code(dns.RcodeServerFailure)(w, m, tcp)
			return
		}
		newer(w, m, tcp)
	})
	for range 2 { // what is remembered stays so
		f = c.look(t.Context(), host("web.example"), f.known)
		if got, want := show(f), "10.0.0.2, 2001:db8::1; 1m0s; stale; 127.0.0.1: SERVFAIL"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	s.Set(newer) // AAAA says that there is none: that is an answer
	f = c.look(t.Context(), host("web.example"), f.known)
	if got, want := show(f), "10.0.0.2; 1m0s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestServers: each is asked in turn, and again.
func TestServers(t *testing.T) {
	t.Parallel()
	s := serve(t, zone(t, "web.example. 60 IN A 10.0.0.1"))
	conf := "nameserver 127.0.0.2\nnameserver bad\nnameserver 127.0.0.1\noptions timeout:1 attempts:2\n"
	c := newClient(options(t, s.Port(), conf, ""))
	if got, want := show(c.look(t.Context(), host("web.example"), nil)), "10.0.0.1; 1m0s"; got != want {
		t.Errorf("the first one refuses: got %s, want %s", got, want)
	}
	var lost atomic.Bool
	c = newClient(options(t, s.Port(), "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n", ""))
	s.Set(func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
		if m.Question[0].Qtype == dns.TypeA && !lost.Swap(true) {
			return
		}
		zone(t, "web.example. 60 IN A 10.0.0.1")(w, m, tcp)
	})
	if got, want := show(c.look(t.Context(), host("web.example"), nil)), "10.0.0.1; 1m0s"; got != want {
		t.Errorf("a question is lost: got %s, want %s", got, want)
	}
	c = newClient(options(t, unusedPort(t), one, ""))
	if got, want := show(c.look(t.Context(), host("web.example"), nil)), "127.0.0.1: connection refused"; got != want {
		t.Errorf("none is there: got %s, want %s", got, want)
	}
}

// TestFiles: what resolv.conf and hosts say counts as soon as it is written.
func TestFiles(t *testing.T) {
	s := serve(t, zone(t, "web.a.example. 60 IN A 10.0.0.1", "web.b.example. 60 IN A 10.0.0.2"))
	o := options(t, s.Port(), one+"search a.example\n", "")
	c := newClient(o)
	ask := func(want string) {
		t.Helper()
		if got := show(c.look(t.Context(), host("web"), nil)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	ask("10.0.0.1; 1m0s")
	write(t, o.Conf, one+"search b.example\n")
	ask("10.0.0.2; 1m0s")
	write(t, o.Hosts, "10.0.0.3 web\n")
	ask("10.0.0.3; 5s")
	write(t, o.Hosts, "10.0.0.4 web\n")
	ask("10.0.0.4; 5s")
	// Two changes may have the same time.
	now := time.Now()
	for _, last := range []string{"5", "6"} {
		write(t, o.Hosts, "10.0.0."+last+" web\n")
		if err := os.Chtimes(o.Hosts, now, now); err != nil {
			t.Fatal(err)
		}
		ask("10.0.0." + last + "; 5s")
	}
	// A file that has been as it is for a while is not read each time.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(o.Hosts, old, old); err != nil {
		t.Fatal(err)
	}
	reads := 0
	c.hosts.parse = func(r io.Reader) map[string][]netip.Addr {
		reads++
		return parseHosts(r)
	}
	ask("10.0.0.6; 5s")
	ask("10.0.0.6; 5s")
	if reads != 1 {
		t.Errorf("it was read %d times, want 1", reads)
	}
	if err := os.Remove(o.Hosts); err != nil {
		t.Fatal(err)
	}
	ask("10.0.0.2; 1m0s")
}

// TestCancel: an end does not wait for servers that are silent.
func TestCancel(t *testing.T) {
	asked := make(chan struct{}, 8)
	s := serve(t, func(dns.ResponseWriter, *dns.Msg, bool) { asked <- struct{}{} })
	c := newClient(options(t, s.Port(), "nameserver 127.0.0.1\noptions timeout:30\n", ""))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	began := time.Now()
	c.look(ctx, host("web.example"), nil)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestOnce: answers are in the order of the names, with what is wrong.
func TestOnce(t *testing.T) {
	s := serve(t, zone(t, "web.example. 60 IN A 10.0.0.1"))
	answers := Once(t.Context(), options(t, s.Port(), one, ""), []lb.Host{host("gone.example"), host("web.example")})
	want := []Answer{
		{Host: host("gone.example"), Err: errNothing},
		{Host: host("web.example"), Records: answers[1].Records},
	}
	if d := cmp.Diff(want, answers, cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) }), cmp.Comparer(func(a, b names.Record) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if len(answers[1].Records) != 1 {
		t.Errorf("web.example has %v", answers[1].Records)
	}
}
