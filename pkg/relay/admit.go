package relay

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/wording"
)

func (s Service) policy() policy.Policy {
	if s.Policy == nil {
		return policy.Ordinary
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
		v = a.Wait.Await(func() bool {
			end = c.unwanted()
			return end != event.EndPolicy
		})
	}
	switch {
	case end == event.EndClientGone:
		c.close(session.Left(c.options(), c.client))
		return false
	case end == event.EndDraining:
		v = wording.Draining
	case v == nil && talk != nil:
		return true
	case v == nil || !v.Ends():
		v = wording.Broken // a fault of the policy: nobody gets in by it
	}
	c.close(session.Refuse(c.options(), c.client, end, v))
	return false
}

// unwanted says why nobody waits for the policy any longer: the relay drains, or the
// client has left. EndPolicy: its answer is still wanted.
func (c *call) unwanted() event.End {
	if c.r.draining.Load() {
		return event.EndDraining
	}
	if _, err := c.client.Pending(); err != nil {
		return event.EndClientGone
	}
	return event.EndPolicy
}
