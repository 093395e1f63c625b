// Package near finds the word that was probably meant by another one.
package near

import "strings"

// Word is the word that was probably meant by s: one that differs in few
// letters, or the one that s begins or that begins s. Empty where none is near.
func Word(s string, words []string) string {
	s = strings.ReplaceAll(strings.ToLower(s), "_", "-")
	best, least := "", 1+min(len(s), 9)/3
	for _, w := range words {
		if d := distance(s, w, least); d < least {
			best, least = w, d
		}
	}
	for _, w := range words {
		// The beginning of it, or it with a few letters more: prot, warning, max-conns.
		if n := shared(s, w); best == "" && n >= 3 && (n == len(s) || n == len(w) || n >= max(5, len(s)-2)) {
			best = w
		}
	}
	return best
}

// shared is how many letters a and b begin with alike.
func shared(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour between a and b; at least limit+1 where it is above limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	two, one, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range len(b) + 1 {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(one[j]+1, now[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], two[j-2]+1)
			}
		}
		two, one, now = one, now, two
	}
	return one[len(b)]
}
