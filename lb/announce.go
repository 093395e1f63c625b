package lb

// Announce: that an agent gives this host the addresses of services, for routing
// daemons to tell others of.

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"nlb/lb/internal/safe"
)

// Announce says how an agent announces the addresses that services listen on.
type Announce struct {
	// Interface is the dummy device, or lo, that has them: 1 to 15 characters.
	Interface string
	// Delay is how long somebody must have been there to serve before an address is
	// announced, at most an hour; 0: not at all.
	Delay time.Duration
	// Drain is how long an agent that ends stays after it has taken the addresses
	// away, at most a minute; 0: it does not.
	Drain time.Duration
}

// AnnounceDefault holds where a profile that announces does not say otherwise.
var AnnounceDefault = Announce{Interface: "nlb0", Delay: 10 * time.Second, Drain: 5 * time.Second}

// Times are the delay and the drain as a file has them.
func (a *Announce) Times() (delay, drain string) {
	text := func(t time.Duration) string {
		if t == 0 {
			return "none"
		}
		return spanText(t)
	}
	return text(a.Delay), text(a.Drain)
}

// CheckDummy is what is wrong with the name of a device to announce by.
func CheckDummy(s string) *Problem {
	if strings.HasSuffix(s, "*") {
		return &Problem{Msg: "interface " + safe.Show(s) + " is more than one", Want: "the name of a dummy device, or lo"}
	}
	return CheckInterface(s)
}

// CheckDelay is what is wrong with a delay that is not 0.
func CheckDelay(t time.Duration) *Problem {
	return checkSpan("delay", t, 100*time.Millisecond, time.Hour)
}

// CheckDrain is that for a drain.
func CheckDrain(t time.Duration) *Problem {
	return checkSpan("drain", t, 100*time.Millisecond, time.Minute)
}

func (a *Announce) checkTimes() (bad *Problem) {
	if a.Delay != 0 {
		bad = CheckDelay(a.Delay)
	}
	if a.Drain != 0 && bad == nil {
		bad = CheckDrain(a.Drain)
	}
	return bad
}

// AnnounceProblem is what is wrong with the announcing of a profile, and the listen that
// cannot be announced; no listen: it is the device or a time. Addresses that only this host
// itself uses are none to announce.
func (p *Profile) AnnounceProblem() (*Listen, *Problem) {
	a := p.Announce
	if a == nil {
		return nil, nil
	}
	if bad := cmp.Or(CheckDummy(a.Interface), a.checkTimes()); bad != nil {
		return nil, bad
	}
	for i := range p.Services {
		s := &p.Services[i]
		for j := range s.Listen {
			l := &s.Listen[j]
			switch {
			case s.Role != RoleProxy:
			case s.Unserved == UnservedPass:
				return l, &Problem{Msg: fmt.Sprintf("service %s has unserved: pass, and is announced", s.Name)}
			case l.Prefix.IsValid() && !l.Prefix.IsSingleIP():
				return l, &Problem{
					Msg: fmt.Sprintf("listen %s is not a single address, so it cannot be announced", l), Want: "an address",
					Hint: "a profile of its own, without announce, can listen on it",
				}
			}
		}
	}
	return nil, nil
}

// GuardAnnounced has services that are announced refuse what none of them takes, where
// they would let it pass: it would reach the daemons of this host by an address that
// all the world knows.
func (p *Profile) GuardAnnounced() {
	for i := range p.Services {
		if s := &p.Services[i]; p.Announce != nil && s.Role == RoleProxy && s.Unserved == UnservedPass {
			s.Unserved = UnservedReject
		}
	}
}
