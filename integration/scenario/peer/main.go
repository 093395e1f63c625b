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
// A server answers each line or datagram with NAME and the source that it saw.
// A client prints an answer as it came, or the word for why none came:
// refused, timeout, reset, unreachable, closed.
//
// It is the protocol's way of nlb/integration/netlab/traffic, which needs a
// world for its hosts; on a virtual machine there is none.
package main

// The command line, and the words for errors.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "serve":
		return serve(args[1:])
	case len(args) == 5 && args[0] == "ask":
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		from, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		for i := range n {
			fmt.Println(ask(args[1], args[2], from+i))
		}
		return nil
	case len(args) == 3 && args[0] == "hold":
		return hold(args[1], args[2])
	}
	return errors.New("usage: peer serve NAME=ADDRESS:PORT... | ask NETWORK ADDRESS:PORT N FROM | hold NETWORK ADDRESS:PORT")
}

// serve answers until the test lets go of stdin, or dies.
func serve(args []string) error {
	for _, arg := range args {
		name, at, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=ADDRESS:PORT", arg)
		}
		if err := listen(name, at); err != nil {
			return err
		}
	}
	fmt.Println("serving")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// ask makes one exchange on a connection, or from a socket, of its own.
func ask(network, to string, from int) string {
	c, err := dial(network, to, from)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	return exchange(c, bufio.NewReader(c), "hello")
}

func hold(network, to string) error {
	c, err := dial(network, to, 0)
	if err != nil {
		fmt.Println(word(err))
		return nil
	}
	defer c.Close()
	r := bufio.NewReader(c)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(exchange(c, r, lines.Text()))
	}
	return lines.Err()
}

// word is why there was no answer.
func word(err error) string {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return "unsupported"
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.Is(err, unix.ETIMEDOUT), ok && timeout.Timeout():
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), " ", "-")
}
