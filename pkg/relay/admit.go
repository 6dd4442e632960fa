package relay

import (
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// ordinary is the policy of services that name none.
var ordinary = policy.New(protocol.Default())

func (s Service) policy() policy.Policy {
	if s.Policy == nil {
		return ordinary
	}
	return s.Policy
}

// admitted asks the policy whether the client is let in, before anything is dialled for
// it. It returns false when the call is over.
func (c *call) admitted() bool {
	talk, a := c.service.policy().Open(&c.flow)
	c.talk = talk
	v, end := a.Verdict, event.EndPolicy
	if a.Wait != nil {
		v, end = c.await(a.Wait)
	}
	if v == nil && talk == nil && end == event.EndPolicy || v != nil && !v.Ends() {
		v = wording.Broken // a fault of the policy: nobody gets in by it
	}
	switch {
	case end == event.EndClientGone:
		c.close(session.Left(c.options(), c.client))
		return false
	case v != nil:
		c.close(session.Refuse(c.options(), c.client, end, v))
		return false
	}
	return true
}

// glance is how often one who waits for an answer looks what has become of its client.
const glance = time.Second

// await waits until the policy has made up its mind, or until the client has left or the
// relay drains: end says which.
func (c *call) await(w *policy.Wait) (v *verdict.V, end event.End) {
	look := time.NewTicker(glance)
	defer look.Stop()
	late := time.NewTimer(time.Until(w.Until))
	defer late.Stop()
	for {
		select {
		case <-w.Done:
			return w.Answer(), event.EndPolicy
		case <-late.C:
			return w.AtLast(), event.EndPolicy
		case <-look.C:
		}
		if c.r.draining.Load() {
			return wording.Draining, event.EndDraining
		}
		if _, err := c.client.Pending(); err != nil {
			return nil, event.EndClientGone
		}
	}
}
