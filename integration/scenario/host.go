// Package scenario is what a balancer between two other machines has to do,
// from its first profile to its removal, a reboot included. It is written once
// and played on network namespaces, on QEMU machines and on any three machines
// that an OpenSSH configuration file names, such as those of Vagrant.
//
//	client 192.168.56.10 --- 192.168.56.2 lb 192.168.57.2 --- 192.168.57.11 .12 .13 server
//	client fd56::10      --- fd56::2      lb fd57::2      --- fd57::11 ::12 ::13    server
//
// Services listen on 192.168.60.10 and fd60::10, which are routed to lb.
package scenario

// Hosts, and three of them as a laboratory.

import (
	"context"
	"fmt"
	"io"
	"strings"

	"nlb/integration/demand"
)

// Host is a machine to run scripts on.
type Host interface {
	// Run runs a script of a POSIX shell as root, until it ends or ctx does.
	// An exit code other than 0 is no error; that the host could not be
	// reached is one. A nil stdin is empty.
	Run(ctx context.Context, stdin io.Reader, script string) (Result, error)
}

// Result is what a script printed, and the code that it ended with.
type Result struct {
	Stdout, Stderr string
	Exit           int
}

// Lab is three hosts and what is known of them.
type Lab struct {
	Client, Balancer, Server Host
	// Nlb is the command on the balancer, Peer that of package peer on client
	// and server.
	Nlb, Peer string
	// Folder is where the profiles are that the balancer applies when it boots.
	Folder string
	// Prepare gives the hosts the addresses and routes of the scenario that
	// they lack. It comes first, and again after a reboot. Nil: nothing to do.
	Prepare func(context.Context)
	// Reboot boots the balancer, and returns when it is up. Both demand that it works.
	Reboot func(context.Context)
	// Machines says that each host has a kernel of its own: its log can be
	// read, and its modules can be loaded.
	Machines bool
}

// Addresses of the laboratory.
const (
	clientAddress   = "192.168.56.10"
	balancerFront   = "192.168.56.2"
	balancerBack    = "192.168.57.2"
	balancerFront6  = "fd56::2"
	balancerBack6   = "fd57::2"
	service         = "192.168.60.10"
	service6        = "fd60::10"
	ownAddress      = "192.168.61.10" // on a dummy interface of the balancer
	frontNet        = "192.168.56.0/24"
	servicesNet     = "192.168.60.0/23"
	servicesNet6    = "fd60::/64"
	frontNet6       = "fd56::/64"
	backendPort     = "8080"
	clientAddress6  = "fd56::10"
	backendsInOrder = "abc"
)

// backend is the address of one of the server's stand-ins: a, b or c.
func backend(name rune) string  { return fmt.Sprintf("192.168.57.%d", 11+name-'a') }
func backend6(name rune) string { return fmt.Sprintf("fd57::%d", 11+name-'a') }

// must runs a script that has to end with 0, and returns its stdout.
func must(ctx context.Context, h Host, stdin io.Reader, script string) string {
	r := demand.Of(h.Run(ctx, stdin, script))
	if r.Exit != 0 {
		demand.Fail("%s\nended with %d\n%s%s", script, r.Exit, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// quote makes one word of the shell of a text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
