package relay

import (
	"context"
	"errors"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// refusal is what a client is told that gets no session, and why.
type refusal struct {
	reply smtp.Reply
	why   event.Reason
}

// closing returns a refusal that ends a session for now: the sender tries again,
// or another MX. None of our trouble is permanent for a client. The enhanced
// codes are those of RFC 3463.
func closing(why event.Reason, subject, detail uint8, text string) refusal {
	return refusal{smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{Class: 4, Subject: subject, Detail: detail}, Text: text}, why}
}

var (
	full    = closing(event.ReasonFull, 3, 2, "Too many sessions, please try again later")
	spent   = closing(event.ReasonFull, 3, 2, "Out of resources, please try again later")
	broken  = closing(event.ReasonFault, 3, 0, "Internal error, please try again later")
	stopped = closing(event.ReasonDraining, 3, 2, "Service is restarting, please try again")
)

// unreached are the refusals for origins that could not be reached. Where several
// failed in different ways the first line that fits one of them is taken: what
// is wrong here comes before what is wrong there.
var unreached = []struct {
	class   error
	refusal refusal
}{
	{context.Canceled, stopped},
	{forward.ErrResources, spent},
	{forward.ErrLoop, closing(event.ReasonNoOrigin, 4, 6, "Mail would loop back to this gateway, please try again later")},
	{forward.ErrOnLink, closing(event.ReasonOnLink, 4, 1, "Your address is on the mail server's own network, which answers it past this gateway")},
	{forward.ErrLinkLocal, closing(event.ReasonNoOrigin, 4, 1, "Your address is link-local, and the mail server cannot answer it: please connect from a global one")},
	{forward.ErrFamily, closing(event.ReasonNoOrigin, 4, 1, "The mail server cannot be reached by this version of IP, please try its other addresses")},
	{forward.ErrNoAddress, closing(event.ReasonNoOrigin, 4, 5, "The mail server cannot be reached from your address now, please try again later")},
	{forward.ErrTimeout, closing(event.ReasonNoOrigin, 4, 1, "The mail server does not answer, please try again later")},
	{forward.ErrRefused, closing(event.ReasonNoOrigin, 4, 1, "The mail server refuses connections, please try again later")},
	{forward.ErrUnreachable, closing(event.ReasonNoOrigin, 4, 1, "The mail server cannot be reached, please try again later")},
}

// refusalFor returns what a client is told when no origin could be reached.
func refusalFor(err error) refusal {
	for _, u := range unreached {
		if errors.Is(err, u.class) {
			return u.refusal
		}
	}
	return broken
}
