package lbtest

// Checks, and what goes with them.

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"nlb/lb"
)

// health gives a random service checks, priorities, and the keys beside them; most
// have none.
func health(r *rand.Rand, s *lb.Service) {
	some := func() bool { return r.IntN(3) == 0 }
	s.Retry = some()
	if s.Offload = lb.Offload(r.IntN(4)); !s.Offloadable() {
		s.Offload = min(s.Offload, lb.OffloadAuto)
	}
	if s.Offload != lb.OffloadNone && some() {
		s.Devices = []string{"eth0", "eth1"}[:1+r.IntN(2)]
	}
	if some() {
		timeout := func() time.Duration {
			return time.Duration(1+r.IntN(int(lb.MaxConnectionTimeout/time.Second))) * time.Second
		}
		s.Timeouts = lb.Timeouts{CloseWait: timeout(), HalfOpen: timeout(), UDPIdle: timeout()}
		if some() && s.Offload == lb.OffloadNone {
			s.Timeouts = lb.Timeouts{Established: timeout(), TimeWait: timeout(), UDP: timeout()}
		}
	}
	if s.Role != lb.RoleClient {
		s.Unserved = lb.Unserved(r.IntN(5))
	}
	s.Forward = lb.Forward(r.IntN(2))
	s.RandomPorts = some() && s.SNAT.Mode != lb.SNATNone
	if len(s.Protocols) == 1 && s.Protocols[0] == lb.TCP {
		s.Helper = lb.Helper(r.IntN(3))
	}
	s.SYNProtection = &lb.SYNProtection{MSS: 536 + r.IntN(1000), WindowScale: r.IntN(15)}
	for range s.Contradictions {
		s.SYNProtection = nil
		break
	}
	first := map[lb.Family]int{}
	several := false
	for i := range s.Backends {
		b := &s.Backends[i]
		if i > 0 && r.IntN(4) == 0 {
			b.Priority = 2 + r.IntN(lb.MaxPriority-1)
			several = true
		} else {
			first[lb.FamilyOf(b.Address.Addr)]++
		}
	}
	if several && some() {
		s.MinUp = lb.MinUp{Count: 1 + r.IntN(max(first[lb.IPv4], first[lb.IPv6]))}
		if some() {
			s.MinUp = lb.MinUp{Percent: 1 + r.IntN(100)}
		}
	}
	if r.IntN(2) == 0 {
		return
	}
	for range 1 + r.IntN(lb.MaxChecks) {
		s.Health = append(s.Health, Check(r))
	}
	s.FailOpen = lb.FailOpen(r.IntN(2) * (r.IntN(102) - 1))
	s.OnDown = lb.OnDown(r.IntN(2))
	if some() && !s.Scheduler.Hashes() {
		s.SlowStart = time.Duration(1000+r.IntN(3_599_000)) * time.Millisecond
	}
	for i := range s.Backends {
		if some() {
			s.Backends[i].CheckAt = []lb.CheckAt{
				{None: true},
				{Port: uint16(1 + r.IntN(65535))},
				{Addr: netip.MustParseAddr("2001:db8:c::1")},
				{Addr: netip.MustParseAddr("192.0.2.77"), Port: uint16(1 + r.IntN(65535))},
			}[r.IntN(4)]
		}
	}
}

// Check is a valid check of a random kind. It has a port wherever it can, so that
// it fits every service.
func Check(r *rand.Rand) lb.Check {
	some := func() bool { return r.IntN(3) == 0 }
	text := func() string {
		return []string{"ok", "a b", `\r\n`, "\x00\xff\r\n", `"`, "é", "null", "*", "#x", " y "}[r.IntN(10)]
	}
	c := lb.DefaultCheck(lb.CheckKind(r.IntN(len(lb.Words[lb.CheckKind]()))))
	set := func(word string, into func()) {
		if c.Kind.Takes(word) && some() {
			into()
		}
	}
	if c.Kind.Takes("port") {
		c.Port = uint16(1 + r.IntN(65535))
	}
	if some() {
		c.Interval = time.Duration(100+r.IntN(3_599_901)) * time.Millisecond
		c.Timeout = c.DefaultTimeout()
	}
	if some() {
		c.Timeout = 10*time.Millisecond + time.Duration(r.Int64N(int64((c.Interval-10*time.Millisecond)/time.Millisecond)+1))*time.Millisecond
	}
	if some() {
		c.Rise, c.Fall = 1+r.IntN(100), 1+r.IntN(100)
	}
	set("passive", func() { c.Passive = false })
	set("source", func() { c.Source = netip.MustParseAddr([]string{"192.0.2.1", "2001:db8::1"}[r.IntN(2)]) })
	set("path", func() { c.Path = []string{"/ready", "/a?b=c&d", "/#", "//"}[r.IntN(4)] })
	set("host", func() { c.Host = []string{"example.com", "example.com:8080", "[::1]:80", "null"}[r.IntN(4)] })
	set("status", func() {
		c.Status = [][]lb.StatusRange{{{First: 200, Last: 200}}, {{First: 200, Last: 204}, {First: 401, Last: 401}}}[r.IntN(2)]
	})
	set("body", func() { c.Body = []string{"ok", "a b", `"\`, "é", "null", "x: y", " #"}[r.IntN(7)] })
	set("tls", func() { c.TLS = true })
	if c.Kind != lb.CheckGRPC || c.TLS {
		set("verify", func() { c.Verify = []string{"system", "/etc/ca.pem", "/a b"}[r.IntN(3)] })
	}
	set("send", func() { c.Send = text() })
	if c.Kind == lb.CheckUDP && c.Send == "" {
		c.Send = text()
	}
	set("expect", func() { c.Expect = text() })
	set("query", func() { c.Query = []string{"example.com", "example.com.", "_x.a", "1"}[r.IntN(4)] })
	set("type", func() { c.QueryType = []string{"A", "AAAA", "NS", "TXT"}[r.IntN(4)] })
	set("service", func() { c.Service = []string{"a.b.C", "null", "x"}[r.IntN(3)] })
	if c.Kind == lb.CheckExec {
		c.Command = [][]string{{"/bin/true"}, {"sh", "-c", "exit 1", ""}, {"x", "é", `"`, "~"}}[r.IntN(3)]
	}
	return c
}

// fullChecks have a value in every field of a check between them.
func fullChecks() []lb.Check {
	fast := func(k lb.CheckKind) lb.Check {
		c := lb.DefaultCheck(k)
		c.Interval, c.Timeout, c.Rise, c.Fall = 3*time.Second, 1500*time.Millisecond, 4, 5
		if k.Takes("source") {
			c.Source = netip.MustParseAddr("192.0.2.7")
		}
		if k.Takes("port") {
			c.Port = 8081
		}
		return c
	}
	web, rpc, name, run, plain, udp := fast(lb.CheckHTTPS), fast(lb.CheckGRPC), fast(lb.CheckDNS), fast(lb.CheckExec), fast(lb.CheckTCP), fast(lb.CheckUDP)
	web.Path, web.Host, web.Body, web.Verify = "/ready", "example.com", "ok", "/etc/ca.pem"
	web.Status = []lb.StatusRange{{First: 200, Last: 204}, {First: 401, Last: 402}}
	rpc.Service, rpc.TLS = "a.B", true
	name.Query, name.QueryType = "example.com", "NS"
	run.Command = []string{"/bin/check", "--fast"}
	plain.Send, plain.Expect, plain.Passive = "PING\r\n", "+PONG", false
	udp.Send = "\x00\x01"
	return []lb.Check{web, rpc, name, run, plain, udp, fast(lb.CheckAgent), lb.DefaultCheck(lb.CheckTCP)}
}
