package nft

// A table that somebody has changed by hand: comments that name other maps, and
// numbers that lead nowhere.

import (
	"testing"

	"nlb/lb"
	"nlb/nft/compile"
)

// TestTampered: whatever the comments of a service's rules say, the table is
// read, and an apply mends it.
func TestTampered(t *testing.T) {
	want := fuzzProfile(t, 2)
	for _, comment := range []string{
		"allow slots", "deny refused", "deny services4", "allow endpoints4", "allow nothing", "allow",
		"guard 0xffffffff", "guard", "limit new x", "limit", "log level x rate y prefix", "log",
		"IPv4 random slots 4294967295+0", "IPv4 random slots 4294967294+0+1", "IPv4 hash x seed y slots 1+1", "IPv6 round-robin slots 0+4294967294",
		"affinity IPv4 timeout -1s bits 99", "role server", "max-connections -1", "clients-4-0",
	} {
		for _, chain := range []string{"p/a", "p/b", "p/c", compile.PreroutingChain, "postrouting"} {
			o := emptyObjects()
			applyTo(t, o, want)
			for i := range o.chains[chain].rules {
				r := &o.chains[chain].rules[i]
				r.comment, r.fingerprint = comment, ""
			}
			_ = newState("nlb", o).Drift()
			applyTo(t, o, want)
			if changes := lb.Compare(newState("nlb", o).Profiles, []*lb.Profile{want}); len(changes) > 0 {
				t.Errorf("%q in %s: %v", comment, chain, changes)
			}
		}
	}
}
