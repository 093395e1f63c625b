//go:build linux

package probe

// TLS: how certificates are verified, and the kind tls.

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"sync"
)

// handshake is the kind tls.
func handshake(ctx context.Context, t Target) Outcome {
	config, err := clientTLS(t)
	if err != nil {
		return unable("tls", "%s", err)
	}
	raw, err := dial(ctx, t, "tcp")
	if err != nil {
		return fault(ctx, "tls", err)
	}
	defer raw.Close()
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return fault(ctx, "tls", err)
	}
	_ = c.CloseWrite() // the alert close_notify
	leave(raw)
	return passed("tls", "%s", tls.VersionName(c.ConnectionState().Version))
}

// clientTLS is how a check meets a server: its name, and whom it trusts. The
// error says what of this host is missing.
func clientTLS(t Target) (*tls.Config, error) {
	c := &tls.Config{ServerName: cmp.Or(t.Check.Host, t.At.Addr().String())}
	switch t.Check.Verify {
	case "":
		c.InsecureSkipVerify = true // verify: none
	case "system":
		// No pool is the system's.
	default:
		pool, err := authorities.pool(t.Check.Verify)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	return c, nil
}

// authorities keep what CA files have, since to read one costs more than a check.
var authorities = caFiles{read: map[string]caFile{}}

type caFiles struct {
	mu   sync.Mutex
	read map[string]caFile
}

type caFile struct {
	pool *x509.CertPool
	info os.FileInfo
}

// maxCAFile is the size of a CA file, in bytes; that of all authorities that
// browsers know is a quarter of it.
const maxCAFile = 1 << 20

// pool is what a file has now.
func (a *caFiles) pool(path string) (*x509.CertPool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.New("the CA file cannot be read")
	}
	if f, ok := a.read[path]; ok && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime()) {
		return f.pool, nil
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("the CA file is no regular file")
	}
	if info.Size() > maxCAFile {
		return nil, errors.New("the CA file is above 1 MiB")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.New("the CA file cannot be read")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("the CA file has no certificate")
	}
	a.read[path] = caFile{pool, info}
	return pool, nil
}
