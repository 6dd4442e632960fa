package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// What we refuse can be found again: the first thing of a client's that was
// refused, with its octets, in the record of the session; senders and recipients in
// those of messages.

// slip is the client's first words that we refused. Few sessions have one.
func (x *session) slip(said []byte, v *verdict.V) {
	if len(said) == 0 || x.rec.Slip.Answer.Code != 0 { // of an empty line there is nothing to say
		return
	}
	said = said[:min(len(said), maxOffence)]
	x.rec.Slip = event.Slip{
		Said:   smtp.AppendSayable(nil, said, x.secretive),
		Answer: event.Answer{Code: v.Code, Text: v.AppendText(nil)},
		Cause:  x.placed(v.Cause),
	}
}

// slipLine is slip for x.cmd.
func (x *session) slipLine(v *verdict.V) {
	said := x.line
	if x.broken != nil && x.broken != tooMany { // it is no line, and still there
		said = x.client.window()
	}
	x.slip(said, v)
}

// offences are the ends by which a client's words are refused.
var offences = map[event.End]bool{
	event.EndClientSyntax: true, event.EndEarlyTalker: true, event.EndForeign: true, event.EndErrors: true, event.EndPolicy: true,
}

// refuseSyntax refuses x.cmd for its grammar.
func (x *session) refuseSyntax() step {
	if x.cmd.Verb == smtp.RCPT && x.msg.Number != 0 {
		x.tx.unread++
	}
	return x.recorded(x.refuse(wording.Grammar(x.refusal)))
}

// recorded puts a MAIL or RCPT that was refused into the record of a message, if there
// is one for it.
func (x *session) recorded(s step) step {
	switch {
	case x.cmd.Verb == smtp.MAIL:
		x.noteRefusedSender(x.told)
	case x.cmd.Verb == smtp.RCPT && x.msg.Number != 0:
		x.noteRefusedRecipient(x.noteRecipient(), x.told)
	}
	return s
}

// noteRefusedSender begins the record of a message that came no further than MAIL,
// unless another one is open. endFailed ends it: what recipients go with MAIL belong
// to it.
func (x *session) noteRefusedSender(v *verdict.V) {
	if x.tx.state != noMail {
		return
	}
	x.endFailed()
	x.noteSender()
	x.noteVerdict(v)
	x.msg.Cause = v.Cause
}

// noteLostRecipient keeps what the client reads in place of the origin's reply to
// RCPT, when the session ends instead.
func (x *session) noteLostRecipient(en *entry, e *ending) {
	if en.verb == smtp.RCPT && e.verdict.IsSaid() {
		x.noteRefusedRecipient(en.rcpt, e.verdict)
	}
}
