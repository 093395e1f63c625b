//go:build linux

package main

// nlb run: an agent that keeps the kernel true; and nlb drain, disable and enable,
// which tell it what to do.

import (
	"cmp"
	"context"
	"errors"
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
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/web"
)

func run(ctx context.Context, j *job) error {
	if slices.Contains(j.args, source.Stdin) {
		return usagef("nlb run reads its profiles again, and stdin can be read only once")
	}
	j.setBegun(true) // a signal is how it ends, and no failure
	// It stays, so its memory counts for more than its time; the bounds of a short run
	// would have it collect all the time where it is large.
	debug.SetGCPercent(30)
	debug.SetMemoryLimit(math.MaxInt64)
	log.SetOutput(io.Discard) // net/http logs what servers send unasked, whatever that is
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	err := agent.Run(ctx, agent.Config{
		Table: j.table, Args: j.args, Socket: j.socket(), Fault: j.text("track-file"), AllowExec: j.flag("allow-exec"), Reload: hangup, Log: agent.NewLog(j.Err.W),
		Web: web.Config{Listen: j.text("listen"), Hosts: j.texts("host"), Cert: j.text("tls-cert"), Key: j.text("tls-key"), Token: j.text("token-file"), ClientCA: j.text("client-ca")},
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
			e := usagef("%s", refused.Message)
			e.hint = refused.Hint
			return e
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
