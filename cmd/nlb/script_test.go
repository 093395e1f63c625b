//go:build linux

package main

// The scripts in testdata/script: each runs nlb in a network namespace of its
// own, and compares stdout and stderr apart. -update writes what nlb prints
// into them.

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/agent/resolve/resolvetest"
	"nlb/cmd/nlb/internal/source"
	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

var update = flag.Bool("update", false, "write what nlb prints into the scripts")

// programs are what scripts can run beside the machine's own.
var programs = map[string]func(){"nlb": named, "as": as}

// etc is the variable with the folder where scripts have resolv.conf and hosts.
const etc = "SCRIPT_ETC"

// named is main, where names are looked up as the script says.
func named() {
	dir := os.Getenv(etc)
	source.Lookup = resolve.Options{Conf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts")}
	main()
}

func TestMain(m *testing.M) {
	if programs[filepath.Base(os.Args[0])] == nil {
		netlabtest.Enter()
	}
	testscript.Main(m, programs)
}

func TestScripts(t *testing.T) {
	t.Parallel()
	p := testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) (err error) {
			e.Setenv(etc, e.WorkDir)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // with -race: no second of sleep for each nlb
			e.Values[dnsServer{}] = &[]*resolvetest.Server{}
			if !testing.Short() {
				e.Values[host{}], err = enter(e)
			}
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "sysctl": kernelParameter, "local": local, "send": send, "foreign": foreign, "damage": damage, "fifo": fifo, "dns": nameServer,
		},
	}
	if testing.Short() { // those that ask no kernel
		p.Dir = ""
		for _, name := range []string{"check", "import", "render"} {
			p.Files = append(p.Files, "testdata/script/"+name+".txtar")
		}
	}
	testscript.Run(t, p)
}

type host struct{}

// enter moves the script, whose programs are started by the calling thread,
// to a host of its own.
func enter(e *testscript.Env) (*netlab.Host, error) {
	w, err := netlab.New()
	if err != nil {
		return nil, err
	}
	e.Defer(func() { w.Close() })
	h, err := w.Host("script")
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(h.Path())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	// Never unlocked: the thread ends with the script.
	runtime.LockOSThread()
	return h, unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

func hostOf(ts *testscript.TestScript) *netlab.Host { return ts.Value(host{}).(*netlab.Host) }

// exits CODE PROGRAM [ARGUMENT...] runs a program that must end with a code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// sysctl NAME VALUE... sets kernel parameters; sysctl NAME = VALUE compares.
func kernelParameter(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) > 0 && len(args)%2 == 0:
		for p := range slices.Chunk(args, 2) {
			ts.Check(hostOf(ts).SetSysctl(p[0], p[1]))
		}
	case !neg && len(args) == 3 && args[1] == "=":
		got, err := hostOf(ts).Sysctl(args[0])
		ts.Check(err)
		if got != args[2] {
			ts.Fatalf("%s is %s, want %s", args[0], got, args[2])
		}
	default:
		ts.Fatalf("usage: sysctl NAME [=] VALUE [NAME VALUE]...")
	}
}

// local PREFIX... makes addresses the host's own.
func local(ts *testscript.TestScript, _ bool, args []string) {
	for _, arg := range args {
		ts.Check(hostOf(ts).AddLocal(netip.MustParsePrefix(arg)))
	}
}

// send ADDRESS:PORT NUMBER sends datagrams, each from another port.
func send(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	to := netip.MustParseAddrPort(args[0])
	ts.Check(hostOf(ts).Do(func() error {
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd) // at the end: a port is not to come twice
			if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	}))
}

type dnsServer struct{}

// dns RECORD... has a DNS server at 127.0.0.1 answer with these records, in zone
// format; without any it fails.
func nameServer(ts *testscript.TestScript, _ bool, args []string) {
	answer := resolvetest.Code(2) // SERVFAIL
	if len(args) > 0 {
		var err error
		answer, err = resolvetest.Zone(args...)
		ts.Check(err)
	}
	servers := ts.Value(dnsServer{}).(*[]*resolvetest.Server)
	if len(*servers) > 0 {
		(*servers)[0].Set(answer)
		return
	}
	ts.Check(hostOf(ts).Do(func() error {
		s, err := resolvetest.Listen("127.0.0.1:53", answer)
		if err == nil {
			*servers = append(*servers, s)
			ts.Defer(s.Close)
		}
		return err
	}))
}

// foreign TABLE adds a table that is not nlb's.
func foreign(ts *testscript.TestScript, _ bool, args []string) {
	behind(ts, func(b *wire.Batch) { wiretest.AddTable(b, unix.NFPROTO_INET, args[0]) })
}

// damage TABLE CHAIN removes the rules of a chain.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	behind(ts, func(b *wire.Batch) { wiretest.FlushChain(b, unix.NFPROTO_INET, args[0], args[1]) })
}

// behind changes the ruleset behind nlb's back.
func behind(ts *testscript.TestScript, change func(*wire.Batch)) {
	ts.Check(hostOf(ts).Do(func() error { return wiretest.Commit(change) }))
}

// fifo FILE makes a named pipe; fifo FILE + waits until somebody reads it.
func fifo(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	if len(args) == 1 {
		ts.Check(unix.Mkfifo(path, 0o600))
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // waits
	ts.Check(err)
	ts.Defer(func() { f.Close() })
}
