//go:build linux

package main

// nlb run: an agent that keeps the kernel true. nlb drain, disable and enable tell it what
// to do. nlb push and fleet are about many agents.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/fleet"
	"nlb/cmd/nlb/internal/fleet/member"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/web"
)

func run(ctx context.Context, j *job) error {
	if slices.Contains(j.args, source.Stdin) {
		return usagef("nlb run reads its profiles again, and stdin can be read only once")
	}
	if (j.text("fleet") != "") == (len(j.args) > 0) {
		return usagef("nlb run wants PROFILE..., or --fleet FILE in place of them")
	}
	page := web.Config{Listen: j.text("listen"), Hosts: j.texts("host"), Cert: j.text("tls-cert"), Key: j.text("tls-key"), Token: j.text("token-file"), ClientCA: j.text("client-ca")}
	if refused, ok := errors.AsType[*web.RefusedError](page.Check()); ok {
		return &usageError{refused.Message, refused.Hint}
	}
	j.setBegun(true) // a signal is how it ends, and no failure
	// It stays, so its memory counts for more than its time; the bounds of a short run
	// would have it collect all the time where it is large.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(math.MaxInt64)
	log.SetOutput(io.Discard) // net/http logs what servers send unasked, whatever that is
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	logger := agent.NewLog(j.Err.W)
	join, leave, err := member.Join(ctx, j.text("fleet"), build().Version, logger)
	if err != nil {
		return err
	}
	defer leave()
	err = agent.Run(ctx, agent.Config{
		Table: j.table, Args: j.args, Fleet: join, Socket: j.socket(), Fault: j.text("track-file"), Lookup: source.Lookup, AllowExec: j.flag("allow-exec"), Reload: hangup, Log: logger,
		Web: page,
	})
	if errors.Is(err, agent.ErrRunning) {
		return withHint(err, "nlb run --socket PATH beside it, for another table or network namespace")
	}
	return err
}

// socket is where the agent of the table takes requests.
func (j *job) socket() string {
	return cmp.Or(j.text("socket"), os.Getenv("NLB_SOCKET"), agent.SocketOf(j.table))
}

// order is the command of an order.
func order(word string) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) error {
		duration := ""
		if word != "enable" {
			duration = j.text("for")
		}
		o, err := agent.NewOrder(word, j.args[0], duration)
		if refused, ok := errors.AsType[*agent.RefusedError](err); ok {
			return &usageError{refused.Message, refused.Hint}
		}
		// Who has been asked does it, whether somebody waits or not.
		j.setBegun(true)
		var done agent.Done
		c, _, err := agent.Find(ctx, j.socket(), j.table)
		if errors.Is(err, agent.ErrNoAgent) {
			done, err = j.obey(ctx, o)
		} else if err == nil {
			done, err = c.Order(context.WithoutCancel(ctx), o)
		}
		if err != nil {
			return err
		}
		return j.Result(done, "%s", done.Done)
	}
}

// obey carries an order out where no agent does.
func (j *job) obey(ctx context.Context, o agent.Order) (agent.Done, error) {
	e, err := engine.Open(j.table)
	if err != nil {
		return agent.Done{}, withOutcome(err, unchanged)
	}
	defer e.Close()
	done, err := agent.Obey(ctx, e, o, j.begin)
	if err == nil {
		j.Notef("no agent is running, so it was written straight into table inet %s", j.table)
	}
	return done, err
}

// push is nlb push: profiles to the nodes of a fleet.
func push(ctx context.Context, j *job) (err error) {
	ask := fleet.Ask{Undo: j.texts("undo"), Remove: j.texts("remove"), Canary: j.text("canary"), By: fleet.Whoami(), Message: j.text("message")}
	if min(1, len(j.args))+min(1, len(ask.Undo))+min(1, len(ask.Remove)) != 1 {
		return usagef("want profiles, or --undo NAME, or --remove NAME")
	}
	if len(j.args) > 0 {
		ask.Read = func() ([]source.Source, error) { return source.Read(ctx, j.In, j.args) }
	}
	s, err := ask.Open(j.text("fleet"))
	if err != nil {
		return withOutcome(err, unchanged)
	}
	defer s.Close()
	if err = fleet.Push(ctx, j.Console, s, ask, j.duration("wait"), j.duration("wait"), j.begin); errors.Is(err, fleet.ErrStopped) {
		return errDiffer
	}
	return err
}

// showFleet is nlb fleet: how it is, and who is out.
func showFleet(ctx context.Context, j *job) error {
	if len(j.args) > 0 && j.args[0] == "roles" {
		fmt.Fprint(j.Out, fleet.Roles(j.args[1:]))
		return nil
	}
	if len(j.args) > 0 && (len(j.args) != 2 || !fleet.IsOrder(j.args[0])) {
		return usagef("want nlb fleet, or behind it out NODE, in NODE, forget NODE or roles NODE...")
	}
	s, err := fleet.Open(j.text("fleet"))
	if err != nil {
		return err
	}
	defer s.Close()
	if len(j.args) > 0 {
		return fleet.Do(ctx, j.Console, s, j.args[0], j.args[1], fleet.Whoami(), j.duration("wait"))
	}
	j.setBegun(j.flag("watch")) // a signal is how that ends, and no failure
	if ok, err := fleet.Show(ctx, j.Console, s, j.flag("watch")); err != nil || ok {
		return err
	}
	return errDiffer
}
