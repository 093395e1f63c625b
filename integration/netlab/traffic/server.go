//go:build linux

// Package traffic is clients and stand-in backends in the hosts of a world,
// which tell each other whom they see.
//
// A server answers a TCP or SCTP connection with one line,
//
//	NAME SOURCE-ADDRESS:PORT LOCAL-ADDRESS:PORT
//
// and then sends back what it gets, until the client closes. It answers a UDP
// datagram with the same line and the datagram's payload after it.
package traffic

// The server.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
)

// Port is where a server listens: a transport protocol, "tcp", "udp" or
// "sctp", at an address and a port.
type Port struct {
	Network string
	At      netip.AddrPort
}

// Server is a stand-in backend. Its methods may be called from several
// goroutines.
type Server struct {
	name      string
	listening sync.WaitGroup // what is open
	wait      sync.WaitGroup // live connections

	mu      sync.Mutex
	stopped bool
	open    []io.Closer // listeners and UDP sockets
	live    map[net.Conn]bool

	// Of one that answers checks; nil: it does not.
	answers *Answers
	slow    atomic.Int64 // what answers wait, in nanoseconds
	web     *http.Server
	passed  chan net.Conn // for web
	ended   chan struct{} // closed when it is
}

// Serve starts a server called id on a host, which must have the addresses; nil:
// where this process is. The server ends with the host's world at the latest.
func Serve(h *netlab.Host, id string, ports ...Port) (*Server, error) {
	return (&Server{name: id, live: make(map[net.Conn]bool), ended: make(chan struct{})}).start(h, ports)
}

// start begins to listen.
func (s *Server) start(h *netlab.Host, ports []Port) (*Server, error) {
	err := do(h, func() error {
		for _, p := range ports {
			err := s.listen(p)
			// A child process of this one has copies of its sockets from fork to exec.
			for try := 0; errors.Is(err, unix.EADDRINUSE) && try < 100; try++ {
				time.Sleep(10 * time.Millisecond)
				err = s.listen(p)
			}
			if err != nil {
				return fmt.Errorf("host %s: serve %s at %s %s: %w", name(h), s.name, p.Network, p.At, classify(err))
			}
		}
		return nil
	})
	if err == nil && h != nil {
		err = h.World().Own(s)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Stop takes no more connections and datagrams: new ones are refused, and its ports are
// free. Live connections go on.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopped = true
	for _, c := range s.open {
		c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.listening.Wait() // a socket is there as long as somebody waits at it
}

// Push speaks on the live TCP connections, unasked.
func (s *Server) Push() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.live {
		_, _ = io.WriteString(c, pushed) // one that has ended meanwhile is none
	}
}

// Abort resets the live connections.
func (s *Server) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.live {
		reset(c)
		c.Close()
	}
}

// Close stops the server, aborts its connections and waits for their end.
func (s *Server) Close() error {
	s.Stop()
	s.Abort()
	s.mu.Lock()
	select {
	case <-s.ended:
	default:
		close(s.ended)
	}
	s.mu.Unlock()
	s.wait.Wait()
	return nil
}

func (s *Server) listen(p Port) error {
	if p.Network == "udp" {
		c, err := net.ListenUDP(p.Network, net.UDPAddrFromAddrPort(p.At))
		if err != nil {
			return err
		}
		s.open = append(s.open, c)
		s.listening.Go(func() { s.answer(c, p.At) })
		return nil
	}
	l, err := listenStream(p)
	if err != nil {
		return err
	}
	s.open = append(s.open, l)
	s.listening.Go(func() { s.accept(l) })
	return nil
}

func listenStream(p Port) (net.Listener, error) {
	if p.Network == "sctp" {
		return listenSCTP(p.At)
	}
	return net.ListenTCP(p.Network, net.TCPAddrFromAddrPort(p.At))
}

// answer serves UDP until its socket is closed. An ICMP error that comes back
// to the socket is not the end.
func (s *Server) answer(c *net.UDPConn, at netip.AddrPort) {
	in, out := make([]byte, 64<<10), []byte(nil)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if s.answers != nil {
			if answer := s.datagram(in[:n], from, at); answer != nil {
				// It may wait, and others are not to wait for it.
				s.wait.Go(func() {
					if s.linger() {
						_, _ = c.WriteToUDPAddrPort(answer, from)
					}
				})
			}
			continue
		}
		out = append(s.line(out[:0], from, at), in[:n]...)
		_, _ = c.WriteToUDPAddrPort(out, from) // a client that has gone does not matter
	}
}

// accept serves connections until its listener is closed.
func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			if s.enlist(c) {
				s.wait.Go(func() { s.serve(c) })
			}
		case errors.Is(err, net.ErrClosed):
			return
		default: // a client that went before it was taken, or no file descriptors
			time.Sleep(time.Millisecond)
		}
	}
}

// enlist takes a connection into the list of the live ones; false: it came too
// late and is reset.
func (s *Server) enlist(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		reset(c)
		c.Close()
		return false
	}
	s.live[c] = true
	return true
}

func (s *Server) serve(c net.Conn) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, c)
		c.Close()
	}()
	if s.answers != nil {
		s.converse(c)
		return
	}
	s.greet(c)
}

// greet says who is there, and sends back what comes.
func (s *Server) greet(c net.Conn) {
	from, at := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	if _, err := c.Write(s.line(nil, from, at)); err != nil {
		return
	}
	// Not io.Copy, which would splice, and so take a pipe for each connection.
	for buf := make([]byte, 512); ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (s *Server) line(b []byte, from, at netip.AddrPort) []byte {
	return fmt.Appendf(b, "%s %s %s\n", s.name, from, at)
}

// addrPort is the address of an end of a connection.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// reset makes the coming Close end a connection with a reset.
func reset(c net.Conn) {
	if c, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0)
	}
}
