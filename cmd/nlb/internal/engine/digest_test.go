//go:build linux

package engine

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"nlb/lb"
)

// full is a profile in which every field has a value.
func full() *lb.Profile {
	prefix := netip.MustParsePrefix("203.0.113.0/24")
	snat := lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{prefix.Addr()}}
	log := &lb.Log{Prefix: "p", Level: 3, Rate: lb.Rate{Events: 5, Per: time.Minute}}
	return &lb.Profile{Name: "shop", Sysctl: lb.SysctlKeep, Services: []lb.Service{{
		Name: "web", Listen: []lb.Listen{{Prefix: prefix, Ports: []lb.PortRange{{First: 80, Last: 81}}}},
		Protocols: []lb.Protocol{lb.UDP}, Interface: "wan0", Role: lb.RoleServer, Scheduler: lb.Hash,
		HashBy: []lb.HashField{lb.SourcePort}, HashSeed: 7,
		Affinity: &lb.Affinity{Timeout: time.Hour, Bits: 24, Bits6: 64},
		SNAT:     snat, Allow: []netip.Prefix{prefix}, Deny: []netip.Prefix{prefix},
		Limit: lb.Limit{ConnectionsPerSource: 1, NewPerSource: lb.Rate{Events: 2, Per: time.Second}, Burst: 3, New: lb.Rate{Events: 4, Per: time.Hour}},
		Log:   log, OnEmpty: lb.Drop,
		Backends: []lb.Backend{{
			Name: "one", Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80},
			Weight: 5, State: lb.Down, MaxConnections: 6, SNAT: snat, Log: &lb.Log{Prefix: "q", Level: 4, Rate: lb.Rate{Events: 8, Per: time.Second}},
		}},
	}}}
}

// TestDigest: whatever changes of a profile changes the digest, and so do the
// options; a place in a file does not. A field that full leaves empty fails the
// test.
func TestDigest(t *testing.T) {
	of := func(p *lb.Profile) string { return digest([]*lb.Profile{p}, false, "") }
	before := of(full())
	fields := 0
	var change func(path string, v func(*lb.Profile) reflect.Value)
	change = func(path string, at func(*lb.Profile) reflect.Value) {
		p := full()
		v := at(p)
		switch {
		case v.Type() == reflect.TypeFor[lb.Pos]():
			v.Set(reflect.ValueOf(lb.Pos{File: "x", Line: 7, Column: 9}))
			if of(p) != before {
				t.Errorf("%s changes the digest", path)
			}
			return
		case v.IsZero():
			t.Errorf("%s is empty", path)
		case v.Kind() == reflect.Struct && v.Type().PkgPath() == reflect.TypeFor[lb.Pos]().PkgPath():
			for i := range v.NumField() {
				change(path+"."+v.Type().Field(i).Name, func(p *lb.Profile) reflect.Value { return at(p).Field(i) })
			}
			return
		case v.Kind() == reflect.Slice:
			change(path+"[0]", func(p *lb.Profile) reflect.Value { return at(p).Index(0) })
		case v.Kind() == reflect.Pointer:
			change(path+"*", func(p *lb.Profile) reflect.Value { return at(p).Elem() })
		}
		fields++
		v.SetZero()
		if of(p) == before {
			t.Errorf("%s does not change the digest", path)
		}
	}
	change("profile", func(p *lb.Profile) reflect.Value { return reflect.ValueOf(p).Elem() })
	if fields < 40 {
		t.Errorf("%d fields", fields)
	}
	if of(full()) != before {
		t.Error("the same profile has another digest")
	}
	profiles := []*lb.Profile{full()}
	if digest(profiles, true, "") == before || digest(profiles, false, "other") == before || digest(append(profiles, full()), false, "") == before {
		t.Error("an option does not change the digest")
	}
}

func BenchmarkDigest(b *testing.B) {
	profiles := []*lb.Profile{full()}
	for len(profiles[0].Services) < 10_000 {
		profiles[0].Services = append(profiles[0].Services, full().Services...)
	}
	for b.Loop() {
		digest(profiles, false, "")
	}
}
