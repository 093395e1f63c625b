// Package nftlb turns the JSON of nftlb into a profile.
package nftlb

// Import: farms, and what they refer to.

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/document"
)

// Import reads a configuration of nftlb, or what its API prints: objects with
// farms, addresses and policies. The error is lb.Errors.
func Import(file string, data []byte) (*importer.Import, error) {
	draft, root, err := document.Read(file, "nftlb", data, true) // nftlb reads with jansson: the last of two keys counts
	if err != nil {
		return nil, err
	}
	r := &reader{Draft: draft, used: map[*document.Node]bool{}}
	if root.Kind != document.Mapping {
		r.Fail(root.Place, "the configuration is "+root.Kind.String(), `an object with "farms"`)
	}
	// What farms refer to may stand after them.
	for _, e := range root.Entries {
		switch e.Key {
		case "addresses":
			r.addresses = r.named(e.Value)
		case "policies":
			r.policies = r.named(e.Value)
		case "farms":
		default:
			r.Lost("key "+e.Key+" is not translated", "", e.At)
		}
	}
	for _, f := range r.objects(root.Get("farms")) {
		r.farm(f)
	}
	r.unused("address", r.addresses)
	r.unused("policy", r.policies)
	return r.Import()
}

// reader reads a configuration.
type reader struct {
	*importer.Draft
	addresses map[string]*document.Node
	policies  map[string]*document.Node
	used      map[*document.Node]bool
}

// objects are the items of a list of objects; none where there is no list.
func (r *reader) objects(n *document.Node) []*document.Node {
	if n == nil || n.Null {
		return nil
	}
	if n.Kind != document.List {
		r.Fail(n.Place, "this is "+n.Kind.String(), "a list of objects")
		return nil
	}
	var out []*document.Node
	for _, item := range n.Items {
		if item.Kind != document.Mapping {
			r.Fail(item.Place, "an item is "+item.Kind.String(), "an object")
			continue
		}
		out = append(out, item)
	}
	return out
}

// keys names those of an object that are not known.
func (r *reader) keys(o *document.Node, known map[string]bool) {
	for _, e := range o.Entries {
		if !known[e.Key] && !strings.HasPrefix(e.Key, "counter-") {
			r.Lost("key "+e.Key+" is not translated", "", e.At)
		}
	}
}

// named are objects by their names.
func (r *reader) named(n *document.Node) map[string]*document.Node {
	out := map[string]*document.Node{}
	for _, o := range r.objects(n) {
		name := r.text(o, "name", "")
		if name == "" {
			r.Fail(o.Place, "an object has no name", `"name"`)
			continue
		}
		out[name] = o
	}
	return out
}

// unused notes what no farm refers to.
func (r *reader) unused(what string, objects map[string]*document.Node) {
	for _, o := range objects {
		if !r.used[o] {
			r.Note("no farm that is translated uses this "+what, "", lineOf(o))
		}
	}
}

// lineOf is the place of an object without a width: it goes over lines.
func lineOf(o *document.Node) importer.Place {
	at := o.Place
	if len(o.Entries) > 0 {
		at = o.Entries[0].At
	}
	at.Width = 0
	return at
}

// text is the value of a key, or what holds where it is missing.
func (r *reader) text(o *document.Node, key, otherwise string) string {
	n := o.Get(key)
	switch {
	case n == nil || n.Null || n.Kind == document.Scalar && n.Text == "":
		return otherwise
	case n.Kind != document.Scalar:
		r.Fail(n.Place, key+" is "+n.Kind.String(), "a single value")
		return otherwise
	}
	return n.Text
}

// at is the place of a key's value, or of the object where it has none.
func at(o *document.Node, key string) importer.Place {
	if n := o.Get(key); n != nil {
		return n.Place
	}
	return lineOf(o)
}

// number is the value of a key as a number.
func (r *reader) number(o *document.Node, key string, otherwise, most uint64) uint64 {
	text := r.text(o, key, "")
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > most {
		r.Fail(at(o, key), fmt.Sprintf("%s %q is not a number that fits", key, text), fmt.Sprintf("0 to %d", most))
		return otherwise
	}
	return n
}

// address is the value of a key as an address; not valid where there is none.
func (r *reader) address(o *document.Node, key string) netip.Addr {
	text := r.text(o, key, "")
	if text == "" {
		return netip.Addr{}
	}
	a, ok := importer.Addr(text)
	if !ok {
		r.Fail(at(o, key), fmt.Sprintf("%s %q is not an address", key, text), "an address")
		return netip.Addr{}
	}
	return a
}

// on reports whether a switch is on.
func (r *reader) on(o *document.Node, key string) bool {
	switch text := r.text(o, key, "off"); text {
	case "on":
		return true
	case "off":
	default:
		r.Fail(at(o, key), fmt.Sprintf("%s %q is neither on nor off", key, text), "on or off")
	}
	return false
}

// ports reads 80,443,8000-8010; all ports where there are none.
func (r *reader) ports(o *document.Node, key string) []lb.PortRange {
	text := r.text(o, key, "")
	if text == "" || text == "0" || text == "*" {
		return []lb.PortRange{lb.AllPorts}
	}
	var out []lb.PortRange
	for part := range strings.SplitSeq(text, ",") {
		ports, ok := importer.PortRange(strings.TrimSpace(part), "-")
		if !ok {
			r.Fail(at(o, key), fmt.Sprintf("%s %q are not ports", key, text), "80,443,8000-8010")
			return nil
		}
		out = append(out, ports)
	}
	return lb.JoinPorts(out)
}
