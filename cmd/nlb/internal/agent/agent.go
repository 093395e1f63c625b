//go:build linux

// Package agent keeps the kernel true: it checks servers and takes those out that
// fail, reads profiles again when their files change, obeys the orders of admins,
// and puts back what others change in its table. It can end at any moment: the
// kernel balances on.
package agent

// The agent: its tasks, and the loop that owns all of it.

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"nlb/cmd/nlb/internal/agent/announcer"
	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/agent/probe"
	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/agent/roster"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/web"
	"nlb/lb"
)

// Config says what an agent does.
type Config struct {
	Table string
	// Args are the files and folders that profiles are read from.
	Args []string
	// Fleet says in place of them what is wanted; nil: they do.
	Fleet *Fleet
	// Socket is where it takes requests.
	Socket string
	// Web says where it shows itself by HTTP besides, to read only.
	Web web.Config
	// Fault is a file that says whether this host can serve, for keepalived to track.
	Fault string
	// Lookup says where names are looked up.
	Lookup resolve.Options
	// AllowExec lets profiles have checks that run commands.
	AllowExec bool
	// Reload has a value when the files are to be read again.
	Reload <-chan os.Signal
	Log    *slog.Logger

	guardEvery time.Duration // of a test; 0: as ever
}

// agent is a running one. Its goroutine owns all of it; the others send it values.
type agent struct {
	Config
	engine  *engine.Engine
	board   *board.Board
	files   *Files          // nil: a fleet says what is wanted
	changed <-chan struct{} // of files
	offered []source.Source // by the fleet, last
	says    string          // the fleet, of how it is
	out     bool            // by order of the fleet
	socket  *Socket
	systemd *Systemd
	pool    *probe.Pool
	roster  *roster.Roster
	// refusals has the marks of connections that servers refused; nil: some were
	// not heard of.
	refusals chan []uint32

	names   *named
	wanted  []*lb.Profile // as they were read last, without names
	applied bool          // something was applied
	open    map[string]bool
	size    string // of what was applied, the beginning of status
	status  string // in a sentence
	unsaid  bool   // the status is to be brought up to date, at the next look
	trouble string // what of the kernel is not as it should be; empty: all is
	kept    string // why what was read before is kept; empty: it is not
	said    string // the sentence that systemd was told last
	// mistakes kept the files from being applied, and were said.
	mistakes string
	retry    time.Time
	repaired time.Time // when the last repair ended

	update, due *time.Timer
	updating    bool      // update is running
	updated     time.Time // when the last one ended
	counter     counter
	announcer   *announcer.Announcer

	// cleanups run beside the agent. They pause no more once ending is done.
	cleanups sync.WaitGroup
	ending   context.Context
}

// Run keeps the kernel as the files say until ctx ends; then the kernel stays as it
// is. Errors are those of a beginning that failed: of source.Read, ErrRunning,
// *engine.Error.
func Run(ctx context.Context, c Config) error {
	if slices.Contains(c.Args, source.Stdin) {
		return errors.New("an agent reads its profiles again, and stdin can be read only once")
	}
	if err := c.Web.Check(); err != nil {
		return err
	}
	a := &agent{
		Config: c, open: map[string]bool{}, refusals: make(chan []uint32),
		update: time.NewTimer(0), due: time.NewTimer(0), counter: newCounter(),
	}
	var err error
	if a.systemd, err = NewSystemd(); err != nil {
		return err
	}
	defer a.systemd.Close()
	if a.engine, err = engine.Open(c.Table); err != nil {
		return err
	}
	defer a.engine.Close()
	a.engine.Stay()
	figures, err := a.engine.Counter()
	if err != nil {
		return err
	}
	defer figures.Close()
	a.board = board.New(c.Table, figures)
	a.Log = a.board.Log(c.Log)
	a.announcer = announcer.New(c.Table, c.Socket, c.Fault, a.Log)
	a.announcer.Follow(ctx.Done())
	stop, err := a.serve()
	if err != nil {
		return err
	}
	defer stop()
	release, taken := a.engine.Claim(ctx)
	defer release()
	if taken {
		c.Log.Warn("another agent keeps this table, by another socket: each undoes what the other does", "table", c.Table)
	}
	if c.Fleet != nil {
		a.offered, a.out = c.Fleet.First, c.Fleet.Out
	} else {
		if a.files, err = Watch(c.Args, a.Log); err != nil {
			return err
		}
		defer a.files.Close()
		a.changed = a.files.Changed
	}
	if a.pool, err = probe.Open(); err != nil {
		return err
	}
	defer a.pool.Close()
	a.names = newNamed(c.Lookup)
	defer a.names.resolver.Close()
	defer a.counter.close()
	a.roster = roster.New(a.pool, uint64(time.Now().UnixNano()))
	deaf := a.hearKernel(ctx)
	defer deaf()
	var hurry context.CancelFunc
	a.ending, hurry = context.WithCancel(context.WithoutCancel(ctx))
	defer a.cleanups.Wait() // they take away what moves flows
	defer hurry()
	if err := a.begin(ctx); err != nil {
		return err
	}
	a.tell(a.systemd.Ready(a.sentence()))
	debug.FreeOSMemory() // what only the beginning needed
	a.loop(ctx)
	c.Log.Info("stopped; the kernel balances on as it is")
	return nil
}

// serve opens the socket, and what else shows how the agent is.
func (a *agent) serve() (stop func(), err error) {
	var show *web.Server
	begin := func(ask web.Ask) http.Handler { show = web.New(a.board, ask); return a.carry(show.Handler()) }
	if a.socket, err = Listen(a.Socket, begin, a.Log); err != nil {
		return nil, err
	}
	if err := show.Listen(a.Web, a.Log); err != nil {
		return nil, errors.Join(err, a.socket.Close())
	}
	return func() { _ = errors.Join(show.Close(), a.socket.Close()) }, nil
}

// loop goes on until ctx ends, and then for as long as addresses that were announced
// drain.
func (a *agent) loop(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(a.guardEvery, min(a.systemd.Every(), guardEvery)))
	defer tick.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	ended := ctx.Done()
	ctx = context.WithoutCancel(ctx)
	var drained <-chan time.Time
	fleet := cmp.Or(a.Fleet, &Fleet{}) // without one, nothing comes from it
	for {
		select {
		case <-ended:
			ended = nil
			a.tell(a.systemd.Stopping())
			drained = time.After(a.announcer.Leave(a.wanted))
		case <-drained:
			return
		case results := <-a.pool.Results():
			a.hear(results)
		case marks := <-a.refusals:
			a.refused(marks)
		case answer := <-a.names.resolver.Answers():
			a.answered(ctx, answer)
		case <-a.update.C:
			a.reconcile(ctx)
		case <-a.counter.due.C:
			a.count()
		case f := <-a.counter.figures:
			a.balance(f)
		case <-a.due.C:
			a.noted()
		case <-a.announcer.Due.C:
			a.announce()
		case <-a.announcer.Links:
			a.announce()
		case <-a.changed:
			_ = a.reread(ctx, "files changed")
		case o := <-fleet.Offers:
			o.Reply <- a.take(ctx, o)
		case t := <-fleet.Turns:
			a.out = t.Out
			a.announce()
			close(t.Done)
		case a.says = <-fleet.Sentences:
			a.tellStatus()
		case <-a.Reload:
			a.tell(a.systemd.Reloading())
			_ = a.reread(ctx, "told to reload")
			a.tell(a.systemd.Ready(a.sentence()))
		case q := <-a.socket.Requests:
			value, err := a.answer(ctx, q)
			q.Reply <- Reply{value, err}
		case <-look.C:
			a.look(ctx)
		case <-tick.C:
			a.guard(ctx)
		}
		if time.Since(a.pool.Turned()) < mostStill {
			a.tell(a.systemd.Progress())
			a.board.Beat()
		}
	}
}

// mostStill is how long the checks may stand still before the watchdog is not fed
// any more.
const mostStill = 10 * time.Second

// tell notes that systemd could not be told something.
func (a *agent) tell(err error) {
	if err != nil {
		a.Log.Warn("systemd was not told", "error", err)
	}
}
