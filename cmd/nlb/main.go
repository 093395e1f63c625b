// Command nlb turns a Linux machine into a layer-4 load balancer.
package main

// The program from its arguments to its exit code.

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

const program = "nlb"

// A run is short: most end before the first collection is worth its time. Only
// tens of thousands of services come near the limit.
const (
	collectAt   = 400 // percent of what is live
	memoryLimit = 300 << 20
)

func main() {
	debug.SetGCPercent(collectAt)
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program where it stands.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program without its process.
func run(ctx context.Context, typed []string, in io.Reader, out, err io.Writer) int {
	c := newConsole(in, out, err)
	code := c.report(c.run(ctx, typed))
	if c.out.err != nil && (code == exitDone || code == exitDiffer) {
		return c.report(fmt.Errorf("write to stdout: %w", cause(c.out.err)))
	}
	return code
}

func (c *console) run(ctx context.Context, typed []string) error {
	commands := commands(c)
	switch {
	case len(typed) > 0 && typed[0] == completeCommand:
		c.complete(commands, typed[1:])
		return nil
	case len(typed) == 1 && typed[0] == manCommand:
		return c.man(commands)
	}
	// --no-color is for the errors of the command line itself, too.
	if slices.Contains(typed, "--no-color") {
		c.plain()
	}
	l, err := arrange(commands, typed)
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(l.flags, "--help") || l.command == "help":
		return c.help(commands, l)
	case slices.Contains(l.flags, "--version"):
		l = line{command: "version"}
	case l.command == "":
		fmt.Fprint(c.err, overview(commands))
		return usagef("missing COMMAND")
	}
	app := &cli.App{
		Name: program, Commands: commands, HideHelp: true, HideVersion: true,
		Reader: c.in, Writer: c.out, ErrWriter: c.err,
		// What it would print goes the way of every error.
		OnUsageError:   asUsage,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	return app.RunContext(ctx, l.words())
}

// help prints how to use nlb, or one command.
func (c *console) help(commands []*cli.Command, l line) error {
	name := l.command
	if name == "help" {
		name = ""
		if len(l.operands) > 0 {
			name = l.operands[0]
		}
	}
	text := overview(commands)
	if name != "" {
		command := find(commands, name)
		if command == nil {
			return unknownCommand(commands, name)
		}
		text = helpOf(command)
	}
	fmt.Fprint(c.out, text)
	return nil
}

// job is a command that was asked for.
type job struct {
	*console
	table string
	args  []string
	flag  func(name string) bool
	// number is the value of a flag that takes one.
	number func(name string) int
	// duration is likewise.
	duration func(name string) time.Duration
	// given says whether a flag was typed.
	given func(name string) bool
}

// action makes a command of a function that takes least to most arguments; a
// negative most is any number.
func (c *console) action(do func(context.Context, *job) error, least, most int) cli.ActionFunc {
	return func(ctx *cli.Context) error {
		j := &job{console: c, table: ctx.String("table"), args: ctx.Args().Slice(), flag: ctx.Bool, number: ctx.Int, duration: ctx.Duration, given: ctx.IsSet}
		c.json, c.quiet = ctx.Bool("json"), ctx.Bool("quiet")
		if ctx.Bool("no-color") {
			c.plain()
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
