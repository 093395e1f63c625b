//go:build linux

package member

// Certificates: of a CA that lives as long as the test.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
)

type pki struct {
	t    testing.TB
	dir  string
	file string // with its certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t testing.TB, dir string) *pki {
	p := &pki{t: t, dir: dir, file: filepath.Join(dir, "ca.pem")}
	p.cert, p.key = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, p.newKey()
	der := p.sign(p.cert, p.key)
	var err error
	p.cert, err = x509.ParseCertificate(der) // as others read it
	netlabtest.Must(t, err)
	p.write(p.file, "CERTIFICATE", der)
	return p
}

func (p *pki) newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	netlabtest.Must(p.t, err)
	return k
}

func (p *pki) sign(c *x509.Certificate, of *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, c, p.cert, &of.PublicKey, p.key)
	netlabtest.Must(p.t, err)
	return der
}

func (p *pki) write(path, kind string, der []byte) {
	netlabtest.Must(p.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue writes a certificate and its key for a name.
func (p *pki) issue(name string, from, to time.Duration) (cert, key string) {
	k := p.newKey()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	netlabtest.Must(p.t, err)
	der := p.sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, k)
	raw, err := x509.MarshalECPrivateKey(k)
	netlabtest.Must(p.t, err)
	cert, key = filepath.Join(p.dir, name+".pem"), filepath.Join(p.dir, name+".key")
	p.write(cert, "CERTIFICATE", der)
	p.write(key, "EC PRIVATE KEY", raw)
	return cert, key
}

// client is how somebody of a name connects; empty: who has no certificate.
func (p *pki) client(name string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	c := &tls.Config{RootCAs: pool}
	if name != "" {
		cert, key := p.issue(name, -time.Hour, time.Hour)
		pair, err := tls.LoadX509KeyPair(cert, key)
		netlabtest.Must(p.t, err)
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}
