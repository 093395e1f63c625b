package compile

// Standings: what is known of backends, kept in a set of the table whose elements
// have the backends' marks and a comment. It survives whoever found it out. Only
// verdicts that a server is down are in it, and orders: whoever is not in it is up,
// or new.
//
//	down 2026-11-26T04:05:06Z tcp: refused
//	drain by admin until 2026-11-26T05:00:00Z
//	disable; down 2026-11-26T04:05:06Z tcp: refused

import (
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/ruleset"
)

// VerdictsSet has the marks of backends that are down by their checks, or that
// an order is about.
const VerdictsSet = "verdicts"

// NewVerdictsSet is the set of standings, empty.
func NewVerdictsSet() *ruleset.Map {
	return &ruleset.Map{Name: VerdictsSet, Kind: ruleset.Backends, Key: ruleset.Type{ruleset.Mark}, Comment: "backends that are down or under an order"}
}

var orderWords = map[lb.Order]string{lb.OrderDrain: "drain", lb.OrderDisable: "disable"}

// KeptStanding is what the table keeps of a standing: the verdict down, and an
// order; times in whole seconds, and texts that nft can write.
func KeptStanding(s lb.Standing) lb.Standing {
	if s == (lb.Standing{}) {
		return s
	}
	var out lb.Standing
	ReadStanding(standingComment(s), &out)
	return out
}

// standingComment is at most 122 bytes, of nft's 128. The reason comes last, since
// it may be any text.
func standingComment(s lb.Standing) string {
	var parts []string
	if word, ok := orderWords[s.Order]; ok {
		if isName(s.By) {
			word += " by " + s.By
		}
		if !s.Until.IsZero() {
			word += " until " + timeText(s.Until)
		}
		parts = append(parts, word)
	}
	if s.Verdict == lb.VerdictDown {
		parts = append(parts, strings.TrimSpace("down "+timeText(s.Since)+" "+reasonText(s.Reason)))
	}
	return strings.Join(parts, "; ")
}

// ReadStanding reads the comment of an element of the set into the standing of a
// backend. It passes over a part that is not as nlb writes it: somebody else may
// have.
func ReadStanding(comment string, s *lb.Standing) {
	order, rest, _ := strings.Cut(comment, "; ")
	if strings.HasPrefix(comment, "down ") {
		order, rest = "", comment
	}
	readOrder(order, s)
	words := strings.SplitN(rest, " ", 3)
	if words[0] != "down" || len(words) < 2 {
		return
	}
	since, ok := parseTime(words[1])
	if !ok {
		return
	}
	s.Verdict, s.Since = lb.VerdictDown, since
	if len(words) == 3 {
		s.Reason = reasonText(words[2])
	}
}

func readOrder(text string, s *lb.Standing) {
	words := strings.Split(text, " ")
	read := lb.Standing{}
	for order, word := range orderWords {
		if words[0] == word {
			read.Order = order
		}
	}
	words = words[1:]
	if len(words) >= 2 && words[0] == "by" && isName(words[1]) {
		read.By, words = words[1], words[2:]
	}
	if len(words) >= 2 && words[0] == "until" {
		until, ok := parseTime(words[1])
		if !ok {
			return
		}
		read.Until, words = until, words[2:]
	}
	if read.Order != lb.NoOrder && len(words) == 0 {
		s.Order, s.By, s.Until = read.Order, read.By, read.Until
	}
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// parseTime reads what timeText writes, and nothing else.
func parseTime(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, text)
	t = t.UTC()
	return t, err == nil && timeText(t) == text
}

// isName reports whether a text may be the name of who gave an order.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.", c) >= 0) {
			return false
		}
	}
	return s != "" && len(s) <= lb.MaxBy
}

// reasonText is a reason as a comment can hold it: nft has no way to write '"', '\'
// and '$'.
func reasonText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune("\"\\$", r) {
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), lb.MaxReason)])
}
