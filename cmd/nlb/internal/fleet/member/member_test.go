//go:build linux

package member

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	etcd "go.etcd.io/etcd/client/v3"

	"nlb/cmd/nlb/internal/fleet"
	"nlb/cmd/nlb/internal/source"
	"nlb/integration/netlab/netlabtest"
)

// TestPush: what was pushed is balanced; a missing key changes nothing, and only
// absent removes; undo brings back what was before.
func TestPush(t *testing.T) {
	s := newSite(t, false, nil)
	said, err := s.admin.push(fleet.Ask{Read: these(
		sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.11", "10.2.0.12")), sourceOf(t, "mail", yaml("mail", "203.0.113.11:25", "10.2.0.13")),
	), Message: "more"}, bound)
	if err != nil || !strings.Contains(said, "+ backend shop/web 10.2.0.12") || !strings.Contains(said, "pushed mail, sequence 1; shop, sequence 2 (") {
		t.Errorf("%v\n%s", err, said)
	}
	s.balances("mail 10.2.0.13 shop 10.2.0.11 10.2.0.12")
	if said, err = s.admin.push(fleet.Ask{Read: these(sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.11", "10.2.0.12")))}, bound); err != nil || !strings.Contains(said, "nothing to push") {
		t.Errorf("%v\n%s", err, said)
	}
	_, err = s.admin.push(fleet.Ask{Read: these(sourceOf(t, "thief", yaml("thief", shopAt, "10.2.0.12")))}, bound)
	if _, ok := errors.AsType[*source.InvalidError](err); !ok {
		t.Errorf("in conflict: %v", err)
	}
	if said, err = s.admin.push(fleet.Ask{Undo: []string{"shop"}}, bound); err != nil || !strings.Contains(said, "- backend shop/web 10.2.0.12") {
		t.Errorf("undo: %v\n%s", err, said)
	}
	s.balances("mail 10.2.0.13 shop 10.2.0.11")
	if _, err := s.admin.push(fleet.Ask{Undo: []string{"mail"}}, bound); !isRefused(err, "nothing was before sequence 1 of mail") {
		t.Errorf("undo of the first: %v", err)
	}
	s.admin.well(s.node)

	s.etcd.Delete("nlb/v1/desired/mail")
	s.node.stop()
	s.node.start()
	s.admin.shows(s.node, "n1: mail: its key is gone, keeps 1")
	s.balances("mail 10.2.0.13 shop 10.2.0.11")
	s.admin.pushes("mail", yaml("mail", "203.0.113.11:25", "10.2.0.13"))
	s.admin.well(s.node)
	if said, err = s.admin.push(fleet.Ask{Remove: []string{"mail"}}, bound); err != nil {
		t.Errorf("remove: %v\n%s", err, said)
	}
	s.goesOn()
	s.admin.well(s.node)
	s.fine()
	s.etcd.Delete("nlb/v1/blob/"+fleet.HashOf([]byte(yaml("shop", shopAt, "10.2.0.11"))), etcd.WithPrefix())
	said, err = s.admin.push(fleet.Ask{Read: these(sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.11", "10.2.0.12")))}, bound)
	if err != nil || !strings.Contains(said, "the changes of shop are not known: ") || strings.Contains(said, "+ ") {
		t.Errorf("what was before is gone: %v\n%s", err, said)
	}
}

// TestRefused: what cannot be right is refused with its reason, on the node and for
// the fleet, while traffic goes on; a push mends it.
func TestRefused(t *testing.T) {
	s := newSite(t, false, nil)
	const good = "profile: shop\nservices: []\n"
	for _, tt := range []struct{ name, key, value, blob, want string }{
		{"an error", "shop", pointer(100, fleet.HashOf([]byte(bad))), packed(t, bad), "shop.yaml:3:32: error: unknown key bakends"},
		{"another name", "shop", pointer(200, fleet.HashOf([]byte("profile: web\nservices: []\n"))), packed(t, "profile: web\nservices: []\n"), "the profile is called web"},
		{"10 MB", "shop", pointer(300, fleet.HashOf([]byte(large))), packed(t, large), "more than 8388608 bytes"},
		{"a bomb", "shop", pointer(400, strings.Repeat("b", 64)), packed(t, strings.Repeat(" ", 400<<20)), "more than 8388608 bytes"},
		{"no gzip", "shop", pointer(500, strings.Repeat("0", 64)), "services: []", "the blob is no gzip"},
		{"half a gzip", "shop", pointer(600, strings.Repeat("1", 64)), packed(t, large)[:2000], "the blob is no whole gzip"},
		{"another hash", "shop", pointer(700, strings.Repeat("2", 64)), packed(t, good), "and 222222222222... was pushed"},
		{"no blob", "shop", pointer(800, strings.Repeat("3", 64)), "", "lacks part 1 of 1"},
		{"no pointer", "shop", `{"hello": "world"}`, "", "it is nothing that this nlb writes"},
		{"a huge pointer", "shop", `{"seq": 1` + strings.Repeat(" ", 100<<10) + "}", "", "want at most 65536"},
		{"sequence 0", "shop", pointer(0, strings.Repeat("3", 64)), "", "seq is 0"},
		{"a conflict", "thief", pointer(1, fleet.HashOf([]byte(yaml("thief", shopAt, "10.2.0.12")))), packed(t, yaml("thief", shopAt, "10.2.0.12")), "thief.yaml:3:25: error:"},
	} {
		if tt.blob != "" {
			s.etcd.Put("nlb/v1/blob/"+hashIn(tt.value)+"/0000", tt.blob)
		}
		s.etcd.Put("nlb/v1/desired/"+tt.key, tt.value)
		s.admin.shows(s.node, tt.want)
		s.says("of " + tt.key)
		s.goesOn()
		if tt.key == "shop" {
			s.admin.pushes("shop", yaml("shop", shopAt, "10.2.0.11"))
		} else if _, err := s.admin.push(fleet.Ask{Remove: []string{tt.key}}, bound); err != nil {
			t.Errorf("%s: remove: %v", tt.name, err)
		}
		s.fine()
		if got, ok := s.admin.report(); !ok {
			t.Errorf("%s: after a push: %s", tt.name, got)
		}
	}
	// Somebody else's keys are said, and harm nobody.
	s.etcd.Put("nlb/v1/desired/not/a name\x1b", "x")
	s.admin.shows(s.node, `the key "nlb/v1/desired/not/a name\x1b" is not nlb's`)
	s.goesOn()
	// A push refuses what is too large before anything is changed.
	text := yaml("shop", shopAt, "10.2.0.11") + large
	if _, err := s.admin.push(fleet.Ask{Read: these(sourceOf(t, "shop", text))}, bound); !isRefused(err, "shop.yaml has 104") {
		t.Errorf("a push of 10 MB: %v", err)
	}
}

// TestClock: a clock that is wrong is said, and decides nothing.
func TestClock(t *testing.T) {
	s := newSite(t, false, func(m *Member) { m.now = func() time.Time { return time.Now().Add(-366 * 24 * time.Hour) } })
	s.admin.pushes("mail", yaml("mail", "203.0.113.11:25", "10.2.0.13"))
	s.admin.shows(s.node, "n1: its clock is -878")
	s.balances("mail 10.2.0.13 shop 10.2.0.11")
}

// TestRestored: an etcd from an old backup is found out, refused, and mended by a push.
func TestRestored(t *testing.T) {
	s := newSite(t, false, nil)
	back := s.etcd.Copy()
	s.admin.pushes("shop", yaml("shop", shopAt, "10.2.0.12"))
	s.admin.pushes("shop", yaml("shop", shopAt, "10.2.0.11"))
	back()
	s.says("Refused sequence 1 of shop")
	s.admin.shows(s.node, "it is older than sequence 3, which was here: etcd may have been restored")
	s.goesOn()
	s.admin.pushes("shop", yaml("shop", shopAt, "10.2.0.11"))
	s.admin.well(s.node)
	s.fine()
	if k, err := s.admin.store.Known(t.Context()); err != nil || k.Pointers["shop"].Seq != 4 {
		t.Errorf("pushed as sequence %d, want 4: %v", k.Pointers["shop"].Seq, err)
	}
}

// TestTwoAdmins: of two pushes made of the same state, one is told who was faster.
func TestTwoAdmins(t *testing.T) {
	s := newSite(t, false, nil)
	ask := fleet.Ask{By: "bob@ops", Read: these(sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.12")))}
	plan, err := s.admin.store.Plan(t.Context(), ask)
	netlabtest.Must(t, err)
	s.admin.pushes("shop", yaml("shop", shopAt, "10.2.0.11", "10.2.0.13"))
	if err := s.admin.store.Commit(t.Context(), plan); !isRefused(err, "alice@ops has pushed sequence 2 of shop meanwhile") {
		t.Errorf("the second: %v", err)
	}
	s.balances("shop 10.2.0.11 10.2.0.13")
}

// TestExpired: a certificate whose time has run out is said with its date, once a
// connection needs it; a new one needs no restart.
func TestExpired(t *testing.T) {
	s := newSite(t, true, nil)
	const holds = 2 * time.Second
	s.etcd.Issue("n1", -time.Hour, holds)
	time.Sleep(holds + time.Second) // it holds to the second
	s.admin.well(s.node)
	s.goesOn()
	alive, err := s.etcd.Client.Get(t.Context(), "nlb/v1/alive/n1")
	netlabtest.Must(t, err)
	_, err = s.etcd.Client.Revoke(t.Context(), etcd.LeaseID(alive.Kvs[0].Lease)) // else the connection would just stay
	netlabtest.Must(t, err)
	s.says("has expired on ")
	s.goesOn()
	s.admin.shows(s.node, "n1 is lost")
	s.etcd.Issue("n1", -time.Hour, time.Hour)
	s.fine()
	s.admin.well(s.node)
}

// TestGone: without etcd the node goes on, also after a restart, and says since when.
func TestGone(t *testing.T) {
	s := newSite(t, false, nil)
	s.etcd.Kill(0)
	s.node.stop()
	netlabtest.Must(t, s.host.Do(flush)) // as after a boot
	s.node.start()
	s.says("Alone in its fleet since 20")
	s.says("connection refused")
	s.goesOn()
	s.etcd.Begin(0)
	s.fine()
	s.admin.well(s.node)
	s.admin.pushes("mail", yaml("mail", "203.0.113.11:25", "10.2.0.13"))
	s.balances("mail 10.2.0.13 shop 10.2.0.11")
}

// TestCompacted: who was away while etcd forgot, reads everything again.
func TestCompacted(t *testing.T) {
	s := newSite(t, false, nil)
	s.node.stop()
	_, err := s.admin.push(fleet.Ask{Read: these(sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.12")))}, 100*time.Millisecond)
	if !errors.Is(err, fleet.ErrStopped) {
		t.Errorf("a push while the node is away: %v", err)
	}
	r, err := s.etcd.Client.Get(t.Context(), "nlb/v1/desired/shop")
	netlabtest.Must(t, err)
	_, err = s.etcd.Client.Compact(t.Context(), r.Header.Revision)
	netlabtest.Must(t, err)
	s.node.start()
	s.balances("shop 10.2.0.12")
	s.admin.well(s.node)
}

// TestDiskFull: what was applied and cannot be kept is said until it can.
func TestDiskFull(t *testing.T) {
	s := newSite(t, false, nil)
	fill, free := fullDisk(s.config.State)
	netlabtest.Must(t, fill())
	s.admin.pushes("mail", yaml("mail", "203.0.113.11:25", "10.2.0.13"))
	s.balances("mail 10.2.0.13 shop 10.2.0.11")
	s.admin.shows(s.node, "cannot be kept for the next start: write")
	s.admin.shows(s.node, "no space left on device")
	s.says("no space left on device")
	netlabtest.Must(t, free())
	s.admin.well(s.node)
	s.etcd.Kill(0)
	s.node.stop()
	netlabtest.Must(t, s.host.Do(flush))
	s.node.start()
	s.balances("mail 10.2.0.13 shop 10.2.0.11")
}

// TestDamaged: a state folder that is damaged is no reason to balance less.
func TestDamaged(t *testing.T) {
	s := newSite(t, false, nil)
	s.node.stop()
	netlabtest.Must(t, damage(s.config.State))
	s.node.start()
	s.goesOn()
	s.fine()
	s.admin.well(s.node)
}

// TestCutOff: of four nodes two are cut off. The others get what is pushed, and it is
// said who does not; back again, they have it.
func TestCutOff(t *testing.T) {
	e, a, nodes := crowd(t, 1, 4, false)
	for _, n := range nodes[2:] {
		n.stop()
		c := *n.config // where nobody answers
		c.Endpoints = []string{"http://127.0.0.1:1"}
		n.config = &c
		n.start()
		e.Delete("nlb/v1/alive/" + n.name) // as its lease does after a while
	}
	nodes[2].says("Alone in its fleet since 20")
	a.shows(nodes[0], "n4 is lost: its last word is")
	said, err := a.push(fleet.Ask{Read: these(sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.12")))}, bound)
	if err != nil || !strings.Contains(said, "n3, n4 are lost, and will have it once back") || !strings.Contains(said, "2 nodes of 4") {
		t.Errorf("%v\n%s", err, said)
	}
	nodes[1].balances("shop 10.2.0.12")
	nodes[3].balances("shop 10.2.0.11")
	a.shows(nodes[0], "n3: shop: is to have sequence 2, keeps 1")
	for _, n := range nodes[2:] {
		n.stop()
		c := *n.config
		c.Endpoints = e.Endpoints
		n.config = &c
		n.start()
		n.balances("shop 10.2.0.12")
	}
	a.well(nodes[0])
}

// TestCanary: some nodes have it first. Where one is worse off, refuses or is lost, it
// stops there, and the others keep what they have; undo brings all back together.
func TestCanary(t *testing.T) {
	_, a, nodes := crowd(t, 1, 3, false)
	push := func(wait time.Duration, canary, text string) (string, error) {
		return a.push(fleet.Ask{Read: these(sourceOf(t, "shop", text)), Canary: canary}, wait)
	}
	said, err := push(bound, "n1,n2", strings.Replace(yaml("shop", shopAt, "{address: 10.2.0.12, check-at: '127.0.0.1:1'}"), "backends", "health: {check: tcp, interval: 200ms}, backends", 1))
	if !errors.Is(err, fleet.ErrStopped) || !strings.Contains(said, "shop: 1 backends are down, and 0 were") || !strings.Contains(said, "stopped; the stage stays at n1, n2; nlb push --undo shop") {
		t.Errorf("worse: %v\n%s\n%s", err, said, nodes[0].logged())
	}
	nodes[1].balances("shop 10.2.0.12")
	nodes[2].balances("shop 10.2.0.11")
	if got, ok := a.report(); !ok || !strings.Contains(got, "n1,n2") || !strings.Contains(got, "3/3") {
		t.Errorf("the stage is not shown: %s", got)
	}
	nodes[2].stop() // a node that comes back meanwhile stays with what was before
	nodes[2].start()
	nodes[2].balances("shop 10.2.0.11")
	if said, err := a.push(fleet.Ask{Undo: []string{"shop"}}, bound); err != nil {
		t.Errorf("undo: %v\n%s", err, said)
	}
	nodes[0].balances("shop 10.2.0.11")
	// What this admin may push, and a node does not do.
	said, err = push(bound, "1", strings.Replace(yaml("shop", shopAt, "10.2.0.12"), "backends", "health: {check: exec, command: [/bin/true]}, backends", 1))
	if !errors.Is(err, fleet.ErrStopped) || !strings.Contains(said, "n1 refused shop: shop.yaml:3:5: error: service web has a check that runs a command") {
		t.Errorf("refused: %v\n%s", err, said)
	}
	nodes[1].balances("shop 10.2.0.11")
	a.soak = 100 * time.Millisecond
	said, err = push(bound, "n2", yaml("shop", shopAt, "10.2.0.13"))
	if err != nil || !strings.Contains(said, "pushed shop, sequence 5 (+1 ~0 -1): 3 nodes of 3") {
		t.Errorf("well: %v\n%s", err, said)
	}
	for _, n := range nodes {
		n.balances("shop 10.2.0.13")
	}
	a.well(nodes[0])
	nodes[2].stop()
	if said, err = push(time.Second, "n3", yaml("shop", shopAt, "10.2.0.14")); !errors.Is(err, fleet.ErrStopped) || !strings.Contains(said, "n3 does not have it after 1s") {
		t.Errorf("away: %v\n%s", err, said)
	}
	for canary, want := range map[string]string{"n9": `"n9" is no node that is there`, "4": "4 nodes cannot be first"} {
		if _, err = push(time.Second, canary, yaml("shop", shopAt, "10.2.0.14")); !isRefused(err, want) {
			t.Errorf("canary %s: %v", canary, err)
		}
	}
}

// TestOut: one node at a time is out, never the last, and none while another is lost
// or a backend drains; it remembers that when it starts again.
func TestOut(t *testing.T) {
	e, a, nodes := crowd(t, 1, 2, false)
	ctx := t.Context()
	netlabtest.Must(t, a.store.TakeOut(ctx, "n1", "alice"), a.store.AwaitOut(ctx, "n1", true, bound))
	nodes[0].says("Out, by order")
	nodes[0].serves(false)
	nodes[1].serves(true)
	if err := a.store.TakeOut(ctx, "n2", "bob"); !isRefused(err, "n1 is out, by alice since") {
		t.Errorf("a second node: %v", err)
	}
	if err := a.store.BringIn(ctx, "n2", "bob"); !isRefused(err, "n2 is not out; n1 is") {
		t.Errorf("in of another: %v", err)
	}
	e.Kill(0)
	nodes[0].stop()
	nodes[0].start()
	nodes[0].says("Out, by order")
	nodes[0].serves(false)
	e.Begin(0)
	e.Await()
	netlabtest.Must(t, a.store.BringIn(ctx, "n1", "alice"), a.store.AwaitOut(ctx, "n1", false, bound))
	nodes[0].fine()
	nodes[0].serves(true)
	if err := a.store.TakeOut(ctx, "n7", "bob"); !isRefused(err, "n7 is no node of the fleet") {
		t.Errorf("out of nobody: %v", err)
	}
	e.Put("nlb/v1/node/n2", `{"version": "x", "at": "2026-01-02T03:04:05Z", "out": false, "draining": 2, "profiles": {}}`)
	if err := a.store.TakeOut(ctx, "n1", "bob"); !isRefused(err, "2 backends drain on n2") {
		t.Errorf("while backends drain: %v", err)
	}
	nodes[1].stop()
	e.Delete("nlb/v1/alive/n2")
	if err := a.store.TakeOut(ctx, "n1", "bob"); !isRefused(err, "n2 is lost; one node at a time") {
		t.Errorf("while another is lost: %v", err)
	}
	netlabtest.Must(t, a.store.Forget(ctx, "n2"))
	if err := a.store.TakeOut(ctx, "n1", "bob"); !isRefused(err, "n1 is the last node") {
		t.Errorf("the last: %v", err)
	}
	if err := a.store.Forget(ctx, "n1"); !isRefused(err, "n1 is there") {
		t.Errorf("forget of one that is there: %v", err)
	}
}

// TestRoles: with the roles that nlb fleet roles prints, a node does all that it has
// to, and nothing else; without a certificate nobody does anything.
func TestRoles(t *testing.T) {
	e, a, nodes := crowd(t, 1, 2, true)
	for line := range strings.Lines(fleet.Roles([]string{"n1", "n2"})) {
		if strings.HasPrefix(line, "etcdctl") {
			e.Ctl(line)
		}
	}
	for _, n := range nodes {
		n.stop()
		n.start()
	}
	a.sees(nodes...)
	a.pushes("shop", yaml("shop", shopAt, "10.2.0.12"))
	nodes[1].balances("shop 10.2.0.12")
	a.well(nodes[0])
	netlabtest.Must(t, a.store.TakeOut(t.Context(), "n1", "alice"), a.store.AwaitOut(t.Context(), "n1", true, bound))

	n1 := e.As("n1")
	for _, key := range []string{"desired/shop", "blob/x/0000", "node/n2", "alive/n2", "out", "history/shop/1"} {
		if _, err := n1.Put(t.Context(), "nlb/v1/"+key, "x"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("a node writes %s: %v", key, err)
		}
	}
	if _, err := n1.Get(t.Context(), "nlb/v1/node/n2"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a node reads of another: %v", err)
	}
	asNode, err := fleet.Dial(e.Config("n1"))
	netlabtest.Must(t, err)
	defer asNode.Close()
	if _, err := asNode.Known(t.Context()); err == nil || !strings.Contains(err.Error(), "etcd does not let n1 do that; nlb fleet roles says") {
		t.Errorf("a node as an admin: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	nobody := e.As("")
	if _, err := nobody.Get(ctx, "nlb/v1/desired/shop"); err == nil {
		t.Error("without a certificate somebody reads")
	}
	if _, err := nobody.Put(ctx, "nlb/v1/desired/shop", "x"); err == nil {
		t.Error("without a certificate somebody writes")
	}
	stranger := startEtcd(t, 1, true).Config("n1") // of another CA
	stranger.Endpoints, stranger.CA = e.Endpoints, e.Config("n1").CA
	if _, err = fleet.Dial(stranger); err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("with a certificate of another CA: %v", err)
	}
}
