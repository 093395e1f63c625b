// Package walk writes values of Go as bytes, which no other value of their type has, by
// walking their types, so that no field can be forgotten.
package walk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// Walker walks types. Fields of structs that has does not have are passed over.
type Walker struct {
	has func(t reflect.Type, f reflect.StructField) bool
}

// New is a walker of the fields that has says.
func New(has func(t reflect.Type, f reflect.StructField) bool) Walker { return Walker{has} }

// Appender appends a value, in a form that no other value of its type has. The
// value must be addressable.
type Appender func(b []byte, v reflect.Value) []byte

// Of is the walk of a type. It panics where a type has no such form: maps, functions
// and interfaces.
func (w Walker) Of(t reflect.Type) Appender {
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
		elem := w.Of(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
			if v.IsNil() {
				return append(b, 0)
			}
			return elem(append(b, 1), v.Elem())
		}
	case reflect.Slice:
		elem := w.Of(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
			n := v.Len()
			b = binary.AppendUvarint(b, uint64(n))
			for i := range n {
				b = elem(b, v.Index(i))
			}
			return b
		}
	case reflect.Struct:
		fields := w.Fields(t, func(string) bool { return true })
		if !w.whole(t) {
			return fields
		}
		return func(b []byte, v reflect.Value) []byte { // most are zero
			if v.IsZero() {
				return append(b, 0)
			}
			return fields(append(b, 1), v)
		}
	}
	panic(fmt.Sprintf("there is no walk of a %v", t))
}

// whole reports whether a value of a type is zero where all that is walked of it is.
func (w Walker) whole(t reflect.Type) bool {
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			if f := t.Field(i); !w.has(t, f) || !w.whole(f.Type) {
				return false
			}
		}
	}
	return t.Comparable()
}

// Fields is the walk of some fields of a struct.
func (w Walker) Fields(t reflect.Type, some func(field string) bool) Appender {
	type field struct {
		number int
		append Appender
	}
	var fields []field
	for i := range t.NumField() {
		if f := t.Field(i); w.has(t, f) && some(f.Name) {
			fields = append(fields, field{i, w.Of(f.Type)})
		}
	}
	return func(b []byte, v reflect.Value) []byte {
		for i := range fields {
			b = fields[i].append(b, v.Field(fields[i].number))
		}
		return b
	}
}

// appendAddr has no form for zones.
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

// Difference names the first field in which two values of a type differ, with both, as
// a key: "max-connections 3 -> 4". Empty: they are equal. It looks into structs of the
// package of the type that it begins with.
func (w Walker) Difference(name string, a, b reflect.Value) string {
	return w.difference(a.Type().PkgPath(), name, a, b)
}

func (w Walker) difference(pkg, name string, a, b reflect.Value) string {
	if bytes.Equal(w.appendAny(a), w.appendAny(b)) {
		return ""
	}
	switch t := a.Type(); {
	case t.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		return w.difference(pkg, name, a.Elem(), b.Elem())
	case t.Kind() == reflect.Struct && t.PkgPath() == pkg:
		for i := range t.NumField() {
			if !w.has(t, t.Field(i)) {
				continue
			}
			inner := strings.Trim(name+"."+kebab(t.Field(i).Name), ".")
			if d := w.difference(pkg, inner, a.Field(i), b.Field(i)); d != "" {
				return d
			}
		}
	}
	return fmt.Sprintf("%s %v -> %v", name, a, b)
}

// appendAny is the form of a value that need not be addressable.
func (w Walker) appendAny(v reflect.Value) []byte {
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return w.Of(v.Type())(nil, p.Elem())
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
