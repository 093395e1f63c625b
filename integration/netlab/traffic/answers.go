//go:build linux

package traffic

// Answers to health checks, of servers that tell by the first bytes who asks.

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"nlb/integration/netlab"
)

// hello is what a client says that speaks first.
const hello = "hello\n"

// Answers is what a server says to checks. To a client that speaks first it gives
// its usual line, to TLS a throw-away certificate, to a question of the DNS
// NOERROR, to grpc.health.v1 SERVING.
type Answers struct {
	// Pages are those of HTTP by their paths. Others are not found.
	Pages map[string]Page
	// Talk has answers by what is sent, over TCP or UDP. Empty ones are a line.
	Talk map[string]string
	// Speaks has what is said at once, and all that is said, at TCP ports.
	Speaks map[uint16]string
}

// Page is what an HTTP server says of a path.
type Page struct {
	Status int
	Body   string
}

// ServeChecks is Serve with a server that answers checks. Its TCP and SCTP clients
// must speak first.
func ServeChecks(h *netlab.Host, id string, a *Answers, ports ...Port) (*Server, error) {
	s := &Server{name: id, live: make(map[net.Conn]bool), answers: a, ended: make(chan struct{}), passed: make(chan net.Conn)}
	s.web = &http.Server{Handler: a, Protocols: new(http.Protocols)}
	s.web.Protocols.SetHTTP1(true)
	s.web.Protocols.SetHTTP2(true)
	s.web.Protocols.SetUnencryptedHTTP2(true)
	s.web.ErrorLog = log.New(io.Discard, "", 0) // what checks leave open is no news
	s.wait.Go(func() { _ = s.web.Serve(passedOn{s}) })
	return s.start(h, ports)
}

// Slow has all answers wait for a time from now on; 0: no more.
func (s *Server) Slow(by time.Duration) { s.slow.Store(int64(by)) }

// linger waits as long as answers do; false: the server ends.
func (s *Server) linger() bool {
	by := time.Duration(s.slow.Load())
	if by == 0 {
		return true
	}
	select {
	case <-time.After(by):
		return true
	case <-s.ended:
		return false
	}
}

// converse serves a connection whose other end speaks first.
func (s *Server) converse(c net.Conn) {
	at := addrPort(c.LocalAddr())
	if text, ok := s.answers.Speaks[at.Port()]; ok {
		if s.linger() {
			_, _ = io.WriteString(c, text)
		}
		return
	}
	r := bufio.NewReaderSize(c, 4<<10)
	if _, err := r.Peek(1); err != nil {
		return
	}
	first, _ := r.Peek(r.Buffered())
	if !s.linger() {
		return
	}
	if answer, ok := s.answers.talk(first); ok {
		_, _ = io.WriteString(c, answer)
		_, _ = io.CopyN(io.Discard, r, 64<<10)
		return
	}
	switch {
	case string(first) == hello:
		_, _ = r.Discard(len(hello))
		s.greet(c)
	case first[0] == 0: // the length of a question
		s.resolve(c, r)
	default:
		s.pass(buffered{c, r}, first[0] == 0x16) // a handshake of TLS
	}
}

// talk is the answer to what was sent.
func (a *Answers) talk(sent []byte) (string, bool) {
	for send, answer := range a.Talk {
		if strings.HasPrefix(string(sent), send) {
			if answer == "" {
				answer = "yes\n"
			}
			return answer, true
		}
	}
	return "", false
}

// resolve answers a question that came by TCP (RFC 1035, 4.2.2).
func (s *Server) resolve(c net.Conn, r io.Reader) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return
	}
	question := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(r, question); err != nil || !noError(question) {
		return
	}
	_, _ = c.Write(append(length[:], question...))
}

// noError makes the answer NOERROR, without a record, of a question (RFC 1035,
// 4.1.1).
func noError(b []byte) bool {
	if len(b) < 12 {
		return false
	}
	b[2] |= 0x80 // it is an answer
	b[3] &= 0xf0
	return true
}

// datagram is the answer to one; nil: there is none.
func (s *Server) datagram(b []byte, from, at netip.AddrPort) []byte {
	if answer, ok := s.answers.talk(b); ok {
		return []byte(answer)
	}
	if bytes.HasPrefix(b, []byte("hello")) || bytes.HasPrefix(b, []byte("again")) {
		return append(s.line(nil, from, at), b...)
	}
	if b = bytes.Clone(b); noError(b) {
		return b
	}
	return nil
}

// ServeHTTP answers with a page, and gRPC with SERVING.
func (a *Answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 0x08, 1}) // uncompressed, two bytes: field 1 is 1
		w.Header().Set("Grpc-Status", "0")
		return
	}
	page, ok := a.Pages[r.URL.RequestURI()]
	if !ok {
		page.Status = http.StatusNotFound
	}
	w.WriteHeader(page.Status)
	_, _ = io.WriteString(w, page.Body)
}

// buffered is a connection of which something was read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// pass has the HTTP server serve a connection, and waits for its end.
func (s *Server) pass(c net.Conn, secure bool) {
	p := passedConn{c, make(chan struct{}), new(sync.Once)}
	var conn net.Conn = p
	if secure {
		config, err := certificate()
		if err != nil {
			return
		}
		conn = tls.Server(p, config)
	}
	select {
	case s.passed <- conn:
		<-p.closed
	case <-s.ended:
	}
}

// passedConn says when it is closed.
type passedConn struct {
	net.Conn
	closed chan struct{}
	once   *sync.Once
}

func (p passedConn) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

// passedOn is the listener of a server's HTTP part.
type passedOn struct{ s *Server }

func (l passedOn) Accept() (net.Conn, error) {
	select {
	case c := <-l.s.passed:
		return c, nil
	case <-l.s.ended:
		return nil, net.ErrClosed
	}
}

func (l passedOn) Close() error   { return nil }
func (l passedOn) Addr() net.Addr { return &net.TCPAddr{} }

// certificate is one for TLS that nobody has signed, made once.
var certificate = sync.OnceValues(func() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stand-in"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}}, nil
})
