//go:build linux

package view

// The services of a snapshot for people: for each a line, and below it a table
// of its backends.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// PrintSnapshot prints a snapshot.
func (c *Console) PrintSnapshot(v *Snapshot) {
	if v.Trouble != "" {
		fmt.Fprintln(c.Out, c.Out.Paint(text.Yellow, "nlb run: "+v.Trouble)+"\n")
	}
	switch {
	case v.single:
		s := &v.Profiles[0].Services[0]
		c.printBackend(s, &s.Backends[0])
	case len(v.Profiles) > 0:
		c.printServices(v.Profiles)
		if len(v.Announced) > 0 {
			fmt.Fprintln(c.Out, "\nannounced: "+strings.Join(v.Announced, ", "))
		}
	case v.exists:
		fmt.Fprintf(c.Out, "nothing is balanced here (table inet %s is empty)\n", v.Table)
	default:
		fmt.Fprintf(c.Out, "nothing is balanced here (no table inet %s)\n", v.Table)
	}
}

func (c *Console) printServices(profiles []ShownProfile) {
	first := true
	for _, p := range profiles {
		for i := range p.Services {
			if !first {
				fmt.Fprintln(c.Out)
			}
			first = false
			c.printService(&p.Services[i])
		}
	}
}

func (c *Console) printService(s *ShownService) {
	const gap = text.Gap
	title := s.Profile + "/" + s.Service.Name
	how := strings.Join(summary(s), gap)
	listen := strings.Join(texts(s.Service.Listen), " ")
	wide := len(title) + len(listen) + len(how) + 2*len(gap)
	if up, style := s.up(); up != "" {
		how, wide = c.Out.Paint(style, up)+gap+how, wide+len(up)+len(gap)
	}
	if wide <= c.Width {
		fmt.Fprintln(c.Out, c.Out.Paint(text.Bold, title)+gap+c.Out.Paint(text.Cyan, listen)+gap+how)
	} else {
		fmt.Fprintln(c.Out, c.Out.Paint(text.Bold, title)+gap+how)
		for _, line := range text.Wrap(texts(s.Service.Listen), " ", c.Width-len(gap)) {
			fmt.Fprintln(c.Out, gap+c.Out.Paint(text.Cyan, line))
		}
	}
	for _, line := range text.Wrap(rules(s.Service), gap, c.Width-len(gap)) {
		fmt.Fprintln(c.Out, gap+line)
	}
	if way := s.Service.Offload; way != lb.OffloadNone {
		style, says := text.Green, "offload "+way.String()+": offloaded in "+s.Offloaded.By+" on "+s.Offloaded.Note
		if s.Offloaded.By == "" {
			style, says = text.Yellow, "offload "+way.String()+": not offloaded, "+s.Offloaded.Note
		}
		for _, line := range text.Wrap(strings.Fields(says), " ", c.Width-len(gap)) {
			fmt.Fprintln(c.Out, gap+c.Out.Paint(style, line))
		}
	}
	if s.Open != "" {
		fmt.Fprintln(c.Out, gap+c.Out.Paint(text.Red, s.Open))
	}
	if empty := s.Emptiness(); empty != "" {
		fmt.Fprintln(c.Out, gap+c.Out.Paint(text.Yellow, empty))
	}
	if len(s.Backends) > 0 {
		c.printBackends(s)
	}
}

// placed are the keys that have a place of their own in the table: of services
// in summary and rules, of backends in columns. Others stand there by their names.
var placed = []string{
	"name", "listen", "protocol", "interface", "role", "scheduler", "hash-by", "hash-seed", "affinity", "snat", "allow", "deny", "limit", "log", "offload", "devices",
	"address", "weight", "priority", "max-connections",
}

// summary says how a service balances, and how much.
func summary(s *ShownService) []string {
	v := s.Service
	out := []string{strings.Join(texts(v.Protocols), ","), v.SchedulerText(), "snat " + v.SNAT.String()}
	if v.Role != lb.RoleProxy {
		out = append(out, "role "+v.Role.String())
	}
	if v.Interface != "" {
		out = append(out, "interface "+v.Interface)
	}
	for _, one := range v.Values() {
		if !slices.Contains(placed, one.Word) && one.Value != nil && !one.Default && !one.Hidden {
			out = append(out, one.Word+" "+v.Values().Text(one.Word))
		}
	}
	if s.rates.known {
		out = append(out, perSecond(s.rates.perSecond)+"/s")
	}
	if s.Refused > 0 {
		refused := fmt.Sprintf("refused %d", s.Refused)
		if s.rates.refused > 0 {
			refused += fmt.Sprintf(" (+%d)", s.rates.refused)
		}
		out = append(out, refused)
	}
	return out
}

// rules say whom a service serves, and what it remembers and writes of them.
func rules(s *lb.Service) []string {
	var out []string
	if s.Affinity != nil {
		out = append(out, "affinity "+s.Affinity.String())
	}
	for _, list := range []struct {
		name     string
		prefixes []netip.Prefix
	}{{"allow", s.Allow}, {"deny", s.Deny}} {
		switch n := len(list.prefixes); {
		case n == 1:
			out = append(out, list.name+" "+list.prefixes[0].String())
		case n > 1:
			out = append(out, fmt.Sprintf("%s %d prefixes", list.name, n))
		}
	}
	if s.Limit != (lb.Limit{}) {
		out = append(out, "limit "+s.Limit.String())
	}
	if s.Log != nil {
		out = append(out, "log "+s.Log.String())
	}
	return out
}

// perSecond is a rate in few digits.
func perSecond(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// Emptiness says what becomes of connections that no backend can take; empty where one
// can.
func (s *ShownService) Emptiness() string {
	does := map[lb.OnEmpty]string{lb.Reject: "refused", lb.Drop: "dropped"}[s.Service.OnEmpty]
	families := s.Service.Families()
	var none []string
	for _, f := range families {
		if !slices.ContainsFunc(s.Service.Of(f), func(b lb.Backend) bool { return b.Effective() > 0 }) {
			none = append(none, f.String()+" ")
		}
	}
	switch {
	case len(none) == 0:
		return ""
	case len(none) == len(families):
		none = []string{""}
	}
	return fmt.Sprintf("no backend takes %sconnections: they are %s", none[0], does)
}

// column is a property of backends. One that no backend has is left out.
type column struct {
	title string
	right bool
	text  func(ShownBackend) string
	// usual is what stands where a backend has nothing, and another one has.
	usual string
	// steady columns are there in every snapshot but the first, and at least this
	// wide, so that a table in place does not jump.
	steady int
}

var columns = []column{
	{title: "backend", text: func(b ShownBackend) string { return b.Name }},
	{title: "address", text: func(b ShownBackend) string { return where(b.Name != b.Address.String(), b.Address.String()) }},
	{title: "state", usual: "up", text: func(b ShownBackend) string { return where(!b.plain(), b.StateText()) }},
	{title: "weight", right: true, text: func(b ShownBackend) string { return strconv.Itoa(b.Weight) }},
	{title: "priority", right: true, usual: "1", text: func(b ShownBackend) string { return where(b.Priority > 1, strconv.Itoa(b.Priority)) }},
	{title: "share", right: true, text: func(b ShownBackend) string {
		switch {
		case b.rates.known:
			return "" // what it has of the new ones says more
		case b.Weight == 0:
			return "-"
		}
		return strconv.FormatFloat(100*b.Share, 'f', 1, 64) + "%"
	}},
	{title: "new", steady: 1, text: func(b ShownBackend) string {
		return where(b.rates.known, bar(b.rates.share)+fmt.Sprintf("%4.0f%%", 100*b.rates.share))
	}},
	{title: "/s", right: true, steady: 6, text: func(b ShownBackend) string { return where(b.rates.known, perSecond(b.rates.perSecond)) }},
	{title: "connections", right: true, text: func(b ShownBackend) string { return where(b.Packets == nil, fmt.Sprint(b.Connections)) }},
	{title: "packets", right: true, text: func(b ShownBackend) string { return figure(b.Packets) }},
	{title: "+", right: true, steady: 5, text: func(b ShownBackend) string { return change(int(b.rates.connections)) }},
	{title: "live", right: true, text: func(b ShownBackend) string { return figure(b.Live) }},
	{title: "+-", right: true, steady: 4, text: func(b ShownBackend) string { return change(b.rates.live) }},
	{title: "max", right: true, text: func(b ShownBackend) string { return b.values.Text("max-connections") }},
	{title: "snat", text: func(b ShownBackend) string { return b.values.Text("snat") }},
	{title: "log", text: func(b ShownBackend) string {
		if b.values.Text("log") == "" {
			return ""
		}
		return b.Log.Level.String()
	}},
}

// where is a text where something is so; elsewhere it is empty.
func where(so bool, text string) string {
	if so {
		return text
	}
	return ""
}

// figure is a number; empty where it is not known.
func figure[T int | uint64](n *T) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

// barWidth is how many columns all new connections take.
const barWidth = 8

// bar is a share as a bar.
func bar(share float64) string {
	n := min(barWidth, int(share*barWidth+0.5))
	if n == 0 && share > 0 {
		n = 1
	}
	return strings.Repeat("#", n) + strings.Repeat(".", barWidth-n)
}

// change is a difference; empty where there is none.
func change(n int) string { return where(n != 0, fmt.Sprintf("%+d", n)) }

// unplaced are columns for keys of backends that have none of their own, where
// one of the backends says something that would not hold without the key.
func (s *ShownService) unplaced() []column {
	var out []column
	for i, v := range s.Backends[0].values {
		said := slices.ContainsFunc(s.Backends, func(b ShownBackend) bool { return !b.values[i].Default })
		if !slices.Contains(placed, v.Word) && said {
			out = append(out, column{title: v.Word, text: func(b ShownBackend) string { return b.values.Text(v.Word) }})
		}
	}
	return out
}

// printBackends prints the columns that some backend has something for, with
// titles.
func (c *Console) printBackends(s *ShownService) {
	for i := range s.Backends {
		s.Backends[i].values = s.Backends[i].Backend.Values(s.Service)
	}
	var used []text.Column
	rows := make([][]string, len(s.Backends)+1)
	for _, col := range slices.Concat(columns, s.unplaced()) {
		cells, some := []string{col.title}, false
		for _, b := range s.Backends {
			cell := col.text(b)
			cells, some = append(cells, cell), some || cell != "" || col.steady > 0 && b.rates.known
		}
		if !some {
			continue
		}
		for i := range cells {
			cells[i] = cmp.Or(cells[i], col.usual)
		}
		used = append(used, text.Column{Right: col.right, Least: col.steady})
		for i, cell := range cells {
			rows[i] = append(rows[i], cell)
		}
	}
	c.printRows(s, text.Align(used, rows))
}

// printRows prints the titles and a line for each backend. Why it has its state
// stands beside it, or below where the terminal is too narrow for that.
func (c *Console) printRows(s *ShownService, lines []string) {
	wide, most := 0, 0
	for i, line := range lines {
		wide = max(wide, len(text.Gap+line+text.Gap))
		if i > 0 {
			most = max(most, len(s.Backends[i-1].WhyText()))
		}
	}
	fmt.Fprintln(c.Out, c.Out.Paint(text.Dim, text.Gap+lines[0]))
	for i := range s.Backends {
		b, line := &s.Backends[i], text.Gap+lines[i+1]
		why := b.WhyText()
		if why != "" && wide+most <= c.Width {
			line, why = fmt.Sprintf("%-*s", wide, line)+why, ""
		}
		fmt.Fprintln(c.Out, c.Out.Paint(b.style(), line))
		if why != "" {
			fmt.Fprintln(c.Out, c.Out.Paint(b.style(), text.Gap+text.Gap+why))
		}
	}
}
