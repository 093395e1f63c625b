// Package names makes addresses of the names in profiles, from what the DNS says
// of them. It asks nobody: what is known is an argument.
package names

// Records: what the DNS says of a name.

import (
	"cmp"
	"net/netip"
	"slices"
)

// Record is a server that a name stands for.
type Record struct {
	Addr netip.Addr
	// Port, Weight and Priority are those of an SRV record, the lower priority
	// first; 0 for A and AAAA records.
	Port, Weight, Priority uint16
}

// Sort sorts records, the most wanted first, and takes each address and port once.
func Sort(records []Record) []Record {
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(b.Weight, a.Weight))
	})
	seen := make(map[netip.AddrPort]bool, len(records))
	return slices.DeleteFunc(records, func(r Record) bool {
		at := netip.AddrPortFrom(r.Addr, r.Port)
		twice := seen[at]
		seen[at] = true
		return twice
	})
}
