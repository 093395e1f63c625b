//go:build linux

package main

// The table that show prints: for each service a line, and below it a line
// for each backend.

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
)

// services prints what is in the kernel for a person.
func (j *job) services(v *shown) {
	first := true
	for _, p := range v.Profiles {
		for i := range p.Services {
			if !first {
				fmt.Fprintln(j.out)
			}
			first = false
			j.service(&p.Services[i])
		}
	}
}

const gap = "  "

func (j *job) service(s *shownService) {
	title := s.profile + "/" + s.service.Name
	how := strings.Join(words(s), gap)
	listen := strings.Join(texts(s.service.Listen), " ")
	if len(title)+len(listen)+len(how)+2*len(gap) <= j.width {
		fmt.Fprintln(j.out, j.onOut(bold, title)+gap+j.onOut(cyan, listen)+gap+how)
	} else {
		fmt.Fprintln(j.out, j.onOut(bold, title)+gap+how)
		for _, line := range wrap(texts(s.service.Listen), " ", j.width-len(gap)) {
			fmt.Fprintln(j.out, gap+j.onOut(cyan, line))
		}
	}
	for _, line := range wrap(rules(s.service), gap, j.width-len(gap)) {
		fmt.Fprintln(j.out, gap+line)
	}
	if empty := j.empty(s); empty != "" {
		fmt.Fprintln(j.out, gap+j.onOut(yellow, empty))
	}
	if len(s.Backends) > 0 {
		j.backends(s)
	}
}

// placed are the keys that have a place of their own in the table: of services
// in words and rules, of backends in columns. Others stand there by their names.
var placed = []string{
	"name", "listen", "protocol", "interface", "role", "scheduler", "hash-by", "hash-seed", "affinity", "snat", "allow", "deny", "limit", "log",
	"address", "weight", "max-connections",
}

// words say how a service balances, and how much.
func words(s *shownService) []string {
	v := s.service
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
	if s.pace.known {
		out = append(out, perSecond(s.pace.perSecond)+"/s")
	}
	if s.Refused > 0 {
		refused := fmt.Sprintf("refused %d", s.Refused)
		if s.pace.refused > 0 {
			refused += fmt.Sprintf(" (+%d)", s.pace.refused)
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

// empty says what becomes of connections that no backend can take.
func (j *job) empty(s *shownService) string {
	does := map[lb.OnEmpty]string{lb.Reject: "refused", lb.Drop: "dropped"}[s.service.OnEmpty]
	families := s.service.Families()
	var none []string
	for _, f := range families {
		if !slices.ContainsFunc(s.service.Of(f), func(b lb.Backend) bool { return b.Weight > 0 }) {
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

// wrap puts words into lines of a width.
func wrap(words []string, between string, width int) []string {
	var lines []string
	for _, w := range words {
		if n := len(lines); n > 0 && len(lines[n-1])+len(between)+len(w) <= width {
			lines[n-1] += between + w
		} else {
			lines = append(lines, w)
		}
	}
	return lines
}

// column is a property of backends. One that no backend has is left out.
type column struct {
	title string
	right bool
	text  func(shownBackend) string
	// steady columns are there in every look but the first, and at least this
	// wide, so that a table in place does not jump.
	steady int
}

var columns = []column{
	{title: "backend", text: func(b shownBackend) string { return b.Name }},
	{title: "address", text: func(b shownBackend) string {
		if address := b.Address.String(); b.Name != address {
			return address
		}
		return ""
	}},
	{title: "weight", right: true, text: func(b shownBackend) string { return strconv.Itoa(b.Weight) }},
	{title: "share", right: true, text: func(b shownBackend) string {
		switch {
		case b.pace.known:
			return "" // what it has of the new ones says more
		case b.Weight == 0:
			return "-"
		}
		return strconv.FormatFloat(100*b.Share, 'f', 1, 64) + "%"
	}},
	{title: "new", steady: 1, text: func(b shownBackend) string {
		if !b.pace.known {
			return ""
		}
		return bar(b.pace.share) + fmt.Sprintf("%4.0f%%", 100*b.pace.share)
	}},
	{title: "/s", right: true, steady: 6, text: func(b shownBackend) string {
		if !b.pace.known {
			return ""
		}
		return perSecond(b.pace.perSecond)
	}},
	{title: "connections", right: true, text: func(b shownBackend) string { return strconv.FormatUint(b.Connections, 10) }},
	{title: "+", right: true, steady: 5, text: func(b shownBackend) string { return change(int(b.pace.connections)) }},
	{title: "live", right: true, text: func(b shownBackend) string {
		if b.Live == nil {
			return ""
		}
		return strconv.Itoa(*b.Live)
	}},
	{title: "+-", right: true, steady: 4, text: func(b shownBackend) string { return change(b.pace.live) }},
	{title: "max", right: true, text: func(b shownBackend) string { return b.values.Text("max-connections") }},
	{title: "snat", text: func(b shownBackend) string { return b.values.Text("snat") }},
	{title: "log", text: func(b shownBackend) string {
		if b.values.Text("log") == "" {
			return ""
		}
		return b.Log.Level.String()
	}},
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
func change(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%+d", n)
}

// unplaced are columns for keys of backends that have none of their own.
func (s *shownService) unplaced() []column {
	var out []column
	for _, v := range s.Backends[0].values {
		if !slices.Contains(placed, v.Word) {
			out = append(out, column{title: v.Word, text: func(b shownBackend) string { return b.values.Text(v.Word) }})
		}
	}
	return out
}

func (j *job) backends(s *shownService) {
	// Text by columns, with the title on top.
	var cells [][]string
	var wide []int // negative: to the left
	for _, c := range slices.Concat(columns, s.unplaced()) {
		col, longest, used := []string{c.title}, len(c.title), false
		for _, b := range s.Backends {
			text := c.text(b)
			steady := c.steady > 0 && b.pace.known
			col, longest, used = append(col, text), max(longest, len(text), c.steady), used || text != "" || steady
		}
		if !used {
			continue
		}
		if !c.right {
			longest = -longest
		}
		cells, wide = append(cells, col), append(wide, longest)
	}
	for row := range len(s.Backends) + 1 {
		var line strings.Builder
		for i, col := range cells {
			fmt.Fprintf(&line, "%s%*s", gap, wide[i], col[row])
		}
		text := strings.TrimRight(line.String(), " ")
		if row == 0 || s.Backends[row-1].Weight == 0 {
			text = j.onOut(dim, text)
		}
		fmt.Fprintln(j.out, text)
	}
}
