package relay

import (
	"context"
	"errors"

	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// unreached is what clients are told where no origin could be reached, for now: they
// try again, or another MX. None of our trouble is permanent for a client. Where
// several failed in different ways the first line that fits one of them is taken: what
// is wrong here comes before what is wrong there.
var unreached = []struct {
	class error
	told  *verdict.V
}{
	{context.Canceled, wording.Draining},
	{forward.ErrResources, wording.Spent},
	{forward.ErrLoop, wording.Loop},
	{forward.ErrOnLink, wording.OnLink},
	{forward.ErrLinkLocal, wording.LinkLocal},
	{forward.ErrFamily, wording.OtherFamily},
	{forward.ErrNoAddress, wording.NoAddress},
	{forward.ErrTimeout, wording.Silent},
	{forward.ErrRefused, wording.Closed},
	{forward.ErrUnreachable, wording.Unreachable},
}

// refusalFor returns what a client is told when no origin could be reached.
func refusalFor(err error) *verdict.V {
	for _, u := range unreached {
		if errors.Is(err, u.class) {
			return u.told
		}
	}
	return wording.Broken
}
