package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// What is wrong with a command line, and with content, as reasons.
var (
	lineReasons = map[smtp.Fault]event.Reason{
		smtp.BareCR: event.ReasonLineBareCR, smtp.BareLF: event.ReasonLineBareLF, smtp.NUL: event.ReasonLineNUL, smtp.LongLine: event.ReasonLineTooLong,
	}
	contentReasons = map[smtp.Fault]event.Reason{
		smtp.BareCR: event.ReasonBareCR, smtp.BareLF: event.ReasonBareLF, smtp.NUL: event.ReasonNUL, smtp.LongLine: event.ReasonLongLine,
	}
)

// grammarReason is why package smtp refuses a command: it answers each kind of
// fault by a code of its own.
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
