//go:build linux

// Package agent keeps the kernel true: it reads profiles again when their files
// change, and obeys the orders of admins. It can end at any moment: the kernel
// balances on.
package agent

// The agent: from its first apply to its end.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

// Config says what an agent does.
type Config struct {
	Table string
	// Args are the files and folders that profiles are read from.
	Args []string
	// Socket is where it takes requests.
	Socket string
	// AllowExec lets profiles have checks that run commands.
	AllowExec bool
	// Reload has a value when the files are to be read again.
	Reload <-chan os.Signal
	Log    *slog.Logger
}

// agent is a running one. Its goroutine owns all of it; the others send it values.
type agent struct {
	Config
	engine  *engine.Engine
	files   *Files
	socket  *Socket
	systemd *Systemd

	wanted []*lb.Profile // as they were read last
	known  map[lb.BackendID]lb.Standing
	status string
}

// Run keeps the kernel as the files say until ctx ends; then the kernel stays as it
// is. Errors are those of a beginning that failed: of source.Read, ErrRunning,
// *engine.Error.
func Run(ctx context.Context, c Config) error {
	if slices.Contains(c.Args, source.Stdin) {
		return errors.New("an agent reads its profiles again, and stdin can be read only once")
	}
	a := &agent{Config: c}
	var err error
	if a.systemd, err = NewSystemd(); err != nil {
		return err
	}
	defer a.systemd.Close()
	if a.engine, err = engine.Open(c.Table); err != nil {
		return err
	}
	defer a.engine.Close()
	state, err := a.engine.State()
	if err != nil {
		return err
	}
	a.known = standings(state.Profiles)
	if a.socket, err = Listen(c.Socket, c.Log); err != nil {
		return err
	}
	defer a.socket.Close()
	if a.files, err = Watch(c.Args, c.Log); err != nil {
		return err
	}
	defer a.files.Close()
	if err := a.begin(ctx); err != nil {
		return err
	}
	a.loop(ctx)
	a.tell(a.systemd.Stopping())
	c.Log.Info("stopped; the kernel balances on as it is")
	return nil
}

// begin applies what the files say, once they are whole.
func (a *agent) begin(ctx context.Context) error {
	for {
		err := a.read(ctx, "started")
		if !errors.Is(err, ErrUnsettled) {
			if err == nil {
				a.tell(a.systemd.Ready(a.status))
			}
			return err
		}
		select {
		case <-a.files.Changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// loop goes on until ctx ends.
func (a *agent) loop(ctx context.Context) {
	tick := time.NewTicker(min(a.systemd.Every(), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.files.Changed:
			a.reread(ctx, "files changed")
		case <-a.Reload:
			a.tell(a.systemd.Reloading())
			a.reread(ctx, "told to reload")
			a.tell(a.systemd.Ready(a.status))
		case q := <-a.socket.Requests:
			value, err := a.answer(ctx, q)
			q.Reply <- Reply{value, err}
		case now := <-tick.C:
			a.expire(ctx, now)
		}
		a.tell(a.systemd.Progress())
	}
}

// tell notes that systemd could not be told something.
func (a *agent) tell(err error) {
	if err != nil {
		a.Log.Warn("systemd was not told", "error", err)
	}
}

// reread reads the files. What is wrong with them changes nothing.
func (a *agent) reread(ctx context.Context, reason string) error {
	err := a.read(ctx, reason)
	if err != nil && !errors.Is(err, ErrUnsettled) {
		if invalid, ok := errors.AsType[*source.InvalidError](err); ok {
			for _, e := range invalid.Errors {
				a.Log.Error(e.Error())
			}
		}
		a.Log.Error("what was read last stays", "reason", reason, "error", err)
		a.status = "Keeps what was read before: " + err.Error()
		a.tell(a.systemd.Status(a.status))
	}
	return err
}

// read reads the files and applies them.
func (a *agent) read(ctx context.Context, reason string) error {
	sources, err := a.files.Read(ctx)
	if err != nil {
		return err
	}
	if errs := a.forbidden(sources); len(errs) > 0 {
		return &source.InvalidError{Errors: errs}
	}
	return a.apply(ctx, source.Profiles(sources), reason)
}

// forbidden are the services that want commands run, where the agent must not run
// any.
func (a *agent) forbidden(sources []source.Source) (errs lb.Errors) {
	if a.AllowExec {
		return nil
	}
	for _, s := range sources {
		for i := range s.Profile.Services {
			service := &s.Profile.Services[i]
			if slices.ContainsFunc(service.Health, func(c lb.Check) bool { return c.Kind == lb.CheckExec }) {
				errs = append(errs, &lb.Error{Pos: service.Pos, Msg: "service " + service.Name + " has a check that runs a command", Hint: "nlb run --allow-exec runs commands"})
			}
		}
	}
	source.Quote(errs, sources)
	return errs
}

// mostLogged is how many changes have a line each.
const mostLogged = 100

// apply makes the kernel hold the profiles and what orders say of them. Profiles
// that were wanted before, and are not any more, go.
func (a *agent) apply(ctx context.Context, wanted []*lb.Profile, reason string) error {
	profiles := lb.Overlay(wanted, a.known, nil)
	for _, had := range a.wanted {
		if !slices.ContainsFunc(wanted, func(p *lb.Profile) bool { return p.Name == had.Name }) {
			profiles = append(profiles, &lb.Profile{Name: had.Name, Sysctl: had.Sysctl}) // without services: nothing is left of it
		}
	}
	result, err := a.engine.Apply(ctx, profiles, engine.Options{})
	if err != nil && result == nil {
		return err
	}
	a.wanted = wanted
	for i, c := range result.Changes {
		if i == mostLogged {
			a.Log.Info("more changes", "number", len(result.Changes)-i, "reason", reason)
			break
		}
		a.Log.Info("changed", "op", string(c.Op), "service", c.Service, "backend", c.Backend, "detail", c.Detail, "reason", reason)
	}
	for _, p := range view.Parameters(result.Parameters) {
		a.Log.Info("set a kernel parameter", "name", p.Name, "from", p.From, "to", p.To)
	}
	if result.Repaired {
		a.Log.Warn("repaired what something else had changed", "table", a.Table)
	}
	if err != nil {
		a.Log.Error("applied, but not all of it", "error", err)
	}
	a.status = fmt.Sprintf("Balances %s: %s.", view.Names(wanted), view.Size(wanted...))
	if n := ordered(profiles); n > 0 {
		a.status = strings.TrimSuffix(a.status, ".") + "; " + text.Count(n, "order") + " in force."
	}
	a.tell(a.systemd.Status(a.status))
	return nil
}

// ordered counts the backends that have an order.
func ordered(profiles []*lb.Profile) (n int) {
	for _, s := range lb.Services(profiles) {
		for i := range s.Backends {
			if s.Backends[i].Standing.Order != lb.NoOrder {
				n++
			}
		}
	}
	return n
}
