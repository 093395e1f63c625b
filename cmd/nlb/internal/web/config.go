//go:build linux

package web

// Config: where to listen, and who may look.

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// Config says where an agent shows itself by HTTP, to read only. The zero Config is
// nowhere.
type Config struct {
	// Listen is an address and port: 127.0.0.1:9469. One that is not of this host alone
	// needs a certificate, and a token or a CA of clients.
	Listen string
	// Hosts are names by which it may be asked, beside localhost and addresses.
	Hosts []string
	// Cert and Key are PEM files; what is in them is read for each new connection.
	Cert, Key string
	// Token is a file whose content those who look have to know, and ClientCA a PEM
	// file of CAs that have signed their certificates.
	Token, ClientCA string
}

// RefusedError says why something is not done, and what helps. Whoever asked is
// at fault.
type RefusedError struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *RefusedError) Error() string { return e.Message }

// Explain is that nothing was changed, and the hint.
func (e *RefusedError) Explain() (outcome, hint string) { return "nothing was changed", e.Hint }

// Lengths of a token, in bytes.
const (
	leastToken = 16
	mostToken  = 4096
)

// Check is what is wrong, a *RefusedError, without a look into files.
func (c Config) Check() error {
	if c.Listen == "" {
		if len(c.Hosts) > 0 || c.Cert+c.Key+c.Token+c.ClientCA != "" {
			return &RefusedError{"there is nothing to listen at", "say --listen, such as --listen 127.0.0.1:9469"}
		}
		return nil
	}
	at, err := netip.ParseAddrPort(c.Listen)
	switch {
	case err != nil || at.Port() == 0:
		return &RefusedError{fmt.Sprintf("%q is nothing to listen at", c.Listen), "want ADDRESS:PORT, such as 127.0.0.1:9469"}
	case (c.Cert == "") != (c.Key == ""):
		return &RefusedError{"a certificate and its key come together", "say both --tls-cert and --tls-key"}
	case c.ClientCA != "" && c.Cert == "":
		return &RefusedError{"certificates of clients need TLS", "say --tls-cert and --tls-key, too"}
	case at.Addr().Unmap().IsLoopback():
		return nil
	case c.Cert == "":
		return &RefusedError{c.Listen + " can be reached from other hosts, and is without TLS", "say --tls-cert and --tls-key, or listen at 127.0.0.1"}
	case c.Token+c.ClientCA == "":
		return &RefusedError{c.Listen + " can be reached from other hosts, and anybody could look", "say --token-file or --client-ca"}
	}
	return nil
}

// readToken reads what those who look have to know; nil: nothing.
func (c Config) readToken() ([]byte, error) {
	if c.Token == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.Token)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	b = bytes.TrimSpace(b)
	if len(b) < leastToken || len(b) > mostToken || bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &RefusedError{fmt.Sprintf("%s has no token", c.Token), "want one word of 16 to 4096 letters, such as openssl rand -hex 32 prints"}
	}
	return b, nil
}

// tls is how connections are encrypted; nil: they are not.
func (c Config) tls() (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	first, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	var last atomic.Pointer[tls.Certificate]
	last.Store(&first)
	out := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if now, err := tls.LoadX509KeyPair(c.Cert, c.Key); err == nil { // else somebody is about to renew it
			last.Store(&now)
		}
		return last.Load(), nil
	}}
	if c.ClientCA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("CA of clients: %w", err)
	}
	out.ClientAuth, out.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("CA of clients: " + c.ClientCA + " has no certificate")
	}
	return out, nil
}

// knows reports whether a Host header is one of ours: an address, localhost, or a name
// that was given. Any site can have a name of its own lead here.
func (c Config) knows(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(hostOnly(host), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return true
	}
	return slices.ContainsFunc(c.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// hostOnly is a Host header without its port, and without brackets.
func hostOnly(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") && (strings.HasPrefix(host, "[") || strings.IndexByte(host, ':') == i) {
		host = host[:i]
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
