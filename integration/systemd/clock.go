//go:build linux

package main

// The clock: an admin, or a daemon, sets it an hour forward and back, while an order
// with an end, a slow start and checks are under way.

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/demand"
)

const (
	// slow is the slow start of the profile: sixteenths come one after the other.
	slow      = 10 * time.Minute
	sixteenth = slow / 15
	waits     = "Balances shop: 1 service, 3 backends; 1 order in force."
)

// clock: a step of an hour, either way and back, changes no verdict, ends no order, and
// gives nobody who starts slowly more than is due; checks go on as before.
func clock(s *stage) string {
	s.write(strings.Replace(shop(1), "    backends:", fmt.Sprintf("    slow-start: %.0fm\n    backends:", slow.Minutes()), 1))
	s.running["b"].Stop()
	settled(oneDown)
	began := time.Now()
	s.serve("b")
	command(program, "drain", "shop/web/c", "--for", "30m")
	settled(waits)
	before := learn()
	var said []string
	for _, step := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		demand.In("after a step of "+step.String(), func() {
			n := s.during(func() {
				set(step)
				goesOn(before, began)
			})
			said = append(said, fmt.Sprintf("%s, %d connections", step, n))
		})
	}
	command(program, "enable", "shop/web/c")
	s.write(shop(1))
	soon(func() { s.shares(all) })
	settled(well)
	s.still()
	return "nothing changed, none lost: " + strings.Join(said, "; ")
}

// set sets the clock of the machine.
func set(step time.Duration) {
	t := unix.NsecToTimespec(time.Now().Add(step).UnixNano())
	demand.OK(unix.ClockSettime(unix.CLOCK_REALTIME, &t))
}

// scenery is what a step of the clock must leave as it is.
type scenery struct {
	verdicts string
	changes  int // that the agent tells of
	checks   float64
	share    float64 // of new connections, that backend b has
}

// goesOn demands that all is as it was for as long as many checks take, and that these
// were made.
func goesOn(was scenery, began time.Time) {
	first := learn()
	const most = 5 * time.Second
	time.Sleep(most)
	settled(waits)
	stay(was.verdicts)
	now := learn()
	parts := 2 + float64(time.Since(began)/sixteenth) // beside the 16 of backend a
	switch {
	case now.changes != was.changes:
		demand.Fail("the agent tells of %d changes", now.changes-was.changes)
	case now.share == 0 || now.share > parts/(16+parts):
		demand.Fail("who starts slowly has %.3f of all, at most %.3f is due", now.share, parts/(16+parts))
	case now.checks < first.checks+5: // of three servers, each second
		demand.Fail("%v checks in %s", now.checks-first.checks, most)
	}
}

// learn reads the scenery.
func learn() (s scenery) {
	s.verdicts = verdicts()
	events := ask("/v1/events")
	for _, what := range []string{`"event":"down"`, `"event":"up"`, "the time of an order is over", "something else has changed"} {
		s.changes += strings.Count(events, what)
	}
	for line := range strings.Lines(ask("/metrics")) {
		if count, ok := strings.CutPrefix(line, `nlb_checks_total{check="tcp",result="passed"} `); ok {
			demand.Of(fmt.Sscan(count, &s.checks))
		}
	}
	shows := ask("/v1/show")
	var shown struct {
		Profiles []struct {
			Services []struct {
				Backends []struct {
					Name  string
					Share float64
				}
			}
		}
	}
	demand.OK(json.Unmarshal([]byte(shows), &shown))
	if len(shown.Profiles) != 1 || len(shown.Profiles[0].Services) != 1 {
		demand.Fail("the agent shows %s", shows)
	}
	for _, b := range shown.Profiles[0].Services[0].Backends {
		if b.Name == "b" {
			s.share = b.Share
		}
	}
	return s
}

// ask asks the agent.
func ask(path string) string {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/run/nlb/nlb.sock")
	}}}
	answer := demand.Of(c.Get("http://nlb" + path))
	defer answer.Body.Close()
	return string(demand.Of(io.ReadAll(answer.Body)))
}
