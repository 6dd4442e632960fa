package config

import "slices"

// nearest returns the word that s was probably meant to be: the one at the
// smallest edit distance, if no more than a third of s (at least one letter)
// would have to change. It returns "" when nothing is that near.
func nearest(s string, words []string) string {
	best, found := max(1, len(s)/3)+1, ""
	for _, w := range words {
		if d := distance(s, w, best); d < best {
			best, found = d, w
		}
	}
	return found
}

// distance is the number of octets to insert, delete, replace or swap with
// their neighbour to turn a into b; limit if it is no less than limit.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost(a[i], b[j]))
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		if slices.Min(row) >= limit {
			return limit
		}
		before, last = last, row
	}
	return min(last[len(b)], limit)
}

func cost(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}

func abs(n int) int { return max(n, -n) }
