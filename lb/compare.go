package lb

// Compare: what differs between what is there and what is wanted, in the words
// of the domain; and fingerprints, which stand for all values of a service.

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"nlb/lb/internal/walk"
)

// Op says what becomes of a service or a backend.
type Op byte

// The operations.
const (
	Added   Op = '+'
	Changed Op = '~'
	Removed Op = '-'
)

// Change is a service or a backend that differs.
type Change struct {
	Op Op
	// Service is profile/service.
	Service string
	// Backend is the backend's name; empty: the service itself.
	Backend string
	// Detail says what it is, or what changes: "weight 1 -> 2".
	Detail string
}

// String is one line.
func (c Change) String() string {
	if c.Backend == "" {
		return strings.TrimSpace(fmt.Sprintf("%c service %s  %s", c.Op, c.Service, c.Detail))
	}
	return strings.TrimSpace(fmt.Sprintf("%c backend %s %s  %s", c.Op, c.Service, c.Backend, c.Detail))
}

// Compare returns the changes that lead from one set of profiles to another,
// sorted by service. What cannot be seen from outside (the order of backends,
// how a listen is spelled) does not differ.
func Compare(have, want []*Profile) []Change {
	all, _ := CompareFirst(have, want, math.MaxInt)
	return all
}

// CompareFirst is Compare up to the service with which there are most changes. Of those
// behind it, more is how many differ: to say how would take most of the time.
func CompareFirst(have, want []*Profile, most int) (out []Change, more int) {
	old, new := byName(have), byName(want)
	names := slices.AppendSeq(make([]string, 0, len(old)+len(new)), maps.Keys(old))
	names = slices.AppendSeq(names, maps.Keys(new))
	slices.Sort(names)
	names = slices.Compact(names)
	out = make([]Change, 0, min(most, mostOf(old, new)))
	for _, name := range names {
		if len(out) >= most {
			if h, s := old[name], new[name]; h == nil || s == nil || !equal(appendService, h, s) {
				more++
			}
			continue
		}
		first := len(out)
		switch h, s := old[name], new[name]; {
		case s == nil:
			out = changes(out, Removed, name, h)
		case h == nil:
			out = changes(out, Added, name, s)
		default:
			out = append(out, compareService(name, h, s)...)
		}
		slices.SortStableFunc(out[first:], func(a, b Change) int { return strings.Compare(a.Backend, b.Backend) })
	}
	return out, more
}

// mostOf is how many changes there are at most between services, about.
func mostOf(old, new map[string]*Service) int {
	n := 0
	for _, both := range [][2]map[string]*Service{{old, new}, {new, old}} {
		for name, s := range both[0] {
			if both[1][name] == nil {
				n += 1 + len(s.Backends)
			}
		}
	}
	return n
}

func byName(profiles []*Profile) map[string]*Service {
	out := map[string]*Service{}
	for p, s := range Services(profiles) {
		out[p.Name+"/"+s.Name] = s
	}
	return out
}

// changes appends a service and its backends as a whole.
func changes(out []Change, op Op, name string, s *Service) []Change {
	out = append(out, Change{op, name, "", strings.Join(words(s), "  ")})
	for i := range s.Backends {
		out = append(out, Change{op, name, s.Backends[i].Name, backendWords(&s.Backends[i])})
	}
	return out
}

// words describe a service: where it listens, and how it balances.
func words(s *Service) []string {
	return []string{strings.Join(texts(s.Listen), " "), strings.Join(texts(s.Protocols), ","), s.SchedulerText()}
}

func backendWords(b *Backend) string {
	words := fmt.Sprintf("weight %d  snat %s", b.Weight, b.sourceText())
	if b.Renamed() {
		words = b.Where() + "  " + words
	}
	return words
}

// detailOrder is the order in which a change names keys; others come behind these.
var detailOrder = []string{
	"name", "listen", "role", "interface", "scheduler", "hash-seed", "affinity", "deny", "allow", "limit", "on-empty",
	"weight", "max-connections", "log", "snat",
}

// compareService names the keys that differ; where a field differs that no key
// describes, that field.
func compareService(name string, have, want *Service) []Change {
	alike := equal(appendFrame, have, want)
	if alike && equal(appendBackends, have, want) {
		return nil
	}
	var out []Change
	if details := differences(serviceKeys, have, want); details != "" {
		out = append(out, Change{Changed, name, "", details})
	} else if !alike {
		a, b := have.visible(), want.visible()
		if !have.anyEmpty() || !want.anyEmpty() {
			a.OnEmpty, b.OnEmpty = 0, 0
		}
		if !have.refuses() || !want.refuses() {
			a.OnRefuse, b.OnRefuse = 0, 0
		}
		if len(have.Backends) == 0 || len(want.Backends) == 0 {
			a.Offload, b.Offload = 0, 0
		}
		if len(have.Backends)+len(want.Backends) > 0 {
			a.Log, b.Log = nil, nil
		}
		if !equal(appendService, &a, &b) {
			out = append(out, Change{Changed, name, "", walker.Difference("", reflect.ValueOf(a), reflect.ValueOf(b))})
		}
	}
	old := make(map[place]*Backend, len(have.Backends))
	for i := range have.Backends {
		b := &have.Backends[i]
		old[place{b.Host, b.Address}] = b
	}
	for i := range want.Backends {
		b := &want.Backends[i]
		h, ok := old[place{b.Host, b.Address}]
		delete(old, place{b.Host, b.Address})
		if !ok {
			out = append(out, Change{Added, name, b.Name, backendWords(b)})
		} else if details := differences(backendKeys, &member{h, have}, &member{b, want}); details != "" {
			out = append(out, Change{Changed, name, b.Name, details})
		} else if x, y := h.visible(), b.visible(); !equal(appendBackend, &x, &y) {
			out = append(out, Change{Changed, name, b.Name, walker.Difference("", reflect.ValueOf(x), reflect.ValueOf(y))})
		}
	}
	for i := range have.Backends {
		b := &have.Backends[i]
		if _, left := old[place{b.Host, b.Address}]; left {
			out = append(out, Change{Removed, name, b.Name, backendWords(b)})
		}
	}
	return out
}

// differences are the keys in which two values differ, as text.
func differences[T any](keys []key[T], have, want *T) string {
	type detail struct {
		rank int
		text string
	}
	var details []detail
	for i := range keys {
		k := &keys[i]
		a, seen := k.changed(have)
		b, both := k.changed(want)
		if seen && both && a != b {
			rank := cmp.Or(slices.Index(detailOrder, k.word)+1, len(detailOrder)+1)
			details = append(details, detail{rank, fmt.Sprintf("%s %s -> %s", k.word, a, b)})
		}
	}
	slices.SortStableFunc(details, func(a, b detail) int { return a.rank - b.rank })
	texts := make([]string, len(details))
	for i, d := range details {
		texts[i] = d.text
	}
	return strings.Join(texts, ", ")
}

// changed is the value as a change names it; false where it cannot be seen.
func (k *key[T]) changed(v *T) (string, bool) {
	if k.change != nil {
		return k.change(v)
	}
	value, _ := k.value(v)
	return text(value), true
}

// visible is a service without its backends, as far as it can be seen from
// outside: services that are equal in it work alike. What is left out here is
// named by no change; neither are on-empty where it cannot be met, and the log of
// a service with backends, of which each has its own.
func (s *Service) visible() Service {
	v := *s
	v.Backends = nil  // compared one by one
	v.SNAT = SNAT{}   // what each backend has decides
	v.Protocols = nil // compared with the listens
	v.Listen = slices.Clone(s.Listen)
	for i := range v.Listen {
		v.Listen[i].Prefix, v.Listen[i].Ports = netip.Prefix{}, nil // compared as destinations, however they are spelled
	}
	v.Listen = slices.CompactFunc(v.Listen, func(a, b Listen) bool { return equal(appendListen, &a, &b) })
	v.Allow, v.Deny = Outer(s.Allow), Outer(s.Deny)
	if s.affinityText() == "none" {
		v.Affinity = nil
	} else {
		a := *s.Affinity
		a.Bits, a.Bits6 = 0, 0 // compared for the families that have backends
		v.Affinity = &a
	}
	if !s.Scheduler.Hashes() {
		v.HashBy, v.HashSeed = nil, 0
	}
	return v
}

// visible is the backend as far as it can be seen from outside, and as it is
// wanted, whatever is known of it.
func (b *Backend) visible() Backend {
	v := *b
	v.Standing, v.State, v.Share = Standing{}, 0, 0
	v.SNAT, v.Priority = b.EffectiveSNAT(), b.priority()
	return v
}

// affinityText is the affinity of the families that the service has.
func (s *Service) affinityText() string {
	if s.Affinity == nil {
		return "none"
	}
	text := ""
	for _, f := range s.Families() {
		switch {
		case s.emptyOf(f): // there is nobody to stay with
		case f == IPv4:
			text += fmt.Sprintf("/%d", s.Affinity.Bits)
		default:
			text += fmt.Sprintf("/%d", s.Affinity.Bits6)
		}
	}
	if text == "" {
		return "none"
	}
	if s.Affinity.Group != "" {
		text += " group " + s.Affinity.Group
	}
	return timeText(s.Affinity.Timeout) + text
}

// listText tells lists of prefixes apart, and is short.
func listText(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "none"
	}
	h := fnv.New32a()
	outer := Outer(prefixes)
	for _, p := range outer {
		fmt.Fprintln(h, p)
	}
	if len(outer) <= 3 {
		return strings.Join(strings.Fields(fmt.Sprint(outer)), ",")
	}
	return fmt.Sprintf("%d prefixes (%08x)", len(outer), h.Sum32())
}

// anyEmpty reports whether a family has no backend that takes connections. Only
// then can on-empty be seen.
func (s *Service) anyEmpty() bool {
	return slices.ContainsFunc(s.Families(), s.emptyOf)
}

// refuses reports whether a connection may be turned away although there are backends.
// Only then can on-refuse be seen.
func (s *Service) refuses() bool {
	return len(s.Allow)+len(s.Deny) > 0 || s.Limit != Limit{} || slices.ContainsFunc(s.Families(), func(f Family) bool {
		of := s.Of(f)
		return slices.ContainsFunc(of, func(b Backend) bool { return b.MaxConnections > 0 }) &&
			slices.ContainsFunc(of, func(b Backend) bool { return b.Effective() > 0 })
	})
}

func (s *Service) emptyOf(f Family) bool {
	return !slices.ContainsFunc(s.Of(f), func(b Backend) bool { return b.Weight > 0 })
}

// destinations are what a service takes, in a form that is the same for
// however it is spelled.
func destinations(s *Service) string {
	var all []string
	for _, l := range s.Listen {
		for _, r := range l.Ports {
			one := Listen{Prefix: l.Prefix, Ports: []PortRange{r}}
			for _, p := range s.Protocols {
				all = append(all, one.String()+"/"+p.String())
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// FingerprintSize is the length of a fingerprint, in bytes.
const FingerprintSize = 8

// Fingerprint stands for the values of a service: frame for all of them but the
// backends, with salt before them, and backends for those. Two services that
// differ in any field that the kernel keeps have other fingerprints; where they
// stand in a file does not matter. It is the same on every machine.
func Fingerprint(salt string, s *Service) (frame, backends [FingerprintSize]byte) {
	buffer := fingerprintBuffers.Get().(*[]byte)
	b := append((*buffer)[:0], salt...)
	v := reflect.ValueOf(s).Elem()
	b = appendFrame(b, v)
	at := len(b)
	b = appendBackends(b, v)
	first, second := sha256.Sum256(b[:at]), sha256.Sum256(b[at:])
	*buffer = b
	fingerprintBuffers.Put(buffer)
	return [FingerprintSize]byte(first[:]), [FingerprintSize]byte(second[:])
}

var fingerprintBuffers = sync.Pool{New: func() any { return new([]byte) }}

// unkept are fields that the kernel does not keep: how servers are checked, and
// what follows from that, is with those who check them. Another value of such a
// field is no reason to send anything; what it leads to, states and shares, is.
var unkept = map[reflect.Type][]string{
	reflect.TypeFor[Service](): {"Health", "FailOpen", "MinUp", "OnDown", "SlowStart"},
	reflect.TypeFor[Backend](): {"CheckAt"},
}

// walked reports whether a field of a struct is one of the values that are
// compared.
func walked(t reflect.Type, f reflect.StructField) bool {
	return f.Type != reflect.TypeFor[Pos]() && !slices.Contains(unkept[t], f.Name)
}

var walker = walk.New(walked)

// The walks of the two parts of a service.
var (
	appendFrame    = walker.Fields(reflect.TypeFor[Service](), func(field string) bool { return field != "Backends" })
	appendBackends = walker.Fields(reflect.TypeFor[Service](), func(field string) bool { return field == "Backends" })
)

// The walks of what is compared.
var (
	appendService = walker.Of(reflect.TypeFor[Service]())
	appendBackend = walker.Of(reflect.TypeFor[Backend]())
	appendListen  = walker.Of(reflect.TypeFor[Listen]())
)

// equal reports whether two values are equal in all that is walked.
func equal[T any](walk walk.Appender, a, b *T) bool {
	buffer := fingerprintBuffers.Get().(*[]byte)
	text := walk((*buffer)[:0], reflect.ValueOf(a).Elem())
	at := len(text)
	text = walk(text, reflect.ValueOf(b).Elem())
	same := bytes.Equal(text[:at], text[at:])
	*buffer = text
	fingerprintBuffers.Put(buffer)
	return same
}
