package text

// Near misses: the word that was probably meant.

// Nearest returns the candidate that is most like a word, "" where none is: one
// that differs in few letters, or that begins with the word.
func Nearest(word string, candidates []string) string {
	best, least := "", len(word)/3+2
	for _, c := range candidates {
		d := distance(word, c)
		if len(word) > 1 && len(c) > len(word) && c[:len(word)] == word {
			d = 1
		}
		// With so many letters changed, nothing of a short word is left.
		if d < least && d < max(len(word), len(c)) {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace, and the neighbours
// to swap, that make b of a (optimal string alignment).
func distance(a, b string) int {
	var before []int // the row two above
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
