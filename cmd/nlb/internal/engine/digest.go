//go:build linux

package engine

// The digest: what stands for everything that an apply is asked for.

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"

	"nlb/lb"
)

// digest is a hash of every field of the profiles, except their positions in
// files, and of what else decides what an apply makes of them.
func digest(profiles []*lb.Profile, prune bool, build string) string {
	services := 0
	for _, p := range profiles {
		services += len(p.Services)
	}
	b := fmt.Appendf(make([]byte, 0, 1024+256*services), "%v %q", prune, build)
	sum := sha256.Sum256(appendValue(b, reflect.ValueOf(profiles)))
	return string(sum[:])
}

var (
	positionType = reflect.TypeFor[lb.Pos]()
	addressType  = reflect.TypeFor[netip.Addr]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
)

// appendValue appends a value, which must be addressable, so that different values
// of a type differ.
func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		return append(binary.AppendUvarint(b, uint64(v.Len())), v.String()...)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		for i := range v.Len() {
			b = appendValue(b, v.Index(i))
		}
		return b
	case reflect.Struct:
		switch v.Type() {
		case positionType:
			return b
		case addressType:
			return appendAddress(b, *v.Addr().Interface().(*netip.Addr))
		case prefixType:
			p := v.Addr().Interface().(*netip.Prefix)
			return binary.AppendVarint(appendAddress(b, p.Addr()), int64(p.Bits()))
		}
		for i := range v.NumField() {
			b = appendValue(b, v.Field(i))
		}
		return b
	}
	panic(fmt.Sprintf("digest of a %v", v.Type())) // a test takes every type of a profile
}

// appendAddress appends an address with its length; the zero one has none.
// Addresses of profiles have no zone.
func appendAddress(b []byte, a netip.Addr) []byte {
	bytes := a.As16()
	return append(append(b, byte(a.BitLen())), bytes[:]...)
}
