//go:build linux

package view

// What is known of backends: their states, and why they have them.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// Known is what an agent knows of a backend, beside what is in the kernel.
type Known struct {
	Verdict  string    `json:"verdict"` // new, up, down
	Since    time.Time `json:"since"`
	Reason   string    `json:"reason"`
	Starting bool      `json:"starting"` // it has not got its whole weight yet
	Checks   []Check   `json:"checks"`
}

// Check is what is known of one check of a backend.
type Check struct {
	Check  string `json:"check"` // its kind
	At     string `json:"at"`
	Streak int    `json:"streak"` // passed in a row, or failed where it is negative
	// Have and Need are of one that is held since it fell too often: successes in
	// a row, and how many it takes; 0 where it is not held.
	Have   int    `json:"have"`
	Need   int    `json:"need"`
	Late   int    `json:"late"`   // checks that this host was too late with
	Unable string `json:"unable"` // why it cannot be made; empty: it can
	// Past is what came of the last ones, a character each, the newest last: + passed,
	// - failed, ~ late.
	Past string `json:"past"`
}

// String is it in words, without what it is: failed 3 in a row, 1 late.
func (c *Check) String() string {
	var parts []string
	switch {
	case c.Unable != "":
		parts = append(parts, "cannot be made: "+c.Unable)
	case c.Streak > 0:
		parts = append(parts, fmt.Sprintf("passed %d in a row", c.Streak))
	case c.Streak < 0:
		parts = append(parts, fmt.Sprintf("failed %d in a row", -c.Streak))
	default:
		parts = append(parts, "not made yet")
	}
	if c.Need > 0 {
		parts = append(parts, fmt.Sprintf("held, since it fell too often: %d of %d", c.Have, c.Need))
	}
	if c.Late > 0 {
		parts = append(parts, fmt.Sprintf("%d late", c.Late))
	}
	return strings.Join(parts, ", ")
}

// Failing reports whether the checks of a backend found it down.
func (b *ShownBackend) Failing() bool { return b.Standing.Verdict == lb.VerdictDown }

// Works reports whether it is not known to fail: an order alone keeps no server from
// working.
func (b *ShownBackend) Works() bool {
	return !b.Failing() && (b.State != lb.Down || b.Standing.Order != lb.NoOrder)
}

// plain reports whether there is nothing to say of the state.
func (b *ShownBackend) plain() bool {
	return b.State == lb.Up && !b.Failing() && b.Backend.Share == 0
}

// stateWord is the state in a word.
func (b *ShownBackend) stateWord() string {
	switch {
	case b.Failing():
		return "down"
	case b.Standing.Order == lb.OrderDisable:
		return "disabled"
	}
	return b.State.String()
}

// StateText is the state with its age, or with the part of its weight that a backend
// has: down 2m, up 3/16.
func (b *ShownBackend) StateText() string {
	out := b.stateWord()
	switch {
	case b.Failing() && !b.Standing.Since.IsZero():
		out += " " + Age(b.at.Sub(b.Standing.Since))
	case b.State == lb.Up && b.Backend.Share != 0:
		out += fmt.Sprintf(" %d/%d", b.Backend.Share, lb.Shares)
	}
	return out
}

// WhyText is why it is so, in short; empty where the state says it all.
func (b *ShownBackend) WhyText() string {
	var parts []string
	is := b.Standing
	switch {
	case b.Failing():
		parts = append(parts, is.Reason)
	case b.State == lb.Down && is.Order == lb.NoOrder:
		parts = append(parts, "not found to work yet")
	}
	if order := orderText(is, b.at); order != "" {
		if !b.Failing() { // the state has the verb
			_, order, _ = strings.Cut(order, " ")
		}
		parts = append(parts, order)
	}
	if was := b.rates.state; was != "" {
		parts = append(parts, "was "+was)
	}
	return strings.Join(parts, "; ")
}

// orderText is an order in words: drained by root until 14:33.
func orderText(is lb.Standing, now time.Time) string {
	out := map[lb.Order]string{lb.OrderDrain: "drained", lb.OrderDisable: "disabled"}[is.Order]
	if is.By != "" {
		out += " by " + is.By
	}
	if !is.Until.IsZero() {
		out += " until " + clock(is.Until, now, "15:04")
	}
	return out
}

// style is the color of a backend's row.
func (b *ShownBackend) style() text.Style {
	switch {
	case b.Failing() && b.State == lb.Up:
		return text.Yellow
	case b.State == lb.Down:
		return text.Red
	case b.State == lb.Draining:
		return text.Yellow
	case b.State == lb.Standby, b.Weight == 0:
		return text.Dim
	}
	return ""
}

// up says how many backends are up, where not all of them are.
func (s *ShownService) up() (string, text.Style) {
	up, standby := 0, 0
	for i := range s.Backends {
		switch b := &s.Backends[i]; {
		case b.Failing():
		case b.State == lb.Up:
			up++
		case b.State == lb.Standby:
			up, standby = up+1, standby+1
		}
	}
	all, style := len(s.Backends), text.Yellow
	out := fmt.Sprintf("%d of %d up", up, all)
	if standby > 0 {
		out += fmt.Sprintf(", %d standby", standby)
	}
	switch {
	case up == all && standby == 0:
		return "", ""
	case up == all:
		style = ""
	case up == 0:
		style = text.Red
	}
	return out, style
}

// openness says that health is ignored, as fail-open says; empty: it is not.
func (s *ShownService) openness() string {
	var open []string
	for _, f := range s.Service.Families() {
		if slices.ContainsFunc(s.Backends, func(b ShownBackend) bool { return lb.FamilyOf(b.Address.Addr) == f && b.Failing() && b.State == lb.Up }) {
			open = append(open, f.String()+" ")
		}
	}
	switch len(open) {
	case 0:
		return ""
	case len(s.Service.Families()):
		open = []string{""}
	}
	return fmt.Sprintf("too few %sbackends are up: those that are down get connections, too", open[0])
}

// standingValues are what is known of a backend, as JSON has it.
func (b *ShownBackend) standingValues() lb.Values {
	is := b.Standing
	var verdict, reason string
	var since time.Time
	if b.Failing() {
		verdict, since, reason = is.Verdict.String(), is.Since, is.Reason
	}
	if b.known != nil {
		verdict, since, reason = b.known.Verdict, b.known.Since, b.known.Reason
	}
	out := lb.Values{{Word: "state", Value: b.State.String()}}
	say := func(word, value string) {
		if value != "" {
			out = append(out, lb.Value{Word: word, Value: value})
		}
	}
	say("verdict", verdict)
	say("since", moment(since))
	say("reason", reason)
	if is.Order != lb.NoOrder {
		say("order", orderWords[is.Order])
	}
	say("by", is.By)
	say("until", moment(is.Until))
	if b.State == lb.Up && b.Backend.Share != 0 {
		out = append(out, lb.Value{Word: "part", Value: float64(b.Backend.Share) / lb.Shares})
	}
	return out
}

var orderWords = map[lb.Order]string{lb.OrderDrain: "drain", lb.OrderDisable: "disable"}

// moment is a time as JSON has it; empty where it is none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
