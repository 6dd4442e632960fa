package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// Unannounced is Refuse for a client that was to begin with a PROXY header, and
// did not; v is what it is told, why says what came. It is for now, since it is a
// mistake of those who run the proxy or the gateway, and no mail shall bounce for it.
// A client that is gone is told nothing.
func Unannounced(o Options, client Leg, v *verdict.V, why string, gone bool) Outcome {
	x := open(o, client)
	switch {
	case gone:
		return x.finish(clientGone)
	case x.o.Draining():
		return x.finish(draining)
	}
	return x.finish(&ending{end: event.EndProxyHeader, verdict: v, detail: why})
}
