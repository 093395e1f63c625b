package lb

// Texts of values that people and programs read.

import "fmt"

// TimeoutText is the timeout as a profile has it: 10m.
func (a *Affinity) TimeoutText() string { return timeText(a.Timeout) }

// String is the timeout, and the networks where they are not single clients:
// 10m, 10m by /24, 10m by /24 and /64.
func (a *Affinity) String() string {
	s := timeText(a.Timeout)
	v4, v6 := a.Bits > 0 && a.Bits < 32, a.Bits6 > 0 && a.Bits6 < 128
	switch {
	case v4 && v6:
		return fmt.Sprintf("%s by /%d and /%d", s, a.Bits, a.Bits6)
	case v4:
		return fmt.Sprintf("%s by /%d", s, a.Bits)
	case v6:
		return fmt.Sprintf("%s by /%d", s, a.Bits6)
	}
	return s
}
