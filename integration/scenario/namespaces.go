package scenario

// The driver for network namespaces. All hosts share this machine's files and
// its kernel; a reboot is a new namespace and what the unit does in it.

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"nlb/integration/demand"
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
	var servers []string
	for _, name := range backendsInOrder {
		servers = append(servers, backend(name)+"/24", backend6(name)+"/64")
	}
	cable := func() error {
		b := balancer.at.Load()
		return errors.Join(
			w.Join(netlab.NewEnd(client.at.Load(), "eth0", clientAddress+"/24", clientAddress6+"/64"), netlab.NewEnd(b, "eth0", balancerFront+"/24", balancerFront6+"/64")),
			w.Join(netlab.NewEnd(server.at.Load(), "eth0", servers...), netlab.NewEnd(b, "eth1", balancerBack+"/24", balancerBack6+"/64")))
	}
	if err := cable(); err != nil {
		return nil, err
	}
	return &Lab{
		Client: &client, Balancer: &balancer, Server: &server,
		Nlb: quote(nlb), Peer: quote(peer), Folder: folder,
		Reboot: func(ctx context.Context) {
			old := balancer.at.Load()
			h := demand.Of(w.Host("lb"))
			demand.OK(errors.Join(old.Unlink("eth0"), old.Unlink("eth1")))
			balancer.at.Store(h)
			demand.OK(cable())
			must(ctx, &balancer, nil, quote(nlb)+" "+boot)
		},
	}, nil
}

// Boot is what nlb's systemd unit runs when the machine boots, without the
// program's own name, with folder in the place of /etc/nlb. root is the top
// level of the source tree.
func Boot(root, folder string) (string, error) {
	unit, err := os.ReadFile(filepath.Join(root, "packaging", "nlb.service"))
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
