package odd

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestReadme holds README's figures to the truth. That a session does as Judge says
// is TestSession's part.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := strings.Join(strings.Fields(string(text)), " ")
	refused := refusals(t, Policy{})
	mended := refusals(t, Policy{Normalize: true, Remove: true})
	if refused[Bare]*refused[NUL]*refused[Long] == 0 || mended[Bare]+mended[NUL] > 0 {
		t.Errorf("refused are %v, and %v where all is mended", refused, mended)
	}
	for _, sentence := range []string{
		fmt.Sprintf("Of %d odd messages", len(corpus(t))),
		fmt.Sprintf("%d are refused by default: %d for a CR or LF that is not part of CRLF,", refused[Bare]+refused[NUL]+refused[Long], refused[Bare]),
		fmt.Sprintf("%d for a NUL,", refused[NUL]),
		fmt.Sprintf("%d for a line of more than %d KiB,", refused[Long], Longest>>10),
		fmt.Sprintf("With `bare_newlines: normalize` and `nul: remove`, %d are refused, all for their lines", mended[Long]),
		fmt.Sprintf("make odd # %d odd messages", len(corpus(t))),
	} {
		if !strings.Contains(readme, sentence) {
			t.Errorf("README does not say: %s", sentence)
		}
	}
}

// refusals counts the messages that are refused, by reason.
func refusals(t *testing.T, p Policy) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, m := range corpus(t) {
		if f := Judge(m.Content, p); f.Why != "" {
			count[f.Why]++
		}
		if byData := Judge(Ended(m.Content), p); byData.Why != Judge(m.Content, p).Why {
			t.Errorf("%s: by DATA refused for %q, in chunks not so", m.Name, byData.Why)
		}
	}
	return count
}
