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
	"github.com/portreeve/portreeve/pkg/smtp"
)

// Reply is one of the gateway's own.
type Reply struct {
	smtp.Reply
	Why  event.Reason // NoReason: it refuses nothing
	Note string       // for the gateway's owner: when it is said
}

var all []*Reply

// All returns every text, in the order of the manual.
func All() []*Reply {
	list := append([]*Reply(nil), all...)
	for _, r := range smtp.Refusals() {
		list = append(list, &Reply{Reply: *r, Why: Grammar(r), Note: "what the client said breaks the grammar of commands"})
	}
	return list
}

// say makes a text. The class of its enhanced code is that of its code.
func say(why event.Reason, code smtp.Code, subject, detail uint8, text, note string) *Reply {
	r := &Reply{Why: why, Note: note}
	r.Reply = smtp.Reply{Code: code, Enhanced: smtp.Enhanced{Class: uint8(code.Class()), Subject: subject, Detail: detail}, Text: text}
	all = append(all, r)
	return r
}

// Grammar is why package smtp refuses a command: it answers each kind of fault by a
// code of its own.
func Grammar(r *smtp.Reply) event.Reason {
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
