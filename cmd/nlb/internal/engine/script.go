//go:build linux

package engine

// Script: the rules as text.

import (
	"io"
	"slices"

	"nlb/lb"
	"nlb/nft/compile"
	"nlb/nft/direct"
	"nlb/nft/links"
)

// WriteScript writes the rules of profiles as a script for nft -f, which replaces the
// tables. Services with mode: dsr or tunnel have the interfaces and routes of this host
// in it; tunnels that are not there have no place.
func WriteScript(w io.Writer, table string, profiles []*lb.Profile) error {
	if _, err := compile.Profiles(table, profiles).WriteTo(w); err != nil || !direct.Has(profiles) {
		return err
	}
	r, err := links.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	l, err := r.Read(profiles)
	if err != nil {
		return err
	}
	n := compile.NewNumbers(0, slices.Clone(profiles))
	_, err = direct.Ruleset(table, profiles, nil, n, l, func(string) bool { return false }).WriteTo(w)
	return err
}
