//go:build linux

package main

// Profiles: what is applied, as files.

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nlb/lb"
	"nlb/lb/config"
)

// Where clients connect to and where it goes: 198.18.0.0/15, which RFC 2544
// sets aside for benchmarks, and 100.64.0.0/10.
var (
	firstVIP     = netip.MustParseAddr("198.18.0.1")
	firstBackend = netip.MustParseAddr("100.64.0.1")
)

const (
	listenPort  = 80
	backendPort = 8080
)

// after is the address n steps behind an IPv4 address.
func after(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	v := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// fleet is services of some backends each, numbered from first. Each has an
// address of its own; so has each backend.
func fleet(name string, first, services, backends int) *lb.Profile {
	p := &lb.Profile{Name: name}
	for i := first; i < first+services; i++ {
		s := service(i)
		for j := range backends {
			s.Backends = append(s.Backends, backend(i*backends+j))
		}
		p.Services = append(p.Services, s)
	}
	return p
}

// service is number i, without backends. It is for UDP, so that one packet is
// one connection.
func service(i int) lb.Service {
	return lb.Service{
		Name:      fmt.Sprintf("s%05d", i),
		Listen:    []lb.Listen{{Prefix: netip.PrefixFrom(after(firstVIP, i), 32), Ports: []lb.PortRange{{First: listenPort, Last: listenPort}}}},
		Protocols: []lb.Protocol{lb.UDP},
	}
}

func backend(i int) lb.Backend {
	e := lb.Endpoint{Addr: after(firstBackend, i), Port: backendPort}
	return lb.Backend{Name: e.String(), Address: e, Weight: 1}
}

// changed is a fleet in whose middle one backend is another.
func changed(name string, services, backends int) *lb.Profile {
	p := fleet(name, 0, services, backends)
	p.Services[services/2].Backends[0] = backend(services * backends)
	return p
}

// save writes a profile into the folder of this run and returns the file.
func (b *bench) save(file string, p *lb.Profile) (string, error) {
	file = filepath.Join(b.dir, file)
	return file, os.WriteFile(file, config.Write(p), 0o600)
}

// render writes a profile's ruleset as a script for nft -f, made by nlb, and
// returns the file.
func (b *bench) render(profile string) (string, error) {
	file := strings.TrimSuffix(profile, ".yaml") + ".nft"
	script, err := exec.CommandContext(b.ctx, b.nlb, "render", profile).Output()
	if err != nil {
		return "", fmt.Errorf("nlb render: %w", err)
	}
	return file, os.WriteFile(file, script, 0o600)
}
