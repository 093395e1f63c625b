package firewall

// Judging: what a base chain makes of a packet.

// Judgement is what becomes of a packet in a base chain.
type Judgement struct {
	// Action is Accept, Drop, Translate or Anything: what becomes of it where
	// no rule applies of which that cannot be told.
	Action Action
	// By is what does it.
	By Cause
	// May has what else may become of it, and the rule that might do that.
	// Translate is there only where a rule is about this destination.
	May map[Action]Cause
	// Marks are the rules that use the connection mark of the packet, or may.
	Marks []Mark
	// Untracks are the rules that keep conntrack from the packet, or may.
	Untracks []Untrack
}

// Untrack is a rule with notrack. Sure: the packet meets it.
type Untrack struct {
	By   Cause
	Sure bool
}

// Mark is a rule and what it does with the connection mark.
type Mark struct {
	By Cause
	MarkUse
}

// Cause is a rule, or a chain's policy.
type Cause struct {
	Chain string
	// Policy says that it is no rule.
	Policy bool
	// Number is the rule's; 0 where it has none of its own.
	Number uint64
}

// depth bounds the jumps from chain to chain; the kernel allows 16.
const depth = 16

// Judge says what a base chain of the table makes of a packet.
func (t *Table) Judge(base *Chain, p *Packet) Judgement {
	w := &walk{table: t, packet: p, known: map[string]outcome{}}
	o := w.chain(base.Name, 0)
	j := Judgement{Action: o.action, By: o.by, May: o.may, Marks: w.marks, Untracks: w.untracks}
	if o.action == Pass {
		j.Action, j.By = Accept, Cause{Chain: base.Name, Policy: true}
		if base.Base.Drop {
			j.Action = Drop
		}
	}
	return j
}

// walk is one packet's way through a table.
type walk struct {
	table  *Table
	packet *Packet
	known  map[string]outcome

	marks    []Mark
	untracks []Untrack
}

// outcome is what becomes of the packet in a chain. Pass: it comes out at the
// end of it.
type outcome struct {
	action Action
	by     Cause
	about  bool // a rule on the way to the action names the destination
	may    map[Action]Cause
	passes bool // it may come out although the action says otherwise
}

func (o *outcome) might(a Action, by Cause) {
	if o.may == nil {
		o.may = map[Action]Cause{}
	}
	if _, known := o.may[a]; !known {
		o.may[a] = by
	}
}

func (w *walk) chain(name string, level int) outcome {
	if o, ok := w.known[name]; ok {
		return o
	}
	c := w.table.Chains[name]
	if c == nil || level > depth {
		return outcome{action: Anything, by: Cause{Chain: name}}
	}
	o := w.rules(c, level)
	w.known[name] = o
	return o
}

func (w *walk) rules(c *Chain, level int) outcome {
	var o outcome
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.idle() {
			continue
		}
		met, about := w.meets(r)
		if met == False {
			continue
		}
		cause := Cause{Chain: c.Name, Number: r.Number}
		if r.Mark != (MarkUse{}) {
			w.marks = append(w.marks, Mark{cause, r.Mark})
		}
		if r.Untracks {
			sure := met == True && level == 0 && !o.passes && len(o.may) == 0
			w.untracks = append(w.untracks, Untrack{cause, sure})
		}
		switch r.Action {
		case Pass:
		case Return:
			if met == True {
				return o
			}
			o.passes = true
		case Jump, Goto:
			sub := w.chain(r.Target, level+1)
			for a, by := range sub.may {
				o.might(a, by)
			}
			o.passes = o.passes || sub.passes && r.Action == Goto
			switch {
			case met == Maybe && sub.action == Translate && !about && !sub.about:
			case met == Maybe && sub.action != Pass:
				o.might(sub.action, sub.by)
			case met == True && sub.action != Pass:
				if sub.passes && r.Action == Jump {
					// What comes after it may be met.
					o.might(Anything, Cause{Chain: c.Name})
				}
				o.action, o.by, o.about = sub.action, sub.by, about || sub.about
				return o
			case met == True && r.Action == Goto:
				return o
			}
		default:
			if met == True {
				o.action, o.by, o.about = r.Action, cause, about
				return o
			}
			if r.Action != Translate || about {
				o.might(r.Action, cause)
			}
		}
	}
	return o
}

// meets says whether the packet meets all conditions of a rule. about: the
// rule names a destination that is, or may be, the packet's.
func (w *walk) meets(r *Rule) (met Tri, about bool) {
	met = True
	for i := range r.Conditions {
		c := &r.Conditions[i]
		switch w.packet.meets(c) {
		case False:
			return False, false
		case Maybe:
			met = Maybe
		}
		about = about || c.destination() && !c.Not
	}
	return met, about
}
