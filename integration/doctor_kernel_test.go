package integration

// nlb doctor and a kernel that lacks a part of nftables.

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/doctor"
	"nlb/cmd/nlb/doctor/survey"
	"nlb/lb"
	"nlb/nft/probe"
	"nlb/nft/wire"
)

// lacking is the transport of a kernel without an expression: it asks for one
// that no kernel has.
type lacking struct {
	wire.Transport
	expression string
}

// Send changes the name where it is an NFTA_EXPR_NAME.
func (l *lacking) Send(b []byte) error {
	attr := func(name string) []byte {
		var e wire.Encoder
		e.Text(unix.NFTA_EXPR_NAME, name)
		return e.Bytes()
	}
	return l.Transport.Send(bytes.ReplaceAll(b, attr(l.expression), attr(strings.Repeat("?", len(l.expression)))))
}

// surveyed is the picture of the balancer, over a transport of this kind.
func (b *bed) surveyed(ask doctor.Ask, change func(wire.Transport) wire.Transport) []doctor.Finding {
	b.t.Helper()
	var out []doctor.Finding
	b.check(b.balancer.Do(func() error {
		host, err := survey.Take(&ask, func() (*wire.Conn, error) {
			t, err := wire.Open()
			if err != nil {
				return nil, err
			}
			return wire.NewConn(change(t)), nil
		})
		if err == nil {
			out = doctor.Examine(host, ask)
		}
		return err
	}))
	return out
}

// objects are the parts of nftables that are no expressions.
var objects = []string{"table inet", "nat chain", "set", "verdict map", "counter of elements", "ranges of concatenations", "intervals", "timeouts"}

// TestDoctorMissing: every expression that is lacking is found where it is
// needed, or may be.
func TestDoctorMissing(t *testing.T) {
	b := newBed(t)
	p := b.parse(shop)
	needed := probe.Needed([]*lb.Profile{p})
	for _, part := range probe.Parts() {
		if slices.Contains(objects, part.Name) {
			continue
		}
		lacks := func(ask doctor.Ask, want doctor.Level) {
			t.Helper()
			found := false
			for _, f := range b.surveyed(ask, func(t wire.Transport) wire.Transport { return &lacking{t, part.Name} }) {
				if f.Check != "nftables" || f.Level == doctor.OK {
					continue
				}
				found = strings.Contains(f.Problem, "lacks the expression "+part.Name+", for "+part.For) && f.Level == want &&
					strings.HasSuffix(f.Why, "needs Linux >= "+part.Since) && strings.Contains(f.Mend, "modprobe") == (part.Module != "")
			}
			if found != (want != doctor.OK) {
				t.Errorf("%s is lacking, %d profiles, want level %s; found: %v", part.Name, len(ask.Profiles), want, found)
			}
		}
		lacks(doctor.Ask{Table: "nlb"}, doctor.Warn)
		with := doctor.OK
		if needed[part.Name] {
			with = doctor.Fail
		}
		lacks(doctor.Ask{Table: "nlb", Profiles: []*lb.Profile{p}, Files: []string{"shop.yaml"}}, with)
	}
	for _, f := range b.surveyed(doctor.Ask{Table: "nlb"}, func(t wire.Transport) wire.Transport { return t }) {
		if f.Level != doctor.OK {
			t.Errorf("a kernel that has all: %+v", f)
		}
	}
	// Nothing was left behind.
	if out := b.witness(b.balancer, "", "nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestPartsAreAll: whatever profiles are made of is asked for.
func TestPartsAreAll(t *testing.T) {
	b := newBed(t)
	known := map[string]bool{}
	for _, p := range probe.Parts() {
		known[p.Name] = true
	}
	used := map[string]bool{}
	for name, text := range features {
		for part := range probe.Needed([]*lb.Profile{b.parse(text)}) {
			used[part] = true
			if !known[part] {
				t.Errorf("%s needs %q, which is not asked for", name, part)
			}
		}
	}
	for name := range known {
		if !used[name] {
			t.Errorf("%q is asked for, and no profile needs it", name)
		}
	}
}

// TestDriftIsNone: what nlb has just put there is as it put it there, whatever
// it is, and after a change too.
func TestDriftIsNone(t *testing.T) {
	for name, text := range features {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.apply(text)
			for _, d := range b.load().Drift() {
				t.Errorf("%+v", d)
			}
			other := strings.NewReplacer("shop", "another", "203.0.113.10", "203.0.113.200").Replace(web)
			b.apply(text, other+backends(8080, 1, 2, 3))
			b.apply(text, other+backends(8080, 3, 1))
			for _, d := range b.load().Drift() {
				t.Errorf("after changes: %+v", d)
			}
		})
	}
}
