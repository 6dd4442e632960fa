package session

import (
	"time"

	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// step is what follows a handled command.
type step uint8

const (
	proceed step = iota // the group may grow
	barrier             // the group ends with this command
	hold                // the group ends before this command
)

// collect handles the client's commands until a group is complete, and waits
// for more only while none is outstanding.
func (x *session) collect() *ending {
	for {
		if !x.next() {
			if x.ledger.n > 0 && !x.moreCommands() {
				return nil
			}
			if e := x.mayRest(); e != nil {
				return e
			}
			continue
		}
		s := x.handle()
		if x.held = s == hold; !x.held {
			x.asked = nil
			x.wipe()
		}
		if s != proceed || x.ledger.full() || !x.fwd.fits(x.rules.CommandLine+growth) {
			return nil
		}
	}
}

// growth is the most by which a command may be longer when it is forwarded than
// it was: a domain is appended to its address, or angle brackets are put around, and
// values of parameters are encoded.
const growth = 300 + smtp.MaxGrowth

// moreCommands reports whether the client has sent more than the last read
// could take: the group is not cut where our buffer ends.
func (x *session) moreCommands() bool {
	if !x.client.filled {
		return false
	}
	n, _ := x.client.leg.Pending()
	return n > 0
}

// awaitCommand waits for the client, which first gets all its replies.
func (x *session) awaitCommand(until time.Time) *ending {
	if e := x.flush(); e != nil {
		return e
	}
	want := smallSize
	if x.client.filled {
		want = pageSize
	}
	if !x.group.idle() {
		return x.await(&x.client, want, until)
	}
	x.park()
	e := x.await(&x.client, want, until)
	if e != resting {
		x.unpark()
	}
	return e
}

// next makes the client's next command x.cmd, if it is there.
func (x *session) next() bool {
	if x.held {
		return true
	}
	in := x.client.window()
	if smtp.StartsTLS(in) {
		x.broken = foreign
		return true
	}
	line, n, f := smtp.CutLine(in, x.longest(in))
	if f != smtp.NoFault {
		x.broken = x.brokenCommand(in, f)
		return true
	}
	if n == 0 {
		return false
	}
	x.client.skip(n)
	x.rec.Commands++
	x.line = line
	x.refusal = x.cmd.Parse(line, smtp.Grammar{
		Offered: x.offered, XClient: x.xclient, XForward: x.xforward, UTF8: x.tx.utf8,
		BareAddress: x.rules.BareAddress, Parameter: x.rules.Parameter,
		Drop: x.rules.Unoffered == protocol.DropUnoffered})
	x.secretive = x.secretive || x.cmd.Verb == smtp.AUTH
	if x.idles() {
		x.broken = tooMany
	}
	return true
}

// longest is the limit of the command line in front of in. That of AUTH may have
// a response in it.
func (x *session) longest(in []byte) int {
	if x.startsAuth(in) {
		return max(x.rules.AuthLine, x.rules.CommandLine)
	}
	return x.rules.CommandLine
}

func (x *session) startsAuth(in []byte) bool {
	return x.offered.Has(smtp.ExtAuth) && len(in) >= 5 && smtp.EqualFold(in[:5], "AUTH ")
}

// brokenCommand is brokenLine for the command line in front of in.
func (x *session) brokenCommand(in []byte, f smtp.Fault) *ending {
	if f == smtp.LongLine && x.startsAuth(in) {
		return longAuth
	}
	return brokenLine(f)
}

// handle decides on x.cmd: forward it, answer it, or end the session. Behind a
// DATA that we refuse nothing is a command, as behind one that the origin
// refuses.
func (x *session) handle() step {
	s := x.decide()
	if s != proceed || x.cmd.Verb != smtp.DATA { // else it was refused here
		return s
	}
	if early, _ := x.arrivedAhead(); !early {
		return s
	}
	x.ledger.n-- // what the client is told takes the place of the refusal
	return x.stop(earlyTalker)
}

func (x *session) decide() step {
	switch {
	case x.broken != nil:
		return x.stop(x.broken)
	case x.cmd.Verb == smtp.Foreign:
		return x.stop(foreign)
	case x.cmd.Verb == smtp.DATA && x.ahead():
		return x.stop(earlyTalker)
	case x.rules.StrictPipelining && x.crowded():
		return x.stop(earlyTalker)
	case x.tx.state == inChunks && x.cmd.Verb != smtp.QUIT && x.dawdles():
		return x.stop(tooSlow)
	case x.cmd.Verb == smtp.BDAT:
		return x.bdat()
	case x.refusal != nil:
		return x.refuseSyntax()
	case x.dropped != nil:
		return x.orphan()
	case x.tx.state == noMail && x.cmd.Verb != smtp.QUIT && x.o.Draining():
		return x.stop(draining)
	case x.needsTLS():
		return x.refuseClear()
	case x.tx.state == inChunks:
		return x.amidChunks()
	}
	return x.dispatch()
}

// forward puts x.cmd, generated anew, among what goes to the origin.
func (x *session) forward(en entry) step {
	x.fwd.b = x.cmd.AppendTo(x.fwd.grow())
	x.ledger.add(en)
	if !x.theirs.Has(smtp.ExtPipelining) {
		return barrier
	}
	return proceed
}

// local answers x.cmd without the origin, behind the replies outstanding.
func (x *session) local(v *verdict.V) step {
	x.ledger.add(entry{own: v})
	return proceed
}

// excuse is local for a refusal of which the client need not have known.
func (x *session) excuse(v *verdict.V) step {
	x.told = v
	return x.local(v)
}

// refuse is local for what the client should not have said. Too much of it
// ends the session.
func (x *session) refuse(v *verdict.V) step {
	x.slipLine(v)
	x.rec.Errors++
	if x.rec.Errors > x.rules.Errors {
		x.told = tooMany.verdict
		return x.stop(tooMany)
	}
	return x.excuse(v)
}

// stop ends the session behind the replies outstanding.
func (x *session) stop(e *ending) step {
	if offences[e.end] {
		x.slipLine(e.verdict)
	}
	x.ledger.add(entry{end: e})
	return barrier
}

// orphan answers a command after the origin leg was dropped.
func (x *session) orphan() step {
	switch {
	case x.cmd.Verb == smtp.QUIT:
		return x.stop(localQuit)
	case x.cmd.Verb == smtp.RCPT && x.tx.state != noMail && x.dropped.verdict.IsSaid():
		x.noteRefusedRecipient(x.noteRecipient(), x.dropped.verdict)
	}
	return x.stop(x.dropped)
}
