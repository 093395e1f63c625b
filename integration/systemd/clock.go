//go:build linux

package main

// The clock: an admin, or a daemon, sets it an hour forward and back, while an order
// with an end, a slow start and checks are under way.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// slow is the slow start of the profile: sixteenths come one after the other.
	slow      = 10 * time.Minute
	sixteenth = slow / 15
	waits     = "Balances shop: 1 service, 3 backends; 1 order in force."
)

// clock: a step of an hour, either way and back, changes no verdict, ends no order, and
// gives nobody who starts slowly more than is due; checks go on as before.
func clock(ctx context.Context, s *stage) (string, error) {
	if err := s.write(strings.Replace(shop(1), "    backends:", fmt.Sprintf("    slow-start: %.0fm\n    backends:", slow.Minutes()), 1)); err != nil {
		return "", err
	}
	s.running["b"].Stop()
	if _, err := settled(ctx, oneDown); err != nil {
		return "", err
	}
	began := time.Now()
	if err := s.serve("b"); err != nil {
		return "", err
	}
	if _, err := command(ctx, program, "drain", "shop/web/c", "--for", "30m"); err != nil {
		return "", err
	}
	if _, err := settled(ctx, waits); err != nil {
		return "", err
	}
	before, err := learn(ctx)
	if err != nil {
		return "", err
	}
	var said []string
	for _, step := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		n, err := s.during(ctx, func() error {
			if err := set(step); err != nil {
				return err
			}
			return goesOn(ctx, before, began)
		})
		if err != nil {
			return "", fmt.Errorf("after a step of %s: %w", step, err)
		}
		said = append(said, fmt.Sprintf("%s, %d connections", step, n))
	}
	if _, err := command(ctx, program, "enable", "shop/web/c"); err != nil {
		return "", err
	}
	if err := s.write(shop(1)); err != nil {
		return "", err
	}
	if err := soon(ctx, func() error { return s.shares(ctx, all) }); err != nil {
		return "", err
	}
	_, err = settled(ctx, well)
	return "nothing changed, none lost: " + strings.Join(said, "; "), errors.Join(err, s.still())
}

// set sets the clock of the machine.
func set(step time.Duration) error {
	t := unix.NsecToTimespec(time.Now().Add(step).UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &t)
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
func goesOn(ctx context.Context, was scenery, began time.Time) error {
	first, err := learn(ctx)
	if err != nil {
		return err
	}
	const most = 5 * time.Second
	time.Sleep(most)
	if _, err := settled(ctx, waits); err != nil {
		return err
	}
	now, err := learn(ctx)
	parts := 2 + float64(time.Since(began)/sixteenth) // beside the 16 of backend a
	switch {
	case err != nil:
		return err
	case now.verdicts != was.verdicts:
		return fmt.Errorf("verdicts before and after:\n%s\n%s", was.verdicts, now.verdicts)
	case now.changes != was.changes:
		return fmt.Errorf("the agent tells of %d changes", now.changes-was.changes)
	case now.share == 0 || now.share > parts/(16+parts):
		return fmt.Errorf("who starts slowly has %.3f of all, at most %.3f is due", now.share, parts/(16+parts))
	case now.checks < first.checks+5: // of three servers, each second
		return fmt.Errorf("%v checks in %s", now.checks-first.checks, most)
	}
	return nil
}

// learn reads the scenery.
func learn(ctx context.Context) (s scenery, err error) {
	if s.verdicts, err = verdicts(ctx); err != nil {
		return s, err
	}
	events, err := ask(ctx, "/v1/events")
	if err != nil {
		return s, err
	}
	for _, what := range []string{`"event":"down"`, `"event":"up"`, "the time of an order is over", "something else has changed"} {
		s.changes += strings.Count(events, what)
	}
	text, err := ask(ctx, "/metrics")
	for line := range strings.Lines(text) {
		var n float64
		if count, ok := strings.CutPrefix(line, `nlb_checks_total{check="tcp",result="passed"} `); ok {
			_, err = fmt.Sscan(count, &n)
			s.checks = n
		}
	}
	if err != nil {
		return s, err
	}
	shows, err := ask(ctx, "/v1/show")
	if err != nil {
		return s, err
	}
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
	if err := json.Unmarshal([]byte(shows), &shown); err != nil {
		return s, err
	}
	if len(shown.Profiles) != 1 || len(shown.Profiles[0].Services) != 1 {
		return s, fmt.Errorf("the agent shows %s", shows)
	}
	for _, b := range shown.Profiles[0].Services[0].Backends {
		if b.Name == "b" {
			s.share = b.Share
		}
	}
	return s, nil
}

// ask asks the agent.
func ask(ctx context.Context, path string) (string, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/run/nlb/nlb.sock")
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nlb"+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}
