package names

// What the kernel holds, as an answer.

import (
	"cmp"

	"nlb/lb"
)

// Held is what names stood for when the kernel got what it holds, as far as that
// can be told: of a service, all backends that its profile does not have itself.
// It is for names that nobody can resolve now.
func Held(want, held []*lb.Profile) map[lb.Host][]Record {
	kept := map[[2]string]*lb.Service{}
	for p, s := range lb.Services(held) {
		kept[[2]string{p.Name, s.Name}] = s
	}
	out := map[lb.Host][]Record{}
	for p, s := range lb.Services(want) {
		old := kept[[2]string{p.Name, s.Name}]
		if old == nil {
			continue
		}
		own := map[lb.Endpoint]bool{}
		for i := range s.Backends {
			if !s.Backends[i].Named() {
				own[s.Backends[i].Address] = true
			}
		}
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Named() {
				out[b.Host] = append(out[b.Host], records(b, old, own)...)
			}
		}
	}
	for h := range out {
		out[h] = Sort(out[h])
	}
	return out
}

// records are those that backends of a service may have been made of, but for
// those that the profile has itself.
func records(b *lb.Backend, s *lb.Service, own map[lb.Endpoint]bool) (out []Record) {
	for _, h := range s.Backends {
		switch {
		case own[h.Address]:
		case b.Host.SRV:
			out = append(out, Record{h.Address.Addr, h.Address.Port, uint16(h.Weight), uint16(cmp.Or(h.Priority, 1))})
		case h.Address.Port == b.Address.Port:
			out = append(out, Record{Addr: h.Address.Addr})
		}
	}
	return out
}
