package nft

// Flush: profiles, or the whole table, are removed.

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/conntrack"
	"nlb/nft/flows"
	"nlb/nft/ruleset"
	"nlb/nft/wire"
)

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
		w.startGrace()
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
		if !have.objects.exists {
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
			p = have.planTo(nil, others, inScope, o, nil)
		} else if p, err = w.removal(o, result); err != nil {
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
func (w *writer) removal(o Options, result *Result) (*plan, error) {
	p := gone(o.Table)
	p.add(op{verb: remove, table: true})
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
	params, err := readSet(c, table, compile.NewParamsSet())
	if err != nil {
		return nil, err
	}
	have := newState(table, &objects{exists: true, unknown: true})
	have.Generation, have.params = generation, paramsIn(params)
	return have, nil
}
