package relay

import (
	"context"
	"errors"

	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// closing returns a reply that ends a session for now: the sender tries again,
// or another MX. None of our trouble is permanent for a client. The enhanced
// codes are those of RFC 3463.
func closing(subject, detail uint8, text string) smtp.Reply {
	return smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{Class: 4, Subject: subject, Detail: detail}, Text: text}
}

var (
	full    = closing(3, 2, "Too many sessions, please try again later")
	broken  = closing(3, 0, "Internal error, please try again later")
	stopped = closing(3, 2, "Service is restarting, please try again")
)

// unreached are the replies for origins that could not be reached. Where several
// failed in different ways the first line that fits one of them is taken: what
// is wrong here comes before what is wrong there.
var unreached = []struct {
	class error
	reply smtp.Reply
}{
	{context.Canceled, stopped},
	{forward.ErrResources, closing(3, 2, "Out of resources, please try again later")},
	{forward.ErrLoop, closing(4, 6, "Mail would loop back to this gateway, please try again later")},
	{forward.ErrNoAddress, closing(4, 5, "The mail server cannot be reached from your address now, please try again later")},
	{forward.ErrTimeout, closing(4, 1, "The mail server does not answer, please try again later")},
	{forward.ErrRefused, closing(4, 1, "The mail server refuses connections, please try again later")},
	{forward.ErrUnreachable, closing(4, 1, "The mail server cannot be reached, please try again later")},
}

// replyTo returns what a client is told when no origin could be reached.
func replyTo(err error) smtp.Reply {
	for _, u := range unreached {
		if errors.Is(err, u.class) {
			return u.reply
		}
	}
	return broken
}
