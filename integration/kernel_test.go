package integration

// What an apply does to the kernel, and what it leaves alone.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nlb/lb"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/wire"
)

// TestChangeLeavesTheRestAlone: what an apply is not about keeps its
// connections, its counters and its place in the round.
func TestChangeLeavesTheRestAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14")
	profile := func(name, vip string, weights ...int) string {
		return fmt.Sprintf("profile: %s\nservices:\n  - name: web\n    listen: %s:80\n", name, vip) + backends(8080, weights...)
	}
	b.Apply(profile("one", "203.0.113.1", -1, -1, -1), profile("two", "203.0.113.2", -1, -1))

	live, err := b.From().Dial(t.Context(), "tcp", netip.MustParseAddrPort("203.0.113.2:80"))
	b.Check(err)
	defer live.Close()
	// 4 connections have been made, and 1 before: the next is the first again.
	row := b.Row("tcp", "203.0.113.1:80", 4)

	r := b.Apply(profile("two", "203.0.113.2", -1, -1, -1, -1))
	if r.Batches != 1 {
		t.Errorf("the apply took %d batches", r.Batches)
	}
	if got := b.Row("tcp", "203.0.113.1:80", 2); !slices.Equal(got, []string{row[1], row[2]}) {
		t.Errorf("after %v the round went on with %v", row, got)
	}
	if _, err := live.Again(); err != nil {
		t.Errorf("a live connection broke: %v", err)
	}
	s := b.Load()
	for i, want := range []uint64{2, 2, 2} {
		if got := s.Stats("one", "web", endpoint(fmt.Sprintf("10.2.0.%d:8080", 11+i)), nil).Connections; got != want {
			t.Errorf("backend %d counts %d, want %d", i, got, want)
		}
	}
	if got := s.Stats("two", "web", endpoint(live.Reply.Local.String()), nil).Connections; got != 1 {
		t.Errorf("the backend of the live connection counts %d, want 1", got)
	}
	var counted nft.Usage
	b.Kernel(b.Balancer, func(c *wire.Conn) (err error) { counted, err = nft.ReadUsage(c); return err })
	if got := s.Stats("two", "web", endpoint(live.Reply.Local.String()), counted).Live; got != 1 {
		t.Errorf("%d live connections, want 1", got)
	}

	// The same again sends nothing.
	if r := b.Apply(profile("two", "203.0.113.2", -1, -1, -1, -1)); r.Batches != 0 || r.Messages != 0 || len(r.Changes) != 0 {
		t.Errorf("applied again: %+v", r)
	}
	// A flush of one leaves the other.
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, _, err := nft.Flush(t.Context(), c, []string{"two"}, nft.Options{Table: "nlb"})
		return err
	})
	if got := b.Row("tcp", "203.0.113.1:80", 1); got[0] != row[0] {
		t.Errorf("after the flush the round went on with %v, want %s", got, row[0])
	}
	// What is open goes on after the last flush, unless that cuts it.
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, _, err := nft.Flush(t.Context(), c, []string{"one"}, nft.Options{Table: "nlb"})
		return err
	})
	if _, err := live.Again(); err != nil {
		t.Errorf("the last flush broke a live connection: %v", err)
	}
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		_, _, err := nft.Flush(t.Context(), c, nil, nft.Options{Table: "nlb", Cut: true})
		return err
	})
	if list := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); list != "" {
		t.Errorf("left after the last flush:\n%s", list)
	}
}

func endpoint(s string) lb.Endpoint {
	ap := netip.MustParseAddrPort(s)
	return lb.Endpoint{Addr: ap.Addr(), Port: ap.Port()}
}

// many is a profile of n services of three backends.
func many(name string, network, n int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "profile: %s\nservices:\n", name)
	for i := range n {
		fmt.Fprintf(&s, "  - {name: s%d, listen: \"198.18.%d.%d:80\", backends: [\"10.2.0.11:%d\", \"10.2.0.12:%d\", \"10.2.0.13:%d\"]}\n",
			i, network+i/250, i%250, 1000+i, 1000+i, 1000+i)
	}
	return s.String()
}

// TestOneGeneration: nft sees one commit for an apply of 50 services beside 40
// others, and none for the same again.
func TestOneGeneration(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(many("others", 0, 40))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.Witness(b.Balancer, "", "nft", "--version")
	monitor := b.Balancer.Command(ctx, "nft", "monitor")
	out, err := monitor.StdoutPipe()
	b.Check(err)
	b.Check(monitor.Start())
	lines := make(chan string, 1<<12)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := out.Read(buf)
			lines <- string(buf[:n])
			if err != nil {
				close(lines)
				return
			}
		}
	}()
	// The monitor listens when it reports a table that comes and goes.
	seen := ""
	until := func(text string) {
		t.Helper()
		for deadline := time.After(10 * time.Second); !strings.Contains(seen, text); {
			select {
			case s := <-lines:
				seen += s
			case <-deadline:
				t.Fatalf("nft monitor does not report %q", text)
			}
		}
	}
	for i := range 50 {
		b.Witness(b.Balancer, fmt.Sprintf("add table ip probe%d\ndelete table ip probe%d\n", i, i), "nft", "-f", "-")
		select {
		case s := <-lines:
			seen += s
		case <-time.After(20 * time.Millisecond):
			continue
		}
		break
	}
	b.Apply(many("new", 1, 50))
	b.Apply(many("new", 1, 50))
	b.Witness(b.Balancer, "add table ip last\ndelete table ip last\n", "nft", "-f", "-")
	until("delete table ip last")
	generations := 0
	ours := false
	for line := range strings.Lines(seen) {
		ours = ours || strings.Contains(line, "inet nlb")
		if strings.Contains(line, "# new generation") {
			if ours {
				generations++
			}
			ours = false
		}
	}
	if generations != 1 {
		t.Errorf("%d generations for two applies of the same, want 1", generations)
	}
	cancel()
	_ = monitor.Wait()
}

// TestSavedRulesetBalances: what nft prints, loaded again, still balances.
func TestSavedRulesetBalances(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{8080, 80}, "10.2.0.11", "10.2.0.12", "10.2.0.13", "fd02::11", "fd02::12")
	b.Address(b.Balancer, "lo", "192.0.2.1/32", "192.0.2.2/32")
	b.Apply(`profile: 0shop
services:
  - name: "-web"
    listen: ["203.0.113.10:80,8000-8010", "[2001:db8::10]:80"]
    protocol: [tcp, udp]
    snat: [192.0.2.1, 192.0.2.2, "fd02::1"]
    backends:
      - {address: "10.2.0.11:8080", weight: 2}
      - {address: "10.2.0.12:8080", weight: 1, name: second}
      - {address: "10.2.0.13:8080", weight: 0}
      - "[fd02::11]"
      - "[fd02::12]:8080"
  - {name: hash, listen: "203.0.113.11:80", scheduler: hash, hash-by: [source-address, source-port], backends: ["10.2.0.11:80", "10.2.0.12:80"]}
  - {name: none, listen: "203.0.113.12:80", backends: []}
`)
	before := b.Load()
	saved := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	b.Witness(b.Balancer, "flush ruleset\n"+saved, "nft", "-f", "-")
	for range 2 {
		b.WantShares(count(b.Row("tcp", "203.0.113.10:80", 30)), map[string]int{"10.2.0.11": 20, "10.2.0.12": 10})
		b.WantShares(count(b.Row("udp", "203.0.113.10:8005", 30)), map[string]int{"10.2.0.11": 20, "10.2.0.12": 10})
		b.WantShares(count(b.Row("tcp", "[2001:db8::10]:80", 10)), map[string]int{"fd02::11": 5, "fd02::12": 5})
	}
	seen := map[netip.Addr]int{}
	for range 60 {
		seen[b.Ask("tcp", "203.0.113.10:80").Seen.Addr()]++
	}
	if one, two := seen[netip.MustParseAddr("192.0.2.1")], seen[netip.MustParseAddr("192.0.2.2")]; one < 10 || two < 10 || one+two < 60 {
		t.Errorf("sources %v, want about as many of each", seen)
	}
	// nlb reads back what nft has loaded.
	if changes := lb.Compare(before.Profiles, b.Load().Profiles); len(changes) > 0 {
		t.Errorf("nlb sees other profiles than it made: %v", changes)
	}
	if again := b.Witness(b.Balancer, "", "nft", "-s", "list", "ruleset"); again == "" {
		t.Error("the ruleset is gone")
	}
}

// TestTextIsNetlink: the rendered text and the netlink form are the same to nft,
// for every feature of a profile, and what nft lists can be loaded.
func TestTextIsNetlink(t *testing.T) {
	t.Parallel()
	for name, profile := range features {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.Apply(profile)
			ours := b.list()
			// An admin can save what nft lists, and load it again.
			b.Witness(b.Balancer, "flush ruleset\n"+b.Witness(b.Balancer, "", "nft", "list", "ruleset"), "nft", "-c", "-f", "-")
			parsed := []*lb.Profile{b.Parse(profile)}
			if changes := lb.Compare(b.Load().Profiles, parsed); len(changes) > 0 {
				t.Errorf("read back, the profile differs: %v", changes)
			}
			if r := b.Apply(profile); r.Messages != 0 {
				t.Errorf("applied again: %d messages, %v", r.Messages, r.Changes)
			}
			text := compile.Profiles("nlb", parsed).String() + directText(b, parsed)
			b.Witness(b.Balancer, text, "nft", "-f", "-")
			theirs := b.list()
			if len(ours) != len(theirs) {
				t.Errorf("%d objects over netlink, %d from text", len(ours), len(theirs))
			}
			for i := range min(len(ours), len(theirs)) {
				if ours[i] != theirs[i] {
					t.Errorf("over netlink: %s\nfrom text:    %s", ours[i], theirs[i])
				}
			}
			if !strings.Contains(strings.Join(ours, ""), "prerouting") {
				t.Errorf("nft lists no chains: %v", ours)
			}
			// Loading the script again replaces the table.
			b.Witness(b.Balancer, text, "nft", "-f", "-")
			if again := b.list(); !slices.Equal(again, theirs) {
				t.Error("loaded twice, the script gives another table")
			}
			if changes := lb.Compare(b.Load().Profiles, parsed); len(changes) > 0 {
				t.Errorf("read back from nft's text, the profile differs: %v", changes)
			}
		})
	}
}

// list is `nft -j list ruleset`, an object a line, without handles, and
// elements sorted.
func (b *bed) list() []string {
	b.T.Helper()
	var doc struct{ Nftables []map[string]map[string]any }
	b.Check(json.Unmarshal([]byte(b.Witness(b.Balancer, "", "nft", "-j", "list", "ruleset")), &doc))
	var out []string
	for _, o := range doc.Nftables {
		for kind, fields := range o {
			if kind == "metainfo" {
				continue
			}
			delete(fields, "handle")
			if elements, ok := fields["elem"].([]any); ok {
				slices.SortFunc(elements, func(a, b any) int { return strings.Compare(text(a), text(b)) })
			}
		}
		out = append(out, text(o))
	}
	return out
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// narrow is a transport whose socket takes only so many bytes at once, like one
// in a user namespace.
type narrow struct {
	wire.Transport
	limit int
	sent  int
}

func (n *narrow) Reserve(int) (int, error) { return n.limit, nil }

func (n *narrow) Send(p []byte) error {
	n.sent++
	if len(p) > n.limit {
		return fmt.Errorf("%d bytes were sent, of %d", len(p), n.limit)
	}
	return n.Transport.Send(p)
}

// TestSmallSocket: where one batch cannot be sent, several do, which are counted,
// and what cannot be sent is refused before anything is.
func TestSmallSocket(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Serve([]int{1007}, "10.2.0.11", "10.2.0.12", "10.2.0.13")
	over := func(limit int, profile string) (r *nft.Result, err error) {
		var transport wire.Transport
		b.Check(b.Balancer.Do(func() (err error) { transport, err = wire.Open(); return err }))
		c := wire.NewConn(&narrow{Transport: transport, limit: limit})
		defer c.Close()
		return nft.Apply(t.Context(), c, []*lb.Profile{b.Parse(profile)}, asCommand)
	}
	for _, tt := range []struct{ limit, services, batches int }{
		{212_960, 3000, 2}, {16 << 10, 1000, 3}, {4544, 100, 3},
	} {
		before := b.generation()
		profile := many("p", 0, tt.services)
		for _, profile := range []string{profile, strings.ReplaceAll(profile, `:80"`, `:81"`)} {
			r, err := over(tt.limit, profile)
			b.Check(err)
			r.Changes = nil // there are many
			if r.Batches < tt.batches || !r.Split || r.Generation != before+uint32(r.Batches) {
				t.Errorf("%d services over a socket of %d bytes: generation %d, then %+v", tt.services, tt.limit, before, r)
			}
			before = r.Generation
			if r, err := over(tt.limit, profile); err != nil || r.Batches != 0 {
				t.Errorf("applied again: %+v, %v", r, err)
			}
		}
	}
	b.Apply(many("p", 0, 100))
	b.WantShares(count(b.Row("tcp", "198.18.0.7:80", 30)), map[string]int{"10.2.0.11": 10, "10.2.0.12": 10, "10.2.0.13": 10})
	if r := b.Apply(many("p", 0, 100)); r.Messages != 0 {
		t.Errorf("applied again in one: %d messages", r.Messages)
	}
	before := b.generation()
	_, err := over(200, many("p", 0, 101))
	if _, tooBig := errors.AsType[*wire.TooBigError](err); !tooBig || b.generation() != before {
		t.Errorf("a socket of 200 bytes: %v; generation %d, then %d", err, before, b.generation())
	}
}

// A handover takes more than one batch, over any socket; they are counted, and it
// is not the socket's doing.
func TestBatchesOfHandover(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	service := func(name, listen string) string {
		return "profile: shop\nservices: [{name: " + name + ", listen: \"203.0.113.10:" + listen + "\", backends: [10.2.0.11:80]}]\n"
	}
	b.Apply(service("web", "80"))
	for _, tt := range []struct {
		profile string
		batches int
	}{{service("web", "80-89"), 2}, {service("shop", "80-89"), 2}, {service("other", "80"), 3}, {service("other", "81"), 1}} {
		before := b.generation()
		r := b.Apply(tt.profile)
		if r.Batches != tt.batches || r.Split || r.Generation != before+uint32(tt.batches) {
			t.Errorf("%s: %d batches (the socket's doing: %v), generation %d to %d, want %d batches", tt.profile, r.Batches, r.Split, before, r.Generation, tt.batches)
		}
	}
}

// TestDryRun: the kernel checks, and nothing changes.
func TestDryRun(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(many("p", 0, 3))
	before := b.Witness(b.Balancer, "", "nft", "list", "ruleset")
	b.Kernel(b.Balancer, func(c *wire.Conn) error {
		r, err := nft.Apply(t.Context(), c, []*lb.Profile{b.Parse(many("p", 0, 5))}, nft.Options{Table: "nlb", DryRun: true})
		if err == nil && (r.Messages == 0 || len(r.Changes) != 8) {
			t.Errorf("the plan: %+v", r)
		}
		return err
	})
	if after := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); after != before {
		t.Errorf("a dry run has changed the ruleset to\n%s", after)
	}
}
