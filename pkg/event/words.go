package event

// word is a kind of fixed words: Reason, End and so on.
type word interface {
	~uint8
	String() string
}

// Words returns the words of a kind by their values, given how many there are:
// Words(Ends).
func Words[W word](n W) []string {
	words := make([]string, n)
	for w := range n {
		words[w] = w.String()
	}
	return words
}
