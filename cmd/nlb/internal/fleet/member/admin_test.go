//go:build linux

package member

import (
	"errors"
	"strings"
	"testing"

	"nlb/cmd/nlb/internal/fleet"
	"nlb/integration/netlab/netlabtest"
)

// withExec is a profile with a check that the nodes of these tests refuse.
func withExec(text string) string {
	return strings.Replace(text, "backends", "health: {check: exec, command: [/bin/true]}, backends", 1)
}

// TestTakesBack: what a push that stopped says takes it back, does.
func TestTakesBack(t *testing.T) {
	_, a, nodes := crowd(t, 1, 1, false)
	said, err := a.push(fleet.Ask{Read: these(
		sourceOf(t, "shop", withExec(yaml("shop", shopAt, "10.2.0.12"))), sourceOf(t, "mail", withExec(yaml("mail", "203.0.113.11:25", "10.2.0.13"))),
		sourceOf(t, "web", withExec(yaml("web", "203.0.113.12:80", "10.2.0.13"))),
	)}, bound)
	if !errors.Is(err, fleet.ErrStopped) || !strings.Contains(said, "; nlb push --undo shop and nlb push --remove mail --remove web take it back") {
		t.Errorf("%v\n%s", err, said)
	}
	if said, err = a.push(fleet.Ask{Remove: []string{"mail", "web", "mail"}}, bound); err != nil || !strings.Contains(said, "pushed mail, sequence 2; web, sequence 2 (") {
		t.Errorf("remove, one of them twice: %v\n%s", err, said)
	}
	if said, err = a.push(fleet.Ask{Undo: []string{"shop", "shop"}}, bound); err != nil || !strings.Contains(said, "pushed shop, sequence 3 (") {
		t.Errorf("undo, the same twice: %v\n%s", err, said)
	}
	a.well(nodes[0])
	nodes[0].fine()
}

// TestTogether: what was refused because of another profile is applied once that one
// was pushed anew.
func TestTogether(t *testing.T) {
	_, a, nodes := crowd(t, 1, 1, false)
	moved := yaml("shop", "203.0.113.11:80", "10.2.0.12")
	_, err := a.push(fleet.Ask{Read: these(sourceOf(t, "shop", withExec(moved)), sourceOf(t, "web", yaml("web", shopAt, "10.2.0.13")))}, bound)
	if !errors.Is(err, fleet.ErrStopped) {
		t.Error(err)
	}
	a.shows(nodes[0], "web: refused sequence 1, has none: ")
	a.pushes("shop", moved)
	nodes[0].balances("shop 10.2.0.12 web 10.2.0.13")
	a.well(nodes[0])
}

// TestNewer: what a newer nlb has pushed stays in etcd, though this one cannot read it.
func TestNewer(t *testing.T) {
	e, a, _ := crowd(t, 1, 1, false)
	e.Put("nlb/v1/blob/"+strings.Repeat("a", 64)+"/0000", "x")
	e.Put("nlb/v1/desired/mail", `{"seq": 1, "sha3": "x"}`)
	said, err := a.push(fleet.Ask{Read: these(sourceOf(t, "shop", yaml("shop", shopAt, "10.2.0.12")))}, bound)
	if err != nil || !strings.Contains(said, `old profiles stay in etcd until the next push: nlb/v1/desired/mail: `) {
		t.Errorf("%v\n%s", err, said)
	}
	if e.Get("nlb/v1/blob/"+strings.Repeat("a", 64)+"/0000") == "" {
		t.Error("the blob is gone")
	}
}

// TestOutOfLost: a node that is lost can be ordered out, and stays out when it is back.
func TestOutOfLost(t *testing.T) {
	e, a, nodes := crowd(t, 1, 2, false)
	nodes[1].stop()
	e.Delete("nlb/v1/alive/n2") // as its lease does after a while
	netlabtest.Must(t, a.store.TakeOut(t.Context(), "n2", "alice"))
	nodes[1].start()
	netlabtest.Must(t, a.store.AwaitOut(t.Context(), "n2", true, bound))
}
