//go:build linux

package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/view"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/config"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

var must = netlabtest.Must

// nobody knows nothing.
func nobody(context.Context, string, string) (map[string]*view.Known, error) { return nil, nil }

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		says string // empty: it is fine
	}{
		{Config{}, ""},
		{Config{Hosts: []string{"lb1"}}, "nothing to listen at"},
		{Config{Token: "x"}, "nothing to listen at"},
		{Config{Listen: "127.0.0.1:9469"}, ""},
		{Config{Listen: "[::1]:9469", Token: "x"}, ""},
		{Config{Listen: "[::ffff:127.0.0.1]:9469"}, ""},
		{Config{Listen: ":9469"}, "is nothing to listen at"},
		{Config{Listen: "localhost:9469"}, "is nothing to listen at"},
		{Config{Listen: "127.0.0.1:0"}, "is nothing to listen at"},
		{Config{Listen: "10.0.0.1:9469"}, "without TLS"},
		{Config{Listen: "0.0.0.0:9469", Token: "x"}, "without TLS"},
		{Config{Listen: "[::]:9469", Cert: "c", Key: "k"}, "anybody could look"},
		{Config{Listen: "10.0.0.1:9469", Cert: "c", Token: "x"}, "come together"},
		{Config{Listen: "127.0.0.1:9469", ClientCA: "x"}, "need TLS"},
		{Config{Listen: "10.0.0.1:9469", Cert: "c", Key: "k", Token: "x"}, ""},
		{Config{Listen: "10.0.0.1:9469", Cert: "c", Key: "k", ClientCA: "x"}, ""},
	} {
		err := tt.c.Check()
		if _, ok := errors.AsType[*RefusedError](err); (tt.says == "") != (err == nil) || err != nil && (!ok || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%+v: got %v, want %q", tt.c, err, tt.says)
		}
	}
}

func TestKnows(t *testing.T) {
	c := Config{Hosts: []string{"lb1.example"}}
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:9469": true, "10.1.2.3:80": true, "[::1]:9469": true, "[fe80::1]": true, "::1": true,
		"localhost": true, "LOCALHOST:9469": true, "localhost.": true, "lb1.example": true, "LB1.example:9469": true,
		"": false, ":80": false, "evil.example": false, "evil.example:9469": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false,
		"lb1.example.evil": false, "[evil.example]": false, "127.0.0.1@evil.example": false,
	} {
		if got := c.knows(host); got != want {
			t.Errorf("%q: got %v", host, got)
		}
	}
}

// TestGuard: who is let in, and what nobody can do.
func TestGuard(t *testing.T) {
	const word = "0123456789abcdef"
	s := New(board.New("nlb", nil), nobody)
	s.board.Beat()
	for _, tt := range []struct {
		name, method, path string
		token              string
		change             func(*http.Request)
		code               int
	}{
		{"as it should be", "GET", "/healthz", "", func(*http.Request) {}, 200},
		{"another name", "GET", "/healthz", "", func(r *http.Request) { r.Host = "evil.example" }, 421},
		{"an order", "POST", "/v1/orders", "", func(*http.Request) {}, 405},
		{"a reload from another site", "POST", "/v1/reload", "", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 405},
		{"without the token", "GET", "/healthz", word, func(*http.Request) {}, 401},
		{"another token", "GET", "/healthz", word, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+word+"0") }, 401},
		{"the token", "GET", "/healthz", word, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+word) }, 200},
		{"the token as a password", "GET", "/healthz", word, func(r *http.Request) { r.SetBasicAuth("admin", word) }, 200},
		{"nothing applied", "GET", "/readyz", "", func(*http.Request) {}, 503},
		{"no such thing", "GET", "/etc/passwd", "", func(*http.Request) {}, 404},
	} {
		var token []byte
		if tt.token != "" {
			token = []byte(tt.token)
		}
		r := httptest.NewRequest(tt.method, "http://127.0.0.1:9469"+tt.path, nil)
		tt.change(r)
		w := httptest.NewRecorder()
		Config{}.guard(token, s.Handler()).ServeHTTP(w, r)
		if w.Code != tt.code || (w.Code == 401 || w.Code == 421) != (w.Header().Get("Connection") == "close") && w.Code != 405 {
			t.Errorf("%s: got %d %s, %v", tt.name, w.Code, w.Body, w.Header())
		}
		if h := w.Header(); w.Code == 200 && (!strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'self';") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Access-Control-Allow-Origin") != "") {
			t.Errorf("%s: headers %v", tt.name, h)
		}
	}
	// The handler of the socket has no guard, and is asked by no other site.
	r := httptest.NewRequest("POST", "http://nlb/v1/show", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	if s.Handler().ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("from another site: got %d", w.Code)
	}
}

// certificate makes one that is its own CA, for 127.0.0.1, and its two files.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	cert, key = filepath.Join(t.TempDir(), name+".crt"), filepath.Join(t.TempDir(), name+".key")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

// freePort is a port of loopback that nobody has.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// TestTLS: a certificate of a client is asked for, that of the server is read again.
func TestTLS(t *testing.T) {
	cert, key := certificate(t, "server")
	clientCert, clientKey := certificate(t, "client")
	s := New(board.New("nlb", nil), nobody)
	s.board.Beat()
	c := Config{Listen: freePort(t), Cert: cert, Key: key, ClientCA: clientCert}
	must(t, s.Listen(c, slog.New(slog.DiscardHandler)))
	defer s.Close()
	ask := func(trust string, own ...tls.Certificate) error {
		text, err := os.ReadFile(trust)
		must(t, err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: own}}}
		answer, err := client.Get("https://" + c.Listen + "/healthz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode != 200 {
				err = errors.New(answer.Status)
			}
		}
		return err
	}
	own, err := tls.LoadX509KeyPair(clientCert, clientKey)
	must(t, err, ask(cert, own))
	if err := ask(cert); err == nil {
		t.Error("a client without a certificate is let in")
	}
	other, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	if err := ask(cert, other); err == nil {
		t.Error("a client with a certificate of somebody else is let in")
	}
	if answer, err := http.Get("http://" + c.Listen + "/healthz"); err == nil && answer.StatusCode == 200 {
		t.Error("it answers without TLS")
	}
	newCert, newKey := certificate(t, "new")
	must(t, os.Rename(newCert, cert), os.Rename(newKey, key))
	must(t, ask(cert, own))
}

// TestToken: a token is one word that nobody guesses.
func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	for text, fine := range map[string]bool{"0123456789abcdef\n": true, "short": false, "": false, "two words 0123456789abcdef": false, strings.Repeat("x", mostToken+1): false} {
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if got, err := (Config{Token: file}).readToken(); (err == nil) != fine || fine && string(got) != strings.TrimSpace(text) {
			t.Errorf("%.30q: got %q, %v", text, got, err)
		}
	}
}

const shop = `profile: shop
services:
  - name: web
    listen: 203.0.113.10:80
    health: tcp
    deny: 10.9.0.0/16
    backends: [{name: b1, address: "10.0.0.11:80"}, {name: b2, address: "10.0.0.12:80", weight: 3}, {name: b3, address: "10.0.0.13:80", max-connections: 5}]
  - {name: mail, listen: "203.0.113.10:25", backends: ["10.0.0.11:25"]}
`

func profilesOf(t testing.TB, yaml string) []*lb.Profile {
	t.Helper()
	p, err := config.Parse("test.yaml", []byte(yaml))
	must(t, err)
	return []*lb.Profile{p}
}

// applied is a board of what a host of its own balances, with backend b3 down.
func applied(t testing.TB, yaml string) *board.Board {
	t.Helper()
	netlabtest.Packets(t)
	known := map[lb.BackendID]lb.Standing{}
	wanted := profilesOf(t, yaml)
	for p, s := range lb.Services(wanted) {
		for i := range s.Backends {
			if s.Backends[i].Name == "b3" {
				known[lb.BackendID{Profile: p.Name, Service: s.Name, Address: s.Backends[i].Address}] = lb.Standing{Verdict: lb.VerdictDown, Since: time.Now().Add(-time.Hour), Reason: "tcp: refused"}
			}
		}
	}
	profiles := lb.Overlay(wanted, known, nil)
	var out *board.Board
	must(t, netlabtest.NewHost(t, netlabtest.NewWorld(t), "host").Do(func() error {
		e, err := engine.Open("nlb")
		if err != nil {
			return err
		}
		t.Cleanup(func() { e.Close() })
		if _, err := e.Apply(t.Context(), profiles, engine.Options{Placed: true}); err != nil {
			return err
		}
		counter, err := e.Counter()
		if err != nil {
			return err
		}
		t.Cleanup(func() { counter.Close() })
		out = board.New("nlb", counter)
		out.Set(profiles, engine.NumbersOf(profiles))
		out.Say("Balances shop.")
		out.Beat()
		return nil
	}))
	return out
}

// TestStream: events come as they happen, after the last one that a client knows; a
// bounded number of clients hears them, and a place is free when one leaves.
func TestStream(t *testing.T) {
	s := New(board.New("nlb", nil), nobody)
	log := s.board.Log(slog.New(slog.DiscardHandler))
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	listen := func(last string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v1/events", nil)
		must(t, err)
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Last-Event-ID", last)
		answer, err := http.DefaultClient.Do(r)
		must(t, err)
		return answer
	}
	log.Warn("first")
	log.Warn("second")
	all, _ := s.board.Events("")
	one := listen(all[0].ID)
	lines := bufio.NewScanner(one.Body)
	next := func(want string) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if !strings.Contains(data, `"event":"`+want+`"`) {
					t.Errorf("got %s, want %s", data, want)
				}
				return
			}
		}
		t.Errorf("the stream ended before %s: %v", want, lines.Err())
	}
	next("second")
	log.Warn("third\nid: 1") // stays one line
	next(`third\nid: 1`)
	streams := []*http.Response{one}
	for range mostStreams - 1 {
		streams = append(streams, listen(""))
	}
	if over := listen(""); over.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: got %s", over.Status)
	}
	one.Body.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		again := listen("")
		if again.StatusCode == 200 {
			streams = append(streams, again)
			break
		}
		again.Body.Close()
		if time.Now().After(deadline) {
			t.Fatal("a place does not get free")
		}
	}
	for _, r := range streams {
		r.Body.Close()
	}
}

// get asks a handler, and reads the answer.
func get(t testing.TB, h http.Handler, path string, header ...string) (int, http.Header, []byte) {
	t.Helper()
	r := httptest.NewRequest("GET", "http://127.0.0.1"+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Body)
	must(t, err)
	return w.Code, w.Header(), b
}

// TestHealth: it is not healthy once the agent does not go on.
func TestHealth(t *testing.T) {
	b := board.New("nlb", nil)
	h := New(b, nobody).Handler()
	if code, _, body := get(t, h, "/healthz"); code != 503 {
		t.Errorf("before the agent goes on: %d %s", code, body)
	}
	b.Beat()
	if code, _, _ := get(t, h, "/healthz"); code != 200 {
		t.Error("it goes on, and is not healthy")
	}
}

// TestReady: it is ready when something was applied and the kernel is as it should be.
func TestReady(t *testing.T) {
	t.Parallel()
	b := applied(t, shop)
	h := New(b, nobody).Handler()
	if code, _, body := get(t, h, "/readyz"); code != 200 || string(body) != "Balances shop.\n" {
		t.Errorf("got %d %s", code, body)
	}
	b.Counts.Astray.Store(true)
	if code, _, _ := get(t, h, "/readyz"); code != 503 {
		t.Errorf("the kernel is not as it should be: got %d", code)
	}
}
