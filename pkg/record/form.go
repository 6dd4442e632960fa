package record

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
)

// form is how a record is written down. Both forms say the same: encode.go names
// each member once, and only the methods of line know the two apart.
type form uint8

const (
	asJSON form = iota // one object
	asText             // NAME=VALUE, separated by spaces; schema.md says how
)

// line is a record under construction. Behind each member stands a comma, or what
// stands for it, and the last one gives way to the end.
type line struct {
	b      []byte
	form   form
	comma  byte
	object string // in text: the object that the members are in
	item   int    // in text: its place in its array, from 1; 0: it is in none
}

const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// begin begins a record with what every one has.
func (f form) begin(b []byte, kind string, at time.Time) line {
	l := line{b: b, form: f, comma: ' '}
	if f == asJSON {
		l.b = append(l.b, '{')
		l.comma = ','
	}
	l.word("event", kind)
	l.time("time", at)
	return l
}

// end ends the record and returns it.
func (l *line) end() []byte {
	l.b = l.b[:len(l.b)-1]
	if l.form == asJSON {
		l.b = append(l.b, '}')
	}
	return append(l.b, '\n')
}

func (l *line) name(n string) {
	if l.form == asJSON {
		l.b = append(l.b, '"')
		l.b = append(l.b, n...)
		l.b = append(l.b, '"', ':')
		return
	}
	if l.object != "" {
		l.b = append(append(l.b, l.object...), '.')
	}
	if l.item > 0 {
		l.b = append(strconv.AppendInt(l.b, int64(l.item), 10), '.')
	}
	l.b = append(append(l.b, n...), '=')
}

// quote writes the quotation mark of a string that has none in text.
func (l *line) quote() {
	if l.form == asJSON {
		l.b = append(l.b, '"')
	}
}

// must writes a string, also an empty one, in quotation marks.
func (l *line) must(n string, s event.Text) {
	l.name(n)
	l.b = append(l.b, '"')
	l.b = appendEscaped(l.b, s)
	l.b = append(l.b, '"', l.comma)
}

func (l *line) text(n string, s event.Text) {
	if len(s) > 0 {
		l.must(n, s)
	}
}

// word writes a string of our own or of the configuration. In text it has no
// quotation marks, unless something has got into it after all.
func (l *line) word(n, s string) {
	switch {
	case s == "":
	case l.form == asText && isWord(s):
		l.name(n)
		l.b = append(append(l.b, s...), l.comma)
	default:
		l.must(n, []byte(s))
	}
}

func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; !plain(c) || c == ' ' {
			return false
		}
	}
	return true
}

func (l *line) number(n string, v int64) {
	l.name(n)
	l.b = strconv.AppendInt(l.b, v, 10)
	l.b = append(l.b, l.comma)
}

func (l *line) option(n string, v int64) {
	if v != 0 {
		l.number(n, v)
	}
}

func (l *line) flag(n string, v bool) {
	l.name(n)
	l.b = strconv.AppendBool(l.b, v)
	l.b = append(l.b, l.comma)
}

func (l *line) seconds(n string, d time.Duration) {
	if d > 0 {
		l.name(n)
		l.b = strconv.AppendFloat(l.b, d.Seconds(), 'f', 6, 64)
		l.b = append(l.b, l.comma)
	}
}

func (l *line) time(n string, t time.Time) {
	l.name(n)
	l.quote()
	l.b = t.UTC().AppendFormat(l.b, timeLayout)
	l.quote()
	l.b = append(l.b, l.comma)
}

func (l *line) addr(n string, a netip.AddrPort) {
	if a.IsValid() {
		l.name(n)
		l.quote()
		l.b = a.AppendTo(l.b)
		l.quote()
		l.b = append(l.b, l.comma)
	}
}

func (l *line) id(n string, id flow.ID) {
	l.name(n)
	l.quote()
	l.b, _ = id.AppendText(l.b) // cannot fail
	l.quote()
	l.b = append(l.b, l.comma)
}

// open begins an object, which is in no other. It has a member before it ends.
func (l *line) open(n string) {
	if l.form == asJSON {
		l.name(n)
		l.b = append(l.b, '{')
		return
	}
	l.object = n
}

// openItem begins the object at a place in an array.
func (l *line) openItem(list string, i int) {
	if l.form == asJSON {
		l.b = append(l.b, '{')
		return
	}
	l.object, l.item = list, i+1
}

// shut ends an object.
func (l *line) shut() {
	if l.form == asJSON {
		l.b[len(l.b)-1] = '}'
		l.b = append(l.b, ',')
		return
	}
	l.object, l.item = "", 0
}

// openList begins an array of objects.
func (l *line) openList(n string) {
	if l.form == asJSON {
		l.name(n)
		l.b = append(l.b, '[')
	}
}

// shutList ends an array; of one without objects, text says nothing.
func (l *line) shutList() {
	if l.form != asJSON {
		return
	}
	if n := len(l.b) - 1; l.b[n] == ',' {
		l.b = l.b[:n]
	}
	l.b = append(l.b, ']', ',')
}
