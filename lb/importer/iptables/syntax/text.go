package syntax

// Texts: lines of iptables-save, and scripts.

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// Parse reads a text, IPv4 before IPv6. What is not about iptables is noted in
// the draft; the error is lb.Errors: what iptables would refuse.
func Parse(file string, lines []string, draft *importer.Draft) ([]*Ruleset, error) {
	p := &parser{Draft: draft, family: lb.IPv4, sets: map[lb.Family]*Ruleset{}}
	named := shell.Read(file, lines, draft, p)
	p.comments(len(lines))
	p.commit()
	if len(p.bare) > 0 {
		draft.Note("rules without a table: taken for rules of nat", "", p.bare...)
	}
	if len(p.sets) == 0 && p.Count() == 0 && !p.ran && !named {
		p.Fail(importer.Place{Line: 1, Column: 1}, "nothing in this text is of iptables", "what iptables-save prints, or commands of iptables")
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	var out []*Ruleset
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		if s := p.sets[f]; s != nil {
			resolve(s)
			out = append(out, s)
		}
	}
	return out, nil
}

// parser goes through a text. It is the handler of what a shell runs.
type parser struct {
	*importer.Draft
	family lb.Family
	table  *Table // of iptables-save; nil outside
	at     int    // line of its '*', from 0
	sets   map[lb.Family]*Ruleset
	// ran: there was a command of iptables. seen is the line up to which
	// comments were read.
	ran  bool
	seen int
	// restoring: in iptables-restore, whose name says the family. keep: with
	// -n, which adds to what is there.
	restoring, keep bool
	// may is why the commands that are read may not run.
	may  string
	bare []importer.Place // rules without a table
	// listed is the table that iptables -S has listed last; nil: not known.
	listed *Table
}

func (p *parser) set() *Ruleset {
	if p.sets[p.family] == nil {
		p.sets[p.family] = &Ruleset{Family: p.family}
	}
	return p.sets[p.family]
}

// Line reads a line of iptables-save.
func (p *parser) Line(line int) bool {
	return p.Count() == importer.MaxMistakes || p.saved(p.Lines[line], line, false)
}

// saved reads a line of iptables-save; false where it is none.
func (p *parser) saved(raw string, line int, dollar bool) bool {
	text, place := strings.TrimSpace(raw), importer.PlaceOf([]string{raw}, 0)
	place.Line = line + 1
	switch {
	case text == "":
	case text[0] == '#':
		p.comment(text, place)
	case text[0] == '*' && !strings.ContainsAny(text, " \t"):
		p.begin(text[1:], place, line)
	case p.table != nil && text == "COMMIT":
		p.table = nil
	case text[0] == ':' && p.table != nil:
		p.declare(text, place)
	case text[0] == '-' || counters.MatchString(text):
		return p.rule(raw, line, dollar, place)
	case p.table != nil:
		p.Fail(place, fmt.Sprintf("%q is no line of iptables-save", importer.Shorten(strings.Fields(text)[0])), "a rule, :CHAIN or COMMIT")
	default:
		return false
	}
	return true
}

// counters are what iptables-save -c has before a rule.
var counters = regexp.MustCompile(`^\[\d+:\d+\] -`)

// rule reads a rule of iptables-save, with or without counters before it. It is false
// for the options of another program, outside a table.
func (p *parser) rule(raw string, line int, dollar bool, place importer.Place) bool {
	words := Lex(raw, line, dollar)
	if words[0].Text[0] == '[' {
		words = words[1:]
	}
	table := p.table
	if table == nil {
		if !slices.ContainsFunc(words, func(w word) bool { return verbOf(w) != 0 || w.Text == "-j" || w.Text == "--jump" }) {
			return false
		}
		if words[0].Text == "-P" && !p.restoring {
			p.listing(line, place)
		}
		if table = p.listed; table == nil {
			p.bare = append(p.bare, place)
			table = p.set().table("nat")
		}
	}
	p.edit(words, table, place)
	return true
}

// listing begins what iptables -S prints of a table: first the policies of its chains,
// which no other table has all of.
func (p *parser) listing(line int, place importer.Place) {
	if !p.lists(line) {
		return // it has begun
	}
	has, last := map[string]bool{p.policy(line): true}, line+1
	for ; last < len(p.Lines) && strings.HasPrefix(strings.TrimSpace(p.Lines[last]), "-") && !p.lists(last); last++ {
		has[p.policy(last)] = true
	}
	name := ""
	switch {
	case has["FORWARD"] && has["PREROUTING"]:
		name = "mangle"
	case has["FORWARD"]:
		name = "filter"
	case has["POSTROUTING"]:
		name = "nat"
	case has["PREROUTING"] && has["OUTPUT"]:
		name = "raw"
	}
	if p.listed = nil; name != "" {
		p.family = familyOf(p.Lines[line:last], p.family)
		p.listed = p.fresh(name, place, "a listing has all of its table")
	}
}

// policy is the chain whose policy a line (from 0) says; empty where it says none.
func (p *parser) policy(line int) string {
	chain, ok := strings.CutPrefix(strings.TrimSpace(p.Lines[line]), "-P ")
	if !ok {
		return ""
	}
	chain, _, _ = strings.Cut(chain, " ")
	return chain
}

// lists reports whether a listing begins in a line, with the first chain of its table.
func (p *parser) lists(line int) bool {
	before := ""
	if line > 0 {
		before = p.policy(line - 1)
	}
	switch p.policy(line) {
	case "":
		return false
	case "PREROUTING":
		return true
	case "INPUT":
		return before != "PREROUTING"
	}
	return before == ""
}

// comment reads what the comments of iptables-save tell.
func (p *parser) comment(text string, place importer.Place) {
	switch {
	case strings.Contains(text, "Generated by ip6tables-save") || strings.Contains(text, "Generated by xtables-save") && strings.Contains(text, "ip6"):
		p.family = lb.IPv6
	case strings.Contains(text, "Generated by iptables-save"):
		p.family = lb.IPv4
	case strings.Contains(text, "tables-legacy tables present"):
		p.Lost("this machine also has rules of iptables-legacy, which are not in this text",
			"iptables-legacy-save prints them", place)
	case strings.Contains(text, "incompatible, use 'nft' tool") || strings.Contains(text, "incompatible base-chains"):
		p.Lost("this machine has a table that iptables-save cannot print", "nft list ruleset prints it", place)
	case shell.Commented.MatchString(text):
		p.Note("an iptables command in a comment is not read", "", place)
	}
}

// begin is *table.
func (p *parser) begin(name string, place importer.Place, line int) {
	p.commit()
	p.at = line
	if builtin[name] == nil {
		p.Fail(place, fmt.Sprintf("unknown table %q", name), "raw, mangle, nat, filter or security")
		p.table = (&Ruleset{}).table("filter") // so that its lines are read
		return
	}
	if !p.restoring {
		p.family = familyOf(p.Lines[line+1:], p.family)
	}
	p.table = p.fresh(name, place, "iptables-restore keeps the last")
}

// fresh is a table of the family without the rules that it had, but where these are kept.
func (p *parser) fresh(name string, place importer.Place, why string) *Table {
	set := p.set()
	if t := set.Table(name); t != nil && !p.keep {
		if slices.ContainsFunc(t.chains, func(c *Chain) bool { return len(c.Rules) > 0 }) {
			p.Lost(fmt.Sprintf("table %s is here twice; %s, so the rules before it are left out", name, why), "", place)
		}
		set.tables = slices.DeleteFunc(set.tables, func(o *Table) bool { return o == t })
	}
	return set.table(name)
}

// commit ends a table, which should have a COMMIT.
func (p *parser) commit() {
	if p.table != nil {
		p.Note("table "+p.table.Name+" has no COMMIT, so iptables-restore would not load it", "", importer.PlaceOf(p.Lines, p.at))
	}
	p.table = nil
}

// familyOf is the family of the addresses in a table, up to its COMMIT.
func familyOf(lines []string, unless lb.Family) lb.Family {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "COMMIT" || strings.HasPrefix(line, "*") {
			break
		}
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":") {
			continue
		}
		for w := range strings.FieldsSeq(line) {
			host, _, _ := importer.HostPort(w)
			host = host[:strings.IndexAny(host+"/", "/-")] // of prefixes and ranges the first
			if a, err := netip.ParseAddr(host); err == nil {
				return lb.FamilyOf(a)
			}
			if w == "ipv6-icmp" || w == "icmp6" {
				return lb.IPv6
			}
		}
	}
	return unless
}

// declare is :CHAIN POLICY [packets:bytes].
func (p *parser) declare(text string, place importer.Place) {
	parts := strings.Fields(text[1:])
	if len(parts) < 2 {
		p.Fail(place, "a chain needs a name and a policy", ":CHAIN ACCEPT [0:0], or - for a chain of one's own")
		return
	}
	c := p.table.chain(parts[0])
	switch policy := parts[1]; {
	case c.Policy == "":
	case policy == "ACCEPT" || policy == "DROP":
		c.Policy = policy
	default:
		p.Fail(place, fmt.Sprintf("%q is not a policy", policy), "ACCEPT or DROP")
	}
}

// resolve finds out which targets are chains. What is neither a chain nor a
// known target, and what comes back to where it was, is left out.
func resolve(s *Ruleset) {
	for _, t := range s.tables {
		state := map[*Chain]int{} // 1: begun, 2: done
		var visit func(c *Chain)
		visit = func(c *Chain) {
			state[c] = 1
			for _, r := range c.Rules {
				r.Table, r.Chain = t.Name, c.Name
				if t.Name != "nat" && (r.Balances() || r.ChangesSource()) {
					r.leaveOut("no table but nat takes this target")
				}
				j, ok := r.Target.(Jump)
				if !ok {
					continue
				}
				to := t.Chain(j.Chain)
				switch {
				case to == nil || to.Policy != "":
					r.leaveOut("-j " + j.Chain + " is neither a target that is translated, nor a chain of table " + t.Name)
				case state[to] == 1:
					r.leaveOut("chain " + j.Chain + " is in a circle of jumps")
				case state[to] == 0:
					visit(to)
				}
			}
			state[c] = 2
		}
		for _, c := range t.chains {
			if state[c] == 0 {
				visit(c)
			}
		}
	}
}

func (r *Rule) leaveOut(why string) {
	r.Skip = true
	r.Issues = append(r.Issues, Issue{importer.Lost, r.Place, why + LeftOut, ""})
}
