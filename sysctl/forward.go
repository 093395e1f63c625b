package sysctl

// Forwarding, and what the kernel does along with it
// (Documentation/networking/ip-sysctl.rst).

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	forward4 = "net.ipv4.ip_forward"
	forward6 = "net.ipv6.conf.all.forwarding"
)

// companions are the parameters that have to be set before this one, or that
// are lost when it is put back.
func (t Tree) companions(s Setting) ([]Change, error) {
	switch {
	case s.Name == forward4 && s.Value == "1":
		// Turning it off again allows redirects, whatever was there.
		redirects, err := t.those("0", "net", "ipv4", "conf", "all", "accept_redirects")
		if err != nil {
			return nil, err
		}
		single, err := t.forwarding("ipv4")
		return append(redirects, single...), err
	case s.Name == forward6 && s.Value == "1":
		routes, err := t.advertised()
		if err != nil {
			return nil, err
		}
		single, err := t.forwarding("ipv6")
		return append(routes, single...), err
	}
	return nil, nil
}

// those is a parameter as a silent change, if it has the value.
func (t Tree) those(value string, parts ...string) ([]Change, error) {
	name := join(parts...)
	found, err := t.Get(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil || found != value:
		return nil, err
	}
	return []Change{{name, value, value}}, nil
}

// forwarding finds the interfaces that forward on their own. The parameter for
// all of them, on its way back, turns them off as well.
func (t Tree) forwarding(family string) ([]Change, error) {
	dir := filepath.Join(t.Sys, "net", family, "conf")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of %s: %w", family, cause(err))
	}
	var out []Change
	for _, e := range entries {
		if e.Name() == "all" {
			continue
		}
		c, err := t.those("1", "net", family, "conf", e.Name(), "forwarding")
		if err != nil {
			return nil, err
		}
		out = append(out, c...)
	}
	return out, nil
}

// advertised finds the interfaces whose default route came from a router
// advertisement. A host that forwards forgets such routes, and takes no more
// advertisements, unless accept_ra is 2.
func (t Tree) advertised() ([]Change, error) {
	f, err := os.Open(filepath.Join(t.Net, "ipv6_route"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no IPv6 here; to turn it on will say so
	}
	if err != nil {
		return nil, fmt.Errorf("read the IPv6 routes: %w", err)
	}
	defer f.Close()
	var links []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if link, ok := advertisedDefault(lines.Text()); ok {
			links = append(links, link)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the IPv6 routes: %w", err)
	}
	slices.Sort(links)
	var out []Change
	for _, link := range slices.Compact(links) {
		c, err := t.those("1", "net", "ipv6", "conf", link, "accept_ra")
		if err != nil {
			return nil, err
		}
		for _, c := range c {
			out = append(out, Change{c.Name, c.From, "2"})
		}
	}
	return out, nil
}

// Flags of a route (linux/ipv6_route.h, linux/route.h).
const (
	rtfGateway  = 0x2
	rtfDefault  = 0x10000
	rtfAddrconf = 0x40000
)

// advertisedDefault reads a line of /proc/net/ipv6_route: destination, its
// length, source, its length, next hop, metric, references, uses, flags, and
// the interface (net/ipv6/route.c, rt6_info_route; addresses and numbers are
// hexadecimal). It returns the interface of a default route that a router
// advertised.
func advertisedDefault(line string) (link string, ok bool) {
	f := strings.Fields(line)
	if len(f) != 10 || f[1] != "00" {
		return "", false
	}
	flags, err := strconv.ParseUint(f[8], 16, 32)
	const all = rtfGateway | rtfDefault | rtfAddrconf
	return f[9], err == nil && flags&all == all
}
