package scenario

// The stage: what phases do with the hosts.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"nlb/integration/demand"
)

// Stage is a laboratory while the scenario is played on it.
type Stage struct {
	// Logf tells of what was measured.
	Logf func(format string, args ...any)

	lab     *Lab
	life    context.Context // the stage's, which outlives those of the phases
	servers *session
	port    int // the next one for a UDP socket of the client's
}

// skip is the reason why a phase has nothing to show here.
type skip string

func (s skip) Error() string { return string(s) }

// Play plays the whole scenario, each phase as a subtest. After one that failed
// the others have no ground to stand on, and are left out.
func Play(t *testing.T, lab *Lab) {
	t.Helper()
	s, err := Open(t.Context(), lab)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, p := range Phases() {
		if p.Machines && !lab.Machines {
			continue // the namespaces' own tests do what can be done there
		}
		ok := t.Run(p.Name, func(t *testing.T) {
			s.Logf = t.Logf
			err := p.Play(t.Context(), s)
			if reason, ok := errors.AsType[skip](err); ok {
				t.Skipf("SKIPPED, NOT PROVED: %s", string(reason))
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, s.scene(t.Context()))
			}
		})
		if !ok {
			return
		}
	}
}

// Open prepares the hosts and starts the servers. What it makes ends with Close.
func Open(ctx context.Context, lab *Lab) (*Stage, error) {
	// Ports below those that the kernel chooses, and others in each run.
	first := 10000 + int(time.Now().Unix()%20)*1000
	s := &Stage{Logf: func(string, ...any) {}, lab: lab, life: ctx, port: first}
	err := demand.Try(func() {
		s.prepare(ctx)
		// What an earlier run may have left. No exit code says which part failed.
		must(ctx, lab.Balancer, nil, "mkdir -p "+quote(lab.Folder)+"; "+lab.Nlb+" flush --sysctl >/dev/null 2>&1; "+
			"for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 0 >/proc/sys/net/$f; done")
		s.serve(ctx)
	})
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the servers.
func (s *Stage) Close() {
	if s.servers != nil {
		s.servers.end()
	}
}

// scene is what can be seen of a failure on the hosts.
func (s *Stage) scene(ctx context.Context) string {
	var b strings.Builder
	for _, h := range []struct {
		name, script string
		Host
	}{
		{"lb", s.lab.Nlb + " show; nft list ruleset; ip addr; ip route; ip neigh; dmesg | tail", s.lab.Balancer},
		{"client", "ip addr; ip route", s.lab.Client},
		{"server", "ip addr; ip route; ss -lnt || netstat -lnt", s.lab.Server},
	} {
		r, err := h.Run(ctx, nil, "exec 2>&1; "+h.script)
		fmt.Fprintf(&b, "\n%s:\n%s", h.name, r.Stdout)
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	return b.String()
}

func (s *Stage) prepare(ctx context.Context) {
	if s.lab.Prepare != nil {
		s.lab.Prepare(ctx)
	}
}

// serve starts the stand-in backends, and ends those that were there.
func (s *Stage) serve(ctx context.Context) {
	s.Close()
	args := s.lab.Peer + " serve"
	for _, name := range backendsInOrder {
		args += fmt.Sprintf(" %c=%s:%s %c=[%s]:%s", name, backend(name), backendPort, name, backend6(name), backendPort)
	}
	s.servers = start(s.life, s.lab.Server, args)
	if lines := s.servers.lines(ctx, 1); lines[0] != "serving" {
		demand.Fail("the servers said %q", lines)
	}
}

// shop is the scenario's profile, with these backends and weights.
func shop(weights map[string]int, backends string) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "profile: shop\nservices:\n  - name: web\n    listen: [\"%s:80\", \"[%s]:80\"]\n    protocol: [tcp, udp]\n    backends:\n", service, service6)
	for _, name := range backends {
		weight := 1
		if w, ok := weights[string(name)]; ok {
			weight = w
		}
		for _, a := range []string{backend(name), "[" + backend6(name) + "]"} {
			fmt.Fprintf(b, "      - {address: \"%s:%s\", weight: %d}\n", a, backendPort, weight)
		}
	}
	fmt.Fprintf(b, "  - name: direct\n    listen: %s:81\n    snat: none\n    backends: [\"%s:%s\"]\n", service, backend('a'), backendPort)
	return b.String()
}

// write puts the profile where the balancer finds it when it boots.
func (s *Stage) write(ctx context.Context, profile string) {
	must(ctx, s.lab.Balancer, strings.NewReader(profile), "cat >"+quote(s.lab.Folder+"/shop.yaml")+" && sync")
}

func (s *Stage) apply(ctx context.Context, profile string, flags ...string) {
	s.write(ctx, profile)
	s.nlb(ctx, append([]string{"apply", s.lab.Folder}, flags...)...)
}

// nlb runs the command, which has to end with 0.
func (s *Stage) nlb(ctx context.Context, args ...string) Result {
	for i := range args {
		args[i] = quote(args[i])
	}
	script := s.lab.Nlb + " " + strings.Join(args, " ")
	r := demand.Of(s.lab.Balancer.Run(ctx, nil, script))
	if r.Exit != 0 {
		demand.Fail("%s ended with %d: %s%s", script, r.Exit, r.Stdout, r.Stderr)
	}
	return r
}

// forwards demands that the balancer does forward, or does not, in both families.
func (s *Stage) forwards(ctx context.Context, want string) {
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		got := strings.TrimSpace(must(ctx, s.lab.Balancer, nil, "cat /proc/sys/net/"+name))
		if got != want {
			demand.Fail("net/%s is %s, want %s", name, got, want)
		}
	}
}

// ask makes exchanges from the client, and returns a line for each.
func (s *Stage) ask(ctx context.Context, network, to string, n int) []string {
	out := must(ctx, s.lab.Client, nil, fmt.Sprintf("%s ask %s '%s' %d %d", s.lab.Peer, network, to, n, s.port))
	s.port += n
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != n {
		demand.Fail("%d exchanges printed %q", n, lines)
	}
	return lines
}

// shares demands that exchanges are answered by these backends so many times,
// and that the backends saw this source.
func (s *Stage) shares(ctx context.Context, network, to string, n int, want map[string]int, source string) {
	got := map[string]int{}
	for _, line := range s.ask(ctx, network, to, n) {
		name, seen, _ := strings.Cut(line, " ")
		got[name]++
		if i := strings.LastIndex(seen, ":"); i >= 0 && strings.Trim(seen[:i], "[]") != source {
			demand.Fail("%s %s: the backend saw %s, want %s", network, to, seen, source)
		}
	}
	if !maps.Equal(got, want) {
		demand.Fail("%s %s: answers %v, want %v", network, to, got, want)
	}
}
