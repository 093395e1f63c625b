package resolve

// The client: one question to the servers, one after the other.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is how large a datagram may be that is asked for: one that no path
	// breaks up. Longer answers come by TCP, of at most 64 KiB.
	udpSize = 1232
	// longestQuestion bounds a question, whatever resolv.conf says.
	longestQuestion = 15 * time.Second
	// mostAtOnce is how many questions of all names may wait for an answer.
	mostAtOnce = 64
)

// question is a complete name in lower case, and the type of the records.
type question struct {
	name string
	kind uint16
}

// client asks the servers of resolv.conf.
type client struct {
	conf  file[*dns.ClientConfig]       // resolv.conf
	hosts file[map[string][]netip.Addr] // addresses by complete names in lower case
	port  string
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	slots chan struct{}
}

func newClient(o Options) *client {
	c := &client{port: strconv.Itoa(int(cmp.Or(o.Port, 53))), dial: o.Dial, slots: make(chan struct{}, mostAtOnce)}
	c.conf.path, c.conf.parse = cmp.Or(o.Conf, "/etc/resolv.conf"), parseConf
	c.hosts.path, c.hosts.parse = cmp.Or(o.Hosts, "/etc/hosts"), parseHosts
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	return c
}

// ask asks a question. errNothing says that there are no such records.
func (c *client) ask(ctx context.Context, q question) (reply, error) {
	return within(ctx, c.slots, func() (reply, error) { return c.askAll(ctx, q) })
}

// within does something when a slot is free.
func within(ctx context.Context, slots chan struct{}, do func() (reply, error)) (reply, error) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return do()
	case <-ctx.Done():
		return reply{}, errLate
	}
}

// askAll asks each server in turn, as often as resolv.conf says, until one knows.
func (c *client) askAll(ctx context.Context, q question) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, longestQuestion)
	defer cancel()
	conf := c.conf.read()
	var first error
	for range conf.Attempts {
		for _, server := range conf.Servers {
			r, err := c.exchange(ctx, server, q, time.Duration(conf.Timeout)*time.Second)
			if err == nil || errors.Is(err, errNothing) {
				return r, err
			}
			first = cmp.Or(first, fmt.Errorf("%s: %w", server, err))
			if ctx.Err() != nil {
				return reply{}, first
			}
		}
	}
	return reply{}, first
}

var errLate = errors.New("no answer in time")

// exchange asks one server, by UDP, and by TCP where the answer does not fit.
func (c *client) exchange(ctx context.Context, server string, q question, timeout time.Duration) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m := new(dns.Msg).SetQuestion(q.name, q.kind).SetEdns0(udpSize, false)
	answer, err := c.say(ctx, "udp", server, m)
	if answer != nil && answer.Truncated { // however well the part could be read
		answer, err = c.say(ctx, "tcp", server, m)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return reply{}, errLate
	case err != nil:
		return reply{}, cause(err)
	}
	return read(q, answer)
}

// say sends a message and waits for the answer, until ctx ends.
func (c *client) say(ctx context.Context, network, server string, m *dns.Msg) (*dns.Msg, error) {
	d := &dns.Client{Net: network, Timeout: longestQuestion}
	reached, err := c.dial(ctx, network, net.JoinHostPort(server, c.port))
	if err != nil {
		return nil, err
	}
	conn := &dns.Conn{Conn: reached}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	answer, _, err := d.ExchangeWithConnContext(ctx, m, conn)
	return answer, err
}

// cause is what an error of the network comes to. The rest of its text differs
// from time to time.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errLate
	}
	if _, ok := errors.AsType[*dns.Error](err); ok {
		return errors.New("not an answer: " + strings.TrimPrefix(err.Error(), "dns: "))
	}
	return err
}
