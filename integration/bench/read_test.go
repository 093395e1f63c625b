//go:build linux

package bench

// Reading: what the kernel holds, and what a file holds.

import (
	"fmt"
	"os"
	"testing"
	"time"

	"nlb/integration/netlab/netlabtest"
)

// BenchmarkCheck is beside a program that only decodes the same YAML.
func BenchmarkCheck(b *testing.B) {
	prepare(b)
	n := size(10_000)
	profile := save(b, "check.yaml", fleet("fleet", 0, n))
	self, err := os.Executable()
	netlabtest.Must(b, err)
	var ours, theirs usages
	for b.Loop() {
		ours.alone(b, *program, "check", profile)
		theirs.alone(b, self, "decode", profile)
	}
	compare(b, "nlb check, "+grouped(n)+" x 3", ours.Walls, "yaml.v4 decoding the file", theirs.Walls, 0)
}

// BenchmarkShow has many live connections, and is beside the programs that
// list the rules and the connections.
func BenchmarkShow(b *testing.B) {
	prepare(b)
	n, live := size(10_000), 10*size(10_000)
	p := newPath(b)
	output(b, p.Balancer, "", *program, "apply", save(b, "show.yaml", fleet("fleet", 0, n)))
	netlabtest.Must(b, p.Balancer.SetSysctl("net.netfilter.nf_conntrack_udp_timeout", "3600"))
	p.send(b, p.train(live, toServices(n)))
	tracked, err := p.Balancer.Sysctl("net.netfilter.nf_conntrack_count")
	netlabtest.Must(b, err)
	if tracked != fmt.Sprint(live) {
		b.Fatalf("%s of %d connections are tracked", tracked, live)
	}
	var ours, rules, flows usages
	for b.Loop() {
		quiet()
		ours.timed(b, p.Balancer, *program, "show", "--json")
		quiet()
		rules.timed(b, p.Balancer, "nft", "-j", "list", "table", "inet", "nlb")
		quiet()
		flows.timed(b, p.Balancer, "conntrack", "-L")
	}
	both := make([]time.Duration, len(rules.Walls))
	for i := range both {
		both[i] = rules.Walls[i] + flows.Walls[i]
	}
	compare(b, fmt.Sprintf("nlb show --json, %s x 3 with %s live connections", grouped(n), grouped(live)), ours.Walls, "nft -j list, then conntrack -L", both, 0)
	compareSizes(b, ours.RSS, "nft -j list", rules.RSS, 0)
}
