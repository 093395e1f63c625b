package nft

// Params: the kernel parameters that the table remembers, with the values that were
// found before nlb changed them.

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"nlb/nft/ruleset"
)

// Param is a kernel parameter and its value.
type Param struct{ Name, Value string }

// addParams adds the kernel parameters that the table does not know.
func addParams(r *ruleset.Ruleset, have *State, params []Param) {
	known := map[string]bool{}
	for _, p := range paramsIn(have.elements(paramsSet)) {
		known[p.Name] = true
	}
	for _, m := range r.Maps {
		if m.Name != paramsSet {
			continue
		}
		for _, p := range params {
			if !known[p.Name] {
				known[p.Name] = true
				m.Elements = append(m.Elements, p.element())
			}
		}
	}
}

// element is how the table remembers a parameter.
func (p Param) element() ruleset.Element {
	h := fnv.New32a()
	h.Write([]byte(p.Name))
	return ruleset.Element{Key: ruleset.MarkBytes(h.Sum32()), Extra: &ruleset.Extra{Comment: p.Name + " was " + p.Value}}
}

// Params are the kernel parameters that the table remembers, with the values
// that were found, sorted by name.
func (s *State) Params() []Param { return append(paramsIn(s.elements(paramsSet)), s.params...) }

func paramsIn(elements map[string]ruleset.Element) []Param {
	var out []Param
	for _, e := range elements {
		var p Param
		if n, _ := fmt.Sscanf(e.More().Comment, "%s was %s", &p.Name, &p.Value); n == 2 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func paramSet() *ruleset.Map {
	return &ruleset.Map{Name: paramsSet, Kind: ruleset.Record, Key: ruleset.Type{ruleset.Mark}, Comment: "kernel parameters, as nlb found them"}
}
