//go:build linux

// Command peer is the clients and the servers of the scenario, on machines
// that have neither: one static program, copied to them by the test.
//
//	peer serve NAME=ADDRESS:PORT...   answer TCP, UDP and, where there is SCTP,
//	                                  SCTP, until stdin ends
//	peer ask NETWORK ADDRESS:PORT N FROM
//	                                  make N exchanges, one after the other; those
//	                                  of UDP from the ports FROM, FROM+1...
//	peer hold NETWORK ADDRESS:PORT    keep one connection; an exchange for each
//	                                  line of stdin, until it ends
//
// A client prints NAME and the source that the server saw, or why there is no
// answer: refused, timeout, unreachable.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"nlb/integration/netlab/traffic"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	// An exchange has LIMIT of the environment, or 15 seconds: an emulated
	// machine whose processor others want as well is slow.
	client := traffic.Client{Timeout: 15 * time.Second}
	if d, err := time.ParseDuration(os.Getenv("LIMIT")); err == nil {
		client.Timeout = d
	}
	switch {
	case len(args) >= 2 && args[0] == "serve":
		return serve(args[1:])
	case len(args) == 5 && args[0] == "ask":
		to, err1 := netip.ParseAddrPort(args[2])
		n, err2 := strconv.Atoi(args[3])
		from, err3 := strconv.Atoi(args[4])
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		for i := range n {
			// A port that chance repeats is no new flow to conntrack, and meets
			// the backend that it met before.
			if args[1] == "udp" {
				client.Port = uint16(from + i)
			}
			say(client.Exchange(context.Background(), args[1], to))
		}
		return nil
	case len(args) == 3 && args[0] == "hold":
		to, err := netip.ParseAddrPort(args[2])
		if err != nil {
			return err
		}
		return hold(client, args[1], to)
	}
	return errors.New("usage: peer serve NAME=ADDRESS:PORT... | ask NETWORK ADDRESS:PORT N FROM | hold NETWORK ADDRESS:PORT")
}

// serve answers until the test lets go of stdin, or dies.
func serve(args []string) error {
	for _, arg := range args {
		name, at, ok := strings.Cut(arg, "=")
		to, err := netip.ParseAddrPort(at)
		if !ok || err != nil {
			return fmt.Errorf("%q is not NAME=ADDRESS:PORT", arg)
		}
		var ports []traffic.Port
		for _, network := range []string{"tcp", "udp", "sctp"} {
			if traffic.Supported(network) {
				ports = append(ports, traffic.Port{Network: network, At: to})
			}
		}
		if _, err := traffic.Serve(nil, name, ports...); err != nil {
			return err
		}
	}
	fmt.Println("serving")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func hold(client traffic.Client, network string, to netip.AddrPort) error {
	c, err := client.Dial(context.Background(), network, to)
	if err != nil {
		say(traffic.Reply{}, err)
		return nil
	}
	defer c.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		say(c.Again())
	}
	return lines.Err()
}

// say prints an answer, or why there is none.
func say(r traffic.Reply, err error) {
	if err != nil {
		fmt.Println(traffic.Way(err))
		return
	}
	fmt.Println(r.Backend, r.Seen)
}
