//go:build linux

package lab

// A balancer that is not nlb: the same profiles as an nft script of the plainest
// sort, so that the lab is tested alone, with faults put in on purpose.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/lb/needs"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// witness applies profiles with the nft program.
type witness struct {
	t testing.TB
	// fault changes the script; nil: it is as it should be.
	fault func(script string) string
	// applied counts the calls.
	applied int
}

func (w *witness) Apply(ctx context.Context, profiles []*lb.Profile) error {
	w.applied++
	for _, n := range needs.Of(profiles) {
		if n.Wanted {
			continue
		}
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(n.Param, ".", "/"), []byte(n.Value), 0); err != nil {
			return err
		}
	}
	script := script(profiles)
	if w.fault != nil {
		faulty := w.fault(script)
		if faulty == script {
			w.t.Errorf("the fault changes nothing of:\n%s", script)
		}
		script = faulty
	}
	cmd := exec.CommandContext(ctx, "nft", "-f", "-") // from a thread in the balancer
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.t.Log(script[:min(len(script), 4000)])
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func script(profiles []*lb.Profile) string {
	var sets, in, out, post, chains strings.Builder
	for i, s := range services(profiles) {
		for _, f := range s.Families() {
			ip := map[lb.Family]string{lb.IPv4: "ip", lb.IPv6: "ip6"}[f]
			chain := fmt.Sprintf("s%d_%s", i, ip)
			match := listens(s, f, ip)
			for _, m := range match {
				if s.Role != lb.RoleClient {
					iif, own := "", ""
					if s.Interface != "" {
						iif = fmt.Sprintf("iifname %q ", s.Interface)
					}
					if s.Role == lb.RoleServer {
						own = "fib daddr type local "
					}
					fmt.Fprintf(&in, "  %s%s%s goto %s\n", iif, own, m, chain)
				}
				if s.Role == lb.RoleClient || s.Role == lb.RoleProxy && s.Interface == "" {
					fmt.Fprintf(&out, "  %s goto %s\n", m, chain)
				}
			}
			pick(s, f, ip, chain, i, &sets, &chains, &post)
		}
	}
	return fmt.Sprintf(`table inet witness
delete table inet witness
table inet witness {
%s chain prerouting {
  type nat hook prerouting priority -100
%s }
 chain output {
  type nat hook output priority -100
%s }
 chain postrouting {
  type nat hook postrouting priority 100
  ct mark 0xffff masquerade # a ruleset without a translation gets no packets
%s }
 chain refuse {
  meta l4proto tcp reject with tcp reset
  reject
 }
%s}
`, &sets, &in, &out, &post, &chains)
}

func listens(s *lb.Service, f lb.Family, ip string) []string {
	var out []string
	for _, l := range s.Listen {
		daddr := "meta nfproto " + map[lb.Family]string{lb.IPv4: "ipv4", lb.IPv6: "ipv6"}[f] + " fib daddr type local "
		if l.Prefix.IsValid() {
			if lb.FamilyOf(l.Prefix.Addr()) != f {
				continue
			}
			daddr = ip + " daddr " + l.Prefix.String() + " "
		}
		for _, r := range l.Ports {
			for _, p := range s.Protocols {
				ports := ""
				if r != lb.AllPorts {
					ports = fmt.Sprintf(" th dport %s", r)
				}
				out = append(out, daddr+"meta l4proto "+p.String()+ports)
			}
		}
	}
	return out
}

// pick writes the chain of a service and family.
func pick(s *lb.Service, f lb.Family, ip, chain string, n int, sets, chains, post *strings.Builder) {
	fmt.Fprintf(chains, " chain %s {\n", chain)
	defer fmt.Fprintf(chains, " }\n")
	for _, p := range s.Deny {
		if lb.FamilyOf(p.Addr()) == f {
			fmt.Fprintf(chains, "  %s saddr %s goto refuse\n", ip, p)
		}
	}
	if s.Allow != nil {
		var allowed []string
		for _, p := range s.Allow {
			if lb.FamilyOf(p.Addr()) == f {
				allowed = append(allowed, p.String())
			}
		}
		fmt.Fprintf(chains, "  %s saddr != { %s } goto refuse\n", ip, strings.Join(allowed, ", "))
	}
	if q := s.Limit.ConnectionsPerSource; q > 0 {
		fmt.Fprintf(sets, " set live_%s { typeof %s saddr; flags dynamic; }\n", chain, ip)
		fmt.Fprintf(chains, "  add @live_%s { %s saddr ct count over %d } goto refuse\n", chain, ip, q)
	}
	if r := s.Limit.NewPerSource; r.Events > 0 {
		fmt.Fprintf(sets, " set new_%s { typeof %s saddr; flags dynamic; timeout 60s; }\n", chain, ip)
		fmt.Fprintf(chains, "  add @new_%s { %s saddr limit rate over %d/second burst %d packets } goto refuse\n", chain, ip, r.Events, s.Limit.Burst)
	}
	if r := s.Limit.New; r.Events > 0 {
		fmt.Fprintf(chains, "  limit rate over %d/second goto refuse\n", r.Events)
	}
	var weights []int
	for _, b := range s.Of(f) {
		weights = append(weights, b.Effective())
	}
	mark := func(i int) int { return 0x10000 + n<<8 + i }
	slots := lb.Slots(weights)
	if len(slots) == 0 {
		fmt.Fprintf(chains, "  %s\n", map[lb.OnEmpty]string{lb.Reject: "goto refuse", lb.Drop: "drop"}[s.OnEmpty])
		return
	}
	var elements []string
	for slot, b := range slots {
		elements = append(elements, fmt.Sprintf("%d : %d", slot, mark(b)))
	}
	draw := fmt.Sprintf("numgen inc mod %d", len(slots))
	switch s.Scheduler {
	case lb.Random:
		draw = fmt.Sprintf("numgen random mod %d", len(slots))
	case lb.Hash, lb.Consistent: // by another table, of the same shares
		draw = fmt.Sprintf("jhash %s mod %d seed 0x7", hashed(s, ip), len(slots))
	}
	if s.Affinity != nil {
		fmt.Fprintf(sets, " map a_%s { typeof %s saddr : ct mark; flags dynamic, timeout; timeout 60s; }\n", chain, ip)
		fmt.Fprintf(chains, "  ct mark set %s saddr & %s map @a_%s\n", ip, mask(s, f), chain)
	}
	fmt.Fprintf(chains, "  ct mark 0 ct mark set %s map { %s }\n", draw, strings.Join(elements, ", "))
	if s.Affinity != nil {
		fmt.Fprintf(chains, "  update @a_%s { %s saddr & %s : ct mark }\n", chain, ip, mask(s, f))
	}
	if len(weights) > 100 { // what a user namespace's socket cannot take one by one
		var all []string
		for i, b := range s.Of(f) {
			all = append(all, fmt.Sprintf("%d : %s . %d", mark(i), b.Address.Addr, b.Address.Port))
		}
		fmt.Fprintf(chains, "  meta l4proto { tcp, udp } dnat %s to ct mark map { %s }\n", ip, strings.Join(all, ", "))
		fmt.Fprintf(post, "  ct mark %d-%d masquerade\n", mark(0), mark(len(all)-1))
		return
	}
	for i, b := range s.Of(f) {
		if b.MaxConnections > 0 {
			fmt.Fprintf(chains, "  ct mark %d ct count over %d goto refuse\n", mark(i), b.MaxConnections)
		}
		fmt.Fprintf(chains, "  ct mark %d meta l4proto { tcp, udp } dnat %s to %s\n", mark(i), ip, b.Address)
		snat := map[lb.SNATMode]string{lb.Masquerade: "masquerade", lb.SNATVIP: "snat " + ip + " to ct original " + ip + " daddr"}[b.SNAT.Mode]
		if pool := b.SNAT.Of(f); pool != nil {
			snat = fmt.Sprintf("snat %s to numgen inc mod %d map { %s }", ip, len(pool), numbered(pool))
		}
		if snat != "" {
			fmt.Fprintf(post, "  ct mark %d %s\n", mark(i), snat)
		}
	}
}

func mask(s *lb.Service, f lb.Family) string {
	ones := netip.MustParseAddr("255.255.255.255")
	bits := s.Affinity.Bits
	if f == lb.IPv6 {
		ones, bits = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), s.Affinity.Bits6
	}
	p, _ := ones.Prefix(bits)
	return p.Addr().String()
}

func numbered(addrs []netip.Addr) string {
	var out []string
	for i, a := range addrs {
		out = append(out, fmt.Sprintf("%d : %s", i, a))
	}
	return strings.Join(out, ", ")
}

func hashed(s *lb.Service, ip string) string {
	words := map[lb.HashField]string{
		lb.SourceAddress: ip + " saddr", lb.SourcePort: "th sport", lb.DestinationAddress: ip + " daddr",
		lb.DestinationPort: "th dport", lb.ByProtocol: "meta l4proto",
	}
	var out []string
	for _, f := range s.HashBy {
		out = append(out, words[f])
	}
	return strings.Join(out, " . ")
}
