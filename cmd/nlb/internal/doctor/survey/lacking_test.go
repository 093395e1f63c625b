//go:build linux

package survey_test

// nlb doctor and a kernel that lacks a part of nftables.

import (
	"strings"
	"testing"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/cmd/nlb/internal/doctor/survey"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
	"nlb/nft/probe"
	"nlb/nft/wire"
)

func TestMain(m *testing.M) { netlabtest.Main(m) }

// surveyed is the picture of the balancer, over a transport of this kind.
func surveyed(b *netlabtest.Bed, ask doctor.Ask, change func(wire.Transport) wire.Transport) []doctor.Finding {
	b.T.Helper()
	var out []doctor.Finding
	b.Check(b.Balancer.Do(func() error {
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

const shop = `profile: shop
services:
  - {name: web, listen: "203.0.113.10:80", protocol: [tcp, udp], backends: ["10.2.0.11:8080"]}
  - {name: six, listen: "[2001:db8::10]:80", protocol: [tcp, udp], backends: ["[fd02::11]:8080"]}
`

// TestDoctorMissing: every expression that is lacking is found where it is
// needed, or may be.
func TestDoctorMissing(t *testing.T) {
	t.Parallel()
	b := netlabtest.New(t)
	p := b.Parse(shop)
	needed := probe.Needed([]*lb.Profile{p})
	for _, part := range netlabtest.Expressions() {
		lacks := func(ask doctor.Ask, want doctor.Level) {
			t.Helper()
			found := false
			for _, f := range surveyed(b, ask, func(t wire.Transport) wire.Transport { return &netlabtest.Lacking{Transport: t, Expression: part.Name} }) {
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
	for _, f := range surveyed(b, doctor.Ask{Table: "nlb"}, func(t wire.Transport) wire.Transport { return t }) {
		if f.Level != doctor.OK {
			t.Errorf("a kernel that has all: %+v", f)
		}
	}
	// Nothing was left behind.
	if out := b.Witness(b.Balancer, "", "nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}
