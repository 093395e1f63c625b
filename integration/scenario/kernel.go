package scenario

// The phases that need a kernel of the balancer's own: its log, which the
// kernel keeps from other namespaces, and its modules.

import (
	"context"
	"strings"

	"nlb/integration/demand"
)

// logged: new connections are in the kernel log with their prefix, and no more
// of them than the rate allows.
func logged(ctx context.Context, s *Stage) {
	const many = 20
	s.apply(ctx, `profile: shop
services:
  - name: every
    listen: `+service+`:80
    log: {prefix: "every ", level: info}
    backends: [`+backend('a')+`:`+backendPort+`]
  - name: some
    listen: `+service+`:81
    log: {prefix: "some ", level: info, rate: 1/minute}
    backends: [`+backend('a')+`:`+backendPort+`]
`)
	for _, port := range []string{":80", ":81"} {
		s.shares(ctx, "tcp", service+port, many, map[string]int{"a": many}, balancerBack)
	}
	out := must(ctx, s.lab.Balancer, nil, "dmesg")
	every, some := strings.Count(out, "every IN="), strings.Count(out, "some IN=")
	// A limit of the kernel's has a burst of 5, unless one is given.
	if every != many || some < 1 || some > 5 {
		demand.Fail("the kernel log has %d and %d of %d connections, want all of one service and 1 to 5 of the other", every, some, many)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "every IN=") && !strings.Contains(line, "SRC="+clientAddress) {
			demand.Fail("the kernel log does not name the client: %s", line)
		}
	}
	s.Logf("kernel log: %d of %d without a rate, %d with 1/minute", every, many, some)
}

// sctp: associations are balanced like TCP connections.
func sctp(ctx context.Context, s *Stage) {
	for _, h := range []Host{s.lab.Client, s.lab.Server} {
		if r, err := h.Run(ctx, nil, "modprobe sctp"); err != nil || r.Exit != 0 {
			demand.OK(skip("no SCTP here: " + r.Stderr))
		}
	}
	// The servers listen with SCTP only where it was there before them.
	s.serve(ctx)
	s.apply(ctx, `profile: shop
services:
  - name: signals
    listen: `+service+`:80
    protocol: sctp
    backends: [`+backend('a')+`:`+backendPort+`, `+backend('b')+`:`+backendPort+`]
`)
	s.shares(ctx, "sctp", service+":80", 10, map[string]int{"a": 5, "b": 5}, balancerBack)
}

// dummy: a service on this host's own addresses takes what is for an address
// on a dummy interface.
func dummy(ctx context.Context, s *Stage) {
	r := demand.Of(s.lab.Balancer.Run(ctx, nil, "modprobe dummy numdummies=0; ip link add vip0 type dummy && ip addr add "+
		ownAddress+"/32 dev vip0 && ip link set vip0 up"))
	if r.Exit != 0 {
		demand.OK(skip("no dummy interfaces here: " + r.Stderr))
	}
	s.apply(ctx, `profile: shop
services:
  - name: own
    listen: ":82"
    protocol: [tcp, udp]
    backends: [`+backend('a')+`:`+backendPort+`, `+backend('b')+`:`+backendPort+`]
`)
	for _, to := range []string{ownAddress, balancerFront} {
		for _, network := range []string{"tcp", "udp"} {
			s.shares(ctx, network, to+":82", 10, map[string]int{"a": 5, "b": 5}, balancerBack)
		}
	}
	must(ctx, s.lab.Balancer, nil, "ip link del vip0")
}
