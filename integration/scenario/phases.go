package scenario

// The phases: what each one does and demands.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Phase is a part of the scenario. Each goes on from where the one before it
// left the hosts.
type Phase struct {
	Name string
	Play func(context.Context, *Stage) error
	// Machines says that network namespaces cannot show it.
	Machines bool
}

// Phases are the scenario, in order.
func Phases() []Phase {
	return []Phase{
		{Name: "apply", Play: apply},
		{Name: "balance", Play: balance},
		{Name: "drain", Play: drain},
		{Name: "remove", Play: remove},
		{Name: "refuse", Play: refuse},
		{Name: "flush", Play: flush},
		{Name: "reboot", Play: reboot},
		{Name: "log", Play: logged, Machines: true},
		{Name: "sctp", Play: sctp, Machines: true},
		{Name: "dummy interface", Play: dummy, Machines: true},
		{Name: "leave", Play: leave},
	}
}

// apply: the profile is in the kernel, and forwarding, which was off, is on.
func apply(ctx context.Context, s *Stage) error {
	if err := s.forwards(ctx, "0"); err != nil {
		return fmt.Errorf("before the first apply: %w", err)
	}
	if err := s.write(ctx, shop(nil, "abc")); err != nil {
		return err
	}
	r, err := s.nlb(ctx, "apply", s.lab.Folder)
	if err != nil {
		return err
	}
	if want := "applied shop: 2 services, 7 backends (+9 ~0 -0)"; !strings.HasPrefix(r.Stdout, want) {
		return fmt.Errorf("apply printed %q, want %q", r.Stdout, want)
	}
	// The second one is not there on a machine that has tracked no connection
	// since it was booted.
	for _, want := range []string{"net.ipv4.ip_forward=1 (was 0)", "net.netfilter.nf_conntrack_tcp_be_liberal=1 (was 0)"} {
		if !strings.Contains(r.Stderr, want) {
			return fmt.Errorf("apply did not say %q: %q", want, r.Stderr)
		}
	}
	return s.forwards(ctx, "1")
}

// balance: exact shares, and the sources that the backends are to see.
func balance(ctx context.Context, s *Stage) error {
	for _, c := range []struct{ network, to, source string }{
		{"tcp", service + ":80", balancerBack},
		{"udp", service + ":80", balancerBack},
		{"tcp", "[" + service6 + "]:80", balancerBack6},
		{"udp", "[" + service6 + "]:80", balancerBack6},
	} {
		if err := s.shares(ctx, c.network, c.to, 30, map[string]int{"a": 10, "b": 10, "c": 10}, c.source); err != nil {
			return err
		}
	}
	// snat: none
	return s.shares(ctx, "tcp", service+":81", 3, map[string]int{"a": 3}, clientAddress)
}

// drain: a backend of weight 0 keeps its connection, and gets no other.
func drain(ctx context.Context, s *Stage) error {
	held, err := s.hold(ctx, "tcp", service+":80")
	if err != nil {
		return err
	}
	defer held.end()
	first, err := held.say(ctx)
	if err != nil {
		return err
	}
	drained, others := split(first)
	if others == "" {
		return fmt.Errorf("the connection to be held got %q, want an answer", first)
	}
	if err := s.apply(ctx, shop(map[string]int{drained: 0}, "abc")); err != nil {
		return err
	}
	want := map[string]int{others[:1]: 10, others[1:]: 10}
	if err := s.shares(ctx, "tcp", service+":80", 20, want, balancerBack); err != nil {
		return fmt.Errorf("with %s at weight 0: %w", drained, err)
	}
	again, err := held.say(ctx)
	if err == nil && again != first {
		err = fmt.Errorf("the connection that was open got %q, before the drain %q", again, first)
	}
	return err
}

// remove: a UDP flow moves away from a backend that is gone, a TCP connection
// stays with it, unless --cut ends it.
func remove(ctx context.Context, s *Stage) error {
	// Both the same backend: the only one there is.
	if err := s.apply(ctx, shop(nil, "a")); err != nil {
		return err
	}
	held := map[string]*held{}
	for _, network := range []string{"tcp", "udp"} {
		h, err := s.hold(ctx, network, service+":80")
		if err != nil {
			return err
		}
		defer h.end()
		if err := h.from(ctx, "a"); err != nil {
			return fmt.Errorf("%s, before the removal: %w", network, err)
		}
		held[network] = h
	}
	if err := s.apply(ctx, shop(nil, "b")); err != nil {
		return err
	}
	if err := held["tcp"].from(ctx, "a"); err != nil {
		return fmt.Errorf("tcp, after the removal of a: %w", err)
	}
	if err := held["udp"].from(ctx, "b"); err != nil {
		return fmt.Errorf("udp, after the removal of a: %w", err)
	}
	if err := s.shares(ctx, "tcp", service+":80", 10, map[string]int{"b": 10}, balancerBack); err != nil {
		return err
	}
	return s.cut(ctx)
}

// cut: the removal of b ends its connection.
func (s *Stage) cut(ctx context.Context) error {
	help, err := s.nlb(ctx, "apply", "--help")
	if err != nil {
		return err
	}
	if !strings.Contains(help.Stdout, "--cut") {
		s.Logf("NOT PROVED: this nlb has no --cut")
		return nil
	}
	h, err := s.hold(ctx, "tcp", service+":80")
	if err != nil {
		return err
	}
	defer h.end()
	if err := h.from(ctx, "b"); err != nil {
		return err
	}
	if err := s.apply(ctx, shop(nil, "c"), "--cut"); err != nil {
		return err
	}
	line, err := h.say(ctx)
	if err != nil {
		return err
	}
	if _, others := split(line); others != "" {
		return fmt.Errorf("after --cut the connection to b got %q, want its end", line)
	}
	return nil
}

// refuse: without a backend that takes connections they are refused at once.
func refuse(ctx context.Context, s *Stage) error {
	if err := s.apply(ctx, shop(map[string]int{"b": 0, "c": 0}, "bc")); err != nil {
		return err
	}
	for _, network := range []string{"tcp", "udp"} {
		lines, err := s.ask(ctx, network, service+":80", 3)
		if err != nil {
			return err
		}
		if want := []string{"refused", "refused", "refused"}; !slices.Equal(lines, want) {
			return fmt.Errorf("%s got %q, want %q", network, lines, want)
		}
	}
	return nil
}

// flush: nothing is balanced, and forwarding is as it was.
func flush(ctx context.Context, s *Stage) error {
	r, err := s.nlb(ctx, "flush", "--sysctl")
	if err != nil {
		return err
	}
	if want := "flushed shop"; !strings.HasPrefix(r.Stdout, want) {
		return fmt.Errorf("flush printed %q, want %q", r.Stdout, want)
	}
	if r, err = s.nlb(ctx, "show"); err != nil {
		return err
	}
	if want := "nothing is balanced here"; !strings.HasPrefix(r.Stdout, want) {
		return fmt.Errorf("show printed %q, want %q", r.Stdout, want)
	}
	return s.forwards(ctx, "0")
}

// reboot: what was applied, and is in the folder, comes back by itself.
func reboot(ctx context.Context, s *Stage) error {
	if err := s.apply(ctx, shop(nil, "abc")); err != nil {
		return err
	}
	start := time.Now()
	if err := s.lab.Reboot(ctx); err != nil {
		return err
	}
	s.Logf("the balancer was back after %.1f s", time.Since(start).Seconds())
	if err := s.forwards(ctx, "1"); err != nil {
		return fmt.Errorf("after the reboot: %w", err)
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return balance(ctx, s)
}

// leave: nothing stays, and nobody answers.
func leave(ctx context.Context, s *Stage) error {
	if err := flush(ctx, s); err != nil {
		return err
	}
	line, err := must(ctx, s.lab.Client, nil, "LIMIT=1s "+s.lab.Peer+" ask tcp "+service+":80 1 0")
	if err != nil {
		return err
	}
	if _, others := split(line); others != "" {
		return fmt.Errorf("after the flush the service answers %q", line)
	}
	_, err = must(ctx, s.lab.Balancer, nil, "rm -f "+quote(s.lab.Folder+"/shop.yaml"))
	return err
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
