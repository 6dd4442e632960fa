package relay

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/forward"
)

// troubles are the classes of failure as records have them. Of an attempt that
// we broke off nothing is said: it was not the origin's fault.
var troubles = map[error]event.Trouble{
	forward.ErrRefused:     event.TroubleRefused,
	forward.ErrTimeout:     event.TroubleTimeout,
	forward.ErrUnreachable: event.TroubleUnreachable,
	forward.ErrNoAddress:   event.TroubleNoAddress,
	forward.ErrFamily:      event.TroubleFamily,
	forward.ErrLinkLocal:   event.TroubleLinkLocal,
	forward.ErrLoop:        event.TroubleLoop,
	forward.ErrOnLink:      event.TroubleOnLink,
	forward.ErrResources:   event.TroubleResources,
}

// tried appends the origins of failed attempts to list.
func tried(err error, list []event.Unreached) []event.Unreached {
	switch err := err.(type) {
	case forward.Failures:
		for _, e := range err {
			list = tried(e, list)
		}
	case *forward.Error:
		if trouble, known := troubles[err.Class]; known {
			list = append(list, event.Unreached{Origin: err.Origin, Trouble: trouble})
		}
	}
	return list
}
