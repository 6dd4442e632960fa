package session

import (
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/wording"
)

// mailState is how far a mail transaction has come. It follows the origin's
// replies, except that MAIL counts as said when it is sent, so that RCPT can go
// with it in one group.
type mailState uint8

const (
	noMail    mailState = iota
	opening             // MAIL is sent
	opened              // MAIL is accepted
	failed              // MAIL is refused, the group is not settled yet
	spoilt              // a chunk is refused: the transaction leads nowhere
	inChunks            // the origin takes content, and the client may send commands between chunks
	inContent           // the origin said 354, and has not said what became of the content
)

// accepted reports whether the origin has opened the transaction.
func (s mailState) accepted() bool { return s > opening && s != failed }

// transaction is the mail transaction in force.
type transaction struct {
	state      mailState
	utf8       bool          // MAIL had SMTPUTF8
	recipients int           // accepted
	unread     int           // recipients refused for what they are, before anybody was asked
	body       int64         // parameter BODY of MAIL
	binary     bool          // the origin gets chunks
	waited     time.Duration // for the client's content
	paused     time.Time     // from when on a wait is not yet counted in waited
	wrote      time.Duration // spent on writing it to the origin
	dots       int64         // stuffed into what was written
	tiny       int           // chunks
	broken     *failure      // what became of content that was written while the client was silent
	ended      bool          // the client has sent all of its content
	committed  bool          // the end of data was sent completely
	crossed    bool          // what the origin said then was on its way before
}

// mail handles MAIL.
func (x *session) mail() step {
	x.appendDomain()
	switch {
	case !x.hailed:
		return x.recorded(x.refuse(wording.HelloFirst))
	case x.tx.state != noMail && x.ledger.n > 0:
		return hold // what is outstanding may end the transaction
	case x.tx.state != noMail:
		return x.refuse(wording.NestedMail)
	case len(x.cmd.Path.Domain) == 0 && !x.cmd.Path.Null():
		return x.recorded(x.refuse(wording.SenderDomain))
	}
	x.endFailed() // one before it in the same group
	passes, s := x.judge()
	if s == hold {
		return s
	}
	x.noteSender()
	switch {
	case passes:
	case x.told != nil:
		x.noteVerdict(x.told)
		x.msg.Cause = x.told.Cause
		return s
	default:
		if e := x.stopped(); e.last != nil {
			x.noteReply(x.lastWords(e))
		}
		return s
	}
	p := &x.cmd.Params
	x.tx = transaction{state: opening, utf8: p.Has(smtp.ParamSMTPUTF8), body: p.Number(smtp.ParamBody)}
	return x.forward(entry{verb: smtp.MAIL})
}

// appendDomain completes an address, where the rules say how.
func (x *session) appendDomain() {
	p := &x.cmd.Path
	if x.rules.AppendDomain != "" && len(p.Domain) == 0 && len(p.Local) > 0 && !p.Postmaster() {
		p.Domain = []byte(x.rules.AppendDomain)
	}
}

func (x *session) concludeMail(_ *entry, r smtp.WireReply) *ending {
	x.tx.state = opened
	if !r.Code.Positive() {
		x.tx.state = failed
		x.noteReply(r)
	}
	return x.pass(r)
}

// endFailed closes a message whose MAIL was refused, by the origin or by us, after
// the commands that went with it.
func (x *session) endFailed() {
	if x.tx.state == failed || x.tx.state == noMail && x.msg.Number != 0 {
		x.endTransaction(outcomeOf(x.msg.Client.Code), x.msg.Cause)
	}
}

// rcpt handles RCPT.
func (x *session) rcpt() step {
	x.appendDomain()
	switch {
	case x.tx.state == noMail:
		return x.recorded(x.excuse(wording.MailFirst)) // no fault of a client whose MAIL was refused
	case x.tx.state == spoilt:
		return x.recorded(x.excuse(wording.Spoilt))
	case len(x.cmd.Path.Domain) == 0 && !x.cmd.Path.Postmaster():
		x.tx.unread++
		return x.recorded(x.refuse(wording.RecipientDomain))
	case x.ledger.n > 0 && x.tx.recipients+x.ledger.n >= x.rules.Recipients:
		return hold // those outstanding may have reached the limit
	}
	passes, s := x.judge()
	if s == hold {
		return s
	}
	n := x.noteRecipient()
	switch {
	case passes:
		return x.forward(entry{verb: smtp.RCPT, rcpt: n})
	case x.told != nil:
		x.noteRefusedRecipient(n, x.told)
		return s
	}
	switch e := x.stopped(); {
	case e.verdict.IsSaid():
		x.noteRefusedRecipient(n, e.verdict)
	case e.last != nil:
		x.noteRecipientReply(n, x.lastWords(e))
	}
	return s
}

func (x *session) concludeRcpt(en *entry, r smtp.WireReply) *ending {
	if r.Code.Positive() {
		x.tx.recipients++
	}
	x.msg.Enveloped = x.now.Sub(x.msg.Start)
	x.noteRecipientReply(en.rcpt, r)
	return x.pass(r)
}

// concludeRset: only an origin that says so has forgotten the transaction.
func (x *session) concludeRset(_ *entry, r smtp.WireReply) *ending {
	if r.Code.Positive() {
		x.endTransaction(event.Abandoned, event.Cause{Reason: event.ReasonReset})
		x.unclaim()
	}
	return x.pass(r)
}

// concludeQuit: a client that leaves is told 221, whatever its origin thinks.
func (x *session) concludeQuit(_ *entry, r smtp.WireReply) *ending {
	if r.Code != 221 {
		x.noteRewritten(r.Raw(), localQuit.verdict.Code)
		return localQuit
	}
	if e := x.pass(r); e != nil {
		return e
	}
	return quit
}

// endTransaction writes the message's record, if there is one, and forgets the
// transaction.
func (x *session) endTransaction(o event.Outcome, why event.Cause) {
	if x.tx.state != noMail || x.msg.Number != 0 {
		x.closeMessage(o, why)
	}
	if x.tx.state.accepted() {
		x.unclaim()
	}
	x.tx = transaction{}
}

// outcomeOf is what a reply makes of a message.
func outcomeOf(c smtp.Code) event.Outcome {
	switch c.Class() {
	case 2:
		return event.Accepted
	case 5:
		return event.Refused
	}
	return event.Deferred
}
