//go:build linux

package main

// The newcomer: who has the package and the README, and nothing else.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/integration/demand"
	"nlb/integration/netlab/traffic"
)

// commandsIn splits a script as people do who copy one command after the other. A
// command goes on until its here-document ends.
func commandsIn(script string) (out []string) {
	end := ""
	for line := range strings.Lines(script) {
		if end == "" {
			out = append(out, "")
			if m := regexp.MustCompile(`<<'(\w+)'`).FindStringSubmatch(line); m != nil {
				end = m[1]
			}
		} else if strings.TrimSpace(line) == end {
			end = ""
		}
		out[len(out)-1] += line
	}
	return out
}

// newcomer: five commands of the README lead from the package to a service that is
// watched. The last one shows that a server dies.
func newcomer(s *stage) string {
	script := string(demand.Of(os.ReadFile("/root/readme.sh")))
	commands := commandsIn(script)
	if len(commands) != 5 {
		demand.Fail("the README has %d commands, want 5:\n%s", len(commands), script)
	}
	listen, servers := s.serveReadme(script)
	home := "/root/downloads"
	demand.OK(errors.Join(os.Remove(profile), os.Mkdir(home, 0o755), os.Symlink(deb("1.0.2"), filepath.Join(home, filepath.Base(deb("1.0.2")))),
		os.WriteFile("/usr/bin/sudo", []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755)))
	var seen console
	var last *exec.Cmd
	for i, text := range commands {
		last = exec.Command("/bin/sh", "-ec", "exec "+text)
		last.Dir, last.Stdout, last.Stderr = home, &seen, &seen
		if i == len(commands)-1 {
			break
		}
		if err := last.Run(); err != nil {
			demand.Fail("%s: %w\n%s", text, err, seen.String())
		}
	}
	demand.OK(last.Start())
	shows := func(what string) {
		soon(func() {
			if !strings.Contains(seen.String(), what) {
				demand.Fail("%s does not show %q:\n%s", commands[4], what, seen.String())
			}
		})
	}
	shows("web/web  " + listen.String())
	for range servers {
		demand.Of(s.from().Exchange(context.Background(), "tcp", listen))
	}
	began := time.Now()
	servers[0].Stop()
	shows(fmt.Sprintf("%d of %d up", len(servers)-1, len(servers)))
	took := time.Since(began)
	// As Ctrl-C does.
	if err := errors.Join(last.Process.Signal(unix.SIGINT), last.Wait()); err != nil {
		demand.Fail("%s ended with %w", commands[4], err)
	}
	return fmt.Sprintf("%d commands; a server that died was shown after %.1f s", len(commands), took.Seconds())
}

// serveReadme starts a server at each address of the README's profile but the first,
// which clients connect to.
func (s *stage) serveReadme(script string) (listen netip.AddrPort, servers []*traffic.Server) {
	back := demand.Of(netlink.LinkByName("back"))
	for i, text := range regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`).FindAllString(script, -1) {
		at := demand.Of(netip.ParseAddrPort(text))
		if i == 0 {
			listen = at
			continue
		}
		demand.OK(s.servers.AddAddress("eth0", netip.PrefixFrom(at.Addr(), 32)))
		demand.OK(netlink.RouteAdd(&netlink.Route{LinkIndex: back.Attrs().Index, Dst: &net.IPNet{IP: at.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}}))
		servers = append(servers, demand.Of(traffic.Serve(s.servers, text, traffic.Port{Network: "tcp", At: at})))
	}
	if len(servers) < 2 {
		demand.Fail("the README's profile has %d backends", len(servers))
	}
	return listen, servers
}

// console is what commands print, while they run.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}
