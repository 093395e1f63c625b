//go:build linux

// Package incumbent reads what balances on this machine now, as a profile, and says
// what would happen if that were applied beside it.
package incumbent

import (
	"os"
	"strings"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/cmd/nlb/internal/doctor/survey"
	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/ipvs"
	"nlb/lb/importer/nftables"
	"nlb/nft/listing"
	"nlb/nft/wire"
)

// source is what findings call the machine, and the profile is called after.
const source = "this-host"

// Import reads the network namespace of the calling thread; dial opens the way to its
// nftables, and table is that of nlb, which is left out. Errors: of dial, those of
// listing.Read, and of the netlink of IPVS.
func Import(dial func() (*wire.Conn, error), table string) (*importer.Import, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	objects, err := listing.Read(conn)
	if err != nil {
		return nil, err
	}
	draft, err := nftables.Draft(source, "nft", objects, table)
	if err != nil {
		return nil, err
	}
	if hasIPVS() {
		lines, err := virtual()
		if err != nil {
			return nil, err
		}
		if err := ipvs.Add(draft, lines); err != nil {
			return nil, err
		}
	}
	m := draft.Finish()
	others(m)
	return m, beside(m, dial, table)
}

// others says what else balances here, and is not read.
func others(m *importer.Import) {
	for _, program := range []struct{ file, name string }{{"/proc/self/net/ip_tables_names", "iptables"}, {"/proc/self/net/ip6_tables_names", "ip6tables"}} {
		names, err := os.ReadFile(program.file)
		if err == nil && strings.Contains(string(names), "nat") {
			m.Tell(importer.Lost, "tables of "+program.name+"-legacy are not read", program.name+"-legacy-save prints them: nlb import iptables")
		}
	}
}

// beside has doctor look at the profile on this machine, whose rules stay.
func beside(m *importer.Import, dial func() (*wire.Conn, error), table string) error {
	if len(m.Profile.Services) == 0 {
		return nil
	}
	ask := doctor.Ask{Profiles: []*lb.Profile{m.Profile}, Files: []string{m.Profile.Name + ".yaml"}, Table: table}
	host, err := survey.Take(&ask, dial)
	if err != nil {
		return err
	}
	for _, f := range doctor.Examine(host, ask) {
		if f.Level == doctor.OK || f.Check == "rules" { // that it is not applied yet is known
			continue
		}
		msg := "applied beside what runs now: " + f.Problem
		if f.Subject != "" {
			msg = "applied beside what runs now, " + f.Subject + ": " + f.Problem
		}
		if f.Why != "" {
			msg += ": " + f.Why
		}
		m.Tell(importer.Note, msg, f.Mend)
	}
	return nil
}
