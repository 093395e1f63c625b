package nft

// What a service's rule is called: its comment, which people read in a listing
// and Load reads back.

import (
	"fmt"
	"strconv"
	"strings"

	"nlb/lb"
)

// poolInfo describes the rule that draws a backend of one family.
type poolInfo struct {
	family  lb.Family
	service *lb.Service // scheduler, hash and on-empty only
	block   block
}

// String is at most 128 bytes, nft's limit for comments:
//
//	IPv4 round-robin slots 0+3
//	IPv6 hash source-address,protocol seed 77 slots 3+2+1 (one is parked)
//	IPv4 random slots 6+0+2 on-empty drop
func (p poolInfo) String() string {
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	s := p.family.String() + " " + p.service.Scheduler.String()
	if p.service.Scheduler.Hashes() {
		var by []string
		for _, f := range p.service.HashBy {
			by = append(by, f.String())
		}
		s += " " + strings.Join(by, ",") + " seed " + number(p.service.HashSeed)
	}
	s += " slots " + number(p.block.base) + "+" + number(p.block.slots)
	if p.block.parked > 0 {
		s += "+" + number(p.block.parked)
	}
	if p.block.slots == 0 && p.service.OnEmpty == lb.Drop {
		s += " on-empty drop"
	}
	return s
}

// parsePoolInfo reads what String writes.
func parsePoolInfo(s string) (poolInfo, bool) {
	p := poolInfo{service: &lb.Service{}}
	words := strings.Fields(s)
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		w := words[0]
		words = words[1:]
		return w
	}
	switch next() {
	case lb.IPv4.String():
		p.family = lb.IPv4
	case lb.IPv6.String():
		p.family = lb.IPv6
	default:
		return p, false
	}
	if p.service.Scheduler.UnmarshalText([]byte(next())) != nil {
		return p, false
	}
	if p.service.Scheduler.Hashes() {
		for _, w := range strings.Split(next(), ",") {
			var f lb.HashField
			if f.UnmarshalText([]byte(w)) != nil {
				return p, false
			}
			p.service.HashBy = append(p.service.HashBy, f)
		}
		if _, err := fmt.Sscanf(next()+" "+next(), "seed %d", &p.service.HashSeed); err != nil {
			return p, false
		}
	}
	if next() != "slots" {
		return p, false
	}
	var ok bool
	if p.block, ok = parseBlock(next()); !ok {
		return p, false
	}
	if strings.Join(words, " ") == "on-empty drop" {
		p.service.OnEmpty, words = lb.Drop, nil
	}
	return p, len(words) == 0
}

// parseBlock reads base+slots or base+slots+parked.
func parseBlock(s string) (block, bool) {
	var b block
	fields := []*uint32{&b.base, &b.slots, &b.parked}
	parts := strings.Split(s, "+")
	if len(parts) < 2 || len(parts) > len(fields) {
		return b, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return b, false
		}
		*fields[i] = uint32(n)
	}
	// A block must not wrap around: its end is compared.
	return b, uint64(b.base)+uint64(b.slots)+uint64(b.parked) < 1<<32
}
