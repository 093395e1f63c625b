package scenario

// The driver for network namespaces. All hosts share this machine's files and
// its kernel; a reboot is a new namespace and what the unit does in it.

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"nlb/integration/netlab"
)

// namespace is a Host. A reboot puts another one in its place.
type namespace struct{ at atomic.Pointer[netlab.Host] }

func (n *namespace) Run(ctx context.Context, stdin io.Reader, script string) (Result, error) {
	return In(n.at.Load()).result(ctx, stdin, "sh", "-c", script)
}

// Namespaces makes a laboratory in a world. nlb and peer are the programs,
// folder is for the profiles, boot is what the unit runs, with that folder.
func Namespaces(w *netlab.World, nlb, peer, folder, boot string) (*Lab, error) {
	var client, balancer, server namespace
	for _, h := range []struct {
		n    *namespace
		name string
	}{{&client, "client"}, {&balancer, "lb"}, {&server, "server"}} {
		made, err := w.Host(h.name)
		if err != nil {
			return nil, err
		}
		h.n.at.Store(made)
	}
	cable := func() error {
		c, b, s := client.at.Load(), balancer.at.Load(), server.at.Load()
		links := errors.Join(w.Link(c, "eth0", b, "eth0"), w.Link(b, "eth1", s, "eth0"))
		if links != nil {
			return links
		}
		errs := []error{
			address(c, "eth0", clientAddress+"/24", clientAddress6+"/64"),
			address(b, "eth0", balancerFront+"/24", balancerFront6+"/64"),
			address(b, "eth1", balancerBack+"/24", balancerBack6+"/64"),
			route(c, servicesNet, balancerFront), route(c, servicesNet6, balancerFront6),
		}
		for _, name := range backendsInOrder {
			errs = append(errs, address(s, "eth0", backend(name)+"/24", backend6(name)+"/64"))
		}
		return errors.Join(append(errs, route(s, frontNet, balancerBack), route(s, frontNet6, balancerBack6))...)
	}
	if err := cable(); err != nil {
		return nil, err
	}
	return &Lab{
		Client: &client, Balancer: &balancer, Server: &server,
		Nlb: quote(nlb), Peer: quote(peer), Folder: folder,
		Reboot: func(ctx context.Context) error {
			old := balancer.at.Load()
			h, err := w.Host("lb")
			if err != nil {
				return err
			}
			if err := errors.Join(old.Unlink("eth0"), old.Unlink("eth1")); err != nil {
				return err
			}
			balancer.at.Store(h)
			if err := cable(); err != nil {
				return err
			}
			_, err = must(ctx, &balancer, nil, quote(nlb)+" "+boot)
			return err
		},
	}, nil
}

func address(h *netlab.Host, link string, prefixes ...string) error {
	var errs []error
	for _, p := range prefixes {
		errs = append(errs, h.AddAddress(link, netip.MustParsePrefix(p)))
	}
	return errors.Join(errs...)
}

func route(h *netlab.Host, to, via string) error {
	return h.AddRoute(netip.MustParsePrefix(to), netip.MustParseAddr(via))
}

// Boot is what nlb's systemd unit runs when the machine boots, without the
// program's own name, with folder in the place of /etc/nlb. root is the top
// level of the source tree.
func Boot(root, folder string) (string, error) {
	unit, err := os.ReadFile(filepath.Join(root, "packaging", "nlb.service"))
	if errors.Is(err, os.ErrNotExist) {
		return "apply " + folder, nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(unit)) {
		if command, ok := strings.CutPrefix(line, "ExecStart="); ok {
			_, args, _ := strings.Cut(strings.TrimSpace(command), " ")
			return strings.ReplaceAll(args, "/etc/nlb", folder), nil
		}
	}
	return "", errors.New("packaging/nlb.service has no ExecStart")
}
