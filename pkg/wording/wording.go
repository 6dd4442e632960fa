// Package wording has every text that clients read in the gateway's own name: its
// code, its reason in records and counters, and a note for the manual.
//
// It owns the words and nothing else: who says them, and when, is decided by their
// users. A text is read in a bounce, by somebody far away who knows neither the
// gateway nor its owner: it says what has happened, and whose turn it is. What the
// origin says is never in here, nor what the operator has written into the
// configuration.
package wording

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// Text is a verdict of the gateway's own, with a note for the manual.
type Text struct {
	*verdict.V
	Note string // for the gateway's owner: when it is said
}

var all []Text

// All returns every text, in the order of the manual.
func All() []Text {
	list := append([]Text(nil), all...)
	for _, r := range smtp.Refusals() {
		list = append(list, Text{grammar[r], "what the client said breaks the grammar of commands"})
	}
	return list
}

// say makes a text. The class of its enhanced code is that of its code.
func say(why event.Reason, code smtp.Code, subject, detail uint8, text, note string) *verdict.V {
	v := &verdict.V{Cause: event.Cause{Reason: why}}
	v.Reply = smtp.Reply{Code: code, Enhanced: smtp.Enhanced{Class: uint8(code.Class()), Subject: subject, Detail: detail}, Text: text}
	all = append(all, Text{v, note})
	return v
}

// by is say for what a rule decides, by its key in the file.
func by(key string, why event.Reason, code smtp.Code, subject, detail uint8, text string) *verdict.V {
	v := say(why, code, subject, detail, text, "see "+key)
	v.Rule = &protocol.Rule{Key: key}
	return v
}

// grammar are the verdicts on commands that package smtp refuses, by its replies.
var grammar = func() map[*smtp.Reply]*verdict.V {
	all := make(map[*smtp.Reply]*verdict.V)
	for _, r := range smtp.Refusals() {
		all[r] = &verdict.V{Reply: *r, Cause: event.Cause{Reason: grammarReason(r)}}
	}
	return all
}()

// Grammar returns the verdict on a command that package smtp refuses with r.
func Grammar(r *smtp.Reply) *verdict.V { return grammar[r] }

// grammarReason is why package smtp refuses a command: it answers each kind of fault by
// a code of its own.
func grammarReason(r *smtp.Reply) event.Reason {
	switch r.Enhanced {
	case smtp.Enhanced{Class: 5, Subject: 5, Detail: 2}:
		return event.ReasonSyntax
	case smtp.Enhanced{Class: 5, Subject: 5, Detail: 1}:
		return event.ReasonUnknownCommand
	case smtp.Enhanced{Class: 5, Subject: 1, Detail: 7}:
		return event.ReasonSenderAddress
	case smtp.Enhanced{Class: 5, Subject: 1, Detail: 3}:
		return event.ReasonRecipientAddress
	case smtp.Enhanced{Class: 5, Subject: 6, Detail: 7}:
		return event.ReasonNeedsUTF8
	}
	if r.Code == 555 {
		return event.ReasonParameter
	}
	return event.ReasonArgument
}
