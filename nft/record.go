package nft

// The record: what was applied last, kept in the table. Where nobody has
// changed the ruleset since, it spares reading back what is known: everything,
// where the same is applied again, and all services but those that differ,
// where only backends do (see partial.go). It travels as user data that nft does not
// print, so that a ruleset that was saved and loaded again has none.

import (
	"cmp"
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// retiring are the maps whose elements the record can have as retired: slots,
// and marks of backends.
var retiring = []string{
	compile.SlotsMap, compile.RefusedSet, compile.Families[0].Endpoints, compile.Families[0].Addresses, compile.Families[1].Endpoints, compile.Families[1].Addresses,
	compile.Families[0].Ports, compile.Families[1].Ports,
	compile.Families[0].InlineEndpoints, compile.Families[0].InlineAddresses, compile.Families[1].InlineEndpoints, compile.Families[1].InlineAddresses,
}

// record is what was applied and the generation that it made.
type record struct {
	digest     string
	generation uint32
	// whole says that the table has no other services.
	whole bool
	// direct says that there is a table of family netdev beside it.
	direct bool
	// slots is above the number of every slot.
	slots uint32
	// retired is what waits to be swept.
	retired []run
	// services has one for each that was applied.
	services []fingerprint
}

// Alone reports whether the table has what Apply and Update have applied, as it was
// applied, and nothing else. It costs what Touched does.
func (t *Table) Alone() (bool, error) {
	touched, err := t.Touched()
	return err == nil && !touched && t.memory.whole, err
}

// run is keys in a row of a map whose elements retire.
type run struct {
	mapping      string
	first, count uint32
	// gone says that they are marks of backends that are not there any more, in
	// whatever map.
	gone bool
}

// mapOf names the map of a key of the run.
func (r run) mapOf(key uint32) string {
	if r.mapping == compile.SlotsMap {
		return compile.SlotMapOf(key)
	}
	return r.mapping
}

// fingerprint stands for a service: for all of it but its backends, and for
// these.
type fingerprint struct{ frame, backends [lb.FingerprintSize]byte }

const (
	fingerprintSize = lb.FingerprintSize
	// The kernel's user data has at most 256 bytes; each element holds this much
	// of a list.
	recordChunk = 240
	// More runs that wait to be swept are not written down.
	maxRetired = 4096
	// A longer run is none of nlb's.
	maxRun = 1 << 20
	// The elements, by their keys.
	recordHead    = 0
	recordRetired = 0x80000000
	recordList    = 2
)

// bytesOf are fingerprints in a row.
func bytesOf(services []fingerprint) []byte {
	b := make([]byte, 0, 2*fingerprintSize*len(services))
	for _, f := range services {
		b = append(append(b, f.frame[:]...), f.backends[:]...)
	}
	return b
}

// chunks are how the table holds a record: the values of its elements by their keys,
// the head first.
func (r *record) chunks() iter.Seq2[uint32, []byte] {
	return func(yield func(key uint32, value []byte) bool) {
		if !yield(recordHead, r.head()) {
			return
		}
		for _, list := range []struct {
			key   uint32
			bytes []byte
		}{{recordRetired, r.retiredBytes()}, {recordList, bytesOf(r.services)}} {
			key := list.key
			for chunk := range slices.Chunk(list.bytes, recordChunk) {
				if !yield(key, chunk) {
					return
				}
				key++
			}
		}
	}
}

func (r *record) head() []byte {
	head := binary.BigEndian.AppendUint32(nil, r.generation)
	head = binary.BigEndian.AppendUint32(head, r.slots)
	head = binary.BigEndian.AppendUint32(head, uint32(len(r.services)))
	var flags byte
	for i, is := range []bool{r.whole, r.direct} {
		if is {
			flags |= 1 << i
		}
	}
	return append(append(head, flags), r.digest...)
}

func (r *record) retiredBytes() (b []byte) {
	for _, run := range r.retired {
		kind := uint32(slices.Index(retiring, run.mapping)) << 1
		if run.gone {
			kind |= 1
		}
		b = binary.BigEndian.AppendUint32(b, kind)
		b = binary.BigEndian.AppendUint32(b, run.first)
		b = binary.BigEndian.AppendUint32(b, run.count)
	}
	return b
}

// headElement is the element that makes the others true.
func (r *record) headElement() ruleset.Element { return recordElement(recordHead, r.head()) }

func recordElement(key uint32, value []byte) ruleset.Element {
	return ruleset.Element{Key: ruleset.MarkBytes(key), Extra: &ruleset.Extra{Udata: ruleset.Udata(ruleset.UdataFingerprint, string(value))}}
}

// decodeRecord reads what chunks writes; the zero record where it is not that.
func decodeRecord(elements map[string]ruleset.Element) record {
	value := func(key uint32) string {
		e := elements[ruleset.MarkBytes(key)]
		return ruleset.UdataValue(e.More().Udata, ruleset.UdataFingerprint)
	}
	number := func(b string) uint32 { return binary.BigEndian.Uint32([]byte(b[:4])) }
	head := value(recordHead)
	const size = 13
	if len(head) <= size {
		return record{}
	}
	r := record{digest: head[size:], generation: number(head), slots: number(head[4:]), whole: head[12]&1 != 0, direct: head[12]&2 != 0}
	for key := uint32(recordRetired); value(key) != ""; key++ {
		for b := value(key); len(b) >= 12; b = b[12:] {
			kind := number(b)
			if kind>>1 >= uint32(len(retiring)) || number(b[8:]) > maxRun {
				return record{}
			}
			r.retired = append(r.retired, run{retiring[kind>>1], number(b[4:]), number(b[8:]), kind&1 != 0})
		}
	}
	count := number(head[8:])
	for key := uint32(recordList); uint32(len(r.services)) < count; key++ {
		b := value(key)
		if len(b) == 0 || len(b)%(2*fingerprintSize) != 0 {
			return record{}
		}
		for ; len(b) > 0; b = b[2*fingerprintSize:] {
			r.services = append(r.services, fingerprint{
				[fingerprintSize]byte([]byte(b[:fingerprintSize])), [fingerprintSize]byte([]byte(b[fingerprintSize : 2*fingerprintSize])),
			})
		}
	}
	return r
}

// readSet reads the elements of a set or map, if it is there.
func readSet(c *wire.Conn, family uint8, table string, spec *ruleset.Map) (map[string]ruleset.Element, error) {
	m := haveMap{spec: spec, elements: map[string]ruleset.Element{}}
	err := m.read(c, family, table)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return m.elements, err
}

// remember makes a plan leave a record of itself, in its last batch: the record
// of a plan that did not come to its end could be taken for true later.
func (p *plan) remember(have *State, r record) {
	carried := have.carried()
	r.retired = carried
	old := have.elements(compile.RecordSet)
	if p.recorded = maps.Clone(old); p.recorded == nil {
		p.recorded = map[string]ruleset.Element{}
	}
	switch {
	case p.empty() && r.digest != "":
		if p.left = &r; have.last != nil {
			r.retired, p.free = have.last.retired, have.last.free
		}
		return
	case p.empty(), r.digest == "" && !isRecorded(old):
		return
	}
	set, first := compile.NewRecordSet(), len(p.main)
	if have.objects.maps[compile.RecordSet] == nil && !p.makes(compile.RecordSet) {
		p.add(op{verb: add, mapping: set})
	}
	// The head comes last: it makes the rest true, which several batches may hold.
	var rest, head change
	stays := map[string]bool{layoutKey: true}
	retired, ok := p.retires()
	if r.retired = append(carried, retired...); ok && len(r.retired) <= maxRetired && r.digest != "" {
		r.generation = have.Generation + p.commits()
		p.record, p.left = &r, &r
		for key, value := range r.chunks() {
			id, c := ruleset.MarkBytes(key), &rest
			if key == recordHead {
				c = &head
			}
			stays[id] = true
			h, there := old[id]
			e := recordElement(key, value)
			if there && h.More().Udata == e.Udata {
				continue
			}
			if p.recorded[id] = e; there {
				c.replace(h, e)
			} else {
				c.fresh = append(c.fresh, e)
			}
		}
	}
	for id, e := range old {
		if !stays[id] {
			rest.gone = append(rest.gone, e)
			delete(p.recorded, id)
		}
	}
	p.change(set, rest)
	p.change(set, head)
	if len(p.afterGrace) > 0 {
		p.main, p.afterGrace = p.main[:first], append(p.afterGrace, p.main[first:]...)
	}
}

// isRecorded reports whether there is anything of a record.
func isRecorded(elements map[string]ruleset.Element) bool {
	_, marked := elements[layoutKey]
	return len(elements) > 1 || len(elements) == 1 && !marked
}

// makes reports whether a plan makes a map.
func (p *plan) makes(name string) bool {
	makes := func(o op) bool {
		return o.verb == add && o.mapping != nil && o.mapping.Name == name && o.elements == nil
	}
	return slices.ContainsFunc(p.before, makes) || slices.ContainsFunc(p.main, makes)
}

// slotsEnd is above the number of every slot, those of a ruleset to come
// included.
func (s *State) slotsEnd(want *ruleset.Ruleset) uint32 {
	var end uint32
	if s.last != nil {
		end = s.last.slots
	}
	for _, e := range s.objects.allSlots() {
		end = max(end, ruleset.MarkOf(e.Key)+1)
	}
	for _, m := range want.Maps {
		if m.Kind == ruleset.Slots {
			for _, e := range m.Elements {
				end = max(end, ruleset.MarkOf(e.Key)+1)
			}
		}
	}
	return end
}

// commits is how many generations a plan makes.
func (p *plan) commits() (n uint32) {
	if !p.empty() {
		n++
	}
	if p.chainsFirst && len(p.before) > 0 && len(p.main) > 0 {
		n++
	}
	if len(p.afterGrace) > 0 {
		n++
	}
	return n
}

// recordAt makes the record that a plan leaves one of this generation, and reports
// whether it was of another. The size of the plan stays.
func (p *plan) recordAt(generation uint32) bool {
	if p.record == nil || p.record.generation == generation {
		return false
	}
	p.record.generation = generation
	head := p.record.headElement()
	for _, o := range slices.Concat(p.main, p.afterGrace) {
		if o.verb != add || o.mapping == nil || o.mapping.Name != compile.RecordSet {
			continue
		}
		for i := range o.elements {
			if o.elements[i].Key == head.Key {
				o.elements[i], p.recorded[head.ID()] = head, head
			}
		}
	}
	return true
}

// retires is what a plan leaves to be swept, unless that is too much, or of
// other maps, to be written down.
func (p *plan) retires() (out []run, ok bool) {
	slices.SortFunc(p.retire, func(a, b leave) int {
		return cmp.Or(strings.Compare(a.mapping.Name, b.mapping.Name), cmp.Compare(ruleset.MarkOf(a.key), ruleset.MarkOf(b.key)))
	})
	for _, l := range p.retire {
		next := run{mapping: l.mapping.Name, first: ruleset.MarkOf(l.key), count: 1}
		if next.mapping == compile.SlotMapOf(next.first) {
			next.mapping = compile.SlotsMap // the number says which
		} else if next.mapping == compile.SlotsMap {
			return nil, false // of an older layout, which had one map
		}
		if !slices.Contains(retiring, next.mapping) {
			return nil, false
		}
		if next.mapping != compile.SlotsMap {
			_, owned := p.owners.Of(next.first & compile.NumberMask)
			next.gone = !owned
		}
		if n := len(out); n > 0 && out[n-1].joins(next) {
			out[n-1].count++
		} else {
			out = append(out, next)
		}
	}
	return out, true
}

// joins reports whether another run goes on where this one ends.
func (r run) joins(next run) bool {
	return r.mapping == next.mapping && r.gone == next.gone && r.first+r.count == next.first
}

// amendRecord is the operations that make the record one of this generation.
func amendRecord(r record, generation uint32) []op {
	old := r.headElement()
	r.generation = generation
	return []op{
		{verb: remove, mapping: compile.NewRecordSet(), elements: []ruleset.Element{old}},
		{verb: add, mapping: compile.NewRecordSet(), elements: []ruleset.Element{r.headElement()}, joined: true},
	}
}

// keepRetired makes a plan sweep nothing, and leave no record, so that the next
// apply reads everything and sweeps.
func (p *plan) keepRetired() {
	drop := func(o op) bool {
		return o.sweeps || o.verb == add && o.mapping != nil && o.mapping.Name == compile.RecordSet && o.elements != nil
	}
	p.main, p.afterGrace = slices.DeleteFunc(p.main, drop), slices.DeleteFunc(p.afterGrace, drop)
	p.record, p.left = nil, nil
}

// leave is an element that a plan retires.
type leave struct {
	mapping *ruleset.Map
	key     string
}
