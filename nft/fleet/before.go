package fleet

// Before: to which backend a slot led before it changed.
//
// A connection that was open when backends came, went or changed their weights may come
// from another balancer afterwards. Its slot may lead elsewhere by now, where nobody knows
// the connection. So the batch that changes slots also notes where these have led, in a map
// of the service, PROFILE/SERVICE/before4 and before6. A rule asks that map for segments
// that begin no connection, ahead of the draw. Its elements end by themselves.
//
// A connection that is younger than the change is asked for there, too. The server that does
// not know it answers with a reset, which is dropped, and noted in the set `asked`: when the
// client sends the segment once more, the slot is drawn as for new connections. The next
// reset passes.
//
// A slot that is noted already keeps what it has, and its time, unless it leads there again:
// where changes follow each other, most of the connections that live long are older than the
// first one. A backend that is down is noted, too, and not asked.

import (
	"maps"
	"slices"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// BeforeTime is how long a slot is noted: connections that live for hours are those that
// matter, and it costs a younger one no more than a segment, when it comes from another
// balancer. It is a variable for tests; nothing else changes it.
var BeforeTime = time.Hour

const (
	askedSet = "asked" // connections that were asked for in vain, see ruleset.NotAsked
	// askedTime is longer than from one probe of an idle connection to the next (75 s,
	// net.ipv4.tcp_keepalive_intvl).
	askedTime = 2 * time.Minute
	mostAsked = 1 << 16
)

// AskedBefore is what asks a map for connections that are picked up, and were not asked for
// there in vain.
func AskedBefore() []ruleset.Statement {
	return []ruleset.Statement{ruleset.UnlessSYN(), ruleset.NotAsked(askedSet)}
}

// vain is the rule that meets the answer of a server that does not know a connection. ours
// matches those of nlb.
func vain(ours ruleset.Statement) ruleset.Rule {
	return ruleset.Rule{
		Statements: append([]ruleset.Statement{ruleset.EndsAttempt(), ours}, append(ruleset.AskedInVain(askedSet, askedTime), ruleset.Drop())...), Needs: askedSet,
	}
}

// NeedsAsked reports whether a service of the profiles needs the set asked, and names it.
func NeedsAsked(profiles []*lb.Profile) (set string, needed bool) {
	return askedSet, lb.AnyService(profiles, func(s *lb.Service) bool { return s.PicksUp() && s.Scheduler.OwnSlots() })
}

// asleep is added to the slots of backends that are down, which no packet draws then.
const asleep = 1 << 31

const before = "/before"

// BeforeOf names the map of a service and family.
func BeforeOf(chain string, f *ruleset.Family) string { return chain + before + f.Digit }

// BeforeMap is the map that has this name, empty; nil: it is none.
func BeforeMap(name string) *ruleset.Map {
	if chain, _, ok := ruleset.Suffixed(name, before); ok {
		return &ruleset.Map{Name: name, Kind: ruleset.Before, Key: ruleset.Type{ruleset.Mark}, Data: ruleset.Type{ruleset.Mark}, Timeout: true, OfChain: chain}
	}
	return nil
}

// Past is what a table has of a service and family. Slots are where its slots lead, and
// Before what is noted, both by their keys. Draw says how a slot is drawn, and Asks how one
// that is noted is: the same text for the same draw; empty: none is. Drawn is how many slots
// can be drawn.
type Past struct {
	Slots, Before map[string]ruleset.Element
	Draw, Asks    string
	Drawn         uint32
}

// Asleep says of each backend of the service, by the bytes of its mark, whether it is down.
type Asleep map[string]bool

// Note returns what the map is to have, and how its rule is to draw. draw says how slots are
// drawn from now on, and now has where they lead then, from slot 0 on. While slots are noted
// that are drawn in another way, no others are noted.
func (p Past) Note(draw string, now []ruleset.Element, backends Asleep) (elements []ruleset.Element, asks string) {
	noted := map[uint32]ruleset.Element{}
	for _, e := range p.Before {
		if _, ours := backends[e.Data]; ours {
			noted[ruleset.MarkOf(e.Key)&^asleep] = e
		}
	}
	if asks = p.Asks; len(noted) == 0 || asks == p.Draw {
		for slot := range min(p.Drawn, uint32(len(p.Slots))) {
			was := p.Slots[ruleset.MarkBytes(slot)]
			_, ours := backends[was.Data]
			earlier, known := noted[slot]
			leads := "" // there now
			if draw == p.Draw {
				leads = now[slot].Data
			}
			if !ours || was.Data == leads || known && earlier.Data != leads {
				continue
			}
			noted[slot] = ruleset.Element{Data: was.Data, Extra: &ruleset.Extra{Timeout: BeforeTime, Expires: BeforeTime}}
			asks = p.Draw
		}
	}
	if asks == "" {
		asks = draw
	}
	for _, slot := range slices.Sorted(maps.Keys(noted)) {
		e := noted[slot]
		if backends[e.Data] {
			slot |= asleep
		}
		e.Key = ruleset.MarkBytes(slot)
		elements = append(elements, e)
	}
	return elements, asks
}
