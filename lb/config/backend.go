package config

// A backend in a file.

import (
	"fmt"

	"nlb/lb"
	"nlb/lb/internal/dup"
)

// backendDraft is a backend while it is read.
type backendDraft struct {
	lb.Backend
	// at is where it stands; name, snat and log are where these keys do, nil
	// where the service's hold.
	at, name, snat, log *node
	bad                 bool // something was refused
}

func readBackends(d *decoder, k *Key, v *node, s *draft) {
	items, _ := readItems(d, k, v, true)
	s.badBackends = false
	s.members = make([]backendDraft, 0, len(items))
	for _, item := range items {
		s.members = append(s.members, backendDraft{})
		b := &s.members[len(s.members)-1]
		readBackend(d, k, item, b)
		if b.bad {
			s.badBackends = true
			s.members = s.members[:len(s.members)-1]
		}
	}
	dup.Find(s.members, func(b backendDraft) lb.Endpoint { return b.Address }, func(first, second int) {
		b := &s.members[second]
		d.fail(b.at, fmt.Sprintf("backend %s is here twice, first in line %d", b.Address, s.members[first].at.line), "each backend once", "")
	})
	dup.Find(s.members, func(b backendDraft) string { return b.Name }, func(first, second int) {
		a, b := &s.members[first], &s.members[second]
		if a.Address == b.Address {
			return
		}
		at := b.name
		if at == nil {
			at = b.at
		}
		d.fail(at, fmt.Sprintf("name %s is here twice, first in line %d", b.Name, a.at.line), "another name for each backend", "")
	})
}

func readBackend(d *decoder, k *Key, v *node, b *backendDraft) {
	b.Weight = 1
	switch v.kind {
	case scalar:
		text, ok := readText(d, k, v)
		if b.bad = !ok; ok {
			b.setAddress(d, v, text)
		}
	case mapping:
		backendKeys.need(d, v, backendKeys.read(d, v, b), "address", endpointForms)
		b.bad = b.bad || b.at == nil
	default:
		d.fail(v, "a backend is a list", k.Values, `an IPv6 address with a port needs quotes: "[2001:db8::1]:80"`)
		b.bad = true
	}
	if b.bad {
		return
	}
	if b.Name == "" {
		b.Name = b.Address.String()
	}
	if b.snat != nil {
		for _, a := range b.SNAT.Pool {
			if lb.FamilyOf(a) != lb.FamilyOf(b.Address.Addr) {
				d.fail(b.snat, fmt.Sprintf("snat has %s, and the backend is %s", a, lb.FamilyOf(b.Address.Addr)),
					"addresses of the backend's family", "")
				break
			}
		}
	}
}

func (b *backendDraft) setAddress(d *decoder, v *node, text string) {
	e, p := parseEndpoint(text)
	if p != nil {
		d.refuse(v, p)
		b.bad = true
		return
	}
	b.Address, b.at = e, v
	if canonical(e, text) {
		b.Name = text
	}
}

func readBackendAddress(d *decoder, k *Key, v *node, b *backendDraft) {
	text, ok := readText(d, k, v)
	if !ok {
		b.bad = true
		return
	}
	name := b.Name
	b.setAddress(d, v, text)
	if b.name != nil {
		b.Name = name
	}
}

func readBackendName(d *decoder, k *Key, v *node, b *backendDraft) {
	if name, ok := readName(d, k, v); ok {
		b.Name, b.name = name, v
	}
}

func readWeight(d *decoder, k *Key, v *node, b *backendDraft) {
	readInt(d, k, v, 0, lb.MaxWeight, &b.Weight)
}

func readMaxConnections(d *decoder, k *Key, v *node, b *backendDraft) {
	if b.MaxConnections = 0; !none(v) {
		readInt(d, k, v, 1, 1<<32-1, &b.MaxConnections)
	}
}
