package resolve

// Replies: what an answer, which may be anybody's, says of a question.

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// mostCNAMEs is how many names may lead on to another one.
const mostCNAMEs = 8

// errNothing is what there is to say of a name without records.
var errNothing = errors.New("no such name, or no addresses")

// reply is what was asked for: addresses, or targets.
type reply struct {
	addrs   []netip.Addr
	targets []target // the most wanted first
	// extra is what an answer about targets says beside that; only what it says of
	// them may be used.
	extra map[question]reply
	ttl   time.Duration
}

// target is an SRV record, with a complete name in lower case.
type target struct {
	name                   string
	port, weight, priority uint16
}

// read reads an answer to a question. errNothing says that there are no such
// records; after any other error another server may do better.
func read(q question, m *dns.Msg) (reply, error) {
	switch {
	case !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || !q.is(m.Question[0]):
		return reply{}, errors.New("not an answer to this question")
	case m.Truncated:
		return reply{}, errors.New("truncated by TCP, too")
	case m.Rcode == dns.RcodeNameError:
		return reply{}, errNothing
	case m.Rcode != dns.RcodeSuccess:
		return reply{}, errors.New(cmp.Or(dns.RcodeToString[m.Rcode], fmt.Sprintf("code %d", m.Rcode)))
	case len(m.Answer) == 0 && !m.Authoritative && !m.RecursionAvailable:
		return reply{}, errors.New("refers to other servers")
	}
	owner, ttl, err := follow(q.name, m.Answer)
	if err != nil {
		return reply{}, err
	}
	r := index(m.Answer)[question{owner, q.kind}]
	if len(r.addrs) == 0 && len(r.targets) == 0 {
		return reply{}, errNothing
	}
	r.ttl = min(r.ttl, ttl)
	if len(r.targets) > 0 {
		slices.SortFunc(r.targets, func(a, b target) int { // the most wanted first
			return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.weight, a.weight), strings.Compare(a.name, b.name), cmp.Compare(a.port, b.port))
		})
		r.targets = slices.Compact(r.targets)
		r.extra = index(m.Extra)
	}
	return r, nil
}

// is reports whether a question of a message is this one.
func (q question) is(other dns.Question) bool {
	return other.Qclass == dns.ClassINET && other.Qtype == q.kind && dns.CanonicalName(other.Name) == q.name
}

// follow is the name that a name stands for by CNAMEs, and for how long.
func follow(name string, rrs []dns.RR) (string, time.Duration, error) {
	leads := map[string]*dns.CNAME{}
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET {
			leads[dns.CanonicalName(c.Hdr.Name)] = c
		}
	}
	ttl := longestTTL
	for range mostCNAMEs + 1 {
		c := leads[name]
		if c == nil {
			return name, ttl, nil
		}
		name, ttl = dns.CanonicalName(c.Target), min(ttl, seconds(c.Hdr.Ttl))
	}
	return "", 0, fmt.Errorf("more than %d CNAMEs", mostCNAMEs)
}

// index sorts records by what they are about.
func index(rrs []dns.RR) map[question]reply {
	out := map[question]reply{}
	for _, rr := range rrs {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			continue
		}
		about := question{dns.CanonicalName(h.Name), h.Rrtype}
		r, ok := out[about]
		if !ok {
			r.ttl = longestTTL
		}
		switch rr := rr.(type) {
		case *dns.A:
			r.add(rr.A.To4())
		case *dns.AAAA:
			r.add(rr.AAAA)
		case *dns.SRV:
			// The target "." says that there is no such service (RFC 2782).
			if rr.Target != "." && rr.Port != 0 {
				r.targets = append(r.targets, target{dns.CanonicalName(rr.Target), rr.Port, rr.Weight, rr.Priority})
			}
		default:
			continue
		}
		r.ttl = min(r.ttl, seconds(h.Ttl))
		out[about] = r
	}
	return out
}

// add adds an address, if it is one: a record may be empty.
func (r *reply) add(ip net.IP) {
	if a, ok := netip.AddrFromSlice(ip); ok {
		r.addrs = append(r.addrs, a)
	}
}

func seconds(ttl uint32) time.Duration { return time.Duration(ttl) * time.Second }
