package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// What is wrong with a command line, and with content, as verdicts.
var (
	badLines = map[smtp.Fault]*verdict.V{
		smtp.BareCR:   wording.BadLine.Because(event.ReasonLineBareCR),
		smtp.BareLF:   wording.BadLine.Because(event.ReasonLineBareLF),
		smtp.NUL:      wording.BadLine.Because(event.ReasonLineNUL),
		smtp.LongLine: wording.LongLine,
	}
	badContent = map[smtp.Fault]*verdict.V{
		smtp.BareCR:   wording.BareNewline.Because(event.ReasonBareCR),
		smtp.BareLF:   wording.BareNewline.Because(event.ReasonBareLF),
		smtp.NUL:      wording.HasNUL,
		smtp.LongLine: wording.LongText,
	}
)
