//go:build linux

package traffic_test

// Servers that answer checks, asked by clients of the standard library.

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

// question asks for the SOA of the root.
var question = []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1}

// say says something to a server and returns what it says.
func say(t *testing.T, network string, at netip.AddrPort, what []byte, n int) []byte {
	t.Helper()
	c, err := net.Dial(network, at.String())
	netlabtest.Must(t, err)
	defer c.Close()
	netlabtest.Must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = c.Write(what)
	netlabtest.Must(t, err)
	b := make([]byte, n)
	_, err = io.ReadFull(c, b)
	netlabtest.Must(t, err)
	return b
}

// serveChecks is a server on loopback, at a port of TCP and one of UDP.
func serveChecks(t *testing.T) (s *traffic.Server, stream, datagram netip.AddrPort) {
	t.Helper()
	free := func(network string) netip.AddrPort {
		if network == "udp" {
			c, err := net.ListenPacket(network, "127.0.0.1:0")
			netlabtest.Must(t, err)
			defer c.Close()
			return netip.MustParseAddrPort(c.LocalAddr().String())
		}
		l, err := net.Listen(network, "127.0.0.1:0")
		netlabtest.Must(t, err)
		defer l.Close()
		return netip.MustParseAddrPort(l.Addr().String())
	}
	stream, datagram = free("tcp"), free("udp")
	speaks := free("tcp")
	a := &traffic.Answers{Pages: map[string]traffic.Page{"/": {Status: 201, Body: "well"}}, Talk: map[string]string{"PING\r\n": "PONG"}, Speaks: map[uint16]string{speaks.Port(): "up\n"}}
	s, err := traffic.ServeChecks(nil, "web", a, traffic.Port{Network: "tcp", At: stream}, traffic.Port{Network: "udp", At: datagram}, traffic.Port{Network: "tcp", At: speaks})
	netlabtest.Must(t, err)
	t.Cleanup(func() { s.Close() })
	if got := say(t, "tcp", speaks, nil, 3); string(got) != "up\n" {
		t.Errorf("got %q", got)
	}
	return s, stream, datagram
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	_, stream, datagram := serveChecks(t)
	for _, network := range []string{"tcp", "udp"} {
		to := map[string]netip.AddrPort{"tcp": stream, "udp": datagram}[network]
		reply, err := traffic.Client{Hello: true}.Exchange(t.Context(), network, to)
		netlabtest.Must(t, err)
		if reply.Backend != "web" || reply.Local != to {
			t.Errorf("a client over %s: got %+v", network, reply)
		}
		if got := say(t, network, to, []byte("PING\r\n"), 4); string(got) != "PONG" {
			t.Errorf("talk over %s: got %q", network, got)
		}
	}
	conn, err := traffic.Client{Hello: true}.Dial(t.Context(), "tcp", stream)
	netlabtest.Must(t, err)
	defer conn.Close()
	_, err = conn.Again()
	netlabtest.Must(t, err)

	answer := bytes.Clone(question)
	answer[2] |= 0x80
	if got := say(t, "udp", datagram, question, len(answer)); !bytes.Equal(got, answer) {
		t.Errorf("DNS over UDP: got % x", got)
	}
	length := []byte{0, byte(len(question))}
	if got := say(t, "tcp", stream, append(length, question...), 2+len(answer)); !bytes.Equal(got[2:], answer) {
		t.Errorf("DNS over TCP: got % x", got)
	}
}

func TestAnswersHTTP(t *testing.T) {
	t.Parallel()
	_, stream, _ := serveChecks(t)
	for _, tt := range []struct {
		scheme string
		allow  func(*http.Protocols)
		major  int
	}{
		{"http", func(p *http.Protocols) { p.SetHTTP1(true) }, 1},
		{"http", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, 2},
		{"https", func(p *http.Protocols) { p.SetHTTP1(true) }, 1},
		{"https", func(p *http.Protocols) { p.SetHTTP2(true) }, 2},
	} {
		way := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		tt.allow(way.Protocols)
		client := &http.Client{Transport: way, Timeout: 10 * time.Second}
		for _, kind := range []string{"text/plain", "application/grpc"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tt.scheme+"://"+stream.String()+"/", http.NoBody)
			netlabtest.Must(t, err)
			request.Header.Set("Content-Type", kind)
			answer, err := client.Do(request)
			netlabtest.Must(t, err)
			body, err := io.ReadAll(answer.Body)
			netlabtest.Must(t, err, answer.Body.Close())
			ok := answer.StatusCode == 201 && string(body) == "well"
			if kind == "application/grpc" {
				ok = string(body) == "\x00\x00\x00\x00\x02\x08\x01" && answer.Trailer.Get("Grpc-Status") == "0"
			}
			if !ok || answer.ProtoMajor != tt.major {
				t.Errorf("%s by HTTP/%d, %s: got %s, %s, %q", tt.scheme, tt.major, kind, answer.Proto, answer.Status, body)
			}
		}
		way.CloseIdleConnections()
	}
}

// TestSlow: nobody is answered before its time, and a server that is slow ends at
// once.
func TestSlow(t *testing.T) {
	t.Parallel()
	s, stream, datagram := serveChecks(t)
	const by = 50 * time.Millisecond
	s.Slow(by)
	for network, to := range map[string]netip.AddrPort{"tcp": stream, "udp": datagram} {
		began := time.Now()
		_, err := traffic.Client{Hello: true}.Exchange(t.Context(), network, to)
		netlabtest.Must(t, err)
		if took := time.Since(began); took < by {
			t.Errorf("%s: answered after %v", network, took)
		}
	}
	s.Slow(time.Hour)
	asked := make(chan error)
	go func() {
		_, err := traffic.Client{Hello: true, Timeout: time.Hour}.Exchange(t.Context(), "tcp", stream)
		asked <- err
	}()
	time.Sleep(by) // it is under way, or it comes too late: either is an error
	netlabtest.Must(t, s.Close())
	if err := <-asked; err == nil {
		t.Error("a server that ends answered")
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	s, stream, _ := serveChecks(t)
	for _, works := range []bool{true, false} {
		if !works {
			netlabtest.Must(t, s.Close())
		}
		made := make(chan bool, 1000)
		flow := traffic.StartStream(t.Context(), time.Millisecond, func(int) traffic.Call {
			made <- true
			return traffic.Call{Client: traffic.Client{Hello: true}, Network: "tcp", To: stream}
		})
		for range 5 {
			<-made
		}
		flights := flow.Stop()
		if len(flights) < 5 {
			t.Errorf("only %d connections", len(flights))
		}
		for _, f := range flights {
			if (f.Err == nil) != works {
				t.Errorf("the server works: %v, and a connection: %v", works, f.Err)
			}
		}
	}

	// Ctx ends those that wait.
	ctx, end := context.WithCancel(t.Context())
	s, stream, _ = serveChecks(t)
	s.Slow(time.Hour)
	made := make(chan bool, 1000)
	flow := traffic.StartStream(ctx, time.Millisecond, func(int) traffic.Call {
		made <- true
		return traffic.Call{Client: traffic.Client{Hello: true, Timeout: time.Hour}, Network: "tcp", To: stream}
	})
	<-made
	end()
	for _, f := range flow.Stop() {
		if f.Err == nil {
			t.Error("a connection was answered that was ended")
		}
	}
}
