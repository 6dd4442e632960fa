package chaos

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
)

// Way is one by which mail comes.
type Way struct {
	Transit bool // to the origin's own address; else to the gateway's
	Family  int  // of addresses: 4 or 6
}

// Ways are all.
var Ways = []Way{{false, 4}, {false, 6}, {true, 4}, {true, 6}}

func (w Way) String() string {
	name := "addressed"
	if w.Transit {
		name = "transit"
	}
	return fmt.Sprintf("%s IPv%d", name, w.Family)
}

// Kind is what a client does with a letter.
type Kind string

// The kinds of letters.
const (
	Quick    Kind = "quick"    // sent in one go
	Slow     Kind = "slow"     // half of the content, a pause, the rest
	Broken   Kind = "broken"   // half of the content, and the end of the connection
	Smuggled Kind = "smuggled" // with an end of data that only careless servers see: never let through
	Banned   Kind = "banned"   // by a client whom the administrator keeps out
)

// honest reports whether mail of this kind may pass an inspector.
func (k Kind) honest() bool { return k == Quick || k == Slow }

// numbered begins the field that tells a letter's number and the sum of its body.
const numbered = "X-Letter: "

// Content makes the content of a letter as it is on the wire, without its end. Some
// lines begin with a dot, which is doubled there.
func Content(number, lines int) string {
	var body strings.Builder
	for n := range lines {
		if n%5 == 3 {
			body.WriteString("..")
		}
		fmt.Fprintf(&body, "letter %d line %d %s\r\n", number, n, strings.Repeat("x", (number+n)%60))
	}
	return fmt.Sprintf("Subject: chaos\r\n%s%d %x\r\n\r\n%s", numbered, number, sha256.Sum256([]byte(body.String())), body.String())
}

// Smuggle adds what a server that ends lines with LF alone takes for the end of the
// message and the begin of another.
func Smuggle(content string) string {
	return content + "\n.\nMAIL FROM:<smuggled@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nsmuggled\r\n"
}

// Read returns the number of a letter, and whether all of it is there and nothing else.
func Read(content string) (number int, whole bool, err error) {
	head, body, _ := strings.Cut(content, "\r\n\r\n")
	_, field, found := strings.Cut(head, "\r\n"+numbered)
	words := strings.Fields(field)
	if !found || len(words) != 2 {
		return 0, false, fmt.Errorf("%.80q is no letter of ours", content)
	}
	if number, err = strconv.Atoi(words[0]); err != nil {
		return 0, false, err
	}
	return number, fmt.Sprintf("%x", sha256.Sum256([]byte(body))) == words[1], nil
}
