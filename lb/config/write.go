package config

// From a profile to a file.

import (
	"fmt"
	"net/netip"
	"slices"
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

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}

func (w *writer) service(s *lb.Service) {
	w.key(2, "- name", s.Name)
	w.list(4, "listen", texts(s.Listen))
	if !slices.Equal(s.Protocols, []lb.Protocol{lb.TCP}) {
		w.list(4, "protocol", texts(s.Protocols))
	}
	if s.Interface != "" {
		w.key(4, "interface", s.Interface)
	}
	if s.Role != lb.RoleProxy {
		w.key(4, "role", s.Role.String())
	}
	if s.Scheduler != lb.RoundRobin {
		w.key(4, "scheduler", s.Scheduler.String())
	}
	if s.Scheduler == lb.Hash {
		if !slices.Equal(s.HashBy, []lb.HashField{lb.SourceAddress}) {
			w.list(4, "hash-by", texts(s.HashBy))
		}
		if s.HashSeed != lb.DefaultSeed(s.Name) {
			w.key(4, "hash-seed", strconv.FormatUint(uint64(s.HashSeed), 10))
		}
	}
	if a := s.Affinity; a != nil {
		w.affinity(a)
	}
	if s.SNAT.Mode != lb.Masquerade {
		w.snat(4, s.SNAT)
	}
	w.prefixes("allow", s.Allow)
	w.prefixes("deny", s.Deny)
	if s.Limit != (lb.Limit{}) {
		w.limit(&s.Limit)
	}
	if s.Log != nil {
		w.log(4, s.Log, s.Name)
	}
	if s.OnEmpty != lb.Reject {
		w.key(4, "on-empty", s.OnEmpty.String())
	}
	if len(s.Backends) == 0 {
		w.b = append(w.b, "    backends: []\n"...)
		return
	}
	w.b = append(w.b, "    backends:\n"...)
	for i := range s.Backends {
		w.backend(&s.Backends[i], s)
	}
}

func (w *writer) backend(b *lb.Backend, s *lb.Service) {
	address := b.Address.String()
	start := len(w.b)
	w.key(6, "- address", address)
	short := len(w.b)
	if b.Name != address {
		w.key(8, "name", b.Name)
	}
	if b.Weight != 1 {
		w.key(8, "weight", strconv.Itoa(b.Weight))
	}
	if b.MaxConnections > 0 {
		w.key(8, "max-connections", strconv.FormatUint(uint64(b.MaxConnections), 10))
	}
	if !b.SNAT.Equal(s.SNAT) {
		w.snat(8, b.SNAT)
	}
	switch {
	case b.Log == nil && s.Log != nil:
		w.key(8, "log", "false")
	case b.Log != nil && (s.Log == nil || *b.Log != *s.Log):
		w.log(8, b.Log, s.Name)
	}
	if len(w.b) == short {
		w.b = w.b[:start]
		w.item(6, address)
	}
}

func (w *writer) affinity(a *lb.Affinity) {
	if a.Bits == 32 && a.Bits6 == 128 {
		w.key(4, "affinity", a.TimeoutText())
		return
	}
	w.b = append(w.b, "    affinity:\n"...)
	w.key(6, "timeout", a.TimeoutText())
	if a.Bits != 32 {
		w.key(6, "prefix", strconv.Itoa(a.Bits))
	}
	if a.Bits6 != 128 {
		w.key(6, "prefix6", strconv.Itoa(a.Bits6))
	}
}

func (w *writer) snat(indent int, s lb.SNAT) {
	if s.Mode != lb.SNATPool {
		w.key(indent, "snat", s.Mode.String())
		return
	}
	w.list(indent, "snat", texts(s.Pool))
}

func (w *writer) prefixes(key string, prefixes []netip.Prefix) {
	if len(prefixes) > 0 {
		w.list(4, key, texts(prefixes))
	}
}

func (w *writer) limit(l *lb.Limit) {
	w.b = append(w.b, "    limit:\n"...)
	if l.ConnectionsPerSource > 0 {
		w.key(6, "connections-per-source", strconv.FormatUint(uint64(l.ConnectionsPerSource), 10))
	}
	if l.NewPerSource.Events > 0 {
		w.key(6, "new-per-source", l.NewPerSource.String())
		if uint64(l.Burst) != l.NewPerSource.Events {
			w.key(6, "burst", strconv.FormatUint(uint64(l.Burst), 10))
		}
	}
	if l.New.Events > 0 {
		w.key(6, "new", l.New.String())
	}
}

func (w *writer) log(indent int, l *lb.Log, service string) {
	if *l == (lb.Log{Prefix: service + " ", Level: lb.LogInfo}) {
		w.key(indent, "log", "true")
		return
	}
	w.open(indent, "log")
	w.b = append(w.b, '\n')
	w.key(indent+2, "prefix", l.Prefix)
	if l.Level != lb.LogInfo {
		w.key(indent+2, "level", l.Level.String())
	}
	if l.Rate.Events > 0 {
		w.key(indent+2, "rate", l.Rate.String())
	}
}
