//go:build linux

package engine

// Offload: what of the profiles' wishes to be offloaded holds on this host, and why
// the rest does not.

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/probe"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
	"nlb/sysctl"
)

// Offloading is what of the profiles' wishes to be offloaded holds, or should.
type Offloading struct {
	compile.Offload
	// Off is why services with `offload: auto` are not offloaded; empty: they are.
	Off string
	// Lacks is why this kernel offloads nothing; nil: it can.
	Lacks error
	// Bypassed are the chains of others that packets in a flow table pass by.
	Bypassed []string
	// Left says which devices of the profiles are left out, and why: "eth7 is not
	// offloaded: it is not there".
	Left []string

	auto bool // a service says auto
}

const (
	// flowtableParam came with the kernels whose conntrack keeps what leaves a flow
	// table for as long as before: Linux 5.14, commit 975c57504da1.
	flowtableParam = "net.netfilter.nf_flowtable_tcp_timeout"
	// mostDevices is how many devices a flow table can be on (NFT_NETDEVICE_MAX).
	mostDevices = 256
	// offloadEvery is how often it is looked whether what holds is what should, at most.
	offloadEvery = 2 * time.Second
)

// offloader looks at the host, and remembers what does not change by itself.
type offloader struct {
	table string
	// asked are the kernel's answers about flow tables on a device, by its number.
	asked map[flowDevice]error
	// bypassed are the chains of others at a generation.
	bypassed   []string
	generation uint32
	last       *Offloading // what the last apply was told; nil: it did not ask
	next       time.Time   // when it is looked at again
}

// flowDevice is a device in a flow table; the zero device stands for the table itself.
type flowDevice struct {
	index    int
	hardware bool
}

// Offloading says what of the profiles' wishes should hold on this host, where now is
// what holds; nil where they have none. It changes nothing.
func (e *Engine) Offloading(profiles []*lb.Profile, now compile.Offload) *Offloading {
	if !compile.Offloads(profiles) {
		return nil
	}
	out := &Offloading{Lacks: e.offload.kernelLacks()}
	for _, s := range lb.Services(profiles) {
		out.auto = out.auto || s.Offload == lb.OffloadAuto && len(s.Backends) > 0
	}
	if out.Lacks != nil {
		out.Off = out.Lacks.Error()
		return out
	}
	s, err := lookAtDevices()
	if err != nil {
		out.Off = err.Error()
		return out
	}
	wants := s.wanted(profiles)
	if out.Bypassed, err = e.offload.bypass(e.conn); len(wants[lb.OffloadAuto]) > 0 {
		switch {
		case err != nil:
			out.Off = "the rules of others cannot be read: " + err.Error()
		case len(out.Bypassed) > 0:
			out.Off = "it would pass by " + strings.Join(out.Bypassed, "; ")
		default:
			out.Auto = true
			maps.Copy(wants[lb.OffloadSoftware], wants[lb.OffloadAuto])
		}
	}
	out.Hardware = e.offload.takers(s, wants[lb.OffloadHardware], now.Hardware, true, out)
	if len(out.Hardware) == 0 {
		maps.Copy(wants[lb.OffloadSoftware], wants[lb.OffloadHardware])
	}
	out.Software = e.offload.takers(s, wants[lb.OffloadSoftware], now.Software, false, out)
	if out.Off == "" && len(out.Software) == 0 {
		out.Auto, out.Off = false, "there is no device for it"
	}
	return out
}

// Holds is what holds where all that should does.
func (o *Offloading) Holds() compile.Offload {
	if o == nil {
		return compile.Offload{}
	}
	return o.Offload
}

// Of says which flow table a service is in, where now is what holds, and on which
// devices; or empty, and why it is in none.
func (o *Offloading) Of(s *lb.Service, now compile.Offload) (by, note string) {
	by = now.Table(s.Offload)
	switch {
	case o == nil:
		return "", "there is nothing to offload"
	case by == compile.HardwareTable:
		note = strings.Join(now.Hardware, ", ")
	case by == compile.SoftwareTable:
		note = strings.Join(now.Software, ", ")
	case !s.Offloadable():
		return "", "its connections are not forwarded for others, or neither TCP nor UDP"
	case s.Offload == lb.OffloadAuto && o.Off != "":
		return "", o.Off
	case o.Lacks != nil:
		return "", o.Lacks.Error()
	case o.Table(s.Offload) != "":
		return "", "nlb apply brings it about"
	default:
		note = "there is no device for it"
	}
	return by, strings.Join(append([]string{note}, o.Left...), "; ")
}

// offloadFor is Offloading as an apply asks for it.
func (e *Engine) offloadFor(profiles []*lb.Profile, now compile.Offload) compile.Offload {
	if e.offload.last = e.Offloading(profiles, now); e.offload.last != nil {
		return e.offload.last.Offload
	}
	return compile.Offload{}
}

// Notes say what of the wishes does not hold.
func (o *Offloading) Notes() (notes []string) {
	if o == nil {
		return nil
	}
	if o.Off != "" && o.auto {
		notes = append(notes, "offload: auto is off: "+o.Off)
	}
	return append(notes, o.Left...)
}

// Offloaded reports whether what holds of the wishes to be offloaded of what was
// applied since Stay is what should: whether devices and filters of others are as they
// were. An Apply brings it about. It looks only now and then.
func (e *Engine) Offloaded() bool {
	began := time.Now()
	if e.open == nil || began.Before(e.offload.next) {
		return true
	}
	ok := e.open.Offloaded()
	// At most a twentieth of a processor, on a host with many backends.
	e.offload.next = time.Now().Add(max(offloadEvery, 20*time.Since(began)))
	return ok
}

// refuseOffload is the error of profiles that insist on what this kernel cannot.
func (e *Engine) refuseOffload(profiles []*lb.Profile) error {
	for p, s := range lb.Services(profiles) {
		if s.Offload <= lb.OffloadAuto || len(s.Backends) == 0 {
			continue
		}
		if lacks := e.offload.kernelLacks(); lacks != nil {
			return &Error{
				Err:  fmt.Errorf("service %s/%s has offload: %s, and %w", p.Name, s.Name, s.Offload, lacks),
				Hint: "offload: auto goes without where the kernel cannot",
			}
		}
		return nil
	}
	return nil
}

// kernelLacks asks why this kernel offloads nothing; nil: it can.
func (o *offloader) kernelLacks() error {
	// The first asking loads the modules, with which the parameter comes.
	lacks := o.ask(flowDevice{}, ruleset.Flowtable{})
	if lacks == nil {
		_, lacks = sysctl.Local.Get(flowtableParam)
	}
	if lacks != nil {
		lacks = &reworded{"this kernel, Linux " + release() + ", cannot: it needs Linux >= 5.14, and the modules nf_flow_table_inet and nft_flow_offload", lacks}
	}
	return lacks
}

// ask asks the kernel for a flow table, until it has answered for that device. It does
// so in a conversation of its own: nothing is begun by it.
func (o *offloader) ask(d flowDevice, f ruleset.Flowtable) error {
	if err, known := o.asked[d]; known {
		return err
	}
	c, err := Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	err = probe.Flowtable(c, f)
	refused, ok := errors.AsType[*wire.Error](err)
	if ok {
		err = refused.Errno
	}
	if err == nil || ok {
		if o.asked == nil {
			o.asked = map[flowDevice]error{}
		}
		o.asked[d] = err
	}
	return err
}

// takers are the devices of a flow table: those that are there, and take it. Those
// that are in it do.
func (o *offloader) takers(s *devices, wanted map[string]bool, now []string, hardware bool, out *Offloading) (takers []string) {
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		index, there := s.indexes[name]
		if !there {
			out.leave(name+" is not offloaded", "it is not there")
			continue
		}
		f := ruleset.Flowtable{Hardware: hardware, Devices: []string{name}}
		switch {
		case len(takers) == mostDevices:
			out.leave(name+" is not offloaded", "there are too many devices")
		case slices.Contains(now, name):
			takers = append(takers, name)
		default:
			if err := o.ask(flowDevice{index, hardware}, f); err != nil {
				out.leave(name+" is not offloaded"+map[bool]string{true: " in hardware"}[hardware], err.Error())
			} else {
				takers = append(takers, name)
			}
		}
	}
	return takers
}

func (o *Offloading) leave(what, why string) {
	if left := what + ": " + why; !slices.Contains(o.Left, left) {
		o.Left = append(o.Left, left)
	}
}

// bypass names the chains of others that a flow table passes by.
func (o *offloader) bypass(c *wire.Conn) ([]string, error) {
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	if generation != o.generation {
		ours, err := nft.Tables(c)
		if err != nil {
			return nil, err
		}
		tables, err := firewall.Read(c, func(family, name string) bool {
			return (family == "inet" || family == "netdev") && (name == o.table || slices.Contains(ours, name))
		})
		if err != nil {
			return nil, err
		}
		o.bypassed, o.generation = firewall.Bypassed(tables), generation
	}
	legacy, err := firewall.ReadLegacy(sysctl.Local.Net)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return nil, err
	}
	return slices.Concat(o.bypassed, firewall.Bypassed(legacy)), nil
}

// Wish is what became of a service that wants to be offloaded.
type Wish struct {
	Profile, Service string
	Way              lb.Offload
	By, Note         string // see Of
}

// Wishes says what becomes of the wishes of profiles to be offloaded, and why; applied:
// they are what the table holds. Otherwise it is what would become of them.
func Wishes(table string, profiles []*lb.Profile, applied bool) (o Offloading, out []Wish, err error) {
	e, err := Open(table)
	if err != nil {
		return o, nil, err
	}
	defer e.Close()
	state, err := e.State()
	if err != nil {
		return o, nil, err
	}
	now := state.Offload()
	should := e.Offloading(profiles, now)
	if should == nil {
		return o, nil, nil
	}
	if !applied {
		now = should.Offload
	}
	for p, s := range lb.Services(profiles) {
		if s.Offload != lb.OffloadNone && len(s.Backends) > 0 {
			by, note := should.Of(s, now)
			out = append(out, Wish{p.Name, s.Name, s.Offload, by, note})
		}
	}
	return *should, out, nil
}
