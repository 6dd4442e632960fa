// Package odd is a corpus of odd mail: messages such as real programs send and
// parsers are tested with, and each of them in some way not what one expects.
//
// All of it was made for this purpose. The structures are those that the test
// suites of public parsers have (of Python, JavaMail, mime4j, MimeKit, enmime,
// mail-parser, Ruby mail, Haraka and SpamAssassin above all); no message was
// copied. Most are in files under mail, see read.go; what follows a rule is made
// by made.go.
//
// It knows nothing of the product. Its own tests send the corpus through a
// session in memory and through a relay inside TLS, testenv/differential sends it
// to real servers.
package odd

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Message is a message as its author has it: dots are not doubled, and nothing is
// behind it.
type Message struct {
	Name    string // family and name: "mime/boundary-prefix"
	What    string // what is odd, and where such a thing is met
	Content string
}

//go:embed mail
var files embed.FS

// Messages returns the corpus, in the same order each time.
func Messages() ([]Message, error) {
	names, err := fs.Glob(files, "mail/*.txt")
	if err != nil {
		return nil, err
	}
	var all []Message
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list, err := read(strings.TrimSuffix(path.Base(name), ".txt"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, list...)
	}
	return slices.Concat(all, made()), nil
}
