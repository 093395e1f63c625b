package sysctl

// Forwarding, and what the kernel does along with it
// (Documentation/networking/ip-sysctl.rst).

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
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
		advertised, err := t.advertised()
		if err != nil {
			return nil, err
		}
		single, err := t.forwarding("ipv6")
		return append(advertised, single...), err
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

// ofLinks is a parameter of the links of a family, as silent changes, where it is 1; and of
// default, which stands for links that come later.
func (t Tree) ofLinks(family, parameter string, but func(link string) bool) ([]Change, error) {
	entries, err := os.ReadDir(filepath.Join(t.Sys, "net", family, "conf"))
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of %s: %w", family, cause(err))
	}
	var out []Change
	for _, e := range entries {
		if but(e.Name()) {
			continue
		}
		c, err := t.those("1", "net", family, "conf", e.Name(), parameter)
		if err != nil {
			return nil, err
		}
		out = append(out, c...)
	}
	return out, nil
}

// forwarding finds the links that forward on their own. The parameter for all
// of them turns them off as well when it is put back.
func (t Tree) forwarding(family string) ([]Change, error) {
	return t.ofLinks(family, "forwarding", func(link string) bool { return link == "all" })
}

// advertised finds the links that take router advertisements, and the value
// that links which come later begin with. A host that forwards takes no
// advertisements unless accept_ra is 2, and forgets the default routes that it
// learned from them. A port of a bridge takes none in any case.
func (t Tree) advertised() ([]Change, error) {
	var ports map[string]bool
	if t.Ports != nil {
		ports = t.Ports()
	}
	out, err := t.ofLinks("ipv6", "accept_ra", func(link string) bool { return link == "all" || link == "lo" || ports[link] })
	for i := range out {
		out[i].To = "2"
	}
	return out, err
}

// bridgePorts asks the kernel, since /sys shows the network namespace that it
// was mounted in. Where it does not answer, a port is taken for a plain link,
// which does no harm.
func bridgePorts() map[string]bool {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	bridges := map[int]bool{}
	for _, l := range links {
		bridges[l.Attrs().Index] = l.Type() == "bridge"
	}
	ports := map[string]bool{}
	for _, l := range links {
		ports[l.Attrs().Name] = bridges[l.Attrs().MasterIndex]
	}
	return ports
}
