package lb

// Fingerprints: what stands for all values of a service. They are made by
// walking the types, so that no field can be forgotten.

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

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

// The walks of the two parts of a service.
var (
	appendFrame    = structAppender(reflect.TypeFor[Service](), func(field string) bool { return field != "Backends" })
	appendBackends = structAppender(reflect.TypeFor[Service](), func(field string) bool { return field == "Backends" })
)

// The walks of what is compared.
var (
	appendService = appenderOf(reflect.TypeFor[Service]())
	appendBackend = appenderOf(reflect.TypeFor[Backend]())
	appendListen  = appenderOf(reflect.TypeFor[Listen]())
)

// equal reports whether two values are equal in all that is walked.
func equal[T any](walk appender, a, b *T) bool {
	buffer := fingerprintBuffers.Get().(*[]byte)
	text := walk((*buffer)[:0], reflect.ValueOf(a).Elem())
	at := len(text)
	text = walk(text, reflect.ValueOf(b).Elem())
	same := bytes.Equal(text[:at], text[at:])
	*buffer = text
	fingerprintBuffers.Put(buffer)
	return same
}

// appender appends a value, in a form that no other value of its type has. The
// value must be addressable.
type appender func(b []byte, v reflect.Value) []byte

// appenderOf is the walk of a type. It panics where a type has no such form: a
// profile has no maps, functions and interfaces.
func appenderOf(t reflect.Type) appender {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return func(b []byte, v reflect.Value) []byte { return appendAddr(b, *v.Addr().Interface().(*netip.Addr)) }
	case reflect.TypeFor[netip.Prefix]():
		return func(b []byte, v reflect.Value) []byte {
			p := v.Addr().Interface().(*netip.Prefix)
			return append(appendAddr(b, p.Addr()), byte(p.Bits()))
		}
	case reflect.TypeFor[time.Time]():
		return func(b []byte, v reflect.Value) []byte {
			at := v.Addr().Interface().(*time.Time)
			return binary.AppendVarint(binary.AppendVarint(b, at.Unix()), int64(at.Nanosecond()))
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(b []byte, v reflect.Value) []byte {
			if v.Bool() {
				return append(b, 1)
			}
			return append(b, 0)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(b []byte, v reflect.Value) []byte { return binary.AppendVarint(b, v.Int()) }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(b []byte, v reflect.Value) []byte { return binary.AppendUvarint(b, v.Uint()) }
	case reflect.String:
		return func(b []byte, v reflect.Value) []byte {
			b = binary.AppendUvarint(b, uint64(v.Len()))
			return append(b, v.String()...)
		}
	case reflect.Pointer:
		elem := appenderOf(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
			if v.IsNil() {
				return append(b, 0)
			}
			return elem(append(b, 1), v.Elem())
		}
	case reflect.Slice:
		elem := appenderOf(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
			n := v.Len()
			b = binary.AppendUvarint(b, uint64(n))
			for i := range n {
				b = elem(b, v.Index(i))
			}
			return b
		}
	case reflect.Struct:
		return structAppender(t, func(string) bool { return true })
	}
	panic(fmt.Sprintf("a profile cannot have a %v", t))
}

// structAppender is the walk of the fields of a struct that has says.
func structAppender(t reflect.Type, has func(field string) bool) appender {
	type field struct {
		number int
		append appender
	}
	var fields []field
	for i := range t.NumField() {
		if f := t.Field(i); walked(t, f) && has(f.Name) {
			fields = append(fields, field{i, appenderOf(f.Type)})
		}
	}
	return func(b []byte, v reflect.Value) []byte {
		for i := range fields {
			b = fields[i].append(b, v.Field(fields[i].number))
		}
		return b
	}
}

// appendAddr has no form for zones: no address of a profile has one.
func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(append(b, 4), four[:]...)
	}
	if !a.IsValid() {
		return append(b, 0)
	}
	sixteen := a.As16()
	return append(append(b, 16), sixteen[:]...)
}

// firstDifference names the first field in which two values of a type differ,
// with both, as a key: "max-connections 3 -> 4". Empty: they are equal. It is for
// fields that no key describes.
func firstDifference(name string, a, b reflect.Value) string {
	if bytes.Equal(appendAny(a), appendAny(b)) {
		return ""
	}
	switch t := a.Type(); {
	case t.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		return firstDifference(name, a.Elem(), b.Elem())
	case t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[Service]().PkgPath():
		for i := range t.NumField() {
			if !walked(t, t.Field(i)) {
				continue
			}
			inner := strings.Trim(name+"."+kebab(t.Field(i).Name), ".")
			if d := firstDifference(inner, a.Field(i), b.Field(i)); d != "" {
				return d
			}
		}
	}
	return fmt.Sprintf("%s %v -> %v", name, a, b)
}

// appendAny is the form of a value that need not be addressable.
func appendAny(v reflect.Value) []byte {
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return appenderOf(v.Type())(nil, p.Elem())
}

// kebab is a name of Go as a key: MaxConnections is max-connections.
func kebab(s string) string {
	var b []byte
	for i := range len(s) {
		if i > 0 && unicode.IsUpper(rune(s[i])) && unicode.IsLower(rune(s[i-1])) {
			b = append(b, '-')
		}
		b = append(b, s[i])
	}
	return strings.ToLower(string(b))
}
