package event

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/flow"
)

// visitor is the session of a client that looked at the greeting and went.
func visitor() Session {
	return Session{Flow: someFlow, Origin: someMessage.Origin, Start: someStart, Duration: time.Second, Mode: "mirror",
		Greeted: time.Millisecond, Greeting: Answer{220, Text("mx ESMTP")}, ClientOut: 14, OriginIn: 14, End: EndClientGone}
}

func TestSilent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *Session)
		silent bool
	}{
		"greeted":                    {func(*Session) {}, true},
		"gone before the greeting":   {func(s *Session) { s.Greeting, s.Greeted = Answer{}, 0 }, true},
		"not even an origin yet":     {func(s *Session) { *s = Session{Flow: s.Flow, Start: s.Start, End: s.End} }, true},
		"TLS with the origin":        {func(s *Session) { s.OriginTLS = &TLS{Version: "TLS1.3"} }, true},
		"greeted, and long idle":     {func(s *Session) { s.Duration = 4 * time.Minute }, true},
		"waited for a greeting":      {func(s *Session) { s.Greeting, s.Greeted, s.Duration = Answer{}, 0, 10*time.Second }, false},
		"greeted by a refusal":       {func(s *Session) { s.Greeting.Code = 554 }, false},
		"greeted with trouble":       {func(s *Session) { s.Greeting.Code = 421 }, false},
		"TLS with the origin failed": {func(s *Session) { s.OriginTLS = &TLS{Failure: FailureTimeout} }, false},
	} {
		s := visitor()
		c.change(&s)
		if s.Silent() != c.silent {
			t.Errorf("%s: silent is %v", name, !c.silent)
		}
	}
	for end := range Ends {
		s := visitor()
		s.End = end
		if s.Silent() != (end == EndClientGone) {
			t.Errorf("%s: silent is %v", end, s.Silent())
		}
	}
}

// ordinary are the members that say nothing of interest about a silent visitor: who
// it is, where it came to and how long it stayed, what was sent to it, and what
// there is only where there was a command. TestSilent looks at the rest of these.
var ordinary = []string{"Flow", "Origin", "Forged", "Unforged", "Start", "Duration", "Greeted", "Greeting", "OriginTLS", "Mode",
	"ClientOut", "OriginIn", "OriginOut", "Hello", "Extended", "XClient", "Offered", "Used", "Authenticated", "Removed", "End"}

// TestSilentHasNothingElse: a session in which anything else was noted stays in the
// log. A new member has to be thought of here.
func TestSilentHasNothingElse(t *testing.T) {
	var full Session
	fill(&full, func() Text { return Text("x") })
	kind := reflect.TypeFor[Session]()
	for i := range kind.NumField() {
		s := visitor()
		reflect.ValueOf(&s).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		if name := kind.Field(i).Name; s.Silent() && !slices.Contains(ordinary, name) {
			t.Errorf("with %s, a session counts as silent", name)
		}
	}
}

// numberOf is a sink that counts sessions.
type numberOf struct {
	Sink
	sessions int
}

func (n *numberOf) Session(*Session) { n.sessions++ }

// TestWithoutSilent: the log has all but silent visitors, and a sink beside it has
// them, too.
func TestWithoutSilent(t *testing.T) {
	var out bytes.Buffer
	l := NewText(&out)
	n := &numberOf{Sink: Discard}
	sink := Join(WithoutSilent(l), n)
	sink.Opened(&flow.Flow{Service: someFlow.Service})
	s := visitor()
	sink.Session(&s)
	sink.Message(&plainMessage)
	s.ClientIn, s.End = 6, EndQuit
	sink.Session(&s)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "event=message") || !strings.Contains(got, "end=quit") {
		t.Errorf("the log has\n%s", got)
	}
	if n.sessions != 2 {
		t.Errorf("the sink beside the log has %d sessions of 2", n.sessions)
	}
}
