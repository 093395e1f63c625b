//go:build linux

package survey

// Rulesets: what the kernel has of nftables, nlb's own table, and the tables of
// others.

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/lb"
	"nlb/nft"
	"nlb/nft/conntrack"
	"nlb/nft/links"
	"nlb/nft/probe"
	"nlb/nft/wire"
	"nlb/sysctl"
)

func (s *survey) rulesets(dial func() (*wire.Conn, error)) {
	all := []string{"nftables", "rules", "filter", "nat", "mark", "notrack", "ports", "capacity", "answers", "gone", "health"}
	conn, err := dial()
	switch {
	case err == nil:
		defer conn.Close()
		s.host.Admin = true
	case nft.NotPermitted(err):
		s.unseen("nftables, the rules of others, and the connections of each backend", err, all...)
		return
	default:
		s.host.Admin = true // as far as can be told
		s.host.Broken = err.Error()
		s.unseen("nftables", err, all...)
		return
	}
	state := s.own(conn)
	s.parts(conn)
	s.others(conn)
	s.connections(conn, state)
}

// own looks at nlb's table. The state is nil where it cannot be read.
func (s *survey) own(conn *wire.Conn) *nft.State {
	t := &s.host.Ours
	state, err := nft.Load(conn, s.ask.Table)
	switch {
	case errors.Is(err, nft.ErrForeign), errors.Is(err, nft.ErrLayout):
		t.Foreign = err.Error()
		return nil
	case err != nil:
		s.unseen("table inet "+s.ask.Table, err, "rules", "ports", "capacity", "answers", "gone", "health")
		return nil
	}
	t.Exists, t.Held, t.Untouched = state.Exists(), state.Profiles, state.Untouched()
	for _, p := range state.Profiles {
		t.Profiles = append(t.Profiles, p.Name)
	}
	for p, s := range lb.Services(state.Profiles) {
		for i := range s.Backends {
			b := &s.Backends[i]
			if b.Standing.Verdict == lb.VerdictDown {
				t.Fallen = append(t.Fallen, doctor.Fallen{
					Profile: p.Name, Service: s.Name, Backend: b.Name, Since: b.Standing.Since, Reason: b.Standing.Reason, Open: b.State == lb.Up,
				})
			}
		}
	}
	t.Found = map[string]string{}
	for _, p := range state.Params() {
		name, _, _ := strings.Cut(p.Name, "=") // what nlb set follows
		t.Found[name] = p.Value
	}
	if header, err := nft.ReadHeader(conn, s.ask.Table); err == nil {
		t.Handle, t.Dormant = header.Handle, header.Dormant
	}
	for _, d := range state.Drift() {
		t.Drift = append(t.Drift, doctor.Drift(d))
	}
	if len(s.ask.Files) == 0 {
		s.ask.Profiles = state.Profiles
		return state
	}
	for _, p := range s.ask.Profiles {
		if !slices.Contains(t.Profiles, p.Name) {
			t.Absent = append(t.Absent, p.Name)
		}
	}
	result, err := s.diff(conn)
	conflict, taken := errors.AsType[*nft.ConflictError](err)
	switch {
	case taken:
		for _, e := range conflict.Errors {
			t.Taken = append(t.Taken, e.Msg)
		}
	case err != nil:
		s.unseen("what an apply would change", err, "rules")
	default:
		for _, c := range result.Changes {
			if name, _, _ := strings.Cut(c.Service, "/"); !slices.Contains(t.Absent, name) {
				t.Differs = append(t.Differs, c.String())
			}
		}
		t.Repair = result.Repaired
	}
	return state
}

// diff is what an apply would change.
func (s *survey) diff(conn *wire.Conn) (*nft.Result, error) {
	routes, err := links.Open()
	if err != nil {
		return nil, err
	}
	defer routes.Close()
	return nft.Diff(conn, s.ask.Profiles, nft.Options{Table: s.ask.Table, Links: routes.Read})
}

// parts asks for the parts of nftables that the profiles need; without any,
// for all.
func (s *survey) parts(conn *wire.Conn) {
	missing, err := probe.Kernel(conn, s.ask.Profiles)
	if err != nil {
		s.unseen("the parts of nftables", err, "nftables")
		return
	}
	for _, m := range missing {
		s.host.Missing = append(s.host.Missing, doctor.Missing{Name: m.Name, For: m.For, Since: m.Since, Module: m.Module, Answer: answer(m.Err)})
	}
}

// answer is why the kernel refused a message.
func answer(err error) string {
	if refused, ok := errors.AsType[*wire.Error](err); ok {
		return refused.Errno.Error()
	}
	return err.Error()
}

// others reads the tables that are not nlb's.
func (s *survey) others(conn *wire.Conn) {
	tables, err := firewall.Read(conn, func(family, name string) bool { return (family == "inet" || family == "netdev") && name == s.ask.Table })
	if err != nil {
		s.unseen("the rules of others", err, "filter", "nat", "mark", "notrack")
		return
	}
	legacy, err := firewall.ReadLegacy(sysctl.Local.Net)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		s.unseen("the rules of legacy iptables", err, "filter", "nat", "mark", "notrack")
	}
	s.host.Tables = append(tables, legacy...)
}

// connections counts what conntrack holds for backends.
func (s *survey) connections(conn *wire.Conn, state *nft.State) {
	t := &s.host.Track
	var states []*nft.State
	var others error
	if state != nil {
		states = append(states, state)
		// Another table of nlb's marks its connections in the same way.
		others = s.otherTables(conn, &states)
	}
	usage, err := nft.ReadUsage(conn, states...)
	if err != nil {
		s.unseen("the connections of each backend", err, "ports", "capacity", "answers", "gone")
		return
	}
	t.Listed = state != nil
	if state == nil {
		return
	}
	t.Uses = map[doctor.Key]doctor.Use{}
	for p, service := range lb.Services(s.ask.Profiles) {
		for _, b := range service.Backends {
			t.Uses[doctor.Key{Profile: p.Name, Service: service.Name, Address: b.Address}] = doctor.Use(state.Use(usage, p.Name, service.Name, b.Address))
		}
	}
	if others != nil {
		s.unseen("other tables of nlb", others, "gone")
		return
	}
	t.Gone = doctor.Use(nft.Orphans(usage, states...))
	if stats, err := conntrack.ReadStats(conn); err == nil {
		t.Counted, t.InsertFailed, t.Drop, t.EarlyDrop = true, stats.InsertFailed, stats.Drop, stats.EarlyDrop
	}
}

// otherTables reads nlb's other tables in this network namespace.
func (s *survey) otherTables(conn *wire.Conn, states *[]*nft.State) error {
	names, err := nft.Tables(conn)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == s.ask.Table {
			continue
		}
		other, err := nft.Load(conn, name)
		if err != nil {
			return err
		}
		*states = append(*states, other)
	}
	return nil
}
