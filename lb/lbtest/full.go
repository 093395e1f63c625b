package lbtest

// Profiles that use every key, and all fields of a profile, one by one.

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"nlb/lb"
)

// Full are valid profiles that have a value in every field between them. Each call
// makes them anew; they share nothing.
func Full() []*lb.Profile {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	full := func() lb.Service {
		pool := func(a ...netip.Addr) lb.SNAT { return lb.SNAT{Mode: lb.SNATPool, Pool: a} }
		log := func(prefix string) *lb.Log {
			return &lb.Log{Prefix: prefix, Level: 4, Rate: lb.Rate{Events: 10, Per: time.Second}}
		}
		backend := func(name, address string) lb.Backend {
			b := lb.Backend{Name: name, Address: lb.Endpoint{Addr: addr(address), Port: 8080}, Weight: 2, Priority: 1, MaxConnections: 7, Log: log(name + " ")}
			b.SNAT = pool(addr("198.51.100.7"), addr("198.51.100.9"))
			if b.Address.Addr.Is6() {
				b.SNAT = pool(addr("2001:db8:9::7"), addr("2001:db8:9::9"))
			}
			return b
		}
		ports := func() []lb.PortRange { return []lb.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8010}} }
		return lb.Service{
			Name: "full",
			Listen: []lb.Listen{
				{Prefix: prefix("203.0.113.0/28"), Ports: ports()},
				{Prefix: prefix("2001:db8::10/128"), Ports: ports()},
				{Prefix: prefix("203.0.113.99/32"), Ports: ports()},
			},
			Protocols: []lb.Protocol{lb.TCP, lb.UDP}, Interface: "eth0", Role: lb.RoleServer,
			Scheduler: lb.Hash, HashBy: []lb.HashField{lb.SourceAddress, lb.SourcePort}, HashSeed: 7,
			Affinity: &lb.Affinity{Timeout: 10 * time.Minute, Bits: 24, Bits6: 64, Group: "shared"},
			SNAT:     pool(addr("198.51.100.1"), addr("2001:db8:9::1")),
			Allow:    []netip.Prefix{prefix("10.0.0.0/8"), prefix("192.168.0.0/16")}, Deny: []netip.Prefix{prefix("10.1.0.0/16"), prefix("10.3.0.0/16")},
			Limit: lb.Limit{
				ConnectionsPerSource: 50, NewPerSource: lb.Rate{Events: 100, Per: time.Minute}, Burst: 200, New: lb.Rate{Events: 5000, Per: time.Hour},
				Bits: 24, Bits6: 64, HalfOpen: 1000,
			},
			Log: log("full "), OnEmpty: lb.Drop, OnRefuse: lb.Drop,
			Backends: []lb.Backend{backend("one", "10.9.0.1"), backend("two", "10.9.0.2"), backend("six", "fd00::1")},
		}
	}
	checks := fullChecks()
	whole, plain := full(), full()
	whole.Health, whole.FailOpen, whole.MinUp, whole.OnDown, whole.Retry = checks[:lb.MaxChecks], 50, lb.MinUp{Percent: 50}, lb.CutConnections, true
	whole.Backends[0].CheckAt = lb.CheckAt{Addr: addr("10.9.9.1"), Port: 9000}
	whole.Backends[1].Priority = 2
	plain.Health, plain.SlowStart, plain.MinUp = checks[lb.MaxChecks:], 30*time.Second, lb.MinUp{Count: 1}
	plain.Backends[2].Priority, plain.Backends[1].CheckAt = 7, lb.CheckAt{None: true}
	plain.Scheduler, plain.HashBy, plain.HashSeed, plain.Affinity, plain.Interface = lb.RoundRobin, nil, 0, nil, ""
	whole.Timeouts = lb.Timeouts{HalfOpen: 10 * time.Second}
	plain.Timeouts = lb.Timeouts{
		Established: time.Hour, CloseWait: 2 * time.Hour, HalfOpen: 20 * time.Second, TimeWait: 30 * time.Second, UDP: 5 * time.Minute, UDPIdle: 15 * time.Second,
	}
	whole.Offload, whole.Devices = lb.OffloadAuto, []string{"eth0", "eth1"} // any kernel takes it
	plain.Helper, plain.Protocols = lb.SIP, []lb.Protocol{lb.TCP, lb.UDP}
	whole.RandomPorts = true
	whole.Unserved, whole.Forward = lb.UnservedReject, lb.ForwardBalanced
	plain.SNAT = lb.SNAT{Mode: lb.SNATNone}
	for i := range plain.Backends {
		plain.Backends[i].SNAT = lb.SNAT{Mode: lb.SNATNone}
	}
	empty := full()
	empty.Backends, empty.Timeouts = nil, lb.Timeouts{UDPIdle: 10 * time.Second}
	chosen := full()
	chosen.SNAT = lb.SNAT{Auto: true}
	for i := range chosen.Backends {
		chosen.Backends[i].SNAT = chosen.SNAT
	}
	direct, forgets := full(), full()
	for _, s := range []*lb.Service{&direct, &forgets} {
		makeDirect(s)
	}
	direct.Remember = time.Minute
	announced := direct
	announced.Unserved = lb.UnservedDrop
	spread, proven := full(), full()
	makeDatagrams(&spread)
	proven.Role, proven.Interface, proven.Listen, proven.SYNProtection = lb.RoleProxy, "", proven.Listen[1:], &lb.SYNProtection{MSS: 1400, WindowScale: 9}
	return []*lb.Profile{
		{Name: "p", Services: []lb.Service{whole}},
		{Name: "p", Services: []lb.Service{plain}},
		{Name: "p", Services: []lb.Service{empty}},
		{Name: "p", Services: []lb.Service{announced}, Announce: &lb.Announce{Interface: "vips", Delay: 20 * time.Second, Drain: 3 * time.Second, Track: []string{"eth0", "eth1"}}},
		{Name: "p", Services: []lb.Service{chosen}},
		{Name: "p", Services: []lb.Service{forgets}},
		{Name: "p", Services: []lb.Service{spread}},
		{Name: "p", Services: []lb.Service{proven}},
	}
}

// makeDirect makes a service one with mode: dsr, without what cannot be there.
func makeDirect(s *lb.Service) {
	s.Mode, s.Role, s.Scheduler = lb.DSR, lb.RoleProxy, lb.Consistent
	s.Affinity, s.Limit, s.Log, s.Allow, s.Deny, s.OnRefuse = nil, lb.Limit{}, nil, nil, nil, lb.Reject
	s.Preset()
	s.Listen = s.Listen[1:]
	for i := range s.Backends {
		b := &s.Backends[i]
		b.SNAT, b.Address.Port, b.MaxConnections, b.Log = s.SNAT, 0, 0, nil
	}
}

// makeDatagrams makes a service one with balance: datagrams, without what cannot be
// there.
func makeDatagrams(s *lb.Service) {
	s.Balance, s.Role, s.Interface, s.Protocols = lb.Datagrams, lb.RoleProxy, "", []lb.Protocol{lb.UDP}
	s.Scheduler, s.HashBy, s.HashSeed = lb.Random, nil, 0
	s.Affinity, s.Limit, s.Log, s.Retry, s.SNAT = nil, lb.Limit{}, nil, false, lb.SNAT{Mode: lb.SNATNone}
	s.Offload, s.Devices = lb.OffloadNone, nil
	s.Listen = slices.DeleteFunc(slices.Clone(s.Listen), func(l lb.Listen) bool { return !l.Prefix.IsSingleIP() })
	for i := range s.Backends {
		b := &s.Backends[i]
		b.SNAT, b.MaxConnections, b.Log = s.SNAT, 0, nil
	}
}

// Field is a field of a profile: where it is, as names of Go, and its value,
// which can be set.
type Field struct {
	// Path is the type that has it and the way to it: Service.Limit.Burst.
	Path  string
	Value reflect.Value
}

// Fields are all fields of a profile, and of what they point to and list, but
// places in files. A list is a field, and so are the fields of its elements.
func Fields(p *lb.Profile) []Field {
	var out []Field
	var fields func(path string, v reflect.Value)
	value := func(path string, v reflect.Value) {
		if domain(v.Type()) {
			fields(path, v)
			return
		}
		out = append(out, Field{path, v})
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			fields(path, v.Elem())
		}
		if v.Kind() == reflect.Slice && domain(v.Type().Elem()) {
			name := path
			if t := v.Type().Elem(); t == reflect.TypeFor[lb.Service]() || t == reflect.TypeFor[lb.Backend]() {
				name = t.Name()
			}
			for i := range v.Len() {
				fields(name, v.Index(i))
			}
		}
	}
	fields = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Type != reflect.TypeFor[lb.Pos]() {
				value(path+"."+f.Name, v.Field(i))
			}
		}
	}
	fields("Profile", reflect.ValueOf(p).Elem())
	return out
}

// domain reports whether a type is a struct of package lb.
func domain(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[lb.Profile]().PkgPath()
}

// Others are other values for a field, of which some may be valid.
func Others(v reflect.Value) []reflect.Value {
	var out []reflect.Value
	add := func(values ...any) {
		for _, one := range values {
			if c := reflect.ValueOf(one).Convert(v.Type()); !reflect.DeepEqual(c.Interface(), v.Interface()) {
				out = append(out, c)
			}
		}
	}
	switch now := v.Interface().(type) {
	case netip.Addr:
		add(now.Next())
	case netip.Prefix:
		add(netip.PrefixFrom(now.Addr(), now.Bits()+1), netip.PrefixFrom(now.Addr().Next(), now.Bits()))
	case time.Duration:
		add(time.Second, time.Minute)
	case time.Time:
		add(now.Add(time.Second))
	default:
		switch v.Kind() {
		case reflect.String:
			add("other", "eth*", "/other", "system", "A")
		case reflect.Bool:
			add(!v.Bool())
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			add(v.Int()+1, v.Int()-1)
		case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			add(v.Uint()+1, v.Uint()-1, 0, 132)
		case reflect.Pointer:
			out = append(out, reflect.Zero(v.Type()), reflect.New(v.Type().Elem()))
		case reflect.Slice:
			if n := v.Len(); n > 0 {
				out = append(out, v.Slice(0, n-1), reflect.AppendSlice(reflect.Zero(v.Type()), v.Slice(1, n)))
			}
		}
	}
	return out
}
