//go:build linux

package main

// The phases: what each one does and demands.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/demand"
)

// phase is a part of the play. It says what it has shown.
type phase struct {
	name string
	play func(*stage) string
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
func boot(s *stage) string {
	if out := command("systemctl", "is-enabled", unit); out != "enabled" {
		demand.Fail("the unit is %q", out)
	}
	now := settled(well)
	confined(now)
	s.shares(all)
	s.hold()
	return fmt.Sprintf("enabled, active, Type=%s, CAP_NET_ADMIN alone, %q", now["Type"], now["StatusText"])
}

// reload: a profile that nobody told the agent of is in the kernel after systemctl
// reload, and one that is written into the folder without.
func reload(s *stage) string {
	s.hide(shop(2))
	demand.In("before the reload", func() { s.shares(all) })
	began := time.Now()
	n := s.during(func() {
		command("systemctl", "reload", unit)
		logged("info", `reason="told to reload"`)
	})
	s.shares(heavy)
	took := time.Since(began)
	s.write(shop(1))
	demand.In("a file that was written", func() { soon(func() { s.shares(all) }) })
	if now := settled(well); now["NRestarts"] != "0" {
		demand.Fail("the unit was started again %s times", now["NRestarts"])
	}
	return fmt.Sprintf("the profile is in the kernel after %.1f s; %d connections meanwhile, none lost", took.Seconds(), n)
}

// broken: what is wrong with a profile leaves the kernel and the unit as they are.
func broken(s *stage) string {
	s.hide(strings.ReplaceAll(shop(2), "listen: ", "listen: nowhere"))
	command("systemctl", "reload", unit)
	var now map[string]string
	soon(func() {
		now = state()
		if now["ActiveState"] != "active" || !strings.HasPrefix(now["StatusText"], "Keeps what was read before: ") {
			demand.Fail("the unit is %v", now)
		}
	})
	logged("err", "what was read last stays")
	s.shares(all)
	s.still()
	s.hide(shop(1))
	command("systemctl", "reload", unit)
	demand.In("when it was mended", func() { settled(well) })
	s.shares(all)
	return fmt.Sprintf("the old one is in the kernel, %q", now["StatusText"])
}

// death: a server that takes no connections is taken out. It does not come back
// before the next phase.
func death(s *stage) string {
	began := time.Now()
	s.running["b"].Stop()
	failed := 0
	for says := ""; says != oneDown; says = state()["StatusText"] {
		if time.Since(began) > patience {
			demand.Fail("it says %q, want %q", says, oneDown)
		}
		switch reply, err := s.exchange("tcp"); {
		case err != nil:
			failed++
		case reply.Backend == "b":
			demand.Fail("the server that died has answered")
		}
	}
	took := time.Since(began)
	logged("warning", "msg=down backend=shop/web/b")
	s.shares(without)
	s.still()
	return fmt.Sprintf("taken out after %.1f s, connections that failed: %d, %q", took.Seconds(), failed, oneDown)
}

// nftables: nftables.service flushes the whole ruleset when it is started and when it
// is reloaded. The agent puts all of it back, the verdict with it.
func nftables(s *stage) string {
	known := verdicts()
	demand.OK(os.WriteFile("/etc/nftables.conf", []byte("flush ruleset\n"), 0o644))
	for _, verb := range []string{"start", "reload"} {
		demand.In(verb, func() {
			command("systemctl", verb, "nftables.service")
			soon(func() { stay(known) })
			s.shares(without)
		})
	}
	logged("warning", "something else has changed the table")
	settled(oneDown)
	s.still()
	return "what it flushed twice is back, with the verdict"
}

// verdicts is what the kernel keeps of servers.
func verdicts() string { return command("nft", "list", "set", "inet", "nlb", "verdicts") }

// stay demands that verdicts are as they were.
func stay(before string) {
	if now := verdicts(); now != before {
		demand.Fail("verdicts before and after:\n%s\n%s", before, now)
	}
}

// upgrade: another program and another unit take over. Connections, the verdict and
// an order stay.
func upgrade(s *stage) string {
	command(program, "drain", "shop/web/c")
	before := settled(ordered)
	known := verdicts()
	replace()
	dropIn("WatchdogSec=" + bite.String())
	n := s.during(func() {
		command("systemctl", "restart", unit)
		renewed(before, ordered)
	})
	stay(known)
	s.shares(alone)
	command(program, "enable", "shop/web/c")
	s.serve("b")
	demand.In("when the server was back", func() { settled(well) })
	s.shares(all)
	return fmt.Sprintf("a verdict and an order stayed; %d connections meanwhile, none lost", n)
}

// bite is how long the agent may do nothing, in the phase of the watchdog.
const bite = 5 * time.Second

// watchdog: systemd ends an agent that does nothing, and starts another.
func watchdog(s *stage) string {
	before := settled(well)
	began := time.Now()
	n := s.during(func() {
		demand.OK(unix.Kill(pid(before), unix.SIGSTOP))
		soon(func() {
			if now := settled(well); now["NRestarts"] == "0" || now["MainPID"] == before["MainPID"] {
				demand.Fail("it was not started again: %v", now)
			}
		})
	})
	logged("err", "Watchdog timeout")
	took := time.Since(began)
	s.shares(all)
	return fmt.Sprintf("started again after %.1f s, of which the watchdog waited %s; %d connections meanwhile, none lost", took.Seconds(), bite, n)
}

// stop: the kernel balances without an agent, until nlb flush.
func stop(s *stage) string {
	n := s.during(func() {
		command("systemctl", "stop", unit)
		if now := state(); now["ActiveState"] != "inactive" || now["Result"] != "success" {
			demand.Fail("the unit is %v", now)
		}
	})
	s.shares(all)
	if text, err := os.ReadFile("/var/lib/nlb/fault"); string(text) != "1\n" {
		demand.Fail("keepalived is told %q, want 1 (%v)", text, err)
	}
	if _, err := os.Stat("/run/nlb"); !errors.Is(err, os.ErrNotExist) {
		demand.Fail("the folder of the socket was left (%v)", err)
	}
	command(program, "flush")
	if _, err := s.exchange("tcp"); err == nil {
		demand.Fail("it is balanced after nlb flush")
	}
	if _, err := net.InterfaceByName("nlb0"); err == nil {
		demand.Fail("the device of announce was left by nlb flush")
	}
	s.still()
	return fmt.Sprintf("the kernel balances on until nlb flush; %d connections meanwhile, none lost", n)
}
