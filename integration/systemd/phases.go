//go:build linux

package main

// The phases: what each one does and demands.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// phase is a part of the play. It says what it has shown.
type phase struct {
	name string
	play func(context.Context, *stage) (string, error)
}

// agent are the phases of a machine on which the agent is enabled.
var agent = []phase{
	{"boot", boot},
	{"reload", reload},
	{"broken profile", broken},
	{"clock", clock},
	{"server dies", death},
	{"nftables", nftables},
	{"upgrade", upgrade},
	{"watchdog", watchdog},
	{"announce", announces},
	{"stop", stop},
}

// What the agent says of itself.
const (
	well      = "Balances shop: 1 service, 3 backends."
	announced = "Balances shop: 1 service, 3 backends; 1 address announced."
	oneDown   = "Balances shop: 1 service, 3 backends; 1 backend down."
	ordered   = "Balances shop: 1 service, 3 backends; 1 backend down, 1 order in force."
)

var (
	all     = map[string]int{"a": 3, "b": 3, "c": 3}
	heavy   = map[string]int{"a": 4, "b": 2, "c": 2}
	without = map[string]int{"a": 4, "c": 4}
	alone   = map[string]int{"a": 4}
)

// boot: the unit, which is enabled, became active by itself, with no more rights than
// it is to have, and balances.
func boot(ctx context.Context, s *stage) (string, error) {
	if out, err := command(ctx, "systemctl", "is-enabled", unit); err != nil || out != "enabled" {
		return "", fmt.Errorf("the unit is %q (%v)", out, err)
	}
	now, err := settled(ctx, well)
	if err != nil {
		return "", err
	}
	if err := confined(now); err != nil {
		return "", err
	}
	if err := s.shares(ctx, all); err != nil {
		return "", err
	}
	if err := s.hold(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("enabled, active, Type=%s, CAP_NET_ADMIN alone, %q", now["Type"], now["StatusText"]), nil
}

// reload: a profile that nobody told the agent of is in the kernel after systemctl
// reload, and one that is written into the folder without.
func reload(ctx context.Context, s *stage) (string, error) {
	if err := s.hide(shop(2)); err != nil {
		return "", err
	}
	if err := s.shares(ctx, all); err != nil {
		return "", fmt.Errorf("before the reload: %w", err)
	}
	began := time.Now()
	n, err := s.during(ctx, func() error {
		if _, err := command(ctx, "systemctl", "reload", unit); err != nil {
			return err
		}
		return logged(ctx, "info", `reason="told to reload"`)
	})
	if err == nil {
		err = s.shares(ctx, heavy)
	}
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	if err := s.write(shop(1)); err != nil {
		return "", err
	}
	if err := soon(ctx, func() error { return s.shares(ctx, all) }); err != nil {
		return "", fmt.Errorf("a file that was written: %w", err)
	}
	now, err := settled(ctx, well)
	if err == nil && now["NRestarts"] != "0" {
		err = fmt.Errorf("the unit was started again %s times", now["NRestarts"])
	}
	return fmt.Sprintf("the profile is in the kernel after %.1f s; %d connections meanwhile, none lost", took.Seconds(), n), err
}

// broken: what is wrong with a profile leaves the kernel and the unit as they are.
func broken(ctx context.Context, s *stage) (string, error) {
	if err := s.hide(strings.ReplaceAll(shop(2), "listen: ", "listen: nowhere")); err != nil {
		return "", err
	}
	if _, err := command(ctx, "systemctl", "reload", unit); err != nil {
		return "", err
	}
	var now map[string]string
	if err := soon(ctx, func() (err error) {
		now, err = state(ctx)
		if err == nil && (now["ActiveState"] != "active" || !strings.HasPrefix(now["StatusText"], "Keeps what was read before: ")) {
			err = fmt.Errorf("the unit is %v", now)
		}
		return err
	}); err != nil {
		return "", err
	}
	if err := errors.Join(logged(ctx, "err", "what was read last stays"), s.shares(ctx, all), s.still()); err != nil {
		return "", err
	}
	if err := s.hide(shop(1)); err != nil {
		return "", err
	}
	if _, err := command(ctx, "systemctl", "reload", unit); err != nil {
		return "", err
	}
	if _, err := settled(ctx, well); err != nil {
		return "", fmt.Errorf("when it was mended: %w", err)
	}
	return fmt.Sprintf("the old one is in the kernel, %q", now["StatusText"]), s.shares(ctx, all)
}

// death: a server that takes no connections is taken out. It does not come back
// before the next phase.
func death(ctx context.Context, s *stage) (string, error) {
	began := time.Now()
	s.running["b"].Stop()
	failed := 0
	for {
		switch reply, err := s.from().Exchange(ctx, "tcp", service); {
		case err != nil:
			failed++
		case reply.Backend == "b":
			return "", errors.New("the server that died has answered")
		}
		now, err := state(ctx)
		if err != nil {
			return "", err
		}
		if now["StatusText"] == oneDown {
			break
		}
		if time.Since(began) > patience {
			return "", fmt.Errorf("it says %q, want %q", now["StatusText"], oneDown)
		}
	}
	took := time.Since(began)
	if err := logged(ctx, "warning", "msg=down backend=shop/web/b"); err != nil {
		return "", err
	}
	return fmt.Sprintf("taken out after %.1f s, connections that failed: %d, %q", took.Seconds(), failed, oneDown),
		errors.Join(s.shares(ctx, without), s.still())
}

// nftables: nftables.service flushes the whole ruleset when it is started and when it
// is reloaded. The agent puts all of it back, the verdict with it.
func nftables(ctx context.Context, s *stage) (string, error) {
	known, err := verdicts(ctx)
	if err == nil {
		err = os.WriteFile("/etc/nftables.conf", []byte("flush ruleset\n"), 0o644)
	}
	for _, verb := range []string{"start", "reload"} {
		if err == nil {
			_, err = command(ctx, "systemctl", verb, "nftables.service")
		}
		if err == nil {
			err = soon(ctx, func() error {
				now, err := verdicts(ctx)
				if err == nil && now != known {
					err = fmt.Errorf("verdicts before a flush and after:\n%s\n%s", known, now)
				}
				return err
			})
		}
		if err == nil {
			err = s.shares(ctx, without)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", verb, err)
		}
	}
	if err := logged(ctx, "warning", "something else has changed the table"); err != nil {
		return "", err
	}
	_, err = settled(ctx, oneDown)
	return "what it flushed twice is back, with the verdict", errors.Join(err, s.still())
}

// verdicts is what the kernel keeps of servers.
func verdicts(ctx context.Context) (string, error) {
	return command(ctx, "nft", "list", "set", "inet", "nlb", "verdicts")
}

// upgrade: another program and another unit take over. Connections, the verdict and
// an order stay.
func upgrade(ctx context.Context, s *stage) (string, error) {
	if _, err := command(ctx, program, "drain", "shop/web/c"); err != nil {
		return "", err
	}
	before, err := settled(ctx, ordered)
	if err != nil {
		return "", err
	}
	known, err := verdicts(ctx)
	if err != nil {
		return "", err
	}
	if err := errors.Join(replace(), dropIn(ctx, "WatchdogSec="+bite.String())); err != nil {
		return "", err
	}
	n, err := s.during(ctx, func() error {
		if _, err := command(ctx, "systemctl", "restart", unit); err != nil {
			return err
		}
		after, err := settled(ctx, ordered)
		if err == nil && (after["MainPID"] == before["MainPID"] || !runs(after)) {
			err = fmt.Errorf("the program that runs is not the new one: %v", after)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if now, err := verdicts(ctx); err != nil || now != known {
		return "", fmt.Errorf("verdicts before and after (%v):\n%s\n%s", err, known, now)
	}
	if err := s.shares(ctx, alone); err != nil {
		return "", err
	}
	if _, err := command(ctx, program, "enable", "shop/web/c"); err != nil {
		return "", err
	}
	if err := s.serve("b"); err != nil {
		return "", err
	}
	if _, err := settled(ctx, well); err != nil {
		return "", fmt.Errorf("when the server was back: %w", err)
	}
	return fmt.Sprintf("a verdict and an order stayed; %d connections meanwhile, none lost", n), s.shares(ctx, all)
}

// bite is how long the agent may do nothing, in the phase of the watchdog.
const bite = 5 * time.Second

// watchdog: systemd ends an agent that does nothing, and starts another.
func watchdog(ctx context.Context, s *stage) (string, error) {
	before, err := settled(ctx, well)
	if err != nil {
		return "", err
	}
	began := time.Now()
	n, err := s.during(ctx, func() error {
		if err := unix.Kill(pid(before), unix.SIGSTOP); err != nil {
			return err
		}
		return soon(ctx, func() error {
			now, err := settled(ctx, well)
			if err == nil && (now["NRestarts"] == "0" || now["MainPID"] == before["MainPID"]) {
				err = fmt.Errorf("it was not started again: %v", now)
			}
			return err
		})
	})
	if err != nil {
		return "", err
	}
	if err := logged(ctx, "err", "Watchdog timeout"); err != nil {
		return "", err
	}
	return fmt.Sprintf("started again after %.1f s, of which the watchdog waited %s; %d connections meanwhile, none lost", time.Since(began).Seconds(), bite, n),
		s.shares(ctx, all)
}

// stop: the kernel balances without an agent, until nlb flush.
func stop(ctx context.Context, s *stage) (string, error) {
	n, err := s.during(ctx, func() error {
		if _, err := command(ctx, "systemctl", "stop", unit); err != nil {
			return err
		}
		now, err := state(ctx)
		if err == nil && (now["ActiveState"] != "inactive" || now["Result"] != "success") {
			err = fmt.Errorf("the unit is %v", now)
		}
		return err
	})
	if err == nil {
		err = s.shares(ctx, all)
	}
	if err != nil {
		return "", err
	}
	if text, err := os.ReadFile("/var/lib/nlb/fault"); string(text) != "1\n" {
		return "", fmt.Errorf("keepalived is told %q, want 1 (%v)", text, err)
	}
	if _, err := os.Stat("/run/nlb"); !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("the folder of the socket was left (%v)", err)
	}
	if _, err := command(ctx, program, "flush"); err != nil {
		return "", err
	}
	if _, err := s.from().Exchange(ctx, "tcp", service); err == nil {
		return "", errors.New("it is balanced after nlb flush")
	}
	if _, err := net.InterfaceByName("nlb0"); err == nil {
		return "", errors.New("the device of announce was left by nlb flush")
	}
	return fmt.Sprintf("the kernel balances on until nlb flush; %d connections meanwhile, none lost", n), s.still()
}
