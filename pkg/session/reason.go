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
