package nft

// Lifetime: which tables there are, whose they are and with which layout; one service of
// them, read alone; the kernel parameters that a table remembers; and how profiles, or the
// whole table, are removed.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

// A comment of a table cannot be changed. So one that was made with an older
// layout has an element in the set of the record that says which it has now.
var layoutKey = ruleset.MarkBytes(0xffffffff)

// readLayout reads the layout of a table; 0: there is no table. One that is not
// ours is an error.
func readLayout(c *wire.Conn, table string) (int, error) {
	b, err := c.Request(wire.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, wire.Named(table))
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the table: %w", err)
	}
	n := compile.LayoutOf(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment))
	switch {
	case n == 0:
		return 0, fmt.Errorf("table inet %s: %w", table, ErrForeign)
	case n == compile.LayoutVersion:
		return n, nil
	}
	applied, err := readSet(c, ruleset.Inet, table, compile.NewRecordSet())
	if err != nil {
		return 0, fmt.Errorf("read the layout: %w", err)
	}
	if e, ok := applied[layoutKey]; ok {
		n = compile.LayoutOf(e.More().Comment)
	}
	if n == 0 || n > compile.LayoutVersion {
		return n, fmt.Errorf("table inet %s: %w", table, ErrLayout)
	}
	return n, nil
}

// markLayout makes a plan say that a table that was made with an older layout has
// this one now.
func (p *plan) markLayout(have *State) {
	if !have.objects.exists || have.objects.unknown || have.objects.layout == compile.LayoutVersion {
		return
	}
	set := compile.NewRecordSet()
	if have.objects.maps[compile.RecordSet] == nil {
		p.add(op{verb: add, mapping: set})
	}
	e := ruleset.Element{Key: layoutKey, Extra: &ruleset.Extra{Comment: compile.TableComment}}
	if old, ok := have.elements(compile.RecordSet)[layoutKey]; ok {
		p.change(set, change{old: []ruleset.Element{old}, new: []ruleset.Element{e}})
	} else {
		p.change(set, change{fresh: []ruleset.Element{e}})
	}
}

// Tables are the names of the tables of family inet that nlb made.
func Tables(c *wire.Conn) ([]string, error) {
	var out []string
	err := c.Dump(wire.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if compile.LayoutOf(ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment)) > 0 {
			out = append(out, wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)))
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// Header is what a table is, besides what it holds. The zero Header is one that
// is not there.
type Header struct {
	// Handle grows with every new table of the namespace, of whatever family.
	Handle uint64
	// Dormant says that the table is turned off: its chains are there and not
	// attached.
	Dormant bool
}

// ReadHeader reads the header of a table of family inet.
func ReadHeader(c *wire.Conn, table string) (Header, error) {
	const dormant, handle = 1, 4 // NFT_TABLE_F_DORMANT, NFTA_TABLE_HANDLE
	b, err := c.Request(wire.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, wire.Named(table))
	if errors.Is(err, unix.ENOENT) {
		return Header{}, nil
	}
	return Header{Handle: wire.Uint64(wire.Attr(b, handle)), Dormant: wire.Uint32(wire.Attr(b, unix.NFTA_TABLE_FLAGS))&dormant != 0}, err
}

// HasStandings reports whether a table says of any backend that it is down, or
// under an order.
func HasStandings(c *wire.Conn, table string) (bool, error) {
	elements, err := readSet(c, ruleset.Inet, table, compile.NewVerdictsSet())
	return len(elements) > 0, err
}

// ReadService is one service as a table has it: its backends and what is known of them,
// but not where it listens, nor whom it allows and denies. Nothing else is read, so that
// this takes no longer beside ten thousand others. nil: all of the table has to be read
// to tell, also that there is no such service.
func ReadService(c *wire.Conn, table, profile, service string) *lb.Service {
	before, err := c.Generation()
	if layout, unread := readLayout(c, table); err != nil || unread != nil || layout != compile.LayoutVersion {
		return nil
	}
	o := newObjects(ruleset.Inet)
	o.exists, o.layout, o.source = true, compile.LayoutVersion, &source{conn: c, table: table, most: partialElements}
	if o.readSpecs(c, table) != nil {
		return nil
	}
	chain := compile.ChainOf(profile, service)
	if o.chain(chain) == nil {
		return nil
	}
	for _, f := range compile.Families {
		o.readWhole(table, compile.OwnSlotsOf(chain, f))
	}
	out := lb.Service{Name: service}
	emptyState(table, o).readService(&out, chain, nil)
	if after, err := c.Generation(); err != nil || after != before || o.source.err != nil {
		return nil
	}
	return &out
}

// Param is a kernel parameter and its value.
type Param struct{ Name, Value string }

// addParams adds the kernel parameters that the table does not know.
func addParams(r *ruleset.Ruleset, have *State, params []Param) {
	known := map[string]bool{}
	for _, p := range paramsIn(have.elements(compile.ParamsSet)) {
		known[p.Name] = true
	}
	for _, m := range r.Maps {
		if m.Name != compile.ParamsSet {
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
func (s *State) Params() []Param { return append(paramsIn(s.elements(compile.ParamsSet)), s.params...) }

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

// Flush removes profiles, or the whole table where none is named. The table goes
// with the last profile, unless connections are open and o.Cut is false. The state
// is what was there. Where it has no table, there was nothing to do. Errors are
// those of Apply.
func Flush(ctx context.Context, c *wire.Conn, names []string, o Options) (*State, *Result, error) {
	w, err := newWriter(ctx, c, o)
	if err != nil {
		return nil, nil, err
	}
	defer w.close()
	var first *State
	var result *Result
	var cleanup *flows.Cleanup
	err = w.retry(func() error {
		w.quiesced = grace()
		have, err := w.load()
		if len(names) == 0 && errors.Is(err, ErrLayout) {
			have, err = unknownTable(c, o.Table)
		}
		if err != nil {
			return err
		}
		if first == nil || !w.mayHaveCommitted() {
			first = have
		}
		result = w.combine(result, &Result{Generation: have.Generation})
		if !have.objects.exists && have.objects.direct == nil {
			// Perhaps by a flush of ours whose answer was lost.
			cleanup = newCleanup(first, gone(o.Table), o)
			cleanup.Conn, cleanup.Generation, cleanup.Turn = c, result.Generation, w.turn
			return w.endFlows(first.retiredNumbers(compile.Owners{}), o, result)
		}
		inScope := func(profile string) bool { return len(names) == 0 || slices.Contains(names, profile) }
		_, others := have.split(inScope)
		var p *plan
		if len(others) > 0 {
			o.Keep = have.kept
			if err := have.linkWith(&o, nil, others); err != nil {
				return err
			}
			p = have.planTo(goal{others: others, inScope: inScope, Options: o})
		} else if p, err = w.removal(have, o, result); err != nil {
			return err
		}
		cleanup, err = w.commit(have, p, o, result)
		return err
	})
	return first, result, cmp.Or(w.settle(cleanup, result), err)
}

// leftover is the comment of the only rule of a table that was flushed while
// connections were open.
const leftover = "open connections go on"

// isLeftover reports whether the table is there for the sake of open connections
// alone.
func (s *State) isLeftover() bool {
	c := s.objects.chains[compile.PreroutingChain]
	return len(s.objects.chains) == 1 && len(s.objects.maps) == 0 && c != nil && len(c.rules) == 1 && c.rules[0].comment == leftover
}

// removal plans to remove the table. Without any chain of type nat the kernel
// would translate no packet any more, of open connections neither, and without
// any rule that asks conntrack it would not track them. So while there are some,
// unless they are to be cut, the table stays with one such chain and rule.
func (w *writer) removal(have *State, o Options, result *Result) (*plan, error) {
	p := gone(o.Table)
	if have.objects.exists {
		p.add(op{verb: remove, table: true})
	}
	p.removeDirect(have)
	if o.Cut {
		return p, nil
	}
	err := conntrack.List(w.conn, flows.Ours, func(f *conntrack.Flow) {
		if !f.Ended && f.Answered && lb.Protocol(f.Protocol) != lb.UDP {
			result.Open++
		}
	})
	if err == nil && result.Open > 0 {
		p.add(op{verb: add, table: true})
		c := &ruleset.Chain{Name: compile.PreroutingChain, Hook: ruleset.Prerouting(-100, "dstnat"), Rules: []ruleset.Rule{{
			Statements: []ruleset.Statement{ruleset.IsTranslated(), ruleset.Accept()}, Comment: leftover,
		}}}
		p.add(op{verb: add, chain: c})
		p.add(op{verb: add, chain: c, rule: &c.Rules[0]})
	}
	return p, err
}

// gone is the plan of a table that is not there any more.
func gone(table string) *plan {
	return &plan{table: table, servers: func() flows.Servers { return nil }}
}

// unknownTable is the state of a table of a layout that we do not know. It can only
// be replaced or flushed whole; the kernel parameters that it remembers are read.
func unknownTable(c *wire.Conn, table string) (*State, error) {
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	switch _, err := readLayout(c, table); {
	case err == nil:
		return nil, wire.ErrInterrupted // it is another one by now
	case !errors.Is(err, ErrLayout):
		return nil, err
	}
	params, err := readSet(c, ruleset.Inet, table, compile.NewParamsSet())
	if err != nil {
		return nil, err
	}
	have := newState(table, &objects{exists: true, unknown: true})
	have.Generation, have.params = generation, paramsIn(params)
	return have, nil
}

// Exists reports whether the table is there.
func (s *State) Exists() bool { return s.objects.exists }

// NotPermitted reports whether err says that the caller lacks CAP_NET_ADMIN.
func NotPermitted(err error) bool { return errors.Is(err, unix.EPERM) }
