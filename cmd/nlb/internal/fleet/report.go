package fleet

// Reports: the nodes of a fleet and the profiles, what each has, and what is not well.

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
)

// Report is how a fleet is.
type Report struct {
	OK       bool            `json:"ok"` // nothing is to be mended
	Profiles []ProfileReport `json:"profiles"`
	Nodes    []NodeReport    `json:"nodes"`
	Strange  []string        `json:"strange"` // keys that are not nlb's
}

// ProfileReport is what is wanted of a profile.
type ProfileReport struct {
	Profile string    `json:"profile"`
	Seq     uint64    `json:"seq"` // 0: it cannot be read
	Hash    string    `json:"hash"`
	Absent  bool      `json:"absent"` // it is to go
	Stage   []string  `json:"stage"`  // the nodes that are to have it first; none: all
	Have    int       `json:"have"`   // nodes that have what they are to have
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Message string    `json:"message"`
	Error   string    `json:"error"` // why it cannot be read
}

// NodeReport is how a node is.
type NodeReport struct {
	Node     string       `json:"node"`
	State    string       `json:"state"` // in, out, leaving, coming, lost
	Version  string       `json:"version"`
	At       time.Time    `json:"at"` // of its last status
	Draining int          `json:"draining"`
	Clock    int          `json:"clock"` // seconds ahead
	Trouble  string       `json:"trouble"`
	Profiles []HeldReport `json:"profiles"`
}

// HeldReport is what a node has of a profile.
type HeldReport struct {
	Profile string    `json:"profile"`
	Wanted  uint64    `json:"wanted"` // 0: that is not said
	Applied uint64    `json:"applied"`
	Absent  bool      `json:"absent"`
	Since   time.Time `json:"since"`
	Health
	Refused *Refusal `json:"refused"`
	Fault   string   `json:"fault"` // in words; empty: all is well
}

// Report puts together what is known.
func (k *Known) Report() *Report {
	r := &Report{OK: len(k.Strange) == 0, Profiles: []ProfileReport{}, Nodes: []NodeReport{}, Strange: append([]string{}, k.Strange...)}
	for _, name := range slices.Sorted(maps.Keys(k.Nodes)) {
		n := k.node(name)
		for _, h := range n.Profiles {
			r.OK = r.OK && h.Fault == ""
		}
		r.OK = r.OK && n.State != "lost" && n.Trouble == "" && n.Clock == 0
		r.Nodes = append(r.Nodes, n)
	}
	for _, name := range slices.Sorted(maps.Keys(k.Pointers)) {
		e := k.Pointers[name]
		p := ProfileReport{Profile: name, Stage: []string{}, Have: k.have(name)}
		if e.Err != nil {
			p.Error, r.OK = Said(e.Err), false
		} else {
			p.Seq, p.Hash, p.Absent, p.By, p.At, p.Message = e.Seq, e.Hash, e.Absent, line(e.By), e.At, line(e.Message)
			for _, n := range e.Stage {
				p.Stage = append(p.Stage, line(n))
			}
		}
		r.Profiles = append(r.Profiles, p)
	}
	return r
}

// have counts the nodes that have what they are to have of a profile.
func (k *Known) have(profile string) (n int) {
	e := k.Pointers[profile]
	for name, is := range k.Nodes {
		if h := is.Profiles[profile]; h != nil && e.Pointer != nil {
			if v := e.For(name); v != nil && v.Seq == h.Seq {
				n++
			}
		}
	}
	return n
}

// line is a text of somebody else as a part of a line.
func line(s string) string {
	return strings.ReplaceAll(Said(errors.New(s)), "\n", " ")
}

// node is how a node is.
func (k *Known) node(name string) NodeReport {
	is := k.Nodes[name]
	n := NodeReport{Node: name, State: "in", Version: line(is.Version), At: is.At, Draining: is.Draining, Clock: is.Clock, Trouble: is.Trouble, Profiles: []HeldReport{}}
	ordered := k.Out != nil && k.Out.Node == name
	switch {
	case !k.Alive[name]:
		n.State = "lost"
	case is.Out && ordered:
		n.State = "out"
	case is.Out:
		n.State = "coming"
	case ordered:
		n.State = "leaving"
	}
	all := map[string]*Held{}
	maps.Copy(all, is.Profiles)
	for p, e := range k.Pointers {
		if all[p] == nil && e.Pointer != nil && !e.Absent && e.For(name) != nil {
			all[p] = &Held{}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		h := all[p]
		if h.Absent && h.Refused == nil && k.Pointers[p].Pointer != nil && k.Pointers[p].Absent {
			continue // it has gone, as it was to
		}
		n.Profiles = append(n.Profiles, k.held(name, p, h))
	}
	return n
}

func (k *Known) held(node, profile string, h *Held) HeldReport {
	out := HeldReport{Profile: profile, Applied: h.Seq, Absent: h.Absent, Since: h.Since, Health: h.Health, Refused: h.Refused}
	e, ok := k.Pointers[profile]
	if ok && e.Pointer != nil {
		if v := e.For(node); v != nil {
			out.Wanted = v.Seq
		}
	}
	switch {
	case h.Refused != nil:
		out.Fault = fmt.Sprintf("refused sequence %d, %s: %s", h.Refused.Seq, out.keeps(), h.Refused.Error)
	case !ok:
		out.Fault = fmt.Sprintf("its key is gone, %s; nlb push puts it back", out.keeps())
	case out.Wanted != out.Applied && out.Wanted != 0:
		out.Fault = fmt.Sprintf("is to have sequence %d, %s", out.Wanted, out.keeps())
	}
	return out
}

// keeps says what a node has in place of what it is to have.
func (h *HeldReport) keeps() string {
	switch {
	case h.Applied == 0:
		return "has none"
	case h.Absent:
		return fmt.Sprintf("keeps it away since %d", h.Applied)
	}
	return fmt.Sprintf("keeps %d", h.Applied)
}

// Print prints a report for people: what is wanted, then who has it, then what is not
// well.
func (r *Report) Print(c *view.Console, now time.Time) {
	if len(r.Profiles)+len(r.Nodes) == 0 {
		fmt.Fprintln(c.Out, "nothing was pushed, and no node is there")
	}
	age := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return view.Age(now.Sub(t))
	}
	rows := [][]string{{"PROFILE", "WANTED", "HAVE", "STAGE", "BY", "AGE", "MESSAGE"}}
	for _, p := range r.Profiles {
		wanted, stage := fmt.Sprint(p.Seq), cmp.Or(strings.Join(p.Stage, ","), "all")
		switch {
		case p.Error != "":
			wanted = "?"
		case p.Absent:
			wanted += " (away)"
		}
		rows = append(rows, []string{p.Profile, wanted, fmt.Sprintf("%d/%d", p.Have, len(r.Nodes)), stage, p.By, age(p.At), p.Message})
	}
	printTable(c, rows, 1)
	rows = [][]string{{"NODE", "STATE", "PROFILE", "HAS", "AGE", "UP", "DOWN"}}
	for _, n := range r.Nodes {
		if len(n.Profiles) == 0 {
			rows = append(rows, []string{n.Node, n.State, "-", "", "", "", ""})
		}
		for _, h := range n.Profiles {
			rows = append(rows, []string{n.Node, n.State, h.Profile, fmt.Sprint(h.Applied), age(h.Since), fmt.Sprint(h.Up), fmt.Sprint(h.Down)})
		}
	}
	if len(r.Profiles) > 0 && len(r.Nodes) > 0 {
		fmt.Fprintln(c.Out)
	}
	printTable(c, rows, 3)
	for _, f := range r.faults(now) {
		fmt.Fprintf(c.Out, "\n%s\n", c.Out.Paint(text.Red, f))
	}
}

func printTable(c *view.Console, rows [][]string, right int) {
	if len(rows) == 1 {
		return
	}
	columns := make([]text.Column, len(rows[0]))
	columns[right].Right = true
	c.PrintTable("", text.Bold, columns, rows)
}

// faults are what is not well, in words.
func (r *Report) faults(now time.Time) (out []string) {
	for _, p := range r.Profiles {
		if p.Error != "" {
			out = append(out, p.Profile+" cannot be read: "+p.Error)
		}
	}
	for _, n := range r.Nodes {
		if n.State == "lost" {
			out = append(out, fmt.Sprintf("%s is lost: its last word is %s old, and what it has may be other by now", n.Node, view.Age(now.Sub(n.At))))
		}
		if n.Clock != 0 {
			out = append(out, fmt.Sprintf("%s: its clock is %s off that of who pushed last", n.Node, time.Duration(n.Clock)*time.Second))
		}
		if n.Trouble != "" {
			out = append(out, n.Node+": "+n.Trouble)
		}
		for _, h := range n.Profiles {
			if h.Fault != "" {
				out = append(out, n.Node+": "+h.Profile+": "+h.Fault)
			}
		}
	}
	for _, key := range r.Strange {
		out = append(out, "the key "+key+" is not nlb's")
	}
	return out
}
