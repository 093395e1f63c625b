package compile

// Offload: packets of live connections go past all chains, by a flow table.
//
// Which services want that is in sets of the marks of their backends, one for each
// word of the key, whether it holds or not. Whether it holds, and on which devices,
// follows from the host: Offload. Where it does, the chain `forward` adds connections.
// It comes behind the filters of others, so what these drop is never added; and it
// waits for the client's second packet behind an answer, so that a question with one
// answer, which would only be dearer, is not. Conntrack keeps such a one for half a
// minute as before, not for two.

import (
	"maps"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/nft/ruleset"
)

const (
	// ForwardChain adds connections to flow tables.
	ForwardChain = "forward"
	// SoftwareTable and HardwareTable are the flow tables.
	SoftwareTable, HardwareTable = "software", "hardware"

	// MovingZone is the zone of conntrack that UDP flows are in while they move. A
	// zone of somebody else's does no harm.
	MovingZone = 0x4e4c

	forwardPriority = 300 // behind all that filters
	offloadPrefix   = "offload-"
)

// offloads are the ways of offloading, of which each has a set.
var offloads = []lb.Offload{lb.OffloadAuto, lb.OffloadSoftware, lb.OffloadHardware}

// OffloadSets are the sets of the backends of services that want to be offloaded.
var OffloadSets = []string{offloadSet(lb.OffloadAuto), offloadSet(lb.OffloadSoftware), offloadSet(lb.OffloadHardware)}

func offloadSet(o lb.Offload) string { return offloadPrefix + o.String() }

// Offload is what of the profiles' wishes holds on a host.
type Offload struct {
	// Auto: services with `offload: auto` are offloaded, in software.
	Auto bool
	// Software and Hardware are the devices of the flow tables, sorted; none: there
	// is no such flow table. Services that want hardware are offloaded in software
	// where there is none for them.
	Software, Hardware []string
}

// Equal reports whether both are the same.
func (o Offload) Equal(b Offload) bool {
	return o.Auto == b.Auto && slices.Equal(o.Software, b.Software) && slices.Equal(o.Hardware, b.Hardware)
}

// Table is the flow table of services that want to be offloaded in a way; empty: they
// are not.
func (o Offload) Table(way lb.Offload) string {
	switch {
	case way == lb.OffloadNone, way == lb.OffloadAuto && !o.Auto:
	case way == lb.OffloadHardware && len(o.Hardware) > 0:
		return HardwareTable
	case len(o.Software) > 0:
		return SoftwareTable
	}
	return ""
}

// Offloads reports whether a service of the profiles wants to be offloaded.
func Offloads(profiles []*lb.Profile) bool {
	return lb.AnyService(profiles, func(s *lb.Service) bool { return s.Offload != lb.OffloadNone && len(s.Backends) > 0 })
}

// named is what the profiles say of a host that nobody has looked at: the devices
// that they name, where they do not leave it to the host.
func named(profiles []*lb.Profile) (o Offload) {
	for _, s := range lb.Services(profiles) {
		switch s.Offload {
		case lb.OffloadSoftware:
			o.Software = append(o.Software, s.Devices...)
		case lb.OffloadHardware:
			o.Hardware = append(o.Hardware, s.Devices...)
		}
	}
	slices.Sort(o.Software)
	slices.Sort(o.Hardware)
	o.Software, o.Hardware = slices.Compact(o.Software), slices.Compact(o.Hardware)
	return o
}

// AddTo adds to a ruleset of Beside what offloads: the sets, and as far as it holds
// the flow tables and their chain. Sets that are there stay; so do those that others
// need.
func (o Offload) AddTo(r *ruleset.Ruleset, profiles, others []*lb.Profile, n *Numbers, there func(object string) bool) {
	var rules []ruleset.Rule
	tables := map[string]bool{}
	for _, way := range offloads {
		set := newOffloadSet(way)
		for p, s := range lb.Services(profiles) {
			if s.Offload != way {
				continue
			}
			for _, b := range s.Backends {
				e := ruleset.Element{Key: ruleset.MarkBytes(n.Mark(ChainOf(p.Name, s.Name), &b))}
				if len(s.Devices) > 0 {
					e.Extra = &ruleset.Extra{Comment: strings.Join(s.Devices, " ")}
				}
				set.Elements = append(set.Elements, e)
			}
		}
		wants := func(s *lb.Service) bool { return s.Offload == way && len(s.Backends) > 0 }
		if len(set.Elements) == 0 && !there(set.Name) && !lb.AnyService(others, wants) {
			continue
		}
		r.Maps = append(r.Maps, set)
		if table := o.Table(way); table != "" {
			tables[table] = true
			rules = append(rules, addFlows(way, table, n.Owners.Kept))
		}
	}
	if len(rules) == 0 {
		return
	}
	r.Chains = append(r.Chains, forwardChain(rules))
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		f := &ruleset.Flowtable{Name: name, Devices: o.Software}
		if name == HardwareTable {
			f.Hardware, f.Devices = true, o.Hardware
		}
		r.Flowtables = append(r.Flowtables, f)
	}
}

func newOffloadSet(way lb.Offload) *ruleset.Map {
	return &ruleset.Map{Name: offloadSet(way), Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}}
}

func forwardChain(rules []ruleset.Rule) *ruleset.Chain {
	return &ruleset.Chain{Name: ForwardChain, Hook: ruleset.Forward(forwardPriority), Filter: true, Rules: rules}
}

// addFlows is the rule that adds connections of a set. What is not ours leaves it
// first: nearly all of that has no mark, which costs the least to see.
func addFlows(way lb.Offload, table string, kept uint32) ruleset.Rule {
	return ruleset.Rule{
		Statements: []ruleset.Statement{
			ruleset.IsMarked(), ruleset.IsTranslated(), ruleset.AsksAgain(),
			ruleset.MarkBitsIn(offloadSet(way), ^kept), ruleset.NotInZone(MovingZone), ruleset.AddFlow(table),
		},
		Comment: offloadPrefix + way.String(),
	}
}

// ReadOffload reads what holds from the comments of the rules of ForwardChain, and
// from the flow tables.
func ReadOffload(comments []string, tables []ruleset.Flowtable) (o Offload) {
	o.Auto = slices.Contains(comments, offloadSet(lb.OffloadAuto))
	for _, f := range tables {
		devices := slices.Sorted(slices.Values(f.Devices))
		switch f.Name {
		case SoftwareTable:
			o.Software = devices
		case HardwareTable:
			o.Hardware = devices
		}
	}
	return o
}

// ReadOffloadElement reads which way a service of a backend wants to be offloaded,
// from a set and the comment of its element.
func ReadOffloadElement(set, comment string, s *lb.Service) {
	if lb.Read(&s.Offload, strings.TrimPrefix(set, offloadPrefix)) != nil {
		return
	}
	if devices := strings.Fields(comment); len(devices) > 0 && len(devices) <= lb.MaxDevices {
		s.Devices = devices
	}
}
