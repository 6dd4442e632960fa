package odd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// made returns the messages that follow a rule.
func made() []Message {
	return slices.Concat(lengths(), sizes(), ends(), pairs(), deep(), random())
}

// body makes a message with an ordinary header.
func body(name, what, text string) Message {
	return Message{name, what, head + "\r\n" + text}
}

// x returns that many octets of text.
func x(octets int) string {
	const text = "abcdefghijklmnopqrstuvwxyz 0123456789 "
	return strings.Repeat(text, octets/len(text)+1)[:octets]
}

// lengths are lines at the limits that standards and servers set. They end in a
// dot, and a dot follows them: a server that breaks a line must not find an end
// there.
func lengths() (list []Message) {
	for _, at := range []struct {
		octets []int
		what   string
	}{
		{[]int{77, 78, 79}, "RFC 5322 recommends 78 at most"},
		{[]int{509, 510, 511, 512, 513}, "a buffer of 512 octets, with CRLF and without"},
		{[]int{997, 998, 999, 1000, 1001}, "RFC 5322 allows 998 at most"},
		{[]int{1023, 1024, 1025}, "a buffer of 1,024"},
		{[]int{2047, 2048, 2049}, "Postfix breaks longer ones in its queue"},
		{[]int{4095, 4096, 4097}, "a page of memory"},
		{[]int{8191, 8192, 8193}, "a buffer of many servers"},
		{[]int{16383, 16384, 16385}, "a record of TLS"},
		{[]int{32751, 32752, 32753}, "half a block of 64 KiB, less the room for an end"},
		{[]int{65535, 65536, 65537}, "64 KiB are the longest that is let pass"},
		{[]int{99_999, 100_000}, "minified HTML, PHP without wordwrap"},
	} {
		for _, octets := range at.octets {
			list = append(list, body(fmt.Sprintf("lengths/%d", octets), fmt.Sprintf("a line of %d octets: %s", octets, at.what),
				x(octets-1)+".\r\n.\r\n"))
		}
	}
	for _, octets := range []int{65535, 65536, 65537} {
		list = append(list,
			body(fmt.Sprintf("lengths/dot-%d", octets), fmt.Sprintf("a line of %d octets that begins with a dot, which is stuffed", octets),
				"."+x(octets-1)+"\r\n"),
			body(fmt.Sprintf("lengths/no-end-%d", octets), fmt.Sprintf("a last line of %d octets without CRLF", octets), x(octets)),
			Message{fmt.Sprintf("lengths/header-%d", octets), fmt.Sprintf("a header line of %d octets", octets),
				"X: " + x(octets-3) + "\r\n" + head + "\r\nbody\r\n"})
	}
	return append(list,
		body("lengths/html", "HTML of 300 KiB in one line: newsletters", "<p>"+x(300<<10)+"</p>\r\n"),
		body("lengths/many", "lines of each length up to 1,000", staircase()))
}

func staircase() string {
	var b strings.Builder
	for n := range 1001 {
		b.WriteString(x(n) + "\r\n")
	}
	return b.String()
}

// sizes are whole messages whose last octet is near the edge of a buffer: of a page,
// of a block, and of a piece that is encoded at once. In some, the edge is inside
// CRLF or between CRLF and a dot.
func sizes() (list []Message) {
	for _, edge := range []int{512, 4096, 32768 - 16, 65536, 2 * 65536} {
		for octets := edge - 3; octets <= edge+3; octets++ {
			list = append(list, Message{fmt.Sprintf("sizes/%d", octets), "a message whose size is near the edge of a buffer", sized(octets)})
		}
		for back := range 5 {
			text := sized(edge - back)
			list = append(list, Message{fmt.Sprintf("sizes/dot-%d-%d", edge, back), "a dot alone begins near the edge of a buffer",
				text + ".\r\n.\r\nx\r\n"})
		}
	}
	return append(list, Message{"sizes/million", "a million octets", sized(1_000_000)})
}

// sized returns a message of that many octets, the last two of which are CRLF.
func sized(octets int) string {
	room := octets - len(head) - 4
	return head + "\r\n" + strings.Repeat(x(70)+"\r\n", room/72) + strings.Repeat("y", room%72) + "\r\n"
}

// ends are all last octets that matter, where the others are in order.
func ends() (list []Message) {
	for _, end := range []string{
		"", "\r", "\n", ".", "\r\n", "\r\r", "\n\n", "\n\r", "..", ".\r", ".\n", ".\r\n", "\r.", "\n.", "\r\n.", "\r\n\r", "\r\n\n", "\r\n..",
		"\r\n.\r", "\r\n.\n", "\r\n.\r\n", "\r\n\r\n", "\r\n\r\n.", "\r\r\n", "\x00", "\r\x00", "\r\n\x00", "\r\n.\x00", "\x1a", "\r\n\x1a", " ", "\t", "\r\n ", "=",
	} {
		list = append(list, body(fmt.Sprintf("ends/%+q", end), "the last octets, which are joined to the end of data", "x"+end))
	}
	return list
}

// pairs are all that can stand between two lines, and look like an end to some.
func pairs() (list []Message) {
	around := []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\x00\r\n", "\r\x00\n"}
	for _, before := range around {
		for _, after := range around {
			list = append(list, body(fmt.Sprintf("pairs/%+q-dot-%+q", before, after), "a dot between two line ends, and a command: smuggling",
				"one"+before+"."+after+"MAIL FROM:<evil@example.net>\r\n"))
		}
	}
	return list
}

// deep are multiparts that make parsers work hard.
func deep() []Message {
	return []Message{
		nested(10), nested(100), nested(1000),
		parts(100), parts(1000), parts(5000),
		{"deep/messages", "200 messages, each within the other: forwarded for ever",
			strings.Repeat("MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n", 200) + head + "\r\nbody\r\n"},
		body("deep/quotes", "a text quoted 900 times", strings.Repeat(">", 900)+" x\r\n"),
		body("deep/boundaries", "10,000 lines that look like boundaries", strings.Repeat("--b\r\n", 10_000)),
		{"deep/comments", "a comment in 900 comments",
			"From: " + strings.Repeat("(", 900) + strings.Repeat(")", 900) + " <a@example.net>\r\n\r\nbody\r\n"},
		{"deep/empty-lines", "20,000 empty lines", head + strings.Repeat("\r\n", 20_000)},
		{"deep/one-octet-lines", "20,000 lines of one octet", head + "\r\n" + strings.Repeat("x\r\n", 20_000)},
		{"deep/dot-lines", "20,000 lines of one dot, which double on the wire", head + "\r\n" + strings.Repeat(".\r\n", 20_000)},
	}
}

func nested(depth int) Message {
	var begin, end strings.Builder
	for n := range depth {
		fmt.Fprintf(&begin, "Content-Type: multipart/mixed; boundary=\"%d\"\r\n\r\n--%d\r\n", n, n)
		fmt.Fprintf(&end, "--%d--\r\n", depth-1-n)
	}
	return Message{fmt.Sprintf("deep/nested-%d", depth), "multiparts within multiparts: Ruby mail's stack_level_too_deep",
		head + "MIME-Version: 1.0\r\n" + begin.String() + "\r\ninnermost\r\n" + end.String()}
}

func parts(count int) Message {
	return Message{fmt.Sprintf("deep/parts-%d", count), "a multipart of very many parts: mime4j's long-multipart",
		head + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n.\r\n", count) + "--b--\r\n"}
}

// random are octets without any structure, the same ones each time: what BINARYMIME
// may carry, and what a broken sender may send.
func random() (list []Message) {
	random := rand.New(rand.NewPCG(25, 2026))
	draw := func(name, what string, octets int, from string) {
		text := make([]byte, octets)
		for i := range text {
			text[i] = from[random.IntN(len(from))]
		}
		list = append(list, body(name, what, string(text)))
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for n, octets := range []int{100, 5000, 70_000} {
		draw(fmt.Sprintf("random/octets-%d", octets), "random octets: a binary file", octets, string(every))
		draw(fmt.Sprintf("random/ends-%d", octets), "random CR, LF and dots", []int{20, 200, 70_000}[n], "\r\n.")
		draw(fmt.Sprintf("random/text-%d", octets), "random octets without CR, LF and NUL: a binary file that is nearly text",
			octets, strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(string(every)))
	}
	return list
}
