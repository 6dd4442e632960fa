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
	forward.ErrLoop:        event.TroubleLoop,
	forward.ErrResources:   event.TroubleResources,
}

// tried appends the origins of failed attempts to list, each once: one that was
// tried from two addresses has the trouble that came last.
func tried(err error, list []event.Unreached) []event.Unreached {
	switch err := err.(type) {
	case forward.Failures:
		for _, e := range err {
			list = tried(e, list)
		}
	case *forward.Error:
		trouble, known := troubles[err.Class]
		switch last := len(list) - 1; {
		case !known:
		case last >= 0 && list[last].Origin == err.Origin:
			list[last].Trouble = trouble
		default:
			list = append(list, event.Unreached{Origin: err.Origin, Trouble: trouble})
		}
	}
	return list
}
