// Command nlb turns a Linux machine into a layer-4 load balancer.
package main

// The program from its arguments to its exit code.

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

const program = "nlb"

// A run is short: most end before the first collection is worth its time. Only
// tens of thousands of services come near the limit.
const (
	collectAt   = 400 // percent of what is live
	memoryLimit = 380 << 20
)

func main() {
	debug.SetGCPercent(collectAt)
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := newApp(os.Stdin, os.Stdout, os.Stderr)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the program where it stands
		a.interrupt()
	})
	os.Exit(a.run(ctx, os.Args[1:]))
}

// app is the program without its process.
type app struct {
	*view.Console

	ending sync.Mutex // held while the program ends
	begun  bool       // what ends by itself, whatever comes
}

func newApp(in io.Reader, out, err io.Writer) *app {
	return &app{Console: view.NewConsole(program, in, out, err)}
}

// grace is what a command that was interrupted has for an orderly end.
const grace = 300 * time.Millisecond

// interrupt ends the program after a signal, unless the command has ended by
// itself or has begun to change the kernel. It is needed because most of what a
// command does is pure work, which looks at no context.
func (a *app) interrupt() {
	time.Sleep(grace)
	a.ending.Lock()
	if !a.begun {
		os.Exit(a.report(context.Canceled))
	}
	a.ending.Unlock()
}

// begin is called before the first change of the kernel. From then on a signal
// no longer ends the program: the command finishes, and says what it changed.
func (a *app) begin() error {
	a.setBegun(true)
	return nil
}

func (a *app) setBegun(begun bool) {
	a.ending.Lock()
	a.begun = begun
	a.ending.Unlock()
}

// run runs a command line and returns the exit code.
func (a *app) run(ctx context.Context, typed []string) int {
	err := a.do(ctx, typed)
	a.ending.Lock()
	defer a.ending.Unlock()
	code := a.report(err)
	if a.Out.Failed != nil && (code == exitDone || code == exitDiffer) {
		return a.report(fmt.Errorf("write to stdout: %w", source.Cause(a.Out.Failed)))
	}
	return code
}

func (a *app) do(ctx context.Context, typed []string) error {
	commands := commands(a)
	switch {
	case len(typed) > 0 && typed[0] == completeCommand:
		a.complete(commands, typed[1:])
		return nil
	case len(typed) == 1 && typed[0] == manCommand:
		_, err := io.WriteString(a.Out, about(commands).Page())
		return err
	}
	// --no-color is for the errors of the command line itself, too.
	if slices.Contains(typed, "--no-color") {
		a.Plain()
	}
	l, err := arrange(commands, typed)
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(l.flags, "--help") || l.command == "help":
		return a.help(commands, l)
	case slices.Contains(l.flags, "--version"):
		l = line{command: "version"}
	case l.command == "":
		fmt.Fprint(a.Err, about(commands).Overview())
		return usagef("missing COMMAND")
	}
	urfave := &cli.App{
		Name: program, Commands: commands, HideHelp: true, HideVersion: true,
		Reader: a.In, Writer: a.Out, ErrWriter: a.Err,
		// What it would print goes the way of every error.
		OnUsageError:   asUsage,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	return urfave.RunContext(ctx, l.words())
}

// job is a command that was asked for.
type job struct {
	*app
	table string
	args  []string
	// The values of flags; given says whether one was typed.
	flag     func(name string) bool
	number   func(name string) int
	duration func(name string) time.Duration
	text     func(name string) string
	texts    func(name string) []string
	given    func(name string) bool
}

// action makes a command of a function that takes least to most arguments; a
// negative most is any number.
func (a *app) action(do func(context.Context, *job) error, least, most int) cli.ActionFunc {
	return func(ctx *cli.Context) error {
		j := &job{app: a, table: ctx.String("table"), args: ctx.Args().Slice(), flag: ctx.Bool, number: ctx.Int, duration: ctx.Duration, text: ctx.String, texts: ctx.StringSlice, given: ctx.IsSet}
		a.JSON, a.Quiet = ctx.Bool("json"), ctx.Bool("quiet")
		if ctx.Bool("no-color") {
			a.Plain()
		}
		usage := program + " " + ctx.Command.Name + " " + ctx.Command.ArgsUsage
		switch n := len(j.args); {
		case n < least:
			err := usagef("missing %s", argument(ctx.Command.ArgsUsage))
			err.hint = usage
			return err
		case most >= 0 && n > most:
			err := usagef("unexpected argument %q", j.args[most])
			err.hint = usage
			return err
		}
		if err := checkTable(j.table); err != nil {
			return err
		}
		return do(ctx.Context, j)
	}
}

// sources are the profiles that the arguments name.
func (j *job) sources(ctx context.Context) ([]source.Source, error) {
	debug.SetGCPercent(1000) // from 40 MB on: nearly all of what profiles become lives to the end
	return source.Read(ctx, j.In, j.args)
}

// resolved are the same, and their profiles with addresses in place of names.
func (j *job) resolved(ctx context.Context, n source.Names) ([]source.Source, []*lb.Profile, error) {
	sources, err := j.sources(ctx)
	if err != nil {
		return nil, nil, err
	}
	n.Note = j.Notef
	profiles, err := n.Resolve(ctx, source.Profiles(sources))
	return sources, profiles, err
}

// buildValue is what version prints as JSON.
type buildValue struct {
	Version  string `json:"version"` // of the module, or devel
	Go       string `json:"go"`
	Platform string `json:"platform"` // linux/amd64
	Revision string `json:"revision"` // of git; empty where it is not known
}

// version is nlb version.
func version(_ context.Context, j *job) error {
	b := build()
	j.Quiet = false // it was asked for
	return j.Result(b, "%s %s", program, b.Version)
}

// packaged is the version of a package, 1.2.3, which packaging/build.sh sets.
var packaged string

func build() buildValue {
	b := buildValue{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	if packaged != "" {
		b.Version = "v" + packaged
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}
