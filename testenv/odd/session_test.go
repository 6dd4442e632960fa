package odd

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/session"
)

// complete asks for all modes with all others, which takes minutes.
var complete = flag.Bool("complete", false, "every form with every policy, announcement and segment")

// form is how a client sends content.
type form struct {
	name   string
	chunks func(string) []string // nil: by DATA
	group  bool                  // the envelope and all chunks at once
}

var forms = []form{
	{name: "DATA"},
	{name: "one chunk", chunks: func(s string) []string { return []string{s} }},
	{name: "two chunks", chunks: func(s string) []string { return []string{s[:len(s)/2], s[len(s)/2:]} }},
	{name: "odd chunks", chunks: func(s string) []string { return Cut(s, 67, 127, 1021, 4099, 65537) }},
	{name: "small chunks", chunks: func(s string) []string { return Cut(s, max(64, len(s)/500)) }},
	{name: "tiny chunks", chunks: func(s string) []string { return Cut(s, len(s)/250+1) }},
	{name: "empty last chunk", chunks: func(s string) []string { return []string{s, ""} }},
	{name: "a group of chunks", chunks: func(s string) []string { return Cut(s, 67, 127, 1021, 4099, 65537) }, group: true},
}

// mode is a way in which all messages are sent.
type mode struct {
	form
	Policy
	announced string // in BODY=
	segment   int    // octets that are read at a time; 0: any number
	slow      bool   // the client is silent for a while before each segment
	bare      bool   // the origin offers neither CHUNKING nor BINARYMIME nor 8BITMIME
}

func (m mode) String() string {
	text := m.name
	for _, part := range []struct {
		is   bool
		name string
	}{
		{m.Normalize, "normalize"}, {m.Remove, "remove"}, {m.announced != "", m.announced},
		{m.segment > 0, fmt.Sprintf("segments of %d", m.segment)}, {m.slow, "slow"}, {m.bare, "bare origin"},
	} {
		if part.is {
			text += ", " + part.name
		}
	}
	return text
}

var policies = []Policy{{}, {Normalize: true}, {Remove: true}, {Normalize: true, Remove: true}}

// segments are the sizes in which streams are cut, but for 0.
var segments = []int{1, 2, 3, 7, 511, 1460, 16384}

// modes lists those that are tried.
func modes() (list []mode) {
	for _, f := range forms {
		for n, p := range policies {
			list = append(list, mode{form: f, Policy: p}, mode{form: f, Policy: p, announced: "8BITMIME"})
			for _, size := range segments {
				if *complete || (f.chunks == nil || f.name == "odd chunks") && n%3 == 0 {
					list = append(list, mode{form: f, Policy: p, segment: size})
				}
			}
			if f.chunks == nil {
				list = append(list, mode{form: f, Policy: p, bare: true})
			}
		}
		if f.name != "small chunks" && f.name != "tiny chunks" { // so slow, these are too slow
			list = append(list, mode{form: f, segment: 4096, slow: true})
		}
		if f.chunks != nil {
			binary := Policy{Binary: true}
			list = append(list,
				mode{form: f, Policy: binary, announced: "BINARYMIME"},
				mode{form: f, Policy: binary, announced: "BINARYMIME", segment: 1460},
				mode{form: f, Policy: Policy{Binary: true, Normalize: true, Remove: true}, announced: "BINARYMIME"})
		}
	}
	return list
}

// protocol is the product's default with a policy.
func rulesOf(p Policy) protocol.Rules {
	rules := protocol.Default()
	if p.Normalize {
		rules.Newlines = protocol.NormalizeNewlines
	}
	if p.Remove {
		rules.NUL = protocol.RemoveNUL
	}
	return rules
}

// turns is a whole session.
func (m mode) turns(content string) []turn {
	return slices.Concat([]turn{hello}, m.transaction(content), []turn{quit})
}

var hello = turn{"EHLO client.example.net\r\n", 1}

// transaction sends one message.
func (m mode) transaction(content string) []turn {
	mail := "MAIL FROM:<a@example.net>"
	if m.announced != "" {
		mail += " BODY=" + m.announced
	}
	mail += "\r\n"
	const rcpt = "RCPT TO:<b@example.org>\r\n"
	if m.chunks == nil {
		return []turn{{mail, 1}, {rcpt, 1}, {"DATA\r\n", 1}, {Wire(content) + ".\r\n", 1}}
	}
	chunks := BDAT(m.chunks(content))
	if m.group {
		return []turn{{mail + rcpt + strings.Join(chunks, ""), 2 + len(chunks)}}
	}
	list := []turn{{mail, 1}, {rcpt, 1}}
	for _, chunk := range chunks {
		list = append(list, turn{chunk, 1})
	}
	return list
}

// fate is what must become of a message in this mode.
func (m mode) fate(content string) Fate {
	if m.chunks == nil {
		content = Ended(content)
	}
	return Judge(content, m.Policy)
}

// sink keeps the records of messages.
type sink struct{ messages []event.Message }

func (*sink) Opened(*flow.Flow)                {}
func (*sink) Refused(*flow.Flow, event.Reason) {}
func (*sink) Session(*event.Session)           {}
func (s *sink) Message(m *event.Message)       { s.messages = append(s.messages, *m) }

// play sends a message and says what is wrong with what became of it.
func (m mode) play(content string) string {
	o := newOrigin(m.segment, "PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME")
	if m.bare {
		o = newOrigin(m.segment, "PIPELINING")
	}
	c := newClient(m.segment, m.slow, m.turns(content))
	var s sink
	session.Run(session.Options{Policy: policy.New(rulesOf(m.Policy)), Rules: policy.New(rulesOf(m.Policy)).Rules(), Sink: &s, Flow: flow.Flow{Service: "mx"}}, c, o)
	return m.check(content, c, o, s.messages)
}

func (m mode) check(content string, c *client, o *origin, records []event.Message) string {
	want := m.fate(content)
	refusal := 0
	for _, code := range c.codes {
		if code > 399 {
			refusal = cmp.Or(refusal, code) // the first is the message's, what follows it is the session's
		}
	}
	switch {
	case len(o.faults) > 0:
		return "the origin was sent " + strings.Join(o.faults, ", ")
	case len(records) != 1:
		return fmt.Sprintf("%d records", len(records))
	case want.Why != "" && (refusal != want.Code || len(o.messages) > 0):
		return fmt.Sprintf("for its %s it must be refused with %d; replies %v, %d messages", want.Why, want.Code, c.codes, len(o.messages))
	case want.Why != "" && records[0].Outcome != event.Refused:
		return fmt.Sprintf("it is recorded as %s", records[0].Outcome)
	case want.Why != "":
		return ""
	case refusal != 0 || len(o.messages) != 1:
		return fmt.Sprintf("it must arrive; replies %v, %d messages", c.codes, len(o.messages))
	case o.messages[0] != want.Stored:
		return "it is changed: " + differ(o.messages[0], want.Stored)
	case records[0].Outcome != event.Accepted:
		return fmt.Sprintf("it is recorded as %s", records[0].Outcome)
	case want.Stored == content && records[0].Size != int64(len(content)):
		return fmt.Sprintf("%d octets are recorded as %d", len(content), records[0].Size)
	}
	return ""
}

// differ says where two texts part.
func differ(got, want string) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	around := func(s string) string { return fmt.Sprintf("%q", s[max(0, min(i-20, len(s))):min(len(s), i+20)]) }
	return fmt.Sprintf("at octet %d of %d and %d: %s in place of %s", i, len(got), len(want), around(got), around(want))
}

// fits reports whether a message of this size is sent in this mode: with few octets
// in a read, the largest would take all the time, and tell what smaller ones tell.
func (m mode) fits(octets int) bool { return m.segment == 0 || octets/m.segment <= 4_000 }

// TestSession sends every message in every mode. It arrives as it was sent, or as
// the reference says that the policy makes it; or it is refused, by the code that
// belongs to what is wrong with it, and never arrives.
func TestSession(t *testing.T) {
	all := corpus(t)
	for _, m := range modes() {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for _, one := range all {
					if !m.fits(len(one.Content)) {
						continue
					}
					if problem := m.play(one.Content); problem != "" {
						t.Errorf("%s: %s", one.Name, problem)
					}
				}
			})
		})
	}
}

// TestManyInASession sends what is not refused in sessions of many messages, by
// another form each time: nothing of one is left for the next.
func TestManyInASession(t *testing.T) {
	for _, p := range policies {
		for taken := range slices.Chunk(accepted(t, p), 40) {
			turns := []turn{hello}
			var want []string
			for i, one := range taken {
				m := mode{form: forms[i%len(forms)], Policy: p}
				turns = append(turns, m.transaction(one.Content)...)
				want = append(want, m.fate(one.Content).Stored)
			}
			o := newOrigin(1460, "PIPELINING", "8BITMIME", "CHUNKING")
			c := newClient(1460, false, append(turns, quit))
			var s sink
			session.Run(session.Options{Policy: policy.New(rulesOf(p)), Rules: policy.New(rulesOf(p)).Rules(), Sink: &s}, c, o)
			if n := len(want); len(o.faults) > 0 || len(o.messages) != n || len(s.messages) != n || slices.Max(c.codes) > 399 {
				t.Fatalf("%+v, from %s: %d messages, %d arrive; faults %q, replies %v", p, taken[0].Name, n, len(o.messages), o.faults, c.codes)
			}
			for i, one := range taken {
				if o.messages[i] != want[i] {
					t.Errorf("%+v, %s: %s", p, one.Name, differ(o.messages[i], want[i]))
				}
				if want[i] == one.Content && s.messages[i].Size != int64(len(want[i])) {
					t.Errorf("%+v, %s: %d octets are recorded as %d", p, one.Name, len(want[i]), s.messages[i].Size)
				}
			}
		}
	}
}

// accepted returns the messages that a policy refuses in no form.
func accepted(t *testing.T, p Policy) []Message {
	return slices.DeleteFunc(corpus(t), func(m Message) bool {
		return Judge(m.Content, p).Why != ""
	})
}

// corpus returns the messages.
func corpus(t *testing.T) []Message {
	t.Helper()
	all, err := Messages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCorpus: each message has a name of its own and says what it is, and no two
// are the same.
func TestCorpus(t *testing.T) {
	names, contents := map[string]bool{}, map[string]string{}
	families := map[string]int{}
	for _, m := range corpus(t) {
		if names[m.Name] || len(strings.Fields(m.What)) < 3 {
			t.Errorf("%s: %q: the name is taken, or nothing is said", m.Name, m.What)
		}
		if other, taken := contents[m.Content]; taken {
			t.Errorf("%s and %s are the same", m.Name, other)
		}
		names[m.Name], contents[m.Content] = true, m.Name
		family, _, _ := strings.Cut(m.Name, "/")
		families[family]++
	}
	if len(names) < 500 || len(families) < 12 {
		t.Errorf("%d messages in families %v", len(names), families)
	}
}

// TestModes: nobody takes a mode out unseen.
func TestModes(t *testing.T) {
	all := corpus(t)
	var names []string
	sessions := 0
	for _, m := range modes() {
		if slices.Contains(names, m.String()) {
			t.Errorf("%s is there twice", m)
		}
		names = append(names, m.String())
		for _, one := range all {
			if m.fits(len(one.Content)) {
				sessions++
			}
		}
	}
	t.Logf("%d messages in %d modes: %d sessions", len(all), len(names), sessions)
	if len(names) < 100 || sessions < 60_000 {
		t.Error("too few")
	}
}
