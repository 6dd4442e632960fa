package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portreeve/portreeve/pkg/event"
)

// pair is a member of a record, named as in text: with the object or the array and
// the place that it is in.
type pair struct{ name, value string }

// parse reads a record in either form; values of strings still have our escapes.
func parse(t *testing.T, f form, line []byte) []pair {
	t.Helper()
	if f == asText {
		return parseText(t, line)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	return flatten(t, d, "")
}

// flatten reads the next value of JSON.
func flatten(t *testing.T, d *json.Decoder, name string) (list []pair) {
	t.Helper()
	next := func() json.Token {
		token, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	switch token := next(); token {
	case json.Delim('{'):
		for d.More() {
			list = append(list, flatten(t, d, strings.TrimPrefix(name+"."+next().(string), "."))...)
		}
		next()
	case json.Delim('['):
		for i := 1; d.More(); i++ {
			list = append(list, flatten(t, d, fmt.Sprintf("%s.%d", name, i))...)
		}
		next()
	default:
		list = append(list, pair{name, fmt.Sprint(token)})
	}
	return list
}

var field = regexp.MustCompile(`^([a-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^" ]+)( |$)`)

// parseText reads a line of text as schema.md describes it.
func parseText(t *testing.T, line []byte) (list []pair) {
	t.Helper()
	rest, whole := strings.CutSuffix(string(line), "\n")
	for rest != "" {
		m := field.FindStringSubmatch(rest)
		if m == nil || m[3] == " " && len(m[0]) == len(rest) {
			t.Fatalf("no field: %q", rest)
		}
		rest = rest[len(m[0]):]
		value := m[2]
		if value[0] == '"' {
			if err := json.Unmarshal([]byte(m[2]), &value); err != nil {
				t.Fatalf("%s: %v", m[2], err)
			}
		}
		list = append(list, pair{m[1], value})
	}
	if !whole {
		t.Fatalf("not a line: %q", line)
	}
	return list
}

// fill gives every field a value, and each text its own from a function.
func fill(record any, next func() event.Text) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch at := v.Addr().Interface().(type) {
		case *netip.AddrPort:
			*at = netip.MustParseAddrPort("192.0.2.1:25")
			return
		case *time.Time:
			*at = someStart
			return
		case *event.Text:
			*at = next()
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			walk(v.Index(0))
			walk(v.Index(1))
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			walk(v.Elem())
		case reflect.Array:
			walk(v.Index(0))
		case reflect.String:
			v.SetString(string(next()))
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(time.Second))
		case reflect.Uint8, reflect.Uint16, reflect.Uint32:
			v.SetUint(1)
		default:
			panic("a field of kind " + v.Kind().String())
		}
	}
	walk(reflect.ValueOf(record).Elem())
}

// leaves calls a function for each field of a filled record that has no fields, and
// for each slice and pointer.
func leaves(at string, v reflect.Value, do func(at string, v reflect.Value)) {
	switch v.Interface().(type) {
	case netip.AddrPort, time.Time, event.Text:
		do(at, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(at+"."+v.Type().Field(i).Name, v.Field(i), do)
		}
	case reflect.Slice:
		do(at, v)
		leaves(at+"[0]", v.Index(0), do)
		leaves(at+"[1]", v.Index(1), do)
	case reflect.Pointer:
		do(at, v)
		leaves(at, v.Elem(), do)
	default:
		do(at, v)
	}
}

// unwritten are the fields that are in no record.
var unwritten = []string{".Flow.Zone.Trust"}

// TestFormsSayTheSame: each field of a record is written, and text has the names and
// values of JSON, in its order, whatever has a value and whatever has none.
func TestFormsSayTheSame(t *testing.T) {
	count := 0
	numbered := func() event.Text { count++; return fmt.Appendf(nil, "text %d", count) }
	message, session := &event.Message{}, &event.Session{}
	fill(message, numbered)
	fill(session, numbered)
	session.Refusals[1].Reason++ // one member for each
	for _, record := range []any{message, session} {
		whole := both(t, record)
		leaves("", reflect.ValueOf(record).Elem(), func(at string, v reflect.Value) {
			before := reflect.ValueOf(v.Interface())
			v.SetZero()
			if less := both(t, record); slices.Equal(less, whole) != slices.Contains(unwritten, at) {
				t.Errorf("%T%s: with a value and without one, the record is %v", record, at, less)
			}
			v.Set(before)
		})
	}
	both(t, &event.Message{})
	both(t, &event.Session{})
	if json, text := parse(t, asJSON, asJSON.lost(nil, someStart, 7)), parse(t, asText, asText.lost(nil, someStart, 7)); !slices.Equal(json, text) {
		t.Errorf("JSON has %v, text has %v", json, text)
	}
}

// both returns what both forms say.
func both(t *testing.T, record any) []pair {
	t.Helper()
	write := func(f form) []byte {
		if m, is := record.(*event.Message); is {
			return f.message(nil, m)
		}
		return f.session(nil, record.(*event.Session))
	}
	json, text := parse(t, asJSON, write(asJSON)), parse(t, asText, write(asText))
	if !slices.Equal(json, text) {
		t.Fatalf("JSON has\n%v\ntext has\n%v", json, text)
	}
	return json
}

// TestFormsKeepOctets: of every text in a record a reader gets back the very octets
// from either form.
func TestFormsKeepOctets(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var sent []string
		draw := func() event.Text {
			s := rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
				rapid.Map(rapid.StringOf(rapid.SampledFrom([]rune(`"\xuUn0 =`+"\n\r\u0301\u200b\U000E0041"))), func(s string) []byte { return []byte(s) })).Draw(r, "text")
			s = append(s, fmt.Sprintf(" %d", len(sent))...)
			sent = append(sent, string(s))
			return s
		}
		message, session := &event.Message{}, &event.Session{}
		fill(message, draw)
		fill(session, draw)
		session.Refusals[1].Reason++
		var got []string
		for _, record := range []any{message, session} {
			for _, x := range both(t, record) {
				if s := string(undo(t, x.value)); slices.Contains(sent, s) {
					got = append(got, s)
				}
			}
		}
		slices.Sort(sent)
		slices.Sort(got)
		if !slices.Equal(sent, got) {
			r.Fatalf("sent were\n%q, written are\n%q", sent, got)
		}
	})
}

// TestFormsAllocateNothing: a record is written into memory that is there, whatever
// peers have sent.
func TestFormsAllocateNothing(t *testing.T) {
	message, session := &event.Message{}, &event.Session{}
	long := event.Text(strings.Repeat(hostileText, 20))
	fill(message, func() event.Text { return long })
	fill(session, func() event.Text { return long })
	b := make([]byte, 0, 1<<20)
	for _, f := range []form{asJSON, asText} {
		if n := testing.AllocsPerRun(10, func() { b = f.session(f.message(b[:0], message), session) }); n != 0 {
			t.Errorf("%v allocations in form %d", n, f)
		}
	}
}

// TestTextOfSchema: the table of schema.md that leads from JSON to text is true.
func TestTextOfSchema(t *testing.T) {
	page, err := os.ReadFile("schema.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "\n| JSON | text |\n|---|---|\n")
	if !found {
		t.Fatal("there is no table")
	}
	rows := 0
	for row := range strings.Lines(table) {
		cells := quoted.FindAllStringSubmatch(row, -1)
		if len(cells) == 0 {
			break
		}
		rows++
		json := parse(t, asJSON, []byte("{"+cells[0][1]+"}"))
		var text []pair
		if len(cells) > 1 {
			text = parse(t, asText, []byte(cells[1][1]+"\n"))
		}
		if !slices.Equal(json, text) {
			t.Errorf("%s: JSON says %v, text says %v", row, json, text)
		}
	}
	if rows < 5 {
		t.Errorf("the table has %d rows", rows)
	}
}
