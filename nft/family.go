package nft

// Families: the maps and chains of each IP version.

import (
	"nlb/lb"
	"nlb/nft/ruleset"
)

// family is an IP version with the names of its maps and chains.
type family struct {
	lb.Family
	ip *ruleset.Family

	match     ruleset.Statement // packets of this family
	services  string            // maps, see layout
	endpoints string
	addresses string
	sources   string
	pick      string // chains
	deliver   string
}

var families = []*family{newFamily(lb.IPv4, ruleset.IPv4), newFamily(lb.IPv6, ruleset.IPv6)}

func newFamily(version lb.Family, ip *ruleset.Family) *family {
	named := func(name string) string { return name + ip.Digit }
	return &family{
		Family: version, ip: ip, match: ip.Match(),
		services: named("services"), endpoints: named("endpoints"), addresses: named("addresses"), sources: named("sources"),
		pick: named("pick"), deliver: named("deliver"),
	}
}

func familyOf(f lb.Family) *family {
	if f == lb.IPv6 {
		return families[1]
	}
	return families[0]
}
