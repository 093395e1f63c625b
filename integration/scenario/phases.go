package scenario

// The phases: what each one does and demands.

import (
	"context"
	"slices"
	"strings"
	"time"

	"nlb/integration/demand"
)

// Phase is a part of the scenario. Each goes on from where the one before it
// left the hosts.
type Phase struct {
	Name string
	play func(context.Context, *Stage)
	// Machines says that network namespaces cannot show it.
	Machines bool
}

// Play plays the phase. An error says what was not as it is to be.
func (p Phase) Play(ctx context.Context, s *Stage) error {
	return demand.Try(func() { p.play(ctx, s) })
}

// Phases are the scenario, in order.
func Phases() []Phase {
	return []Phase{
		{Name: "apply", play: apply},
		{Name: "balance", play: balance},
		{Name: "drain", play: drain},
		{Name: "remove", play: remove},
		{Name: "refuse", play: refuse},
		{Name: "flush", play: flush},
		{Name: "reboot", play: reboot},
		{Name: "log", play: logged, Machines: true},
		{Name: "sctp", play: sctp, Machines: true},
		{Name: "dummy interface", play: dummy, Machines: true},
		{Name: "leave", play: leave},
	}
}

// apply: the profile is in the kernel, and forwarding, which was off, is on.
func apply(ctx context.Context, s *Stage) {
	demand.In("before the first apply", func() { s.forwards(ctx, "0") })
	s.write(ctx, shop(nil, "abc"))
	r := s.nlb(ctx, "apply", s.lab.Folder)
	if want := "applied shop: 2 services, 7 backends (+9 ~0 -0)"; !strings.HasPrefix(r.Stdout, want) {
		demand.Fail("apply printed %q, want %q", r.Stdout, want)
	}
	// The second one is not there on a machine that has tracked no connection
	// since it was booted.
	for _, want := range []string{"net.ipv4.ip_forward=1 (was 0)", "net.netfilter.nf_conntrack_tcp_be_liberal=1 (was 0)"} {
		if !strings.Contains(r.Stderr, want) {
			demand.Fail("apply did not say %q: %q", want, r.Stderr)
		}
	}
	s.forwards(ctx, "1")
}

// balance: exact shares, and the sources that the backends are to see.
func balance(ctx context.Context, s *Stage) {
	for _, c := range []struct{ network, to, source string }{
		{"tcp", service + ":80", balancerBack},
		{"udp", service + ":80", balancerBack},
		{"tcp", "[" + service6 + "]:80", balancerBack6},
		{"udp", "[" + service6 + "]:80", balancerBack6},
	} {
		s.shares(ctx, c.network, c.to, 30, map[string]int{"a": 10, "b": 10, "c": 10}, c.source)
	}
	// snat: none
	s.shares(ctx, "tcp", service+":81", 3, map[string]int{"a": 3}, clientAddress)
}

// drain: a backend of weight 0 keeps its connection, and gets no other.
func drain(ctx context.Context, s *Stage) {
	held := s.hold(ctx, "tcp", service+":80")
	defer held.end()
	first := held.say(ctx)
	drained, others := split(first)
	if others == "" {
		demand.Fail("the connection to be held got %q, want an answer", first)
	}
	s.apply(ctx, shop(map[string]int{drained: 0}, "abc"))
	want := map[string]int{others[:1]: 10, others[1:]: 10}
	demand.In("with "+drained+" at weight 0", func() { s.shares(ctx, "tcp", service+":80", 20, want, balancerBack) })
	if again := held.say(ctx); again != first {
		demand.Fail("the connection that was open got %q, before the drain %q", again, first)
	}
}

// remove: a UDP flow moves away from a backend that is gone, a TCP connection
// stays with it, unless --cut ends it.
func remove(ctx context.Context, s *Stage) {
	// Both the same backend: the only one there is.
	s.apply(ctx, shop(nil, "a"))
	held := map[string]*held{}
	for _, network := range []string{"tcp", "udp"} {
		h := s.hold(ctx, network, service+":80")
		defer h.end()
		demand.In(network+", before the removal", func() { h.from(ctx, "a") })
		held[network] = h
	}
	s.apply(ctx, shop(nil, "b"))
	demand.In("tcp, after the removal of a", func() { held["tcp"].from(ctx, "a") })
	demand.In("udp, after the removal of a", func() { held["udp"].from(ctx, "b") })
	s.shares(ctx, "tcp", service+":80", 10, map[string]int{"b": 10}, balancerBack)
	s.cut(ctx)
}

// cut: the removal of b ends its connection.
func (s *Stage) cut(ctx context.Context) {
	if !strings.Contains(s.nlb(ctx, "apply", "--help").Stdout, "--cut") {
		s.Logf("NOT PROVED: this nlb has no --cut")
		return
	}
	h := s.hold(ctx, "tcp", service+":80")
	defer h.end()
	h.from(ctx, "b")
	s.apply(ctx, shop(nil, "c"), "--cut")
	line := h.say(ctx)
	if _, others := split(line); others != "" {
		demand.Fail("after --cut the connection to b got %q, want its end", line)
	}
}

// refuse: without a backend that takes connections they are refused at once.
func refuse(ctx context.Context, s *Stage) {
	s.apply(ctx, shop(map[string]int{"b": 0, "c": 0}, "bc"))
	for _, network := range []string{"tcp", "udp"} {
		lines := s.ask(ctx, network, service+":80", 3)
		if want := []string{"refused", "refused", "refused"}; !slices.Equal(lines, want) {
			demand.Fail("%s got %q, want %q", network, lines, want)
		}
	}
}

// flush: nothing is balanced, and forwarding is as it was.
func flush(ctx context.Context, s *Stage) {
	r := s.nlb(ctx, "flush", "--sysctl")
	if want := "flushed shop"; !strings.HasPrefix(r.Stdout, want) {
		demand.Fail("flush printed %q, want %q", r.Stdout, want)
	}
	r = s.nlb(ctx, "show")
	if want := "nothing is balanced here"; !strings.HasPrefix(r.Stdout, want) {
		demand.Fail("show printed %q, want %q", r.Stdout, want)
	}
	s.forwards(ctx, "0")
}

// reboot: what was applied, and is in the folder, comes back by itself.
func reboot(ctx context.Context, s *Stage) {
	s.apply(ctx, shop(nil, "abc"))
	start := time.Now()
	s.lab.Reboot(ctx)
	s.Logf("the balancer was back after %.1f s", time.Since(start).Seconds())
	demand.In("after the reboot", func() { s.forwards(ctx, "1") })
	s.prepare(ctx)
	balance(ctx, s)
}

// leave: nothing stays, and nobody answers.
func leave(ctx context.Context, s *Stage) {
	flush(ctx, s)
	line := must(ctx, s.lab.Client, nil, "LIMIT=1s "+s.lab.Peer+" ask tcp "+service+":80 1 0")
	if _, others := split(line); others != "" {
		demand.Fail("after the flush the service answers %q", line)
	}
	must(ctx, s.lab.Balancer, nil, "rm -f "+quote(s.lab.Folder+"/shop.yaml"))
}

// split returns the backend that an answer is from, and the others. Without an
// answer there are no others.
func split(answer string) (name, others string) {
	name, _, ok := strings.Cut(answer, " ")
	if !ok || len(name) != 1 || !strings.Contains(backendsInOrder, name) {
		return answer, ""
	}
	return name, strings.Replace(backendsInOrder, name, "", 1)
}
