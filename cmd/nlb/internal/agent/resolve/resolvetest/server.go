// Package resolvetest has a DNS server that says what a test wants it to.
package resolvetest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Answerer writes the answer to a question, which came by TCP or by UDP; or none.
type Answerer func(w dns.ResponseWriter, m *dns.Msg, tcp bool)

// Server answers questions over UDP and TCP.
type Server struct {
	Memory
	port    uint16
	asked   atomic.Int64
	servers []*dns.Server
	all     sync.WaitGroup
}

// Listen makes a server at an address of the calling thread's network namespace;
// with port 0 at any that is free.
func Listen(address string, answer Answerer) (*Server, error) {
	var errs error
	for range 20 { // until a port is free for both
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return serve(l, p, answer), nil
		}
		errs = errors.Join(errs, err, l.Close())
	}
	return nil, errs
}

func serve(l net.Listener, p net.PacketConn, answer Answerer) *Server {
	s := &Server{port: netip.MustParseAddrPort(l.Addr().String()).Port()}
	s.Set(answer)
	s.servers = []*dns.Server{{Listener: l, Handler: s.handler(true)}, {PacketConn: p, Handler: s.handler(false)}}
	for _, d := range s.servers {
		ready := make(chan struct{})
		d.NotifyStartedFunc = func() { close(ready) }
		s.all.Go(func() { _ = d.ActivateAndServe() })
		<-ready
	}
	return s
}

func (s *Server) handler(tcp bool) dns.HandlerFunc {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		s.asked.Add(1)
		(*s.answer.Load())(w, m, tcp)
	}
}

// Port is where it listens.
func (s *Server) Port() uint16 { return s.port }

// Asked is how many questions there were.
func (s *Server) Asked() int { return int(s.asked.Load()) }

// Close ends it.
func (s *Server) Close() {
	for _, d := range s.servers {
		_ = d.Shutdown()
	}
	s.all.Wait()
}

// Memory is a server without sockets, for a bubble of testing/synctest. It says what a
// test wants it to.
type Memory struct{ answer atomic.Pointer[Answerer] }

// Set gives it other answers.
func (s *Memory) Set(answer Answerer) { s.answer.Store(&answer) }

// Dial reaches it, as resolve.Options have it. It takes whatever the network is for a
// stream, since a pipe is one.
func (s *Memory) Dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		c := &dns.Conn{Conn: there}
		defer c.Close()
		for {
			m, err := c.ReadMsg()
			if err != nil {
				return
			}
			(*s.answer.Load())(memory{c: c}, m, true)
		}
	}()
	return here, nil
}

// memory writes answers, which is all that an Answerer does.
type memory struct {
	dns.ResponseWriter
	c *dns.Conn
}

func (w memory) WriteMsg(m *dns.Msg) error { return w.c.WriteMsg(m) }

// Zone answers with the records, in zone format, that have the name and type of
// the question, and with the CNAMEs that lead to them. A name without records is
// none.
func Zone(lines ...string) (Answerer, error) {
	var rrs []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			return nil, err
		}
		rrs = append(rrs, rr)
	}
	return func(w dns.ResponseWriter, m *dns.Msg, tcp bool) {
		r := new(dns.Msg).SetReply(m)
		r.RecursionAvailable = true
		var known bool
		if r.Answer, known = find(rrs, m.Question[0]); !known {
			r.Rcode = dns.RcodeNameError
		}
		if !tcp {
			size := dns.MinMsgSize
			if o := m.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
			r.Truncate(size)
		}
		_ = w.WriteMsg(r)
	}, nil
}

// find is what records answer to a question, and whether they have its name.
func find(rrs []dns.RR, q dns.Question) (out []dns.RR, known bool) {
	name := q.Name
	for range 20 { // of a loop, enough
		next := ""
		for _, rr := range rrs {
			h := rr.Header()
			if h.Name != name {
				continue
			}
			known = true
			c, isCNAME := rr.(*dns.CNAME)
			if isCNAME {
				next = c.Target
			}
			if isCNAME || h.Rrtype == q.Qtype {
				out = append(out, dns.Copy(rr))
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	return out, known
}

// Code answers with a code alone, such as dns.RcodeServerFailure.
func Code(rcode int) Answerer {
	return func(w dns.ResponseWriter, m *dns.Msg, _ bool) { _ = w.WriteMsg(new(dns.Msg).SetRcode(m, rcode)) }
}

// Silent never answers.
func Silent(dns.ResponseWriter, *dns.Msg, bool) {}
