package source

// Names in profiles, for the commands that act once: each is looked up, and it is
// said what it stands for.

import (
	"context"
	"fmt"
	"net/netip"

	"nlb/cmd/nlb/internal/agent/resolve"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/names"
)

// Lookup says where names are looked up: as the host does, but in tests.
var Lookup resolve.Options

// Names are the ways to resolve names.
type Names struct {
	// Held is what the kernel holds, for names that nobody can resolve now: they
	// stay what they are there. nil: nothing.
	Held func() []*lb.Profile
	// Unresolved is told the names that stand for nothing, each with the reason. Where it
	// is nil, such a name is an error.
	Unresolved func(names []string)
	// StandIns gives other names addresses that are made up, for a rehearsal.
	StandIns bool
	// Note is told what names stand for.
	Note func(format string, args ...any)
}

// MissingError has the names that stand for nothing, each with the reason.
type MissingError struct{ Names []string }

// Error is all of them.
func (e *MissingError) Error() string { return text.List(e.Names) }

// Explain says what helps.
func (*MissingError) Explain() (outcome, hint string) {
	return "", "nlb run begins without them, and follows them"
}

// Resolve is the profiles with addresses in place of names. Errors: *MissingError,
// and ctx's.
func (n Names) Resolve(ctx context.Context, profiles []*lb.Profile) ([]*lb.Profile, error) {
	hosts := names.Hosts(profiles)
	if len(hosts) == 0 {
		return profiles, nil
	}
	known := map[lb.Host][]names.Record{}
	var held map[lb.Host][]names.Record // read when it is needed
	var missing MissingError
	for i, a := range resolve.Once(ctx, Lookup, hosts) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if len(a.Records) == 0 && held == nil && n.Held != nil {
			held = names.Held(profiles, n.Held())
		}
		switch records := held[a.Host]; {
		case len(a.Records) > 0:
			known[a.Host] = a.Records
			n.Note("%s is %s now%s; nlb run follows it", a.Host, list(a.Records), because(a.Err))
		case len(records) > 0:
			known[a.Host] = records
			n.Note("%s stays %s%s", a.Host, list(records), because(a.Err))
		case n.StandIns:
			known[a.Host] = standIns(i, a.Host)
			n.Note("%s is taken to be %s%s", a.Host, list(known[a.Host]), because(a.Err))
		default:
			missing.Names = append(missing.Names, fmt.Sprintf("%s: %v", a.Host, a.Err))
		}
	}
	out, notes := names.Resolve(profiles, func(h lb.Host) []names.Record { return known[h] })
	for _, one := range notes {
		n.Note("%s", one)
	}
	switch {
	case len(missing.Names) == 0:
	case n.Unresolved != nil:
		n.Unresolved(missing.Names)
	default:
		return nil, &missing
	}
	return out, nil
}

// because is an error behind something else; empty where there is none.
func because(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (%v)", err)
}

// mostListed is how many addresses of a name are said.
const mostListed = 5

// list is what records say, the first of them where they are many.
func list(records []names.Record) string {
	var out []string
	for _, r := range records[:min(len(records), mostListed)] {
		out = append(out, lb.Endpoint{Addr: r.Addr, Port: r.Port}.String())
	}
	if more := len(records) - mostListed; more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	return text.List(out)
}

// standIns are an address of each family for the name with a number, of those
// for benchmarks (RFC 2544, RFC 5180).
func standIns(i int, h lb.Host) []names.Record {
	high, low := byte((i+1)>>8), byte(i+1)
	port := uint16(0)
	if h.SRV {
		port = 80
	}
	return []names.Record{
		{Addr: netip.AddrFrom4([4]byte{198, 18, high, low}), Port: port},
		{Addr: netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 3: 0x02, 14: high, 15: low}), Port: port},
	}
}
