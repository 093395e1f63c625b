//go:build linux

package main

// The table that show prints: for each service a line, and below it a line
// for each backend.

import (
	"fmt"
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
	title := s.profile + "/" + s.Name
	words := []string{strings.Join(s.Protocol, ","), s.service.SchedulerText(), "snat " + s.SNAT}
	if s.Role != lb.RoleProxy.String() {
		words = append(words, "role "+s.Role)
	}
	how := strings.Join(words, gap)
	listen := strings.Join(s.Listen, " ")
	if len(title)+len(listen)+len(how)+2*len(gap) <= j.width {
		fmt.Fprintln(j.out, j.onOut(bold, title)+gap+j.onOut(cyan, listen)+gap+how)
	} else {
		fmt.Fprintln(j.out, j.onOut(bold, title)+gap+how)
		for _, line := range wrap(s.Listen, j.width-len(gap)) {
			fmt.Fprintln(j.out, gap+j.onOut(cyan, line))
		}
	}
	if empty := j.empty(s); empty != "" {
		fmt.Fprintln(j.out, gap+j.onOut(yellow, empty))
	}
	if len(s.Backends) > 0 {
		j.backends(s)
	}
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
func wrap(words []string, width int) []string {
	var lines []string
	for _, w := range words {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(w) <= width {
			lines[n-1] += " " + w
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
}

var columns = []column{
	{"backend", false, func(b shownBackend) string { return b.Name }},
	{"address", false, func(b shownBackend) string {
		if b.Name == b.Address {
			return ""
		}
		return b.Address
	}},
	{"weight", true, func(b shownBackend) string { return strconv.Itoa(b.Weight) }},
	{"share", true, func(b shownBackend) string {
		if b.Weight == 0 {
			return "-"
		}
		return strconv.FormatFloat(100*b.Share, 'f', 1, 64) + "%"
	}},
	{"connections", true, func(b shownBackend) string { return strconv.FormatUint(b.Connections, 10) }},
	{"live", true, func(b shownBackend) string {
		if b.Live == nil {
			return ""
		}
		return strconv.Itoa(*b.Live)
	}},
	{"snat", false, func(b shownBackend) string { return b.SNAT }},
}

func (j *job) backends(s *shownService) {
	// Text by columns, with the title on top.
	var cells [][]string
	var wide []int // negative: to the left
	for _, c := range columns {
		col, longest, used := []string{c.title}, len(c.title), false
		for _, b := range s.Backends {
			text := c.text(b)
			col, longest, used = append(col, text), max(longest, len(text)), used || text != ""
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
