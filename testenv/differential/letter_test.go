package differential

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// letter is a message with its envelope.
type letter struct {
	name string
	from string
	to   []string
	// Parameters of MAIL and of every RCPT, for clients that can be told.
	mail, rcpt string
	content    string // lines end in CRLF; dots are not doubled
	// plain says that servers store the content as it is: it has a header, and
	// lines that no server folds or refuses.
	plain  bool
	params bool // it has parameters
	// hopeless says that all recipients are refused: what then asks for content
	// reads 503 or 554, as RFC 5321 section 3.3 leaves it to the server.
	hopeless bool
}

// stuffed returns the content with its dots doubled, as DATA wants it.
func (l letter) stuffed() string {
	text := strings.ReplaceAll(l.content, "\r\n.", "\r\n..")
	if strings.HasPrefix(text, ".") {
		text = "." + text
	}
	return text
}

// stored returns the content as servers write it into a Maildir.
func (l letter) stored() string { return strings.ReplaceAll(l.content, "\r\n", "\n") }

// header begins each ordinary message. It has the trace of an earlier hop, which
// must stay.
const header = "Received: from elsewhere by here; Thu, 1 Jan 1970 00:00:00 +0000\r\n" +
	"Subject: letter\r\nFrom: <a@example.net>\r\nTo: <b@example.org>\r\n\r\n"

// mailbox is where the ordinary message goes.
const mailbox = "b@example.org"

// sized returns an ordinary message with a number of octets, header included.
func sized(octets int) letter {
	return letter{
		name: fmt.Sprintf("%d octets", octets), from: "a@example.net", to: []string{mailbox},
		content: text(octets), plain: octets >= len(header),
	}
}

// text returns that many octets of header and lines, the same ones each time.
// Many lines begin with a dot, which is where transports go wrong, and their
// lengths have no pattern.
func text(octets int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz .,;=0123456789"
	random := rand.New(rand.NewPCG(25, uint64(octets)))
	var b strings.Builder
	b.Grow(octets + 1000)
	b.WriteString(header)
	for b.Len() < octets {
		if random.IntN(4) == 0 {
			b.WriteString(strings.Repeat(".", 1+random.IntN(3)))
		}
		for range random.IntN(100) {
			b.WriteByte(letters[random.IntN(len(letters))])
		}
		b.WriteString("\r\n")
	}
	return cut(b.String(), octets)
}

// cut shortens text to a number of octets and ends it with CRLF, if there is
// room for that.
func cut(text string, octets int) string {
	if octets < 2 {
		return ""
	}
	text = strings.TrimRight(text[:octets-2], "\r")
	return text + strings.Repeat("x", octets-2-len(text)) + "\r\n"
}

// lines has content of one kind behind an ordinary header.
func lines(name, body string, plain bool) letter {
	return letter{name: name, from: "a@example.net", to: []string{mailbox}, content: header + body, plain: plain}
}

// contents are what bodies differ in, beside their size.
var contents = []letter{
	lines("dots", ".\r\n..\r\n...\r\n.x\r\n. \r\n \r\n.\t.\r\n\r\n.\r\n\r\n", true),
	lines("commands", "QUIT\r\n.\r\nMAIL FROM:<x@example.net>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n.\r\n", true),
	lines("eight bits", "\xe4\xf6\xfc \xff\xfe\r\nüber €\r\n\x01\x02\x7f\x80\r\n", true),
	lines("998 octets in a line", strings.Repeat(strings.Repeat("x", 997)+".\r\n", 20)+strings.Repeat("y", 998)+"\r\n", true),
	lines("dots where buffers end", dotted(510, 512, 998, 1000), false),
	lines("long lines", dotted(1022, 1024, 2046, 2048, 4094, 4096, 8192, 16384, 32768), false),
	{name: "no header", from: "a@example.net", to: []string{mailbox}, content: "\r\nonly a body\r\n"},
	{name: "no empty line", from: "a@example.net", to: []string{mailbox}, content: "Subject: only a header\r\n"},
	{name: "first line is a dot", from: "a@example.net", to: []string{mailbox}, content: ".\r\n.\r\n"},
	{name: "only empty lines", from: "a@example.net", to: []string{mailbox}, content: "\r\n\r\n\r\n"},
}

// dotted has lines of such lengths that end in a dot, each followed by one that
// begins with a dot.
func dotted(lengths ...int) string {
	var b strings.Builder
	for _, n := range lengths {
		for _, length := range []int{n - 1, n, n + 1} {
			b.WriteString(strings.Repeat("z", length-1) + ".\r\n.\r\n.z\r\n")
		}
	}
	return b.String()
}

// envelopes are what else messages differ in.
var envelopes = []letter{
	{name: "null sender", to: []string{mailbox}},
	{name: "three recipients", from: "a@example.net", to: []string{"x@example.org", "y@example.org", "z@example.org"}},
	{name: "one of three is refused", from: "a@example.net", to: []string{"x@example.org", "y@elsewhere.example", "z@example.org"}},
	{name: "all are refused", from: "a@example.net", to: []string{"x@elsewhere.example", "y@elsewhere.example"}, hopeless: true},
	{name: "a hundred recipients", from: "a@example.net", to: hundred()},
	{name: "odd addresses", from: "a+b=c/d@EXAMPLE.net", to: []string{"o'neill+tag@example.org", "UPPER.lower@Example.ORG", `"quoted local"@example.org`}},
	{name: "postmaster", from: "a@example.net", to: []string{"postmaster@example.org"}},
	{name: "address literal", from: "a@[192.0.2.1]", to: []string{"b@[192.0.2.2]", mailbox}},
}

// parametrized are envelopes with parameters, which not all clients can send.
var parametrized = []letter{
	{name: "SIZE and BODY", from: "a@example.net", to: []string{mailbox}, mail: " SIZE=1000 BODY=8BITMIME"},
	{name: "SIZE is too large", from: "a@example.net", to: []string{mailbox}, mail: " SIZE=9000000000"},
	{name: "DSN", from: "a@example.net", to: []string{mailbox}, mail: " RET=HDRS ENVID=QQ+2B314", rcpt: " NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+2Bc@example.org"},
	{name: "DSN of success", from: "a@example.org", to: []string{mailbox}, mail: " RET=FULL ENVID=QQ+2B314", rcpt: " NOTIFY=SUCCESS ORCPT=rfc822;b+2Bc@example.org"},
	{name: "SMTPUTF8", from: "jürgen@example.net", to: []string{"zoë@example.org"}, mail: " SMTPUTF8"},
}

func hundred() (list []string) {
	for n := range 100 {
		list = append(list, fmt.Sprintf("r%02d@example.org", n))
	}
	return list
}

// withContent gives letters without content an ordinary one.
func withContent(letters []letter, content string, params bool) []letter {
	list := slices.Clone(letters)
	for i := range list {
		list[i].content, list[i].plain, list[i].params = content, true, params
	}
	return list
}

// file writes a form of the content for a client that reads a file, unless it
// is there.
func (s *stage) file(form, content string) (string, error) {
	path := filepath.Join(s.Dir, form)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, []byte(content)) {
		return path, nil
	}
	return path, os.WriteFile(path, []byte(content), 0o644)
}
