//go:build linux

package probe

// The kind dns: one question, over the protocol of the service.

import (
	"cmp"
	"context"
	"fmt"

	"github.com/miekg/dns"
)

// resolve is the kind dns. NOERROR passes, also without a record.
func resolve(ctx context.Context, t Target) Outcome {
	network, room := "tcp", dns.MaxMsgSize
	if t.UDP {
		network, room = "udp", maxDatagram
	}
	name, kind := cmp.Or(t.Check.Query, "."), cmp.Or(dns.StringToType[t.Check.QueryType], dns.TypeSOA)
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	packed, err := question.Pack()
	if err != nil {
		return unable("dns", "%q is no name", name)
	}
	raw, err := dial(ctx, t, network)
	if err != nil {
		return fault(ctx, "dns", err)
	}
	c := &dns.Conn{Conn: raw}
	defer c.Close()
	if _, err := c.Write(packed); err != nil {
		return fault(ctx, "dns", err)
	}
	// What does not belong to the question may be of anybody, and is passed over
	// until the check ends.
	b, noise := make([]byte, room), false
	for {
		n, err := c.Read(b)
		switch {
		case err != nil && noise && ctx.Err() != nil:
			return wrong("dns", "no answer to the question")
		case err != nil:
			return fault(ctx, "dns", err)
		}
		answer := new(dns.Msg)
		if err := answer.Unpack(b[:n]); err == nil && answers(answer, question) {
			return judged(answer.Rcode)
		}
		noise = true
	}
}

// answers reports whether a message is the answer to a question.
func answers(answer, question *dns.Msg) bool {
	return answer.Id == question.Id && answer.Response && answer.Opcode == dns.OpcodeQuery &&
		(len(answer.Question) == 0 && answer.Rcode != dns.RcodeSuccess ||
			len(answer.Question) == 1 && answer.Question[0].Qtype == question.Question[0].Qtype &&
				dns.CanonicalName(answer.Question[0].Name) == dns.CanonicalName(question.Question[0].Name))
}

func judged(code int) Outcome {
	word := cmp.Or(dns.RcodeToString[code], fmt.Sprintf("code %d", code))
	if code == dns.RcodeSuccess {
		return passed("dns", "%s", word)
	}
	return wrong("dns", "%s", word)
}
