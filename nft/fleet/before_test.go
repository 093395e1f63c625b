package fleet

import (
	"fmt"
	"strings"
	"testing"

	"nlb/nft/ruleset"
)

// TestNote: which slots are noted, and how they are drawn. A backend is a letter; d is down.
func TestNote(t *testing.T) {
	backends := Asleep{"a": false, "b": false, "c": false, "d": true}
	byKey := func(slots string) map[string]ruleset.Element {
		out := map[string]ruleset.Element{}
		for i, backend := range strings.Split(slots, "") {
			if backend != "-" {
				key := ruleset.MarkBytes(uint32(i))
				out[key] = ruleset.Element{Key: key, Data: backend}
			}
		}
		return out
	}
	for _, tt := range []struct {
		name              string
		draw, slots       string // as they are
		asks, noted       string // and were
		then, now         string
		wantAsks, wantAll string
	}{
		{"nothing is there", "", "", "", "", "3", "abc", "3", ""},
		{"nothing changes", "3", "abc", "", "", "3", "abc", "3", ""},
		{"a slot changes", "3", "abc", "3", "", "3", "abb", "3", "2:c"},
		{"it is noted", "3", "abc", "3", "--a", "3", "abb", "3", "2:a"},
		{"it leads back", "3", "abc", "3", "--a", "3", "aba", "3", "2:c"},
		{"its backend is gone", "3", "abx", "3", "-y", "3", "abb", "3", ""},
		{"its backend is down", "3", "abd", "3", "d", "3", "abb", "3", "0:d asleep, 2:d asleep"},
		{"more slots", "3", "abc", "3", "", "5", "abcab", "3", "0:a, 1:b, 2:c"},
		{"more slots, of which some were noted", "3", "abc", "3", "-c", "5", "abcab", "3", "0:a, 1:c, 2:c"},
		{"then they change", "5", "abcab", "3", "c", "5", "bbcab", "3", "0:c"},
		{"then all has ended", "5", "abcab", "3", "", "5", "bbcab", "5", "0:a"},
		{"nobody is left", "3", "abc", "3", "", "0", "", "3", "0:a, 1:b, 2:c"},
		{"somebody is back", "0", "abc", "3", "-c", "3", "abc", "3", "1:c"},
		{"not so many slots as they say", "9", "ab", "", "", "9", "bbccccccc", "9", "0:a"},
	} {
		var now []ruleset.Element
		for _, backend := range strings.Split(tt.now, "") {
			now = append(now, ruleset.Element{Data: backend})
		}
		p := Past{Slots: byKey(tt.slots), Before: byKey(tt.noted), Draw: tt.draw, Asks: tt.asks}
		_, _ = fmt.Sscan(tt.draw, &p.Drawn)
		elements, asks := p.Note(tt.then, now, backends)
		var all []string
		for _, e := range elements {
			slot, word := ruleset.MarkOf(e.Key), ""
			if slot&asleep != 0 {
				word = " asleep"
			}
			all = append(all, fmt.Sprintf("%d:%s%s", slot&^asleep, e.Data, word))
		}
		if got := strings.Join(all, ", "); got != tt.wantAll || asks != tt.wantAsks {
			t.Errorf("%s: %q, drawn as %s, want %q and %s", tt.name, got, asks, tt.wantAll, tt.wantAsks)
		}
	}
}
