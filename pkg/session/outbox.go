package session

import (
	"errors"
	"net"

	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// outbox collects what is to be written in one go. It takes a page from the
// pool with the first octet, and gives it back when it is written.
type outbox struct {
	b    []byte
	page *[pageSize]byte
}

// fits reports whether n more octets have room.
func (o *outbox) fits(n int) bool { return len(o.b)+n <= pageSize }

// grow returns the contents for appending, at most to pageSize.
func (o *outbox) grow() []byte {
	if o.page == nil {
		o.page = pages.Get().(*[pageSize]byte)
		o.b = o.page[:0]
	}
	return o.b
}

func (o *outbox) free() {
	if o.page != nil {
		pages.Put(o.page)
	}
	o.b, o.page = nil, nil
}

// flush writes the collected replies to the client.
func (x *session) flush() *ending {
	if len(x.out.b) == 0 {
		return nil
	}
	err := x.client.write(x.out.b, x.now, x.o.Timeouts.Block)
	x.out.free()
	switch {
	case err == nil:
		return nil
	case timedOut(err):
		return clientDeaf
	case errors.Is(err, net.ErrClosed): // we have cut it ourselves
		return x.unlessCut(clientGone)
	}
	return clientGone
}

// reserve makes room for n octets of reply, at most pageSize.
func (x *session) reserve(n int) *ending {
	if x.out.fits(n) {
		return nil
	}
	return x.flush()
}

// tell queues a reply of our own. A refusal ends with the session's id, if the rules
// want that: its reader can ask for the record.
func (x *session) tell(v *verdict.V) *ending {
	if v.Code.Class() >= 4 {
		x.noteRefusal(v.Reason)
	}
	if e := x.reserve(len(v.Text) + 64); e != nil {
		return e
	}
	b := v.AppendTo(x.out.grow())
	if x.rules.ReplyID && v.Code.Class() >= 4 {
		b = append(b[:len(b)-len(lineEnd)], " [session "...)
		b, _ = x.o.Flow.ID.AppendText(b) // cannot fail
		b = append(b, "]\r\n"...)
	}
	x.out.b = b
	return nil
}

// say queues a reply that is ready to be sent.
func (x *session) say(p []byte) *ending {
	for len(p) > 0 {
		n := min(len(p), pageSize-len(x.out.b))
		x.out.b = append(x.out.grow(), p[:n]...)
		p = p[n:]
		if len(p) == 0 {
			break
		}
		if e := x.flush(); e != nil {
			return e
		}
	}
	return nil
}

// pass queues a reply of the origin, generated anew line by line.
func (x *session) pass(r smtp.WireReply) *ending {
	for text, rest, ok := r.Next(); ok; text, rest, ok = rest.Next() {
		if e := x.reserve(len(text) + 6); e != nil {
			return e
		}
		x.out.b = smtp.AppendReplyLine(x.out.grow(), r.Code, text, rest.Size() == 0)
	}
	return nil
}
