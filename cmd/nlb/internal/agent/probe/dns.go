//go:build linux

package probe

// The kind dns: one question, over the protocol of the service.

import (
	"context"
	"encoding/binary"
	"io"

	"github.com/miekg/dns"
)

// resolve is the kind dns. NOERROR passes, also without a record.
func resolve(ctx context.Context, t Target) Outcome {
	network := "tcp"
	if t.UDP {
		network = "udp"
	}
	name, kind := t.Check.Query, dns.StringToType[t.Check.QueryType]
	if name == "" {
		name = "."
	}
	if kind == dns.TypeNone {
		kind = dns.TypeSOA
	}
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	packed, err := question.Pack()
	if err != nil {
		return unable("dns", "%q is no name", name)
	}
	raw, err := dial(ctx, t, network)
	if err != nil {
		return fault(ctx, "dns", err)
	}
	defer raw.Close()
	if _, err := raw.Write(framed(packed, t.UDP)); err != nil {
		return fault(ctx, "dns", err)
	}
	// What does not belong to the question may be of anybody, and is passed over
	// until the check ends.
	noise := false
	for {
		b, err := message(raw, t.UDP)
		switch {
		case err != nil && noise && ctx.Err() != nil:
			return wrong("dns", "no answer to the question")
		case err != nil:
			return fault(ctx, "dns", err)
		}
		answer := new(dns.Msg)
		if err := answer.Unpack(b); err == nil && answers(answer, question) {
			return judged(answer.Rcode)
		}
		noise = true
	}
}

// framed is a message as the protocol has it: TCP wants its length first (RFC
// 1035, 4.2.2).
func framed(b []byte, udp bool) []byte {
	if udp {
		return b
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// message reads one message, of at most 64 KiB.
func message(r io.Reader, udp bool) ([]byte, error) {
	if udp {
		b := make([]byte, maxDatagram)
		n, err := r.Read(b)
		return b[:n], err
	}
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// answers reports whether a message is the answer to a question.
func answers(answer, question *dns.Msg) bool {
	return answer.Id == question.Id && answer.Response && answer.Opcode == dns.OpcodeQuery &&
		(len(answer.Question) == 0 && answer.Rcode != dns.RcodeSuccess ||
			len(answer.Question) == 1 && answer.Question[0].Qtype == question.Question[0].Qtype &&
				dns.CanonicalName(answer.Question[0].Name) == dns.CanonicalName(question.Question[0].Name))
}

func judged(code int) Outcome {
	word, ok := dns.RcodeToString[code]
	switch {
	case code == dns.RcodeSuccess:
		return passed("dns", "%s", word)
	case ok:
		return wrong("dns", "%s", word)
	}
	return wrong("dns", "code %d", code)
}
