// Package config is profiles as YAML: it reads a file with all that is wrong in
// it, writes one, and draws mistakes below their lines. It knows no files and no
// kernel.
package config

// From a file to a profile.

import (
	"fmt"
	"strings"
	"sync"

	"nlb/lb"
	"nlb/lb/internal/dup"
	"nlb/lb/internal/safe"
)

// Parse reads one profile. file is its name for positions; the profile is
// called after it where it does not say `profile:`. The error is Errors: all
// mistakes, in the order of the file.
func Parse(file string, data []byte) (*lb.Profile, error) {
	text, bad := readable(file, data)
	var root *node
	if bad == nil {
		root, bad = readTree(file, text)
	}
	if bad != nil {
		errs := lb.Errors{bad}
		if len(data) <= MaxFile {
			quote(errs, text)
		}
		return nil, errs
	}
	d := &decoder{file: file}
	p := d.profile(root)
	if len(d.errs) > 0 {
		return nil, d.errors(text)
	}
	return p, nil
}

// top is the outermost mapping of a file while it is read.
type top struct {
	lb.Profile
	name, services, defaults *node
	fleet                    lb.Fleet // of all services
}

func readProfileName(d *decoder, k *lb.Key, v *node, t *top) {
	t.Name, _ = readName(d, k, v)
	t.name = v
}

func (d *decoder) profile(root *node) *lb.Profile {
	first := &node{line: 1, column: 1, quoted: true}
	if root == nil || root.null() {
		d.fail(first, "the file is empty", "the key services (a list of services)", "the list may be empty: services: []")
		return nil
	}
	if root.kind != mapping {
		d.fail(root, "the file is "+root.kind.String(), "a mapping with the key services", "")
		return nil
	}
	t := top{}
	there := topKeys.read(d, root, &t)
	if t.name == nil {
		t.name = first
	}
	if there&topKeys.bit("profile") == 0 {
		if t.Name = nameOf(d.file); lb.CheckName(t.Name) != "" {
			d.fail(first, fmt.Sprintf("the profile has no name, and the file's, %s, cannot be one", safe.Show(t.Name)),
				"profile: NAME, of "+lb.NameForm, "")
		}
	}
	t.Pos = d.pos(t.name)
	base := draft{Service: lb.Service{Protocols: []lb.Protocol{lb.TCP}, Fleet: t.fleet}}
	if v := t.defaults; v != nil && v.kind != mapping {
		d.fail(v, "defaults is "+v.kind.String(), "a mapping with keys of a service", "")
	} else if v != nil {
		base.there = defaultKeys.read(d, v, &base)
	}
	switch v := t.services; {
	case v == nil:
		topKeys.need(d, first, there, "services", "a list of services")
	case v.kind != list:
		d.fail(v, "services is "+v.kind.String(), "a list of services", `each begins with "- name:"`)
	default:
		d.services(v, &base, &t.Profile)
	}
	p := t.Profile // t has the tree, which is not to live as long
	return &p
}

// nameOf is the name of a profile that its file gives: without folders and
// ending.
func nameOf(file string) string {
	if file == "-" {
		return "stdin"
	}
	base := file[strings.LastIndexByte(file, '/')+1:]
	if i := strings.LastIndexByte(base, '.'); i >= 0 {
		base = base[:i]
	}
	return base
}

func (d *decoder) services(v *node, base *draft, p *lb.Profile) {
	r := d.inHalves(v.kids, base)
	names := r.names
	if p.Services = r.services; !r.hashed && len(v.kids) > 0 {
		unhashed(d, base.at.hashBy, "hash-by")
		unhashed(d, base.at.hashSeed, "hash-seed")
	}
	dup.Find(names, func(n *node) string { return n.text }, func(first, second int) {
		d.fail(names[second], fmt.Sprintf("service %s is here twice, first in line %d", names[second].text, names[first].line),
			"a name for each service", "")
	})
	if s, bad := p.CheckRateProblem(); bad != nil {
		d.refuse(&node{kind: list, line: int32(s.Pos.Line), column: int32(s.Pos.Column)}, bad)
	}
	p.GuardAnnounced()
	if l, bad := p.AnnounceProblem(); l != nil {
		d.refuse(&node{kind: list, line: int32(l.Pos.Line), column: int32(l.Pos.Column)}, bad)
	}
	for _, e := range lb.Conflicts([]*lb.Profile{p}) {
		d.fail(&node{kind: list, line: int32(e.Pos.Line), column: int32(e.Pos.Column)}, e.Msg, e.Want, e.Hint)
	}
}

// run is services that were read one after the other.
type run struct {
	services []lb.Service
	names    []*node // where they stand
	hashed   bool    // one looks at the keys of a scheduler that hashes
}

// inHalves reads services, in two runs at the same time where there are thousands. Where
// anything is wrong they are read once more, so that mistakes are noted in their order.
func (d *decoder) inHalves(kids []node, base *draft) run {
	const many = 2000
	room := min(len(kids), 1<<16) // more may be as many mistakes
	all := run{services: make([]lb.Service, 0, room), names: make([]*node, 0, room)}
	if half := room / 2; room >= many && room == len(kids) {
		first := run{services: all.services[:0:half], names: all.names[:0:half]}
		second := run{services: all.services[half:half], names: all.names[half:half]}
		var others sync.WaitGroup
		other := &decoder{file: d.file}
		others.Go(func() { other.run(kids[half:], base, &second) })
		own := &decoder{file: d.file}
		own.run(kids[:half], base, &first)
		if others.Wait(); len(own.errs)+len(other.errs) == 0 {
			return run{all.services[:room], all.names[:room], first.hashed || second.hashed}
		}
	}
	d.run(kids, base, &all)
	return all
}

func (d *decoder) run(kids []node, base *draft, into *run) {
	var s draft
	for i := range kids {
		n := &kids[i]
		if n.kind != mapping {
			d.fail(n, "a service is "+n.kind.String(), "a mapping with name, listen and backends", "")
			continue
		}
		s = *base
		s.Pos = d.pos(n)
		s.there = serviceKeys.read(d, n, &s)
		s.finish(d, n, base)
		into.hashed = into.hashed || s.Scheduler.Hashes() || s.badScheduler
		if s.Name != "" {
			into.services, into.names = append(into.services, s.Service), append(into.names, s.at.name)
		}
	}
}
