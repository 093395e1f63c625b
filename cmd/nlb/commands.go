package main

// The commands and their flags: what there is to type. Help, the man page, completion
// and the order of the command line are made from them.

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"nlb/cmd/nlb/internal/manual"
)

// commands are all, in the order of the help.
func commands(a *app) []*cli.Command {
	all := []*cli.Command{
		{
			Name: "apply", ArgsUsage: "PROFILE...", Usage: "make the kernel match, in one batch",
			Description: "A PROFILE is a file, a folder of *.yaml and *.yml, or - (stdin). Other profiles in the kernel stay.\n" +
				"What did not change is not touched: it keeps its connections and its place in the round.",
			Flags: with(
				&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "plan, let the kernel check it, change nothing"},
				&cli.BoolFlag{Name: "prune", Usage: "also remove the profiles that are not named"},
				&cli.BoolFlag{Name: "cut", Usage: "also end live TCP connections of removed backends (UDP flows always move)"},
				&cli.BoolFlag{Name: "forget-health", Usage: "let backends in that nlb run found down; orders stay"},
				socketFlag(),
			),
			Action: a.action(apply, 1, -1),
		},
		{
			Name: "diff", ArgsUsage: "PROFILE...", Usage: "what apply would do, object by object; exit 4 where they differ",
			Flags: with(socketFlag()), Action: a.action(diff, 1, -1),
		},
		{
			Name: "show", ArgsUsage: "[PROFILE[/...]]", Usage: "what is in the kernel now: services, backends, weights, connections",
			Description: "CONNECTIONS counts new connections since the backend came, LIVE is what conntrack holds now.\n" +
				"PROFILE and PROFILE/SERVICE show these alone. PROFILE/SERVICE/BACKEND tells why a backend gets what\n" +
				"it gets, and asks nlb run for its checks.\n" +
				"With --watch, NEW is a backend's part of the new connections since the last look, /S how many a\n" +
				"second, + and +- what has changed. q, Ctrl-C or a closed terminal end it. Elsewhere than at a\n" +
				"terminal there is a table for each change. nlb run, where it runs, says at once what changes.",
			Flags: with(
				&cli.BoolFlag{Name: "watch", Usage: "again and again, in place at a terminal, with rates and what has changed"},
				&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "how often --watch looks, a `TIME` such as 500ms or 2s (default 1s)"},
				&cli.BoolFlag{Name: "prometheus", Usage: "as metrics, for the textfile collector of node_exporter"},
				socketFlag(),
			),
			Action: a.action(show, 0, 1),
		},
		{
			Name: "run", ArgsUsage: "[PROFILE...]", Usage: "stay, check servers, and keep the kernel true to them and to the files",
			Description: "A PROFILE is a file or a folder of *.yaml and *.yml. They are read again when they change, and on\n" +
				"SIGHUP; all are applied, or none. A profile whose file goes, goes; others in the kernel stay.\n" +
				"When it ends, the kernel balances on as it is. With --fleet it takes profiles from a fleet in place\n" +
				"of files, and begins with those that it had last.",
			Flags: with(
				socketFlag(),
				&cli.StringFlag{Name: "fleet", Usage: "be a node of the fleet that this `FILE` tells of"},
				&cli.StringFlag{Name: "track-file", Usage: "a `FILE` for keepalived: 0 while it serves (default $STATE_DIRECTORY/fault)"},
				&cli.BoolFlag{Name: "allow-exec", Usage: "let profiles have checks that run commands"},
				&cli.StringFlag{Name: "listen", Usage: "show it by HTTP at `ADDRESS` and port, to read only: a page, an API, metrics"},
				&cli.StringSliceFlag{Name: "host", Usage: "a `NAME` to ask it by there, beside localhost and addresses"},
				&cli.StringFlag{Name: "tls-cert", Usage: "the certificate for that, a PEM `FILE`"},
				&cli.StringFlag{Name: "tls-key", Usage: "its key, a PEM `FILE`"},
				&cli.StringFlag{Name: "token-file", Usage: "a `FILE` with the word that those who look have to know"},
				&cli.StringFlag{Name: "client-ca", Usage: "CAs of the certificates of those who look, a PEM `FILE`"},
			),
			Action: a.action(run, 0, -1),
		},
		{
			Name: "push", ArgsUsage: "[PROFILE...]", Usage: "have the nodes of a fleet apply profiles; exit 4: not all did",
			Description: "It checks the profiles as apply does, shows what changes, and waits until all nodes have them. With\n" +
				"--canary some nodes have them first: where one refuses, is lost, or has more backends down than\n" +
				"before, the push stops there.",
			Flags: with(
				fleetFlag(),
				&cli.StringFlag{Name: "canary", Usage: "first `NODES`, such as n1,n2, or how many of them"},
				&cli.DurationFlag{Name: "wait", Value: time.Minute, Usage: "how long nodes may take, and canaries are watched, a `TIME` (default 1m)"},
				&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "a `TEXT` that nlb fleet shows with it"},
				&cli.StringSliceFlag{Name: "undo", Usage: "a `NAME` of a profile that is to be what it was before"},
				&cli.StringSliceFlag{Name: "remove", Usage: "a `NAME` of a profile that the nodes are to remove"},
			),
			Action: a.action(push, 0, -1),
		},
		{
			Name: "fleet", ArgsUsage: "[WORD [NODE...]]", Usage: "which node of a fleet has what; exit 4 where one is not well",
			Description: "WORD: out NODE has a node announce nothing, as for an upgrade, and in NODE announce again. One node\n" +
				"is out at a time, and none while backends drain. forget NODE is for one that is gone for good.\n" +
				"roles NODE... prints the commands that let these nodes, and an admin, do in etcd what they have\n" +
				"to, and no more.",
			Flags: with(
				fleetFlag(),
				&cli.BoolFlag{Name: "watch", Usage: "again and again, in place at a terminal"},
				&cli.DurationFlag{Name: "wait", Usage: "how long to wait until the node is out or in, a `TIME` (default: not)"},
			),
			Action: a.action(showFleet, 0, -1),
		},
		orderCommand(a, "drain", "no new connections for a backend; those that it has stay", forFlag()),
		orderCommand(a, "disable", "a backend is as if it were down", forFlag()),
		orderCommand(a, "enable", "take back what drain or disable said"),
		{
			Name: "healthy", ArgsUsage: "[NAME]", Usage: "whether somebody is there to serve; exit 4 where nobody is",
			Description: "A NAME is PROFILE or PROFILE/SERVICE. One service with a backend that is up is enough. nlb run\n" +
				"answers by its checks; where none is running, the kernel has what was found last.",
			Flags: with(socketFlag()), Action: a.action(healthy, 0, 1),
		},
		{
			Name: "flush", ArgsUsage: "[PROFILE...]", Usage: "remove these profiles, or everything that nlb made",
			Flags: with(
				&cli.BoolFlag{Name: "cut", Usage: "also end the live connections of what is removed"},
				&cli.BoolFlag{Name: "sysctl", Usage: "also put kernel parameters back to what nlb found"}, socketFlag(),
			),
			Action: a.action(flush, 0, -1),
		},
		{
			Name: "check", ArgsUsage: "PROFILE...", Usage: "validate only; needs no root and no Linux",
			Flags: with(), Action: a.action(check, 1, -1),
		},
		{
			Name: "render", ArgsUsage: "PROFILE...", Usage: "the same ruleset as an nft script on stdout, for nft -f",
			Description: "With --for, the configuration of a daemon that makes several balancers one, for the addresses of the\n" +
				"profiles. --with says where in the network: self, peer, as, front, back, interface and others.",
			Flags: with(
				&cli.StringFlag{Name: "for", Usage: "instead, for a `DAEMON`: bird, frr, keepalived or conntrackd"},
				&cli.StringSliceFlag{Name: "with", Usage: "`NAME=VALUE` for that, such as self=10.0.0.2 or front=10.0.0.1/65001"},
			),
			Action: a.action(render, 1, -1),
		},
		{
			Name: "lab", ArgsUsage: "[PROFILE...]", Usage: "rehearse a profile, or an example, in throw-away network namespaces",
			Description: "Real connections go from clients over this balancer to stand-in backends. It needs no root where\n" +
				"user namespaces are allowed, and leaves nothing behind. Of services with health, backends fail\n" +
				"while nlb run watches, and come back: in several ways, or by steps SERVICE/BACKEND=WAY@TIME. WAY is\n" +
				"refuse, silent, slow, flap or back. With --fleet, routers spread connections over several balancers;\n" +
				"it says how many of those that are open were lost. Exit 0 only where all was as due.",
			Flags: with(
				&cli.IntFlag{Name: "connections", Value: 600, Usage: "about `N` of them for each service, family and protocol (default 600)"},
				&cli.StringSliceFlag{Name: "fail", Usage: "`STEP` of your own plan, such as web/b2=silent@2s"},
				&cli.IntFlag{Name: "fleet", Usage: "rehearse `N` balancers, of which some die, leave and return"},
				&cli.BoolFlag{Name: "keep", Usage: "leave the hosts standing, and say how to step into them, until interrupted"},
			),
			Action: a.action(rehearse, 0, -1),
		},
		{
			Name: "doctor", ArgsUsage: "[PROFILE...]", Usage: "why it does not work here, or why it will; exit 4 where it needs mending",
			Description: "It looks at the kernel, its parameters, routes, other tables and conntrack, for the services and\n" +
				"backends of the profiles, or of those that are in the kernel, and changes nothing. A finding has the\n" +
				"command that mends it, where there is one.",
			Flags: with(socketFlag()), Action: a.action(examine, 0, -1),
		},
		{
			Name: "import", ArgsUsage: "[FORMAT] [FILE]", Usage: "what runs today becomes a profile; exit 4: a part was not translated",
			Description: "FORMAT: iptables (iptables-save, ip6tables-save, or commands), ipvs (ipvsadm -S -n),\n" +
				"nft (nft -j list ruleset), haproxy, nginx, keepalived (their configurations), iptlb (its state),\n" +
				"nftlb (its JSON); without it, nlb finds out. Without FILE, or with -, from stdin.\n" +
				"The profile goes to stdout, findings to stderr: what the old rules really did, and what of it is not\n" +
				"in the profile. It needs no root and no Linux. Exit 3: the text is not of this format.\n" +
				"With --from-host it reads this machine's nftables and IPVS, and says what the\n" +
				"profile would meet there.",
			Flags: with(&cli.BoolFlag{Name: "from-host", Usage: "in place of a text, what this machine has in nftables and IPVS now"}), Action: a.action(importProfile, 0, 2),
		},
		{
			Name: "version", Usage: "the version of nlb",
			Flags: with(), Action: a.action(version, 0, 0),
		},
		{
			Name: "completion", ArgsUsage: "bash|zsh|fish", Usage: "a script that lets a shell complete commands, flags and profiles",
			Description: "bash: source <(nlb completion bash)\nzsh:  source <(nlb completion zsh)\nfish: nlb completion fish | source",
			Flags:       with(), Action: a.action(completion, 1, 1),
		},
		{
			Name: "help", ArgsUsage: "[COMMAND]", Usage: "this text, or how to use a command",
			Flags: with(),
		},
	}
	for _, c := range all {
		c.HideHelp = true // ours says it
		c.OnUsageError = asUsage
	}
	return all
}

// orderCommand is a command that tells nlb run what to do with a backend.
func orderCommand(a *app, name, usage string, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, ArgsUsage: "BACKEND", Usage: usage,
		Description: "A BACKEND is PROFILE/SERVICE/NAME. nlb run does it, whatever its profiles say; where none is\n" +
			"running, it is done straight in the kernel.",
		Flags: with(append(flags, socketFlag())...), Action: a.action(order(name), 1, 1),
	}
}

func forFlag() cli.Flag {
	return &cli.StringFlag{Name: "for", Usage: "how long, a `TIME` such as 30m (default: until nlb enable)"}
}

func socketFlag() cli.Flag {
	return &cli.StringFlag{Name: "socket", Usage: "the socket `PATH` of nlb run (default /run/nlb/TABLE.sock)"}
}

func fleetFlag() cli.Flag {
	return &cli.StringFlag{Name: "fleet", Usage: "the `FILE` that says where etcd is (default /etc/nlb/fleet/fleet.yaml)"}
}

// asUsage makes what the library says of a flag's value an error of ours; it
// would print it on stdout.
func asUsage(_ *cli.Context, err error, _ bool) error {
	return usagef("%s", strings.TrimSuffix(err.Error(), ": parse error"))
}

// with are a command's own flags and those of every command.
func with(own ...cli.Flag) []cli.Flag { return append(own, everywhere()...) }

// everywhere are the flags that every command has.
func everywhere() []cli.Flag {
	const all = "everywhere"
	return []cli.Flag{
		&cli.BoolFlag{Category: all, Name: "json", Usage: "results as JSON"},
		&cli.StringFlag{Category: all, Name: "table", Value: program, Usage: "the nftables table `NAME` (default nlb), for tests and side-by-side use"},
		&cli.BoolFlag{Category: all, Name: "quiet", Aliases: []string{"q"}, Usage: "no lines of success and no remarks"},
		&cli.BoolFlag{Category: all, Name: "no-color", Usage: "no colors (nor with NO_COLOR, TERM=dumb, no terminal)"},
		&cli.BoolFlag{Category: all, Name: "help", Aliases: []string{"h"}, Usage: "how to use it"},
	}
}

// argument is what is missing, out of the usage of the arguments.
func argument(usage string) string { return strings.Trim(usage, "[].") }

const maxTable = 63

// checkTable takes what nft takes for a name.
func checkTable(name string) error {
	ok := 0 < len(name) && len(name) <= maxTable
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		ok = ok && (letter || i > 0 && (c == '_' || c == '.' || '0' <= c && c <= '9'))
	}
	if !ok {
		err := usagef("--table %q is no name of a table", name)
		err.hint = "want 1 to 63 letters, digits, '_' and '.', a letter first"
		return err
	}
	return nil
}

// help prints how to use nlb, or one command.
func (a *app) help(commands []*cli.Command, l line) error {
	name := l.command
	if name == "help" {
		name = ""
		if len(l.operands) > 0 {
			name = l.operands[0]
		}
	}
	out := about(commands).Overview()
	if name != "" {
		command := find(commands, name)
		if command == nil {
			return unknownCommand(commands, name)
		}
		out = about(commands).Help(command)
	}
	fmt.Fprint(a.Out, out)
	return nil
}

// manCommand prints the man page. Only the build of nlb uses it, so no help lists it.
const manCommand = "man"

// about is what nlb says of itself.
func about(commands []*cli.Command) *manual.Program {
	return &manual.Program{
		Name: program, Purpose: "balances connections over backends, in the kernel: profiles become nftables", Version: build().Version,
		Commands: commands, Everywhere: everywhere(), Exits: []manual.Exit{
			{Code: exitDone, Meaning: "done"},
			{Code: exitFailed, Meaning: "failed or interrupted"},
			{Code: exitUsage, Meaning: "usage"},
			{Code: exitInvalid, Meaning: "invalid profile"},
			{Code: exitDiffer, Meaning: "differences, findings"},
		},
	}
}
