// Package verdict is what everything that refuses answers with: a value that is also a
// reply, with its reason and the rule that decided.
//
// It owns the form and nothing else. Package wording has the verdicts whose words are
// ours, package policy makes those of the operator; the session and the relay carry
// them out, and put them into the record.
package verdict

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// V is a verdict. A nil *V lets pass. It is never changed once it is made: many sessions
// have the same one.
type V struct {
	smtp.Reply  // what the client is told; Code 0: nothing
	event.Cause // NoReason: it refuses nothing
}

// Silent returns a verdict of which the client is not told.
func Silent(why event.Reason) *V { return &V{Cause: event.Cause{Reason: why}} }

// Because returns the same words for another reason.
func (v *V) Because(why event.Reason) *V {
	same := *v
	same.Reason = why
	return &same
}

// By returns the same words by the rule with a key.
func (v *V) By(key string) *V {
	same := *v
	same.Rule = &protocol.Rule{Key: key}
	return &same
}

// Unsaid returns the verdict without its words. nil stays nil.
func (v *V) Unsaid() *V {
	if v == nil {
		return nil
	}
	return &V{Cause: v.Cause}
}

// IsSaid reports whether the client is told anything.
func (v *V) IsSaid() bool { return v != nil && v.Code != 0 }

// Ends reports whether the connection is closed behind it, which 421 says and no other
// code (RFC 5321 section 3.8).
func (v *V) Ends() bool { return v.Code == 421 }
