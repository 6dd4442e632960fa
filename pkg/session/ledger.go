package session

import (
	"slices"
	"sync"

	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// group is what a session needs while it handles commands, and not while it
// waits for them.
type group struct {
	cmd     smtp.Command
	line    []byte       // what cmd was parsed from
	refusal *smtp.Reply  // why cmd is no command we carry
	broken  *ending      // why the line was not even a line
	held    bool         // cmd waits until the ledger is settled
	told    *verdict.V   // what cmd was refused with
	asked   *policy.Wait // what the policy says to cmd, when it has made up its mind
	ledger  ledger
}

var groups = sync.Pool{New: func() any { return new(group) }}

// unpark takes a group from the pool.
func (x *session) unpark() { x.group = groups.Get().(*group) }

// park gives the group back. What refers to the session's buffers, or is a
// secret in them, stays out of the pool.
func (x *session) park() {
	if x.group == nil {
		return
	}
	g := x.group
	x.group = nil
	if g.held { // and never handled
		g.wipe()
	}
	g.cmd, g.line, g.refusal, g.broken, g.held, g.told, g.asked = smtp.Command{}, nil, nil, nil, false, nil, nil
	g.ledger.forget()
	groups.Put(g)
}

// wipe clears a line that has, or may have, a secret in it: somebody may have
// meant AUTH by a verb that nobody knows.
func (g *group) wipe() {
	if g.cmd.Verb == smtp.AUTH || g.cmd.Verb == smtp.Unknown {
		clear(g.line)
		g.line = nil // its memory may soon be another session's
	}
}

// idle reports whether the group holds nothing that is still needed.
func (g *group) idle() bool { return g.ledger.n == 0 && !g.held }

// window is the most commands that wait for their replies at once.
const window = 32

// entry is one command of the client and where its reply comes from.
type entry struct {
	own  *verdict.V // ours
	end  *ending    // ours, and it ends the session
	verb smtp.Verb  // else the origin's, which is read when its turn comes
	rcpt int        // RCPT: its number in the message, from 0
}

// ledger lists the commands that have no reply yet, in the client's order. It is
// filled while a group of commands is collected, and settled as a whole.
type ledger struct {
	entries [window]entry
	n       int
}

func (l *ledger) full() bool { return l.n == window }

func (l *ledger) add(e entry) {
	l.entries[l.n] = e
	l.n++
}

// owed reports whether a reply of the origin is outstanding from entry i on.
func (l *ledger) owed(i int) bool {
	return slices.ContainsFunc(l.entries[i:l.n], func(e entry) bool { return e.own == nil && e.end == nil })
}

// forget empties the ledger. Replies of ours that it named belong to a session.
func (l *ledger) forget() {
	clear(l.entries[:l.n])
	l.n = 0
}

// settle sends the group to the origin and queues a reply for each of its
// commands, in order.
func (x *session) settle() *ending {
	lost := x.send()
	for i := 0; i < x.ledger.n; i++ {
		if e := x.answer(i, lost); e != nil {
			return e
		}
	}
	x.ledger.forget()
	x.endFailed()
	if len(x.origin.window()) > 0 {
		return x.surprise()
	}
	return nil
}

// answer queues the reply to the command of entry i. lost says that the group never
// reached the origin.
func (x *session) answer(i int, lost *ending) *ending {
	en := &x.ledger.entries[i]
	switch {
	case en.own != nil:
		return x.tell(en.own)
	case en.end != nil:
		return en.end
	}
	var r smtp.WireReply
	if lost == nil {
		r, lost = x.reply(x.replyTime(en.verb))
	}
	if lost != nil && en.verb == smtp.QUIT {
		return localQuit
	}
	if lost != nil {
		x.noteLostRecipient(en, lost)
		return lost
	}
	if r.Unsure && x.ledger.owed(i+1) { // what comes next may still be of this one
		x.drop(brokenReply("a reply without a clear end in a group"))
	}
	return x.conclude(en, r)
}
