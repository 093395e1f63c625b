package view

// What health asks of servers: how often, and how soon it finds that one is dead.

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"nlb/lb"
	"nlb/lb/health"
)

// Health is what the checks of a profile come to.
type Health struct {
	Checks    float64     `json:"checks"`    // a second
	Detection []Detection `json:"detection"` // of the services that are checked
}

// Detection is how long the clients of a service may meet a server that is dead.
type Detection struct {
	Service string  `json:"service"`
	Seconds float64 `json:"seconds"`
}

// HealthOf is what the checks of a profile come to.
func HealthOf(p *lb.Profile) Health {
	out := Health{Checks: lb.CheckRate([]*lb.Profile{p}), Detection: []Detection{}}
	for i := range p.Services {
		s := &p.Services[i]
		longest := time.Duration(0)
		for k := range s.Health {
			if !slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return s.Checked(&b) }) {
				break
			}
			longest = max(longest, health.Detection(&s.Health[k]))
		}
		if longest > 0 {
			out.Detection = append(out.Detection, Detection{s.Name, longest.Seconds()})
		}
	}
	return out
}

// String is it in words; empty where nothing is checked.
func (h Health) String() string {
	if len(h.Detection) == 0 {
		return ""
	}
	unit := " checks a second"
	if h.Checks == 1 {
		unit = " check a second"
	}
	slowest := slices.MaxFunc(h.Detection, func(a, b Detection) int { return int(a.Seconds*1000) - int(b.Seconds*1000) })
	of := ""
	if len(h.Detection) > 1 {
		of = " of " + slowest.Service
	}
	return fmt.Sprintf("%s%s; a server%s that fails is down within %s", strconv.FormatFloat(h.Checks, 'g', 3, 64), unit, of, bound(slowest.Seconds))
}

// bound is a time in few digits, rounded up: 5.1s, 2m30s.
func bound(seconds float64) string {
	d, digit := time.Duration(seconds*float64(time.Second)), 100*time.Millisecond
	if d < time.Second {
		digit = 10 * time.Millisecond
	}
	return (d + digit - 1).Truncate(digit).String()
}

// Age is a time in its largest unit, rounded down: 40s, 2m, 3h, 5d.
func Age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
