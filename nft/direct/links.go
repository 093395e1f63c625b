package direct

// Links: where packets come in and where backends are, as the kernel's routes say.

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"nlb/lb"
)

// Links are the interfaces that services with mode: dsr or tunnel need.
type Links struct {
	// Names are all interfaces of the host.
	Names []string
	// In are the interfaces that lead to a listen address, by their names; none: no
	// route does.
	In map[netip.Addr][]string
	// Out is the number of the interface that a backend is on; none: it is on no
	// network of this host.
	Out map[netip.Addr]uint32
	// Through are the numbers of the tunnels that lead to servers.
	Through map[netip.Addr]uint32
	// Behind are the routers that backends are behind.
	Behind map[netip.Addr]netip.Addr
}

// Digest is what of the links makes a difference for services.
func (l *Links) Digest(profiles []*lb.Profile) string {
	if l == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintln(&b, l.All(profiles))
	for _, s := range lb.Services(profiles) {
		for i := range s.Backends {
			if a := s.Backends[i].Address.Addr; s.Mode.Direct() {
				fmt.Fprintln(&b, a, l.to(s, a))
			}
		}
	}
	return b.String()
}

// to is the number of the interface by which packets of a service go to a backend; 0:
// there is none.
func (l *Links) to(s *lb.Service, backend netip.Addr) uint32 {
	if s.Mode == lb.Tunnel {
		return l.Through[backend]
	}
	return l.Out[backend]
}

// Devices are the interfaces that packets of a service come in by, as far as they are
// there.
func (l *Links) Devices(s *lb.Service) (out []string) {
	if !s.Mode.Direct() {
		return nil
	}
	if s.Interface != "" {
		for _, name := range l.Names {
			if stem, all := strings.CutSuffix(s.Interface, "*"); name == s.Interface || all && strings.HasPrefix(name, stem) {
				out = append(out, name)
			}
		}
		return out
	}
	for _, listen := range s.Listen {
		out = append(out, l.In[listen.Prefix.Addr()]...)
	}
	return out
}

// All are the Devices of all services, each once.
func (l *Links) All(profiles []*lb.Profile) []string {
	var out []string
	for _, s := range lb.Services(profiles) {
		out = append(out, l.Devices(s)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Refused is a backend that cannot be reached without its MAC address, and why; empty:
// there is none.
func (l *Links) Refused(profiles []*lb.Profile) string {
	for p, s := range lb.Services(profiles) {
		if s.Mode != lb.DSR {
			continue
		}
		for i := range s.Backends {
			a := s.Backends[i].Address.Addr
			if router, ok := l.Behind[a]; ok {
				return fmt.Sprintf("backend %s of service %s is behind the router %s, and mode: dsr needs it on a network of this host",
					a, path.Join(p.Name, s.Name), router)
			}
		}
	}
	return ""
}
