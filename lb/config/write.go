package config

// From a profile to a file.

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// Write is the profile as YAML: what Parse reads as the same profile, without
// keys that have their default.
func Write(p *lb.Profile) []byte {
	w := writer{b: make([]byte, 0, 64+160*len(p.Services))}
	w.key(0, "profile", p.Name)
	if p.Sysctl != lb.SysctlAuto {
		w.key(0, "sysctl", p.Sysctl.String())
	}
	if p.Announce != nil {
		w.value(0, "announce", announcing(p.Announce))
	}
	if f := p.Fleet(); f != lb.FleetNone {
		w.key(0, "fleet", f.String())
	}
	if len(p.Services) == 0 {
		w.b = append(w.b, "services: []\n"...)
		return w.b
	}
	w.b = append(w.b, "services:\n"...)
	for i := range p.Services {
		w.service(&p.Services[i])
	}
	return w.b
}

// writer writes lines of YAML.
type writer struct{ b []byte }

// key writes one key with a single value.
func (w *writer) key(indent int, key, value string) {
	w.open(indent, key)
	w.b = append(w.b, ' ')
	w.b = appendValue(w.b, value)
	w.b = append(w.b, '\n')
}

// open writes a key alone.
func (w *writer) open(indent int, key string) {
	for range indent {
		w.b = append(w.b, ' ')
	}
	w.b = append(w.b, key...)
	w.b = append(w.b, ':')
}

// list writes a key with one value, or several.
func (w *writer) list(indent int, key string, values []string) {
	if len(values) == 1 {
		w.key(indent, key, values[0])
		return
	}
	w.open(indent, key)
	w.b = append(w.b, '\n')
	for _, v := range values {
		w.item(indent+2, v)
	}
}

func (w *writer) item(indent int, value string) {
	for range indent {
		w.b = append(w.b, ' ')
	}
	w.b = append(w.b, "- "...)
	w.b = appendValue(w.b, value)
	w.b = append(w.b, '\n')
}

// appendValue appends a value, in quotes where YAML would make something else
// of it.
func appendValue(b []byte, s string) []byte {
	plain := s != "" && (safe.NameRune(rune(s[0])) && s[0] != '-' && s[0] != '.') && s[len(s)-1] != ':' && !(&node{text: s}).null()
	for _, r := range s {
		plain = plain && (safe.NameRune(r) || r == ':' || r == '/' || r == ',' || r == '*')
	}
	if plain {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

// value writes a key with what it says, in whichever form that has.
func (w *writer) value(indent int, word string, value any) {
	switch v := value.(type) {
	case []string:
		w.list(indent, word, v)
	case lb.Joined:
		w.list(indent, word, v)
	case lb.Mapping:
		if v.Short != "" {
			w.key(indent, word, v.Short)
			return
		}
		w.open(indent, word)
		w.b = append(w.b, '\n')
		w.values(indent+2, v.Values)
	case lb.Mappings:
		w.open(indent, word)
		w.b = append(w.b, '\n')
		for _, one := range v {
			if one.Short != "" {
				w.item(indent+2, one.Short)
			} else {
				w.mapping(indent+2, one.Values)
			}
		}
	default:
		w.key(indent, word, fmt.Sprint(v))
	}
}

// values writes the keys of a mapping that say something that would not hold
// without them.
func (w *writer) values(indent int, values lb.Values) {
	for _, v := range values {
		if v.Value != nil && !v.Default && !v.OfFile {
			w.value(indent, v.Word, v.Value)
		}
	}
}

// mapping writes the keys of a mapping that is an item of a list.
func (w *writer) mapping(indent int, values lb.Values) {
	w.value(indent, "- "+values[0].Word, values[0].Value)
	w.values(indent+2, values[1:])
}

func (w *writer) service(s *lb.Service) {
	w.mapping(2, s.Values())
	if len(s.Backends) == 0 {
		w.b = append(w.b, "    backends: []\n"...)
		return
	}
	w.b = append(w.b, "    backends:\n"...)
	for i := 0; i < len(s.Backends); i++ {
		start := len(w.b)
		values := s.Backends[i].Values(s)
		at := s.Backends[i].Address
		if families := s.HostFamilies(); ofHost(s, s.Backends[i:], families) {
			values[0].Value = lb.Endpoint{Port: at.Port}
			i += len(families) - 1
		} else if at.OfHost() { // of one family
			values[0].Value = netip.AddrPortFrom(at.Addr, at.Port)
		}
		w.mapping(6, values)
		if bytes.Count(w.b[start:], []byte("\n")) == 1 {
			w.b = w.b[:start]
			w.item(6, fmt.Sprint(values[0].Value))
		}
	}
}

// ofHost reports whether backends begin with those that a port of this host, without an
// address, stands for.
func ofHost(s *lb.Service, backends []lb.Backend, families []lb.Family) bool {
	if len(families) == 0 || len(backends) < len(families) || !backends[0].Address.OfHost() {
		return false
	}
	for i, f := range families {
		one, first := &backends[i], &backends[0]
		if one.Address != lb.HostEndpoint(f, first.Address.Port) || one.Name != one.Where() || fmt.Sprint(one.Values(s)[2:]) != fmt.Sprint(first.Values(s)[2:]) {
			return false
		}
	}
	return true
}
