//go:build linux

// Package survey takes the picture of a host that package doctor examines. It
// asks the kernel, over netlink and in /proc, runs no program and changes
// nothing; for services with mode: dsr the kernel asks their neighbours. What it may not see, the picture says.
package survey

// The picture as a whole.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/wire"
	"nlb/sysctl"
)

// Take takes the picture of the network namespace of the calling thread, for
// an examination; dial opens the way to its nftables. Without files, the
// profiles that are in the kernel are filled in. An error says that nothing
// could be seen.
func Take(ask *doctor.Ask, dial func() (*wire.Conn, error)) (*doctor.Host, error) {
	s := &survey{host: &doctor.Host{
		Kernel: release(), Reads: reads("/sys/module"), Params: map[string]string{}, Blind: map[string]bool{},
		Routes: map[doctor.Question]doctor.Route{},
	}, ask: ask}
	if err := s.links(); err != nil {
		return nil, fmt.Errorf("look at the links: %w", err)
	}
	s.rulesets(dial)
	s.sockets()
	s.ruleMasks()
	s.params()
	if err := s.routes(); err != nil {
		return nil, fmt.Errorf("look at the routes: %w", err)
	}
	s.hairpins()
	s.neighbours()
	s.room()
	s.fleet()
	return s.host, nil
}

// Agent adds what is known of nlb run to a picture; err is why that is not known.
func Agent(h *doctor.Host, a doctor.Agent, err error) {
	h.Agent = a
	if err != nil {
		(&survey{host: h}).unseen("nlb run", err, "health")
	}
}

// survey is a picture while it is taken.
type survey struct {
	host *doctor.Host
	ask  *doctor.Ask
}

// unseen notes that something could not be looked at, and the checks that
// would have.
func (s *survey) unseen(what string, err error, checks ...string) {
	why := err.Error()
	if nft.NotPermitted(err) || errors.Is(err, os.ErrPermission) {
		why = "not permitted"
	}
	s.host.Unseen = append(s.host.Unseen, what+": "+why)
	for _, c := range checks {
		s.host.Blind[c] = true
	}
}

// release is the version of the kernel.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// reads are the helpers that do not translate. A part of the kernel itself has no state
// of a module, and its other half is a part, too.
func reads(modules string) []string {
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(modules, name))
		return err == nil
	}
	var out []string
	for _, h := range lb.Words[lb.Helper]()[1:] {
		reader := "nf_conntrack_" + h
		if built := there(reader) && !there(reader+"/initstate"); there("") && !built && !there("nf_nat_"+h) {
			out = append(out, h)
		}
	}
	return out
}

// params reads the kernel parameters that checks look at.
func (s *survey) params() {
	names := []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/all/proxy_arp", "net/ipv4/conf/all/rp_filter",
		"net/ipv4/ping_group_range", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables",
		"net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_conntrack_tcp_loose", "net/netfilter/nf_conntrack_tcp_timeout_close_wait", "net/netfilter/nf_conntrack_tcp_timeout_time_wait",
		"net/netfilter/nf_conntrack_tcp_timeout_established",
	}
	for _, l := range s.host.Links {
		for _, of := range []string{"ipv4/forwarding", "ipv4/route_localnet", "ipv4/proxy_arp", "ipv4/rp_filter", "ipv6/accept_ra", "ipv6/proxy_ndp"} {
			family, param, _ := strings.Cut(of, "/")
			names = append(names, "net/"+family+"/conf/"+l.Name+"/"+param)
		}
	}
	for _, name := range names {
		if v, err := sysctl.Local.Get(name); err == nil {
			s.host.Params[name] = v
		}
	}
	const sample = "net.ipv4.ip_forward"
	err := sysctl.Local.Writable([]sysctl.Change{{Name: sample, From: "0", To: "1"}})
	s.host.Fixed = errors.Is(err, unix.EROFS)
}
