package doctor

// The connection mark: rules of others that write it, or copy it to packets.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/cmd/nlb/internal/text"
	"nlb/nft/compile"
)

// marks finds rules of others that use the mark of balanced connections. nlb
// keeps the backend of a connection in it.
func (e *exam) marks() {
	e.amongRules(e.marksOf, "no rule of others uses the connection mark of this traffic")
}

// amongRules looks at each path, where there are rules of others. fine is said where
// nothing is found.
func (e *exam) amongRules(look func(*path), fine string) {
	if len(e.paths) == 0 {
		return
	}
	if len(e.Tables) > 0 {
		for _, p := range e.paths {
			look(p)
		}
	}
	e.fine(fine)
}

// marksOf looks at the way of a path. There is one finding for each chain.
func (e *exam) marksOf(p *path) {
	stops := e.markStops(p)
	kept, _ := compile.KeepableBits(e.RuleMasks...)
	for _, t := range e.Tables {
		uses := map[string]firewall.MarkUse{} // by the chain that the rule is in
		for _, c := range t.Bases() {
			for _, s := range stops {
				if !s.reaches(c) {
					continue
				}
				for i := range s.packets {
					packet := &s.packets[i]
					if !e.sees(t, s.hook, packet) || !onDevice(c, packet.In) {
						continue
					}
					for _, m := range t.Judge(c, packet).Marks {
						u := uses[m.By.Chain]
						uses[m.By.Chain] = firewall.MarkUse{Sets: u.Sets | m.Sets, Restores: u.Restores | m.Restores}
					}
				}
			}
		}
		for _, chain := range slices.Sorted(maps.Keys(uses)) {
			u := uses[chain]
			if (u.Sets|u.Restores)&^kept == 0 {
				continue // an apply leaves these bits to them
			}
			e.add(Warn, p.title(), fmt.Sprintf("%s, chain %s %s", t, chain, markUse(u)), e.markWhy(), "")
		}
	}
}

// clientPorts are those that clients connect from, as a rule: without them,
// every rule for a service of this host would be about answers, too.
var clientPorts = firewall.Ports{First: 1024, Last: 65535}

// markStops are the hooks that a path goes by, and the first one of answers:
// marks are restored there.
func (e *exam) markStops(p *path) []stop {
	var out []stop
	for _, s := range e.stops(p) {
		if s.what == solicited || s.what == cookies { // no connection of theirs stays
			continue
		}
		s.packets = slices.Clone(s.packets)
		for i := range s.packets {
			if s.what == answers {
				s.packets[i].DstPort = clientPorts
			} else {
				s.packets[i].SrcPort = clientPorts
			}
		}
		out = append(out, s)
		if s.what != answers {
			continue
		}
		comes := slices.Clone(s.packets)
		for i := range comes {
			comes[i].Out, comes[i].OutIndex, comes[i].Local = "", 0, firewall.Maybe
		}
		out = append(out, stop{"prerouting", true, comes, answers, 0}, stop{"prerouting", false, comes, answers, 0})
	}
	return out
}

// markUse says what rules do with the connection mark, and by which mask.
func markUse(u firewall.MarkUse) string {
	var out []string
	what := "the connection mark"
	for _, v := range []struct {
		verb string
		bits uint32
	}{{"sets", u.Sets}, {"restores", u.Restores}} {
		if v.bits != 0 {
			out = append(out, fmt.Sprintf("%s %s (mask %#x)", v.verb, what, v.bits))
			what = "it"
		}
	}
	return text.List(out)
}

func (e *exam) markWhy() string {
	why := "nlb keeps the backend of a connection in its mark; what both write there is lost to one of them"
	var masks []string
	for _, m := range slices.Sorted(slices.Values(e.RuleMasks)) {
		masks = append(masks, fmt.Sprintf("%#x", m))
	}
	if _, err := compile.KeepableBits(e.RuleMasks...); err != nil {
		why += fmt.Sprintf(". Rules for routing look at packets' marks by the mask %s: answers may take another way (ip rule), since %v", strings.Join(masks, ", "), err)
	}
	return why
}
