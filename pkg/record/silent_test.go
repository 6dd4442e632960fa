package record

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
)

// visitor is the session of a client that looked at the greeting and went.
func visitor() event.Session {
	return event.Session{Flow: someFlow, Origin: someMessage.Origin, Start: someStart, Duration: time.Second, Mode: "mirror",
		Greeted: time.Millisecond, Greeting: answer(220, "mx ESMTP"), ClientOut: 14, OriginIn: 14, End: event.EndClientGone}
}

func TestSilent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *event.Session)
		silent bool
	}{
		"greeted":                    {func(*event.Session) {}, true},
		"gone before the greeting":   {func(s *event.Session) { s.Greeting, s.Greeted = event.Answer{}, 0 }, true},
		"not even an origin yet":     {func(s *event.Session) { *s = event.Session{Flow: s.Flow, Start: s.Start, End: s.End} }, true},
		"TLS with the origin":        {func(s *event.Session) { s.OriginTLS = &event.TLS{Version: "TLS1.3"} }, true},
		"greeted, and long idle":     {func(s *event.Session) { s.Duration = 4 * time.Minute }, true},
		"waited for a greeting":      {func(s *event.Session) { s.Greeting, s.Greeted, s.Duration = event.Answer{}, 0, 10*time.Second }, false},
		"greeted by a refusal":       {func(s *event.Session) { s.Greeting.Code = 554 }, false},
		"greeted with trouble":       {func(s *event.Session) { s.Greeting.Code = 421 }, false},
		"TLS with the origin failed": {func(s *event.Session) { s.OriginTLS = &event.TLS{Failure: event.FailureTimeout} }, false},
	} {
		s := visitor()
		c.change(&s)
		if silent(&s) != c.silent {
			t.Errorf("%s: silent is %v", name, !c.silent)
		}
	}
	for end := range event.Ends {
		s := visitor()
		s.End = end
		if silent(&s) != (end == event.EndClientGone) {
			t.Errorf("%s: silent is %v", end, silent(&s))
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
	var full event.Session
	fill(&full, func() event.Text { return event.Text("x") })
	kind := reflect.TypeFor[event.Session]()
	for i := range kind.NumField() {
		s := visitor()
		reflect.ValueOf(&s).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		if name := kind.Field(i).Name; silent(&s) && !slices.Contains(ordinary, name) {
			t.Errorf("with %s, a session counts as silent", name)
		}
	}
}

// numberOf is a sink that counts sessions.
type numberOf struct {
	event.Sink
	sessions int
}

func (n *numberOf) Session(*event.Session) { n.sessions++ }

// TestWithoutSilent: the log has all but silent visitors, and a sink beside it has
// them, too.
func TestWithoutSilent(t *testing.T) {
	var out bytes.Buffer
	l := NewText(&out)
	n := &numberOf{Sink: event.Discard}
	sink := event.Join(WithoutSilent(l), n)
	sink.Opened(&flow.Flow{Service: someFlow.Service})
	s := visitor()
	sink.Session(&s)
	sink.Message(&plainMessage)
	s.ClientIn, s.End = 6, event.EndQuit
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
