package resolve

// Files: resolv.conf and hosts, read again when they change.

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of what the files say. resolv.conf(5) has most of them.
const (
	mostRead     = 1 << 20 // bytes of a file; the rest is not read
	mostServers  = 3
	mostSearch   = 6
	longestTry   = 30 // seconds
	mostAttempts = 5
)

// file is a file, and what it said when it was read last.
type file[T any] struct {
	path  string
	parse func(io.Reader) T

	mu    sync.Mutex
	seen  os.FileInfo // nil: it is to be read
	value T
}

// settled is how old a change must be so that the next one cannot have the same
// time.
const settled = time.Second

// read is what the file says now. One that cannot be read is like an empty one.
func (f *file[T]) read() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil || !info.Mode().IsRegular() {
		f.seen = nil
		return f.parse(strings.NewReader(""))
	}
	if f.seen != nil && os.SameFile(f.seen, info) && f.seen.ModTime().Equal(info.ModTime()) && f.seen.Size() == info.Size() {
		return f.value
	}
	f.seen = nil
	file, err := os.Open(f.path)
	if err != nil {
		return f.parse(strings.NewReader(""))
	}
	defer file.Close()
	f.value = f.parse(io.LimitReader(file, mostRead))
	if time.Since(info.ModTime()) > settled {
		f.seen = info
	}
	return f.value
}

// parseConf reads a resolv.conf; the server is this host where it names none.
func parseConf(r io.Reader) *dns.ClientConfig {
	c, err := dns.ClientConfigFromReader(r)
	if err != nil {
		c, _ = dns.ClientConfigFromReader(strings.NewReader(""))
	}
	c.Servers = slices.DeleteFunc(c.Servers, func(s string) bool {
		_, err := netip.ParseAddr(s)
		return err != nil
	})
	if len(c.Servers) == 0 {
		c.Servers = []string{"127.0.0.1"}
	}
	c.Servers = c.Servers[:min(len(c.Servers), mostServers)]
	c.Search = c.Search[:min(len(c.Search), mostSearch)]
	c.Timeout = min(c.Timeout, longestTry)
	c.Attempts = min(c.Attempts, mostAttempts)
	return c
}

// parseHosts reads a hosts file: its addresses by complete names in lower case.
func parseHosts(r io.Reader) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, name := range words[1:] {
			if strings.Contains(name, `\`) {
				continue // no host has such a name, and to DNS it is an escape
			}
			name = dns.CanonicalName(name)
			out[name] = append(out[name], a)
		}
	}
	return out
}
