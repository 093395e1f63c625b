//go:build linux

package view

// The reports of rehearsals for people: at most 100 columns, where names are not
// longer than addresses.

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/integration/lab"
	"nlb/integration/lab/fleet"
	"nlb/integration/lab/plan"
)

// Bounds of what is printed of a report.
const (
	reportWidth = 100
	maxRows     = 16
	maxProblems = 8
)

// reportIndent is of what stands below a line with a mark.
const reportIndent = "      "

// PrintRehearsed prints the report of a rehearsal, on one balancer or on several.
func (c *Console) PrintRehearsed(found any) {
	switch r := found.(type) {
	case *lab.Report:
		c.PrintReport(r)
	case *fleet.Report:
		c.printFleet(r)
	}
}

// PrintReport prints the report of a rehearsal on one balancer.
func (c *Console) PrintReport(r *lab.Report) {
	services := 0
	for _, p := range r.Profiles {
		services += len(p.Services)
		for i := range p.Services {
			c.printRehearsed(p.Name, &p.Services[i])
		}
	}
	c.printNotes("note", text.Cyan, r.Notes)
	c.printNotes("problem", text.Red, r.Problems)
	fmt.Fprintf(c.Out, "%s: %s, %s in %.1f s\n", c.verdict(len(r.AllProblems())),
		text.Count(services, "service"), text.Count(r.Connections, "connection"), r.Seconds)
}

func (c *Console) printRehearsed(profile string, s *lab.Service) {
	listen := s.Listen
	if len(listen) > 3 {
		listen = append(slices.Clone(listen[:2]), fmt.Sprintf("and %d more", len(listen)-2))
	}
	words := []string{strings.Join(listen, " "), strings.Join(s.Protocol, ","), s.Scheduler, "snat " + s.SNAT}
	if s.Role != "proxy" {
		words = append(words, "role "+s.Role)
	}
	fmt.Fprintf(c.Out, "%s  %s\n", c.Out.Paint(text.Bold, profile+"/"+s.Name), strings.Join(words, text.Gap))
	for i := range s.Trials {
		c.printTrial(&s.Trials[i], i > 0)
	}
	for _, l := range s.Limits {
		mark := c.mark(l.Problems)
		if l.Skipped {
			mark = "--"
		}
		c.printMarked(mark, l.What+": "+l.Found, l.Problems)
	}
	if s.Outage != nil {
		c.printOutage(s.Outage)
	}
	for i := range s.Failings {
		c.printFailing(&s.Failings[i])
	}
	fmt.Fprintln(c.Out)
}

// mark begins a line that says that something is well, or not.
func (c *Console) mark(problems []string) string {
	if len(problems) == 0 {
		return c.Out.Paint(text.Green, "ok")
	}
	return c.Out.Paint(text.Red, "!!")
}

// printTrial prints one line, and a table unless it is of the kind that adds
// little to what is printed already.
func (c *Console) printTrial(t *lab.Trial, more bool) {
	words := []string{text.Count(t.Connections, "connection")}
	if t.Clients > 1 {
		words[0] += fmt.Sprintf(" of %d clients", t.Clients)
	}
	switch t.Due {
	case lab.DueRefused:
		words = append(words, fmt.Sprintf("%d refused, since no backend can take them", t.FailedAsDue()))
	case lab.DueSilence:
		words = append(words, fmt.Sprintf("%d unanswered, since no backend can take them", t.FailedAsDue()))
	}
	if t.Kept != nil && t.Kept.Of < t.Answered {
		words = append(words, fmt.Sprintf("%d of %d stayed with one backend", t.Kept.Kept, t.Kept.Of))
	}
	if t.Denied != nil {
		words = append(words, fmt.Sprintf("%d of %d that are denied refused", t.Denied.Refused, t.Denied.Of))
	}
	brief := more && t.From == "host" && len(t.Problems) == 0 && len(t.Backends) > 0
	if brief {
		words = append(words, "as due")
	}
	c.printMarked(c.mark(t.Problems), t.Title()+": "+strings.Join(words, ", "), nil)
	if !brief {
		c.printShares(t.Backends)
	}
	c.printProblems(t.Problems)
}

// printShares prints what each backend got.
func (c *Console) printShares(all []lab.Backend) {
	if len(all) == 0 {
		return
	}
	rows := [][]string{{"backend", "weight", "got", "due", "saw"}}
	for _, b := range all[:min(len(all), maxRows)] {
		rows = append(rows, []string{b.Name, strconv.Itoa(b.Weight), strconv.Itoa(b.Connections), due(&b), saw(&b)})
	}
	c.PrintTable(reportIndent, text.Dim, []text.Column{{}, {Right: true}, {Right: true}, {}, {}}, rows)
	if more := len(all) - maxRows; more > 0 {
		fmt.Fprintf(c.Out, "%sand %d more\n", reportIndent, more)
	}
}

// due is a backend's share, and its bounds where they leave a choice.
func due(b *lab.Backend) string {
	s := strconv.FormatFloat(math.Round(b.Due*10)/10, 'f', -1, 64)
	if b.Least != b.Most {
		s += fmt.Sprintf(" (%d-%d)", b.Least, b.Most)
	}
	return s
}

// saw is what a backend saw as the source.
func saw(b *lab.Backend) string {
	switch n := len(b.Sources); {
	case n == 0:
		return "-"
	case n <= 2:
		return strings.Join(b.Sources, " ")
	case strings.HasPrefix(b.SourcesDue, "the client"):
		return fmt.Sprintf("the %d clients", n)
	default:
		return fmt.Sprintf("%d addresses", n)
	}
}

func (c *Console) printOutage(o *lab.Outage) {
	var words []string
	if o.Live > 0 {
		words = append(words, fmt.Sprintf("%d of its %s ended", o.Ended, text.Count(o.Live, "live connection")))
	}
	words = append(words, fmt.Sprintf("%d of %d new ones failed%s", o.Failures.Total(), o.Connections, ways(o.Failures)))
	c.printMarked(c.mark(o.Problems), fmt.Sprintf("%s ends: %s; once it is out of the profile, %d of %d fail%s",
		o.Backend, strings.Join(words, ", "), o.AfterFailures.Total(), o.AfterConnections, ways(o.AfterFailures)), o.Problems)
}

func (c *Console) printFailing(f *lab.Failing) {
	out := "never out"
	if f.Out != nil {
		out = "out after " + spent(f.Out)
	}
	if f.OutDue != nil {
		out += " (due " + f.OutDue.String() + ")"
	}
	if f.Falls > 1 {
		out += fmt.Sprintf(", %d times", f.Falls)
	}
	back := ""
	if f.Back != nil {
		back = "; back after " + spent(f.Back)
		if f.BackDue != nil {
			back += " (due " + f.BackDue.String() + ")"
		}
	}
	c.printMarked(c.mark(f.Problems), fmt.Sprintf("%s %s: %s; of %s %d lost, %d late%s",
		f.Backend, plan.Verbs[f.Way], out, text.Count(f.Connections, "new connection"), f.Lost, f.Late, back), f.Problems)
}

// spent is a time in seconds in words.
func spent(s *float64) string { return plan.Seconds(time.Duration(*s * float64(time.Second))) }

// ways are the ways in which connections failed.
func ways(failures lab.Failures) string {
	if len(failures) == 0 {
		return ""
	}
	return " (" + strings.Join(slices.Sorted(maps.Keys(failures)), ", ") + ")"
}

// printMarked prints a line with a mark in front, and problems below it.
func (c *Console) printMarked(mark, s string, problems []string) {
	c.printWrapped("  "+mark+"  ", len(reportIndent), "", s)
	c.printProblems(problems)
}

func (c *Console) printProblems(list []string) {
	for _, s := range list[:min(len(list), maxProblems)] {
		c.printWrapped(reportIndent, len(reportIndent), text.Red, s)
	}
	if more := len(list) - maxProblems; more > 0 {
		fmt.Fprintf(c.Out, "%sand %d more\n", reportIndent, more)
	}
}

func (c *Console) printNotes(word string, style text.Style, lines []string) {
	for _, s := range lines {
		c.printWrapped("  "+c.Out.Paint(style, word+":")+" ", len(word)+4, "", s)
	}
	if len(lines) > 0 {
		fmt.Fprintln(c.Out)
	}
}

// printWrapped prints words behind a prefix that is so many columns wide, and
// further lines below the first word.
func (c *Console) printWrapped(prefix string, columns int, style text.Style, s string) {
	for _, line := range text.Wrap(strings.Fields(s), " ", reportWidth-columns) {
		fmt.Fprintln(c.Out, prefix+c.Out.Paint(style, line))
		prefix = strings.Repeat(" ", columns)
	}
}

// verdict is how a rehearsal went.
func (c *Console) verdict(problems int) string {
	if problems > 0 {
		return c.Out.Paint(text.Red, text.Count(problems, "problem"))
	}
	return c.Out.Paint(text.Green, "all as due")
}

func (c *Console) printFleet(r *fleet.Report) {
	fmt.Fprintf(c.Out, "%s  %s, %s open\n", c.Out.Paint(text.Bold, "fleet: "+r.Fleet), text.Count(r.Balancers, "balancer"), text.Count(r.Connections, "connection"))
	rows := [][]string{{"", "", "lost", "at most", "new", "failed", "longest gap"}}
	for _, s := range r.Steps {
		mark, most := c.mark(nil), strconv.Itoa(s.Most)
		switch {
		case s.Most < 0:
			mark, most = "--", "-"
		case s.Lost > s.Most:
			mark = c.mark(r.Problems)
		}
		rows = append(rows, []string{mark, s.What, strconv.Itoa(s.Lost), most, strconv.Itoa(s.New), strconv.Itoa(s.Failed), fmt.Sprintf("%d ms", s.Gap)})
	}
	right := text.Column{Right: true}
	c.PrintTable("  ", text.Dim, []text.Column{{}, {}, right, right, right, right, right}, rows)
	fmt.Fprintln(c.Out)
	c.printNotes("note", text.Cyan, r.Notes)
	c.printNotes("problem", text.Red, r.Problems)
	fmt.Fprintf(c.Out, "%s: in %.1f s\n", c.verdict(len(r.Problems)), r.Seconds)
}
