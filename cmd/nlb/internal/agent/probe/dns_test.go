//go:build linux

package probe

import (
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// nameServer answers by the name that it is asked for, over UDP and TCP.
func nameServer(t *testing.T, host string) (udp, tcp string) {
	t.Helper()
	answer := func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "bad.example.":
			a.Rcode = dns.RcodeServerFailure
		case "gone.example.":
			a.Rcode = dns.RcodeNameError
		case "odd.example.":
			a.Rcode = 13
		case "short.example.": // only the header, as of servers that did not read on
			a.Rcode, a.Question = dns.RcodeFormatError, nil
		case "forged.example.":
			forged := a.Copy()
			forged.Id++
			_ = w.WriteMsg(forged)
			forged.Id = q.Id
			forged.Question[0].Name = "other.example."
			_ = w.WriteMsg(forged)
			_, _ = w.Write([]byte("garbage"))
			a.Rcode = dns.RcodeRefused
		case "echo.example.":
			a.Response = false
		}
		if q.Question[0].Qtype == dns.TypeAAAA {
			a.Rcode = dns.RcodeNotImplemented
		}
		_ = w.WriteMsg(a)
	}
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	netlabtest.Must(t, err)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	netlabtest.Must(t, err)
	for _, s := range []*dns.Server{{PacketConn: c, Handler: dns.HandlerFunc(answer)}, {Listener: l, Handler: dns.HandlerFunc(answer)}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return c.LocalAddr().String(), l.Addr().String()
}

func TestDNS(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, host string) {
		udp, tcp := nameServer(t, host)
		for _, tt := range []struct {
			query, kind string
			want        Outcome
		}{
			{".", "SOA", Outcome{OK: true, Reason: "dns: NOERROR"}},
			{"", "", Outcome{OK: true, Reason: "dns: NOERROR"}},
			{"WWW.Example", "A", Outcome{OK: true, Reason: "dns: NOERROR"}},
			{"www.example", "AAAA", Outcome{Reason: "dns: NOTIMP"}},
			{"bad.example", "A", Outcome{Reason: "dns: SERVFAIL"}},
			{"gone.example", "A", Outcome{Reason: "dns: NXDOMAIN"}},
			{"odd.example", "A", Outcome{Reason: "dns: code 13"}},
			{"short.example", "A", Outcome{Reason: "dns: FORMERR"}},
			{"forged.example", "A", Outcome{Reason: "dns: REFUSED"}},
			{"a..example", "A", Outcome{Ours: true, Reason: "dns: ?a..example? is no name"}},
		} {
			for network, at := range map[string]string{"udp": udp, "tcp": tcp} {
				c := lb.Check{Kind: lb.CheckDNS, Query: tt.query, QueryType: tt.kind}
				o := carryTarget(t, Target{Check: &c, At: netip.MustParseAddrPort(at), UDP: network == "udp"}, generous)
				t.Log(network, tt.query)
				wantOutcome(t, o, tt.want)
			}
		}
		c := lb.Check{Kind: lb.CheckDNS, Query: "echo.example"}
		o := carryTarget(t, Target{Check: &c, At: netip.MustParseAddrPort(udp), UDP: true}, short)
		wantOutcome(t, o, Outcome{Reason: "dns: no answer to the question"})
		o = carryTarget(t, Target{Check: &c, At: closed(t, host), UDP: true}, generous)
		wantOutcome(t, o, Outcome{Refused: true, Reason: "dns: refused"})
	})
}
