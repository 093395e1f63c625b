package nft

// Offload, without a kernel: what is planned where devices and wishes change.

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// flowtable is a flow table by its name.
func (o *objects) flowtable(name string) *ruleset.Flowtable {
	at := slices.IndexFunc(o.flowtables, func(f ruleset.Flowtable) bool { return f.Name == name })
	if at < 0 {
		return nil
	}
	return &o.flowtables[at]
}

// doFlowtable does what the kernel does, which passes over devices that are there, and
// refuses to take out those that are not.
func (o *objects) doFlowtable(op op) error {
	f := o.flowtable(op.flowtable.Name)
	switch {
	case op.verb == add && f == nil:
		o.flowtables = append(o.flowtables, *op.flowtable)
	case op.verb == add:
		f.Devices = append(f.Devices, op.flowtable.Devices...)
	case f == nil:
		return fmt.Errorf("no such flow table")
	case len(op.flowtable.Devices) == 0:
		o.flowtables = slices.DeleteFunc(o.flowtables, func(f ruleset.Flowtable) bool { return f.Name == op.flowtable.Name })
	default:
		for _, d := range op.flowtable.Devices {
			if !slices.Contains(f.Devices, d) {
				return fmt.Errorf("device %s is not in the flow table", d)
			}
			f.Devices = slices.DeleteFunc(f.Devices, func(have string) bool { return have == d })
		}
	}
	return nil
}

// offloading is a profile with a service for each way.
func offloading(ways ...lb.Offload) *lb.Profile {
	p := &lb.Profile{Name: "shop"}
	for i, way := range ways {
		s := service(fmt.Sprintf("s%d", i), fmt.Sprintf("203.0.113.%d", i+1), backend(fmt.Sprintf("10.0.0.%d:80", i+1), 1))
		if s.Offload = way; way == lb.OffloadHardware {
			s.Devices = []string{"eth0", "eth1"}
		}
		p.Services = append(p.Services, s)
	}
	return p
}

// TestOffload goes through changes of wishes and devices: each plan does what is
// written beside it, and the same again does nothing.
func TestOffload(t *testing.T) {
	o := emptyObjects()
	software := func(devices ...string) compile.Offload { return compile.Offload{Software: devices} }
	both := compile.Offload{Auto: true, Software: []string{"eth0", "eth1"}, Hardware: []string{"eth0"}}
	all := []lb.Offload{lb.OffloadSoftware, lb.OffloadAuto, lb.OffloadHardware}
	for _, step := range []struct {
		name   string
		ways   []lb.Offload
		should compile.Offload
		gone   string // a device that has vanished before
		want   []string
	}{
		{"it comes", all[:1], software("eth0", "eth1"), "", []string{"add flowtable software [eth0 eth1]", "add chain forward"}},
		{"another device", all[:1], software("eth0", "eth1", "eth2"), "", []string{"add flowtable software [eth2]"}},
		{"one less", all[:1], software("eth0", "eth2"), "", []string{"delete flowtable software [eth1]"}},
		{"one has come back", all[:1], software("eth0", "eth2"), "eth2", []string{"add flowtable software [eth2]"}},
		{"one does not come back", all[:1], software("eth0"), "eth2", nil},
		{"auto is off", all[:2], software("eth0"), "", nil},
		{"auto is on", all[:2], compile.Offload{Auto: true, Software: []string{"eth0"}}, "", nil},
		{"hardware", all, both, "", []string{"add flowtable hardware [eth0]", "add flowtable software [eth1]"}},
		{"no hardware", all, compile.Offload{Auto: true, Software: []string{"eth0", "eth1"}}, "", []string{"delete flowtable hardware []"}},
		{"no wishes", []lb.Offload{lb.OffloadNone}, both, "", []string{"delete chain forward", "delete flowtable software []"}},
	} {
		apply := func() *plan {
			t.Helper()
			options := Options{Table: "nlb", Offload: func([]*lb.Profile, compile.Offload) compile.Offload { return step.should }}
			p, _, err := planFor(newState("nlb", o), []*lb.Profile{offloading(step.ways...)}, options, nil)
			if err == nil {
				err = o.run(p)
			}
			if err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			return p
		}
		for i := range o.flowtables {
			f := &o.flowtables[i]
			f.Devices = slices.DeleteFunc(f.Devices, func(d string) bool { return d == step.gone })
		}
		lines := strings.Split(apply().String(), "\n")
		got := slices.DeleteFunc(lines, func(l string) bool {
			return !strings.Contains(l, "flowtable") && !strings.Contains(l, "chain forward")
		})
		if diff := cmp.Diff(step.want, slices.Clip(got), cmp.Transformer("", func(l []string) string { return strings.Join(l, "\n") })); diff != "" {
			t.Errorf("%s (-want +got)\n%s", step.name, diff)
		}
		for apply(); !apply().empty(); {
			t.Fatalf("%s: it is not done", step.name)
		}
		if step.ways[0] == lb.OffloadNone {
			continue
		}
		s := newState("nlb", o)
		if !s.Offload().Equal(step.should) {
			t.Errorf("%s: read back %+v, want %+v", step.name, s.Offload(), step.should)
		}
		for i, way := range step.ways {
			if got := s.Profiles[0].Services[i]; got.Offload != way || len(got.Devices) != len(offloading(step.ways...).Services[i].Devices) {
				t.Errorf("%s: %s is read back as %s on %v", step.name, way, got.Offload, got.Devices)
			}
		}
		if drift := s.Drift(); len(drift) > 0 {
			t.Errorf("%s: drift %v", step.name, drift)
		}
	}
}

// TestFlowtableMessages: what is sent of a flow table is what is read of one.
func TestFlowtableMessages(t *testing.T) {
	for _, f := range []ruleset.Flowtable{
		{Name: "software", Devices: []string{"eth0", "eth0.100"}},
		{Name: "hardware", Hardware: true, Devices: []string{"eth0"}},
		{Name: "software"},
	} {
		for _, verb := range []verb{add, remove} {
			b := wire.NewBatch(wire.AnyGeneration)
			before := b.Len()
			encode(&ruleset.Messages{Batch: b, Family: ruleset.Inet, Table: "nlb"}, []op{{verb: verb, flowtable: &f}})
			message := b.Bytes()[before:]
			const headers = unix.SizeofNlMsghdr + 4
			table, got := ruleset.DecodeFlowtable(message[headers:])
			want := f
			want.Hardware = f.Hardware && verb == add // who deletes it need not say
			if diff := cmp.Diff(want, got); diff != "" || table != "nlb" {
				t.Errorf("%s, table %s (-want +got)\n%s", verb, table, diff)
			}
		}
	}
}
