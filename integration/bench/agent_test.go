//go:build linux

package bench

// The agent beside HAProxy: processes whose words have moments, commits as the
// kernel tells of them, and the table of docs/agent.md.

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/integration/netlab"
	"nlb/integration/netlab/netlabtest"
	"nlb/nft/wire"
)

// vip is where the clients of all these measurements go.
var vip = netip.MustParseAddrPort("203.0.113.10:80")

// proofs are the rows of the table.
var proofs []string

// prove adds a row. What was wanted is met in all runs or not at all.
func prove(b *testing.B, event, figure, haproxy, wanted string, met bool) {
	b.Helper()
	if wanted != "" {
		wanted += map[bool]string{true: ": yes", false: ": no"}[met]
	}
	proofs = append(proofs, fmt.Sprintf("| %s | %s | %s | %s |", event, figure, haproxy, wanted))
	b.Logf("%s: %s; HAProxy: %s; %s", event, figure, haproxy, wanted)
}

func BenchmarkAgent(b *testing.B) {
	prepare(b)
	for _, x := range []struct {
		name string
		f    func(b *testing.B)
	}{
		{"killed", killed},
		{"silent", silent},
		{"hung", hung},
		{"all die", allDie},
		{"flapping", flapping},
		{"shared server", sharedServer},
		{"one backend", oneBackend},
		{"checks", manyChecks},
		{"restarts", restarts},
	} {
		b.Run(x.name, x.f)
	}
}

// daemon is a program that runs in a host and writes lines.
type daemon struct {
	cmd *netlab.Cmd

	mu    sync.Mutex
	lines []line
}

// line is one of them, and when it came.
type line struct {
	at   time.Time
	text string
}

// start starts a program that ends with the benchmark.
func start(b *testing.B, h *netlab.Host, program ...string) *daemon {
	b.Helper()
	d := &daemon{cmd: h.Command(b.Context(), program[0], program[1:]...)}
	r, w, err := os.Pipe()
	netlabtest.Must(b, err)
	d.cmd.Stderr, d.cmd.Stdout = w, w
	netlabtest.Must(b, d.cmd.Start(), w.Close())
	go func() {
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			now := time.Now()
			d.mu.Lock()
			d.lines = append(d.lines, line{now, s.Text()})
			d.mu.Unlock()
		}
	}()
	return d
}

// end ends it by a signal.
func (d *daemon) end(by syscall.Signal) {
	_ = d.cmd.Process.Signal(by)
	_ = d.cmd.Wait()
}

// said are the moments of the lines with a text, after a moment.
func (d *daemon) said(text string, after time.Time) (at []time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		if l.at.After(after) && strings.Contains(l.text, text) {
			at = append(at, l.at)
		}
	}
	return at
}

// awaits waits until it has said a text n times after a moment, and returns when it
// said it last.
func (d *daemon) awaits(b *testing.B, text string, n int, after time.Time) time.Time {
	b.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if at := d.said(text, after); len(at) >= n {
			return at[n-1]
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b.Fatalf("nobody says %q %d times; the last lines: %v", text, n, d.lines[max(0, len(d.lines)-20):])
	return time.Time{}
}

// processor is how much processor time it has used.
func (d *daemon) processor(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	netlabtest.Must(b, err)
	var ticks int
	for _, f := range strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[11:13] {
		n, err := strconv.Atoi(f)
		netlabtest.Must(b, err)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// memory is what is resident of it, in bytes, and how much of that is of files, which
// the kernel can take back: VmRSS, and RssFile with RssShmem (proc_pid_statm(5)).
func (d *daemon) memory(b *testing.B) (resident, files int64) {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
	netlabtest.Must(b, err)
	var size int64
	_, err = fmt.Sscan(string(statm), &size, &resident, &files)
	netlabtest.Must(b, err)
	page := int64(os.Getpagesize())
	return resident * page, files * page
}

// runAgent starts nlb run with a profile, and waits until it balances.
func runAgent(b *testing.B, h *netlab.Host, file string) *daemon {
	b.Helper()
	return runProgram(b, *program, h, file)
}

func runProgram(b *testing.B, program string, h *netlab.Host, file string) *daemon {
	b.Helper()
	socket := filepath.Join(scratch, "agent.sock")
	d := start(b, h, program, "run", "--socket", socket, file)
	b.Cleanup(func() { d.end(syscall.SIGKILL) })
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	d.answers(b, func() bool {
		r, err := c.Get("http://nlb/healthz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return d
}

// answers waits until it does.
func (d *daemon) answers(b *testing.B, is func() bool) {
	b.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%s does not answer: %v", d.cmd.Args[0], d.lines)
		}
	}
}

// runHAProxy starts HAProxy with what listens.
func runHAProxy(b *testing.B, h *netlab.Host, config string) *daemon {
	b.Helper()
	const head = `global
	maxconn 2000
	stats socket %s
defaults
	mode tcp
	option redispatch
	timeout connect 5s
	timeout client 1m
	timeout server 1m
`
	socket := filepath.Join(scratch, "haproxy.sock")
	file := filepath.Join(scratch, "haproxy.cfg")
	netlabtest.Must(b, os.WriteFile(file, []byte(fmt.Sprintf(head, socket)+config), 0o600))
	d := start(b, h, "haproxy", "-db", "-f", file)
	b.Cleanup(func() { d.end(syscall.SIGKILL) })
	d.answers(b, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return d
}

// commits are the commits to the ruleset of a host by nlb, as the kernel tells of
// them.
type commits struct {
	mu sync.Mutex
	at []time.Time
}

// watchCommits begins to listen. https://github.com/torvalds/linux/blob/v6.18/net/netfilter/nf_tables_api.c
// (nf_tables_gen_notify)
func watchCommits(b *testing.B, h *netlab.Host) *commits {
	b.Helper()
	var fd int
	netlabtest.Must(b, h.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20); err != nil {
			return err
		}
		patience := unix.NsecToTimeval(int64(100 * time.Millisecond))
		if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	}))
	name := filepath.Base(*program)
	name = name[:min(len(name), 15)] // as the kernel has it
	c, done := &commits{}, make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 1<<20); b.Context().Err() == nil; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == nil && committedBy(buf[:n], name) {
				c.mu.Lock()
				c.at = append(c.at, time.Now())
				c.mu.Unlock()
			}
		}
	}()
	b.Cleanup(func() {
		<-done
		unix.Close(fd)
	})
	return c
}

// committedBy reports whether messages have one that says that a program has
// committed.
func committedBy(b []byte, name string) bool {
	const newGen, headers = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, unix.SizeofNlMsghdr + 4
	for len(b) >= headers {
		size, typ := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
		if size < headers || size > len(b) {
			return false
		}
		if typ == newGen && wire.Text(wire.Attr(b[headers:size], unix.NFTA_GEN_PROC_NAME)) == name {
			return true
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false
}

// after are the commits after a moment.
func (c *commits) after(t time.Time) (at []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.at {
		if x.After(t) {
			at = append(at, x)
		}
	}
	return at
}
