//go:build linux

package view

// One backend for people: why it gets what it gets.

import (
	"fmt"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// Single reports whether the snapshot was reduced to one backend.
func (v *Snapshot) Single() bool { return v.single }

// Know adds what an agent knows of the one backend; nil: unknown is why that is not
// known.
func (v *Snapshot) Know(k *Known, unknown string) {
	b := &v.Profiles[0].Services[0].Backends[0]
	b.known, b.unknown = k, unknown
}

// printBackend prints all there is to know of a backend.
func (c *Console) printBackend(s *ShownService, b *ShownBackend) {
	title := c.Out.Paint(text.Bold, s.Profile+"/"+s.Service.Name+"/"+b.Name)
	if address := b.Address.String(); address != b.Name {
		title += text.Gap + c.Out.Paint(text.Cyan, address)
	}
	fmt.Fprintln(c.Out, title)
	fmt.Fprintln(c.Out, text.Gap+c.Out.Paint(b.style(), b.Reasoning()))
	for _, line := range text.Align(make([]text.Column, 2), b.facts()) {
		fmt.Fprintln(c.Out, text.Gap+strings.Map(visible, line)) // what came by a socket may be anything
	}
}

// visible is a character as it is, or one that stands for those that terminals obey.
func visible(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// Reasoning is what a backend gets, and why, in a sentence.
func (b *ShownBackend) Reasoning() string {
	const none = "it gets no new connections: "
	switch is := b.Standing; {
	case is.Order != lb.NoOrder && b.State != lb.Up:
		out := none + "it was " + orderText(is, b.at)
		if b.Failing() {
			out += ", and its checks fail"
		}
		return out
	case b.Failing() && b.State == lb.Up:
		return "it gets connections although its checks fail: too few backends are up"
	case b.Failing():
		return none + "its checks fail"
	case b.State == lb.Down:
		return none + "it was not found to work yet, and others were"
	case b.State == lb.Standby:
		return none + "it stands by, as enough backends of a better priority are up"
	case b.Weight == 0:
		return none + "its weight is 0"
	case b.known != nil && b.known.Starting:
		return "it gets a part of its weight: it has come up, and starts slowly"
	case b.Backend.Share != 0 && b.of.Scheduler.Follows():
		return "it gets more or less than its weight says, as its live connections are few or many"
	case b.Backend.Share != 0:
		return "it gets a part of its weight: it starts slowly, or its agent check says so"
	}
	return "it gets connections as its weight says"
}

// facts are rows of a word and what it is.
func (b *ShownBackend) facts() [][]string {
	var out [][]string
	say := func(word, format string, args ...any) {
		out = append(out, []string{word, fmt.Sprintf(format, args...)})
	}
	verdict, since, reason := "", b.Standing.Since, b.Standing.Reason
	if b.Failing() {
		verdict = b.Standing.Verdict.String()
	}
	if b.known != nil && len(b.known.Checks) > 0 {
		verdict, since, reason = b.known.Verdict, b.known.Since, b.known.Reason
	}
	say("state", "%s", b.State)
	if verdict != "" {
		if !since.IsZero() {
			verdict += fmt.Sprintf(" since %s (%s)", clock(since, b.at, time.TimeOnly), Age(b.at.Sub(since)))
		}
		if reason != "" {
			verdict += ": " + reason
		}
		say("verdict", "%s", verdict)
	}
	if order := orderText(b.Standing, b.at); order != "" {
		say("order", "%s", order)
	}
	say("share", "%.1f%% of the new connections; by its weight %.1f%%", 100*b.Share, 100*b.Wanted)
	weight := fmt.Sprint(b.Weight)
	if b.State == lb.Up && b.Backend.Share != 0 {
		weight += fmt.Sprintf(", of which it has %d/%d", b.Backend.Share, lb.Shares)
	}
	say("weight", "%s", weight)
	say("priority", "%d", max(1, b.Priority))
	live := "live ones are not known"
	if b.Live != nil {
		live = fmt.Sprintf("%d live", *b.Live)
	}
	if b.rates.known {
		live += fmt.Sprintf("; %s/s", perSecond(b.rates.perSecond))
	}
	say("connections", "%d, %s", b.Connections, live)
	switch {
	case b.known == nil:
		say("checks", "not known: %s", b.unknown)
	case len(b.known.Checks) == 0:
		say("checks", "none")
	default:
		for i := range b.known.Checks {
			one := &b.known.Checks[i]
			say("check", "%s %s: %s", one.Check, one.At, one)
		}
	}
	return out
}
