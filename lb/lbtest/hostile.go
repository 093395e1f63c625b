package lbtest

// Profiles that are nearly valid.

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"nlb/lb"
)

// Hostile is a profile of which some values are not what they were: most of them
// not valid, or not together.
func Hostile(r *rand.Rand) *lb.Profile {
	p := Named(r, Profile(r))
	for i := range p.Services {
		own := &p.Services[i] // pointers and lists that no other value shares
		for j := range own.Backends {
			if l := own.Backends[j].Log; l != nil {
				copied := *l
				own.Backends[j].Log = &copied
			}
			own.Backends[j].SNAT.Pool = slices.Clone(own.Backends[j].SNAT.Pool)
		}
		own.Health = slices.Clone(own.Health)
	}
	for range r.IntN(3) {
		var places []reflect.Value
		walk(reflect.ValueOf(p).Elem(), func(v reflect.Value) { places = append(places, v) })
		spoil(r, places[r.IntN(len(places))])
	}
	return p
}

// walk visits all values that can be set, but places in files, and what is known
// of backends.
func walk(v reflect.Value, visit func(reflect.Value)) {
	switch v.Type() {
	case reflect.TypeFor[lb.Pos](), reflect.TypeFor[lb.BackendState](), reflect.TypeFor[lb.Standing]():
		return
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix]():
		visit(v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Share" { // known of a backend, too
				walk(v.Field(i), visit)
			}
		}
	case reflect.Pointer:
		visit(v)
		if !v.IsNil() {
			walk(v.Elem(), visit)
		}
	case reflect.Slice:
		visit(v)
		for i := range v.Len() {
			walk(v.Index(i), visit)
		}
	default:
		visit(v)
	}
}

var (
	hostileTexts = []string{
		"", "a", "eth0", "*", "eth*", "a b", "..", "x/y", "null", "10.0.0.1:80", "é", "\x00", `"`, "$x", "aaaaaaaaaaaaaaaa", "web ",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	}
	hostileAddrs = []string{
		"10.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "fe80::1%eth0", "::ffff:10.0.0.1", "2001:db8::7", "192.0.2.1",
	}
	hostileTimes = []time.Duration{0, -1, 1, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 1500 * time.Millisecond, time.Minute, 24 * time.Hour, 366 * 24 * time.Hour, 365 * 24 * time.Hour}
	hostileInts  = []int64{-1, 0, 1, 2, 3, 7, 32, 33, 128, 129, 1000, 1001}
	hostileUints = []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 132, 200, 255, 443, 65535, 1 << 31, 1 << 40, 1_000_000_001}
)

// spoil gives a value another one of its type.
func spoil(r *rand.Rand, v reflect.Value) {
	addr := func() netip.Addr { return netip.MustParseAddr(hostileAddrs[r.IntN(len(hostileAddrs))]) }
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf([]netip.Addr{{}, addr()}[r.IntN(2)]))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf([]netip.Prefix{{}, netip.PrefixFrom(addr(), r.IntN(140)-2)}[r.IntN(2)]))
		return
	case time.Duration:
		v.SetInt(int64(hostileTimes[r.IntN(len(hostileTimes))]))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostileTexts[r.IntN(len(hostileTexts))])
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int64:
		v.SetInt(hostileInts[r.IntN(len(hostileInts))])
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := hostileUints[r.IntN(len(hostileUints))]
		v.SetUint(n & (1<<v.Type().Bits() - 1))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else {
			v.SetZero()
		}
	case reflect.Slice:
		switch n := v.Len(); {
		case n == 0:
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		case r.IntN(3) == 0:
			v.Set(reflect.Append(v, v.Index(r.IntN(n))))
		case r.IntN(2) == 0:
			v.Set(v.Slice(0, r.IntN(n)))
		default: // in another order
			swap := reflect.Swapper(v.Interface())
			swap(0, n-1)
		}
	}
}
