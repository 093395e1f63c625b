package iptables

// The partition: all connections that could come, divided into regions that
// the rules treat alike.

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer/iptables/space"
	"nlb/lb/importer/iptables/syntax"
)

// Bounds of the search: rules that are asked about a flow, and regions. A
// cluster of 1,000 services and 3,000 backends needs 100,000 and 6,000.
const (
	maxSteps   = 30_000_000
	maxRegions = 500_000
)

// kind is what becomes of connections; the zero value is that they are not
// balanced.
type kind struct {
	fate fate
	to   destination
	source
	logs string
}

// outcome is what becomes of a share of the connections of a class.
type outcome struct {
	kind
	share amount
}

// class is clients whose connections meet the same.
type class struct {
	src      space.Set
	outcomes []outcome
	parts    [fates]float64 // the shares with each fate
	key      string         // the same for classes that differ in src only
}

// finding is connections that the rules send somewhere else.
type finding struct {
	hook    hook
	regions []space.Region
	classes []class // the first one is balanced, and has the most addresses
	*trace
	// notExact: the counters could not be followed, and shares are those of
	// matches that know nothing of each other.
	notExact error
}

// partition finds all that one hook balances.
func partition(set *syntax.Ruleset, interfaces *space.Interfaces, ways *ways, h hook, budget *int) (found []*finding, logs []*syntax.Rule, err error) {
	w := &walker{set: set, interfaces: interfaces, ways: ways, hook: h, budget: budget, indexes: map[indexKey]*index{}, changing: map[*syntax.Chain]bool{}, single: pointsOf(set)}
	everyone := space.Addresses(set.Family)
	todo := []space.Region{{everyone, space.AllProtocols(), space.AllPorts(), interfaces.All(), space.One(0, 1)}}
	alike := map[string]*finding{}
	defer func() {
		for _, f := range found {
			f.regions = space.Merge(f.regions)
		}
		logs = w.logRules
		switch e := recover(); e {
		case nil:
		case errBudget:
			err = errBudget
		default:
			panic(e)
		}
	}()
	for n := 0; len(todo) > 0; n++ {
		if n == maxRegions {
			return found, nil, errBudget
		}
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		ends := w.run(r, everyone, "")
		if s := w.split; s != nil {
			todo = append(todo, s.parts(r)...)
			continue
		}
		if !slices.ContainsFunc(ends, func(e end) bool { return e.fate == balanced }) {
			continue
		}
		f := &finding{hook: h, regions: []space.Region{r}, trace: w.trace}
		if w.entangled {
			ends, f.notExact = w.follow(r, ends)
			f.trace = w.trace
		}
		f.classes = w.classesOf(ends, everyone)
		key := f.key()
		if same := alike[key]; same != nil {
			same.regions = append(same.regions, r)
			same.trace.add(f.trace)
			continue
		}
		alike[key] = f
		found = append(found, f)
	}
	return found, nil, nil
}

// follow walks a region with the counters of its nth matches, class by class.
func (w *walker) follow(r space.Region, ends []end) ([]end, error) {
	seen, whole := w.trace, newTrace()
	visits := w.visits
	var out []end
	for _, src := range atoms(ends, space.Addresses(w.set.Family)) {
		w.visits = visits
		found, err := w.cycle(r, src)
		if err != nil {
			w.trace = seen
			return ends, err
		}
		whole.add(w.trace)
		out = append(out, found...)
	}
	w.trace = whole
	return out, nil
}

// atoms parts clients so that each end has all or none of a part.
func atoms(ends []end, everyone space.Set) []space.Set {
	parts := []space.Set{everyone}
	done := map[string]bool{everyone.Key(): true}
	for _, e := range ends {
		if k := e.src.Key(); done[k] {
			continue
		} else {
			done[k] = true
		}
		var finer []space.Set
		for _, p := range parts {
			for _, q := range []space.Set{p.And(e.src), p.Without(e.src)} {
				if len(q) > 0 {
					finer = append(finer, q)
				}
			}
		}
		if parts = finer; len(parts) > maxFlows {
			panic(errBudget)
		}
	}
	return parts
}

// classesOf joins clients that meet the same, those that are balanced before
// others, and the more addresses first.
func (w *walker) classesOf(ends []end, everyone space.Set) []class {
	var out []class
	at := map[string]int{}
	ids := map[kind]int{}
	kinds := make([]kind, len(ends))
	for i, e := range ends {
		k := kind{e.fate, e.to, e.source, e.logs}
		if k.fate != balanced {
			k = kind{fate: k.fate}
		}
		kinds[i] = k
		if _, ok := ids[k]; !ok {
			ids[k] = len(ids)
		}
	}
	for _, src := range atoms(ends, everyone) {
		w.spend(len(ends))
		c := class{src: src}
		index := make([]int, len(ids)) // in c.outcomes, from 1
		for i, e := range ends {
			if !e.src.Has(src[0].First) {
				continue
			}
			id := ids[kinds[i]]
			if j := index[id]; j > 0 {
				c.outcomes[j-1].share = c.outcomes[j-1].share.plus(e.share)
				continue
			}
			c.outcomes = append(c.outcomes, outcome{kinds[i], e.share})
			index[id] = len(c.outcomes)
		}
		c.sum()
		if i, ok := at[c.key]; ok {
			out[i].src = out[i].src.Union(src)
			continue
		}
		at[c.key] = len(out)
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b class) int {
		if x, y := a.parts[balanced] > 0, b.parts[balanced] > 0; x != y {
			return map[bool]int{true: -1, false: 1}[x]
		}
		return cmp.Compare(b.src.Size(), a.src.Size())
	})
	return out
}

// sum fills in what follows from the outcomes.
func (c *class) sum() {
	h := sha256.New()
	for _, o := range c.outcomes {
		c.parts[o.fate] += o.share.real
		fmt.Fprintf(h, "%d %v %v %q %s\n", o.fate, o.to, o.source, o.logs, o.share.meant)
	}
	c.key = string(h.Sum(nil))
}

// key is the same for findings that can be one service: the same becomes of
// them, by the same rules.
func (f *finding) key() string {
	var b strings.Builder
	for _, c := range f.classes {
		b.WriteString(c.src.Key() + c.key)
	}
	for _, r := range f.deciding() {
		fmt.Fprintf(&b, "%p ", r)
	}
	return b.String()
}

// deciding are the rules that make the difference, in the order of the text.
func (t *trace) deciding() []*syntax.Rule {
	var out []*syntax.Rule
	for _, r := range t.those(matched) {
		_, marks := r.Target.(syntax.SetMark)
		if r.Balances() || marks && r.Table != "nat" {
			out = append(out, r)
		}
	}
	return out
}

func sortRules(rules []*syntax.Rule) {
	slices.SortFunc(rules, func(a, b *syntax.Rule) int {
		if a.Place.Line != b.Place.Line {
			return a.Place.Line - b.Place.Line
		}
		return strings.Compare(a.Table+a.Chain+a.Text, b.Table+b.Chain+b.Text)
	})
}

// loopback is the addresses that a host has for itself.
func loopback(f lb.Family) space.Set {
	if f == lb.IPv4 {
		return prefixes("127.0.0.0/8")
	}
	return prefixes("::1/128")
}

func prefixes(texts ...string) (out space.Set) {
	for _, text := range texts {
		out = out.Union(space.Prefix(netip.MustParsePrefix(text)))
	}
	return out
}
