package odd

import (
	"fmt"
	"strconv"
	"strings"
)

// A file under mail has what it is about in its first line, and then messages. Each
// begins with a line of its name and what is odd about it:
//
//	== name | what it is, and where it is met
//
// The lines behind it are the message, and CRLF is put behind each. Written with a
// backslash are
//
//	\r \n \t \s \0 \xFF   an octet; \s is a blank
//	\{40 text}            the text, up to the brace, 40 times; octets as above
//	\                     at the end of a line: no CRLF is put there
//	\head                 alone on a line: the header of an ordinary message
//	\\                    a backslash
func read(family, text string) (list []Message, err error) {
	_, text, _ = strings.Cut(text, "\n== ")
	for block := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n== ") {
		title, lines, _ := strings.Cut(block, "\n")
		name, what, ok := strings.Cut(title, " | ")
		if !ok {
			return nil, fmt.Errorf("%q does not say what it is", title)
		}
		content, err := content(lines)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, Message{family + "/" + name, what, content})
	}
	return list, nil
}

// head is the header of an ordinary message, without the empty line.
const head = "From: <a@example.net>\r\nTo: <b@example.org>\r\nSubject: odd\r\n" +
	"Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <odd@example.net>\r\n"

// content reads the lines of a message.
func content(lines string) (string, error) {
	var b strings.Builder
	for line := range strings.SplitSeq(lines, "\n") {
		if line == `\head` {
			b.WriteString(head)
			continue
		}
		line, open := cutLast(line)
		octets, err := octets(line)
		if err != nil {
			return "", fmt.Errorf("%q: %w", line, err)
		}
		b.WriteString(octets)
		if !open {
			b.WriteString("\r\n")
		}
	}
	return b.String(), nil
}

// cutLast takes the backslash off a line that goes on without CRLF.
func cutLast(line string) (rest string, open bool) {
	rest = strings.TrimRight(line, `\`)
	if (len(line)-len(rest))%2 == 0 {
		return line, false
	}
	return line[:len(line)-1], true
}

// single are the octets with a letter of their own.
var single = map[byte]string{'r': "\r", 'n': "\n", 't': "\t", 's': " ", '0': "\x00", '\\': `\`}

// octets reads a line.
func octets(line string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(line, `\`)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		octets, rest, err := escape(after)
		if err != nil {
			return "", err
		}
		b.WriteString(octets)
		line = rest
	}
}

// escape reads what is behind a backslash.
func escape(text string) (octets, rest string, err error) {
	switch {
	case text == "":
		return "", "", fmt.Errorf("nothing is behind a backslash")
	case text[0] == 'x' && len(text) > 2:
		value, err := strconv.ParseUint(text[1:3], 16, 8)
		return string([]byte{byte(value)}), text[3:], err
	case text[0] == '{':
		return repeated(text[1:])
	}
	octets, known := single[text[0]]
	if !known {
		return "", "", fmt.Errorf("%c is no escape", text[0])
	}
	return octets, text[1:], nil
}

// repeated reads a number, a blank, what is repeated, and a brace.
func repeated(text string) (all, rest string, err error) {
	text, rest, closed := strings.Cut(text, "}")
	number, text, ok := strings.Cut(text, " ")
	if !closed || !ok {
		return "", "", fmt.Errorf("a repetition is not complete")
	}
	times, err := strconv.Atoi(number)
	if err != nil {
		return "", "", err
	}
	one, err := octets(text)
	return strings.Repeat(one, times), rest, err
}
