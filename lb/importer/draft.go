package importer

// A profile while it grows.

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer/share"
	"nlb/lb/internal/safe"
)

// Draft collects what an importer finds in a text, its mistakes included.
type Draft struct {
	Mistakes
	format   string
	found    []Finding
	same     map[string]int // findings by what they say
	services []*entry
}

// entry is a service that waits for its name.
type entry struct {
	service lb.Service
	place   Place
	notes   []string
}

// New begins the import of a text. lines are what Lines has returned, file is
// its name for messages.
func New(file, format string, lines []string) *Draft {
	return &Draft{Mistakes: Mistakes{File: file, Lines: lines}, format: format, same: map[string]int{}}
}

// Begin is New with the lines of a text. The errors are those of Lines.
func Begin(file, format string, data []byte) (*Draft, error) {
	lines, err := Lines(file, data)
	return New(file, format, lines), err
}

// Note reports something good to know.
func (d *Draft) Note(msg, hint string, at ...Place) { d.Tell(Note, msg, hint, at...) }

// Lost reports a part of the original that is not in the profile, or works
// otherwise there.
func (d *Draft) Lost(msg, hint string, at ...Place) { d.Tell(Lost, msg, hint, at...) }

// Tell keeps a finding; what says the same of several places is one.
func (d *Draft) Tell(level Level, msg, hint string, at ...Place) {
	msg, hint = safe.Visible(msg), safe.Visible(hint) // they quote the text
	key := fmt.Sprint(level, "\x00", msg, "\x00", hint)
	i, ok := d.same[key]
	if !ok {
		i = len(d.found)
		d.same[key] = i
		d.found = append(d.found, Finding{Level: level, Msg: msg, Hint: hint, file: d.File})
	}
	d.found[i].Places = append(d.found[i].Places, at...)
}

// Add appends a service. Its name is what it would like to be called: it is
// made valid and unique. So are logs without a prefix given that name, and
// hashes the seed that goes with it. notes are lines of comment.
func (d *Draft) Add(s lb.Service, at Place, notes ...string) {
	d.services = append(d.services, &entry{s, at, notes})
}

// Weights are the smallest weights of a profile for others in the same relation.
// Where they have to be rounded, that is said.
func (d *Draft) Weights(others []int64, at Place) []int {
	var shares []*big.Rat
	for _, w := range others {
		shares = append(shares, big.NewRat(w, 1))
	}
	weights, off := share.Weights(shares)
	if rounded := fmt.Sprintf("the weights are rounded to at most %d: within %.2g %%", lb.MaxWeight, off*100); off > 0.01 {
		d.Lost(rounded, "", at)
	} else if off > 0 {
		d.Note(rounded, "", at)
	}
	return weights
}

// Import is Finish, where the text has no mistakes; otherwise they are the error,
// lb.Errors.
func (d *Draft) Import() (*Import, error) {
	if err := d.Err(); err != nil {
		return nil, err
	}
	return d.Finish(), nil
}

// Finish is the import. What nlb refuses is left out, and said. An import of
// nothing is not complete.
func (d *Draft) Finish() *Import {
	m := &Import{Profile: &lb.Profile{Name: fileName(d.File, d.format)}, file: d.title(), source: d.File}
	taken := names{}
	d.joinFamilies()
	kept := d.services[:0]
	for _, e := range d.services {
		s := &e.service
		s.Name = taken.unique(cmp.Or(Name(s.Name), "service"))
		complete(s)
		if err := s.Validate(); err != nil {
			d.Lost(fmt.Sprintf("service %s is left out, since a profile cannot have it: %v", s.Name, err), "", e.place)
			continue
		}
		kept = append(kept, e)
	}
	kept = d.withoutConflicts(kept)
	m.Profile.Services = make([]lb.Service, 0, len(kept))
	for _, e := range kept {
		m.Profile.Services = append(m.Profile.Services, e.service)
		m.notes = append(m.notes, e.notes)
	}
	if len(m.Profile.Services) == 0 {
		d.Lost("nothing in this text becomes a service", "")
	}
	m.Findings = d.findings()
	return m
}

// joinFamilies makes one service of two for all addresses of this host that
// differ in the family of their backends.
func (d *Draft) joinFamilies() {
	at := map[string]int{}
	var out []*entry
	for _, e := range d.services {
		s := &e.service
		var alike, inside []lb.Listen // inside: of loopback addresses
		for _, l := range s.Listen {
			if l.Prefix.IsValid() && l.Prefix.Addr().IsLoopback() {
				inside = append(inside, l)
			} else {
				alike = append(alike, l)
			}
		}
		named := slices.ContainsFunc(alike, func(l lb.Listen) bool { return l.Prefix.IsValid() })
		if named || len(alike) == 0 || len(s.Backends) == 0 {
			out = append(out, e)
			continue
		}
		family := lb.FamilyOf(s.Backends[0].Address.Addr)
		key := func(f lb.Family) string {
			return fmt.Sprint(f, alike, len(inside) > 0, s.Protocols, s.Role, s.Interface, s.Scheduler, s.HashBy, s.SNAT, s.Affinity, s.Allow, s.Deny, s.Log == nil)
		}
		if i, ok := at[key(lb.IPv4+lb.IPv6-family)]; ok {
			out[i].service.Listen = slices.Concat(out[i].service.Listen, inside)
			out[i].service.Backends = slices.Concat(out[i].service.Backends, s.Backends)
			out[i].service.RandomPorts = out[i].service.RandomPorts || s.RandomPorts
			out[i].notes = slices.Concat(out[i].notes, e.notes)
			continue
		}
		at[key(family)] = len(out)
		out = append(out, e)
	}
	d.services = out
}

// title is what the text is called in the profile.
func (d *Draft) title() string {
	name := d.File[strings.LastIndexByte(d.File, '/')+1:]
	if d.File == "-" || name == "" {
		name = "stdin"
	}
	return name + " (" + d.format + ")"
}

// complete gives a service what follows from its name.
func complete(s *lb.Service) {
	prefixed := func(l *lb.Log) *lb.Log {
		if l == nil || l.Prefix != "" {
			return l
		}
		named := *l
		named.Prefix = s.Name + " "
		return &named
	}
	s.Log = prefixed(s.Log)
	for i := range s.Backends {
		s.Backends[i].Log = prefixed(s.Backends[i].Log)
	}
	if s.Scheduler.Hashes() && s.HashSeed == 0 {
		s.HashSeed = lb.DefaultSeed(s.Name)
	}
}

// withoutConflicts leaves out listens that an earlier service has.
func (d *Draft) withoutConflicts(entries []*entry) []*entry {
	for {
		p := &lb.Profile{Name: "p"}
		for i, e := range entries {
			s := e.service
			s.Listen = slices.Clone(s.Listen)
			for j := range s.Listen {
				s.Listen[j].Pos = lb.Pos{Line: i + 1, Column: j + 1}
			}
			p.Services = append(p.Services, s)
		}
		gone := map[lb.Pos]bool{}
		for _, e := range lb.Conflicts([]*lb.Profile{p}) {
			gone[e.Pos] = true
		}
		if len(gone) == 0 {
			return entries
		}
		var kept []*entry
		for i, e := range entries {
			var listen []lb.Listen
			for j, l := range e.service.Listen {
				if gone[lb.Pos{Line: i + 1, Column: j + 1}] {
					d.Lost(fmt.Sprintf("service %s does not get %s, which another service has", e.service.Name, l), "", e.place)
				} else {
					listen = append(listen, l)
				}
			}
			if e.service.Listen = listen; len(listen) > 0 {
				kept = append(kept, e)
			}
		}
		entries = kept
	}
}

// findings puts the findings in the order of the text, those about all of it
// last.
func (d *Draft) findings() []Finding {
	place := func(a, b Place) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) }
	for i := range d.found {
		f := &d.found[i]
		slices.SortStableFunc(f.Places, place)
		f.Places = slices.CompactFunc(f.Places, func(a, b Place) bool { return place(a, b) == 0 })
		if len(f.Places) > 0 && f.Places[0].Line <= len(d.Lines) && f.Places[0].Line > 0 {
			f.line = d.Lines[f.Places[0].Line-1]
		}
	}
	slices.SortStableFunc(d.found, func(a, b Finding) int {
		if len(a.Places) == 0 || len(b.Places) == 0 {
			return len(b.Places) - len(a.Places)
		}
		return place(a.Places[0], b.Places[0])
	})
	return d.found
}
