package plan

// Promises: how long it takes until a backend that fails is out, and until it is
// back, by what the checks of its service say.

import (
	"fmt"
	"slices"
	"time"

	"nlb/lb"
	"nlb/lb/health"
)

// Due is how long something takes, in seconds, as settings promise.
type Due struct {
	Least float64 `json:"least"`
	Most  float64 `json:"most"`
}

// String is it in words.
func (d Due) String() string {
	return Span{time.Duration(d.Least * float64(time.Second)), time.Duration(d.Most * float64(time.Second))}.String()
}

// Span is a Due before it is put into seconds.
type Span struct{ Least, Most time.Duration }

// Due is it in seconds.
func (s Span) Due() *Due { return &Due{s.Least.Seconds(), s.Most.Seconds()} }

// String is it in words.
func (s Span) String() string {
	switch {
	case s.Most == 0:
		return "at once"
	case s.Least == 0:
		return "at most " + Seconds(s.Most)
	}
	return Seconds(s.Least) + " to " + Seconds(s.Most)
}

// Seconds is a time in seconds, with two digits that count.
func Seconds(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.2g s", max(d.Seconds(), 0.01))
}

// Out is how long it takes until a backend that fails is out; false: no check
// sees it. Refused: clients meet it over TCP, so that the kernel sees it refuse.
func Out(s *lb.Service, way string, refused bool) (Span, bool) {
	var out Span
	seen := false
	for i := range s.Health {
		one, ok := fallDue(&s.Health[i], way, refused)
		switch {
		case !ok:
		case !seen || one.Most < out.Most:
			out, seen = one, true
		}
	}
	return out, seen
}

func fallDue(c *lb.Check, way string, refused bool) (Span, bool) {
	more := time.Duration(c.Fall - 1)
	switch way {
	case Refuse, Flap:
		switch {
		case c.Kind == lb.CheckICMP || c.Kind == lb.CheckAgent || c.Kind == lb.CheckExec:
			return Span{}, false
		case c.Passive && refused:
			return Span{}, true
		}
		return Span{more * health.Pace(c), health.Longest(c) + more*health.Pace(c)}, true
	case Slow:
		if c.Kind == lb.CheckICMP || c.Kind == lb.CheckTCP && c.Send+c.Expect == "" {
			return Span{}, false
		}
	}
	if c.Kind == lb.CheckAgent || c.Kind == lb.CheckExec {
		return Span{}, false // it is only asked for advice, or it is unknown what it asks
	}
	each := max(c.Timeout, health.Pace(c))
	return Span{more*each + c.Timeout, health.Detection(c)}, true
}

// Return is how long it takes until a backend that works again is back, when it
// has fallen so often.
func Return(s *lb.Service, falls int) Span {
	hold := 1
	for range falls - 1 {
		hold = min(2*hold, health.MaxHold)
	}
	var out Span
	for i := range s.Health {
		c := &s.Health[i]
		more := time.Duration(c.Rise*hold-1) * health.Pace(c)
		out = Span{max(out.Least, more), max(out.Most, health.Longest(c)+more)}
	}
	return out
}

// Lull is how long a backend that is out stays so.
const Lull = 500 * time.Millisecond

// Flaps is how often a backend comes back and goes again.
const Flaps = 2

// Beat is how long it refuses, and works, when it Flaps.
func Beat(s *lb.Service) time.Duration {
	least := s.Health[0].Interval
	for i := range s.Health {
		least = min(least, s.Health[i].Interval)
	}
	return least
}

// Length is how long an outage takes at most, as settings promise.
func Length(s *lb.Service, way string, refused bool) time.Duration {
	out, _ := Out(s, way, refused)
	if way == Flap {
		return Flaps*2*Beat(s) + Return(s, Flaps).Most
	}
	return out.Most + Lull + Return(s, 1).Most
}

// Unplayable says of a check that a stand-in cannot pass what it does; empty: it can.
func Unplayable(s *lb.Service, c *lb.Check) string {
	own := slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return s.CheckTarget(c, &b).Port() == b.Address.Port || b.Address.Port == 0 })
	switch {
	case c.Kind == lb.CheckExec:
		return "runs a command"
	case c.Verify != "":
		return "verifies a certificate"
	case c.Source.IsValid():
		return "comes from an address of its own"
	case c.Kind == lb.CheckTCP && c.Send == "" && c.Expect != "" && own, c.Kind == lb.CheckAgent && own:
		return "waits for a server that speaks first"
	case (c.Kind == lb.CheckHTTP || c.Kind == lb.CheckHTTPS) && Status(c) == 0:
		return "wants a status without a text"
	}
	return ""
}

// Status is one that passes a check; 0: there is none that a stand-in can say.
func Status(c *lb.Check) int {
	for _, r := range c.Status {
		for code := max(r.First, 200); code <= r.Last; code++ {
			if code != 204 && code != 304 {
				return int(code)
			}
		}
	}
	return 0
}
