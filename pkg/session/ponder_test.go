package session

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// ponderer is a policy that takes its time about some commands, or about the content of
// messages (HEADERS, END), until a dialogue makes it decide. About the others it says what the
// rules say.
type ponderer struct {
	*policy.Plain
	about   []string
	patient time.Duration

	asking  string // what is being decided now
	done    chan struct{}
	verdict *verdict.V
	asked   int      // decisions that were begun
	put     []string // commands that it was asked about
	heard   []string // outcomes
	shown   []byte   // content
	headers string
}

func (p *ponderer) Command(e *policy.Envelope, c *smtp.Command) policy.Answer {
	p.put = append(p.put, c.Verb.String())
	if a := p.Plain.Command(e, c); a.Verdict != nil {
		return a
	}
	return p.ponder(c.Verb.String())
}

func (p *ponderer) End(e *policy.Envelope) policy.Answer {
	if a := p.Plain.End(e); a.Verdict != nil {
		return a
	}
	return p.ponder("END")
}

func (p *ponderer) Content(*policy.Envelope) policy.Content {
	p.shown = nil
	if !slices.Contains(p.about, "HEADERS") {
		return nil
	}
	return p
}

func (p *ponderer) Write(piece []byte) { p.shown = append(p.shown, piece...) }

func (p *ponderer) Headers() policy.Answer {
	p.headers = string(p.shown)
	return p.ponder("HEADERS")
}

func (p *ponderer) Done(m *event.Message) { p.heard = append(p.heard, m.Outcome.String()) }

func (p *ponderer) ponder(about string) policy.Answer {
	if !slices.Contains(p.about, about) {
		return policy.Answer{}
	}
	p.asking, p.done = about, make(chan struct{})
	p.asked++
	return policy.Answer{Wait: &policy.Wait{
		Done: p.done, Answer: func() *verdict.V { return p.verdict },
		Until: time.Now().Add(p.patient), Late: opinion("451 4.7.1 Nobody knows, please try again"),
	}}
}

// opinion makes a verdict of a line.
func opinion(line string) *verdict.V {
	code, text, _ := strings.Cut(line, " ")
	enhanced, text, _ := strings.Cut(text, " ")
	n, _ := strconv.Atoi(code)
	v := &verdict.V{Cause: event.Cause{Reason: event.ReasonPolicy}}
	v.Reply = smtp.Reply{Code: smtp.Code(n), Text: text}
	fmt.Sscanf(enhanced, "%d.%d.%d", &v.Enhanced.Class, &v.Enhanced.Subject, &v.Enhanced.Detail)
	return v
}

// decide lets the policy make up its mind.
func (p *ponderer) decide(line string) error {
	if p.asking == "" {
		return fmt.Errorf("nothing is asked")
	}
	p.asking, p.verdict = "", nil
	if line != "" {
		p.verdict = opinion(line)
	}
	close(p.done)
	return nil
}
