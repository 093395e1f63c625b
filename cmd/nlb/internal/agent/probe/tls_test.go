//go:build linux

package probe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// serveTLS shakes hands, and passes the name that the client has said on.
func serveTLS(t *testing.T, host string, leaf tls.Certificate, names chan<- string) (at string) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{leaf}}
	return answer(t, host, func(c net.Conn) {
		s := tls.Server(c, config)
		if s.Handshake() == nil && names != nil {
			names <- s.ConnectionState().ServerName
		}
		_, _ = io.Copy(io.Discard, s)
	})
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	ca, leaf := authority(t, nil)
	other, _ := authority(t, nil)
	_, old := authority(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	_, early := authority(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })
	empty := filepath.Join(t.TempDir(), "empty.pem")
	netlabtest.Must(t, os.WriteFile(empty, []byte("nothing"), 0o600))
	good := Outcome{OK: true, Reason: "tls: TLS 1.3"}
	for _, tt := range []struct {
		name         string
		leaf         tls.Certificate
		verify, host string
		want         Outcome
	}{
		{"not verified", old, "", "", good},
		{"by address", leaf, ca, "", good},
		{"by name", leaf, ca, "www.example", good},
		{"other name", leaf, ca, "www.other", Outcome{Reason: "tls: certificate is for another name"}},
		{"expired", old, ca, "", Outcome{Reason: "tls: certificate has expired"}},
		{"not valid yet", early, ca, "", Outcome{Reason: "tls: certificate is not valid yet"}},
		{"other authority", leaf, other, "", Outcome{Reason: "tls: certificate of unknown authority"}},
		{"the system's", leaf, "system", "", Outcome{Reason: "tls: certificate of unknown authority"}},
		{"no file", leaf, "/nowhere", "", Outcome{Ours: true, Reason: "tls: the CA file cannot be read"}},
		{"no certificate", leaf, empty, "", Outcome{Ours: true, Reason: "tls: the CA file has no certificate"}},
		{"a folder", leaf, "/", "", Outcome{Ours: true, Reason: "tls: the CA file is no regular file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, host string) {
				at := serveTLS(t, host, tt.leaf, nil)
				wantOutcome(t, carry(t, lb.Check{Kind: lb.CheckTLS, Verify: tt.verify, Host: tt.host}, at, generous), tt.want)
			})
		})
	}
}

// TestServerName: the host is the name for SNI; an address is none.
func TestServerName(t *testing.T) {
	_, leaf := authority(t, nil)
	names := make(chan string, 1)
	at := serveTLS(t, "::1", leaf, names)
	for _, host := range []string{"www.example", ""} {
		if o := carry(t, lb.Check{Kind: lb.CheckTLS, Host: host}, at, generous); !o.OK {
			t.Fatalf("%+v", o)
		}
		if got := <-names; got != host {
			t.Errorf("the server was asked for %q, want %q", got, host)
		}
	}
}

// TestCAFileChanges: a CA file that is written anew is read anew.
func TestCAFileChanges(t *testing.T) {
	ca, leaf := authority(t, nil)
	other, _ := authority(t, nil)
	at := serveTLS(t, "127.0.0.1", leaf, nil)
	file := filepath.Join(t.TempDir(), "ca.pem")
	for i, from := range []string{other, ca, other} {
		b, err := os.ReadFile(from)
		b = append(b, bytes.Repeat([]byte("\n"), 4000-len(b))...) // of one size
		netlabtest.Must(t, err, os.WriteFile(file, b, 0o600), os.Chtimes(file, time.Time{}, time.Unix(int64(i), 0)))
		for range 2 {
			if o := carry(t, lb.Check{Kind: lb.CheckTLS, Verify: file}, at, generous); o.OK != (from == ca) {
				t.Errorf("file %d: %+v", i, o)
			}
		}
	}
}

// authority is a CA of a test, and a certificate that it has signed for a name
// and for both loopback addresses.
func authority(t *testing.T, change func(c *x509.Certificate)) (caFile string, leaf tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	netlabtest.Must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signed, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	netlabtest.Must(t, err)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	netlabtest.Must(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600))
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"www.example"}, IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP("::1")},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(server)
	}
	b, err := x509.CreateCertificate(rand.Reader, server, ca, &key.PublicKey, key)
	netlabtest.Must(t, err)
	return caFile, tls.Certificate{Certificate: [][]byte{b}, PrivateKey: key}
}
