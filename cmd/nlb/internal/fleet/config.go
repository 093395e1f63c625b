// Package fleet has several balancers share profiles by way of etcd: what is wanted,
// who has it, who is out. It knows etcd and values, no kernel; package member is what
// nlb run does with them.
package fleet

// Configuration: fleet.yaml, which says who this is and where etcd is.

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"nlb/lb"
)

const (
	// DefaultFile is where push and fleet look. Profiles in /etc/nlb are something else.
	DefaultFile = "/etc/nlb/fleet/fleet.yaml"

	maxConfig    = 64 << 10 // bytes of fleet.yaml, and of each PEM file
	maxEndpoints = 16
)

// Config says who takes part in a fleet, and how.
type Config struct {
	// Name is the node's, or the admin's: that of the certificate, where there is one
	// and the file does not say it.
	Name string `yaml:"name"`
	// Endpoints are URLs of members of etcd. https, but to loopback addresses.
	Endpoints []string `yaml:"endpoints"`
	// CA, Cert and Key are PEM files, all of them or none. They are read anew for each
	// connection, so that they can be replaced.
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// State is the folder with the last good profiles.
	State string `yaml:"state"`
}

// ReadConfig reads a fleet.yaml. Paths in it are seen from its folder. An error says
// which key is wrong.
func ReadConfig(path string) (*Config, error) {
	b, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &RefusedError{err.Error(), "a fleet.yaml has endpoints, ca, cert and key; --fleet names another file"}
	}
	if err != nil {
		return nil, err
	}
	c := &Config{}
	if err := yaml.Load(b, c, yaml.WithKnownFields(true)); err != nil {
		return nil, fmt.Errorf("%s: %w; want the keys endpoints, ca, cert, key, name and state", path, err)
	}
	for _, p := range []*string{&c.CA, &c.Cert, &c.Key, &c.State} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	c.State = cmp.Or(c.State, filepath.Join(cmp.Or(os.Getenv("STATE_DIRECTORY"), "/var/lib/nlb"), "fleet"))
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// readSmall reads a file that is no larger than a configuration may be.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("%s: more than %d bytes", path, maxConfig)
	}
	return b, err
}

// check says what is wrong, and finds out the name where that is not said.
func (c *Config) check() error {
	if n := len(c.Endpoints); n == 0 || n > maxEndpoints {
		return fmt.Errorf("endpoints: %d of them; want 1 to %d URLs of etcd, such as https://10.0.0.1:2379", n, maxEndpoints)
	}
	if (c.CA == "") != (c.Cert == "") || (c.Cert == "") != (c.Key == "") {
		return errors.New("ca, cert and key belong together; want all three")
	}
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		switch {
		case err != nil || u.Host == "" || u.Port() == "" || u.Path != "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
			return fmt.Errorf("endpoints: %q; want https://HOST:PORT", e)
		case u.Scheme == "http" && !isLoopback(u.Hostname()):
			return fmt.Errorf("endpoints: %s is not on this host, so it needs TLS; want https, with ca, cert and key", e)
		case u.Scheme == "https" && c.Cert == "":
			return fmt.Errorf("endpoints: %s needs ca, cert and key", e)
		}
	}
	if c.Name == "" && c.Cert != "" {
		leaf, err := c.certificate()
		if err != nil && leaf == nil {
			return err
		}
		c.Name = leaf.Subject.CommonName
	}
	if c.Name == "" {
		c.Name, _ = os.Hostname()
	}
	if lb.CheckName(c.Name) != "" {
		return fmt.Errorf("name: %q; want %s", c.Name, lb.NameForm)
	}
	return nil
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// certificate is this node's own. Where its time is not now, there is an error as
// well: etcd would just close the connection.
func (c *Config) certificate() (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("cert %s: %w", c.Cert, err)
	}
	switch now := time.Now(); {
	case now.After(pair.Leaf.NotAfter):
		err = fmt.Errorf("the certificate %s has expired on %s, by this host's clock", c.Cert, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		err = fmt.Errorf("the certificate %s holds from %s on, by this host's clock", c.Cert, pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return pair.Leaf, err
}

// tls is how to connect; nil: without TLS.
func (c *Config) tls() (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	if _, err := c.certificate(); err != nil {
		return nil, err
	}
	pem, err := readSmall(c.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca %s: no certificate in it", c.CA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			return &pair, err
		},
	}, nil
}

// reach is how to connect, where that works with one endpoint; else an error says why it
// does not. The client of etcd says just that time is over.
func (c *Config) reach() (secret *tls.Config, err error) {
	if secret, err = c.tls(); err != nil {
		return nil, fmt.Errorf("etcd cannot be asked: %w", err)
	}
	var errs []string
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err == nil {
			err = knock(u, secret)
		}
		if err == nil {
			return secret, nil
		}
		errs = append(errs, strings.TrimPrefix(err.Error(), "dial tcp "))
	}
	return nil, fmt.Errorf("etcd cannot be asked: %s", strings.Join(errs, "; "))
}

// hello is how HTTP/2 begins: the preface, and settings without a value (RFC 9113).
const hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// knock connects to an endpoint, and greets it. With TLS 1.3, what the server has
// against the certificate comes after the handshake, with the first read.
func knock(u *url.URL, secret *tls.Config) error {
	const patience = time.Second
	c, err := net.DialTimeout("tcp", u.Host, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if secret != nil && u.Scheme == "https" {
		secret = secret.Clone()
		secret.ServerName, secret.NextProtos = u.Hostname(), []string{"h2"}
		c = tls.Client(c, secret)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err = io.WriteString(c, hello); err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // slow is not wrong
	}
	return fmt.Errorf("%s: %w", u.Host, err)
}
