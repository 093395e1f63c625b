//go:build linux

package bench

// Profiles: what is applied, as values and as files.

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
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

// fleet is services of three backends each, numbered from first. Each has an
// address of its own; so has each backend.
func fleet(name string, first, services int) *lb.Profile {
	p := &lb.Profile{Name: name}
	for i := first; i < first+services; i++ {
		s := service(i)
		for j := range 3 {
			s.Backends = append(s.Backends, backend(i*3+j))
		}
		p.Services = append(p.Services, s)
	}
	return p
}

// unchanged is a profile whose backends see the client.
func unchanged(p *lb.Profile) *lb.Profile {
	for i := range p.Services {
		for j := range p.Services[i].Backends {
			p.Services[i].Backends[j].SNAT.Mode = lb.SNATNone
		}
	}
	return p
}

// changed is a fleet in whose middle one backend is another one.
func changed(name string, services int) *lb.Profile {
	p := fleet(name, 0, services)
	p.Services[services/2].Backends[0] = backend(services * 3)
	return p
}

// service is number i, with these backends. It is for UDP, so that one packet
// is one connection.
func service(i int, backends ...lb.Backend) lb.Service {
	return lb.Service{
		Name:      fmt.Sprintf("s%05d", i),
		Listen:    []lb.Listen{{Prefix: netip.PrefixFrom(after(firstVIP, i), 32), Ports: []lb.PortRange{{First: listenPort, Last: listenPort}}}},
		Protocols: []lb.Protocol{lb.UDP},
		Backends:  backends,
	}
}

func backend(i int) lb.Backend {
	e := lb.Endpoint{Addr: after(firstBackend, i), Port: backendPort}
	return lb.Backend{Name: e.String(), Address: e, Weight: 1}
}

// save writes a profile into the folder of this run and returns the file.
func save(b *testing.B, file string, p *lb.Profile) string {
	b.Helper()
	file = filepath.Join(scratch, file)
	netlabtest.Must(b, os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, config.Write(p), 0o600))
	return file
}

// folder makes profiles of one service each, and returns their folder.
func folder(b *testing.B, profiles int) string {
	b.Helper()
	dir := fmt.Sprintf("folder%d", profiles)
	for i := range profiles {
		name := fmt.Sprintf("p%04d", i)
		save(b, filepath.Join(dir, name+".yaml"), fleet(name, i, 1))
	}
	return filepath.Join(scratch, dir)
}

// render writes a profile's ruleset as a script for nft -f, made by nlb, and
// returns the file.
func render(b *testing.B, profile string) string {
	b.Helper()
	file := strings.TrimSuffix(profile, ".yaml") + ".nft"
	script, err := exec.Command(*program, "render", profile).Output()
	netlabtest.Must(b, err, os.WriteFile(file, script, 0o600))
	return file
}

// write puts a text into the folder of this run and returns the file.
func write(b *testing.B, file, text string) string {
	b.Helper()
	file = filepath.Join(scratch, file)
	netlabtest.Must(b, os.WriteFile(file, []byte(text), 0o600))
	return file
}
