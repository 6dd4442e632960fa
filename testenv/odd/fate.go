package odd

import (
	"fmt"
	"strings"
)

// This file says what must become of content, in the plainest words, and shares
// nothing with the product.

// Policy is what an operator has chosen, and what a client has announced.
type Policy struct {
	Normalize bool // bare_newlines: normalize
	Remove    bool // nul: remove
	Binary    bool // the client has said BODY=BINARYMIME
}

// Fate is what must become of a message.
type Fate struct {
	Code   int    // that its client reads in the end
	Why    string // for a refused one: one of the words below
	Stored string // by the origin, for one that is not
}

// Why a message is refused.
const (
	Bare = "bare CR or LF"
	NUL  = "NUL"
	Long = "long line"
)

// codes are what the client reads.
var codes = map[string]int{Bare: 550, NUL: 554, Long: 554}

// Longest is the longest line that is let pass by default, without CRLF.
const Longest = 64 << 10

// Judge says what becomes of content that came in chunks. What comes by DATA has the
// CRLF that Ended puts there.
func Judge(content string, p Policy) Fate {
	if p.Binary {
		return Fate{Code: 250, Stored: content}
	}
	var stored strings.Builder
	column := 0
	for i := 0; i < len(content); i++ {
		why := ""
		switch c := content[i]; {
		case c == '\r' && i+1 < len(content) && content[i+1] == '\n':
			stored.WriteString("\r\n")
			i++
			column = -1
		case c == '\r' && p.Normalize:
			stored.WriteByte(' ')
		case c == '\n' && p.Normalize:
			stored.WriteString("\r\n")
			column = -1
		case c == '\r' || c == '\n':
			why = Bare
		case c == 0 && p.Remove:
		case c == 0:
			why = NUL
		default:
			stored.WriteByte(c)
		}
		if column++; column > Longest && why == "" {
			why = Long
		}
		if why != "" { // the first fault is the one that is named
			return Fate{Code: codes[why], Why: why}
		}
	}
	return Fate{Code: 250, Stored: Ended(stored.String())}
}

// Ended returns content with the CRLF that the end of data needs before it. What is
// empty needs none.
func Ended(content string) string {
	if content != "" && !strings.HasSuffix(content, "\r\n") {
		content += "\r\n"
	}
	return content
}

// Wire is how a client sends content after DATA, without the end of data: ended, and
// with the dots doubled that begin lines. Only CRLF begins a line.
func Wire(content string) string {
	content = Ended(content)
	if strings.HasPrefix(content, ".") {
		content = "." + content
	}
	return strings.ReplaceAll(content, "\r\n.", "\r\n..")
}

// Unstuffed is what a server makes of that.
func Unstuffed(wire string) string {
	return strings.ReplaceAll(strings.TrimPrefix(wire, "."), "\r\n.", "\r\n")
}

// Cut cuts content into pieces of these sizes in turn. The last is never empty
// unless it is the only one.
func Cut(content string, sizes ...int) (pieces []string) {
	for n := 0; len(content) > sizes[n%len(sizes)]; n++ {
		size := sizes[n%len(sizes)]
		pieces, content = append(pieces, content[:size]), content[size:]
	}
	return append(pieces, content)
}

// BDAT puts its command before each piece of content.
func BDAT(pieces []string) (chunks []string) {
	for i, piece := range pieces {
		last := ""
		if i == len(pieces)-1 {
			last = " LAST"
		}
		chunks = append(chunks, fmt.Sprintf("BDAT %d%s\r\n%s", len(piece), last, piece))
	}
	return chunks
}
