package daemon

import (
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/inspect"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// protocol says what a section smtp of the configuration says in the words of
// the inspector.
func protocol(s config.SMTP) inspect.Protocol {
	p := inspect.Protocol{
		Keywords:         s.Extensions,
		Mechanisms:       s.Mechanisms,
		AuthInClear:      s.AuthInClear,
		Forward:          s.Forward,
		Commands:         verdicts(s.Commands),
		BareAddress:      s.BareAddress,
		AppendDomain:     s.AppendDomain,
		RefuseRoutes:     s.RefuseRoutes,
		RefusePercent:    s.RefusePercent,
		RefuseBang:       s.RefuseBang,
		StrictHello:      s.StrictHELO,
		StrictPipelining: s.StrictPipelining,
		Received:         s.Received,
		CommandLine:      s.Limits.Command,
		AuthLine:         s.Limits.AuthLine,
		Parameter:        s.Limits.Parameter,
		Replies:          smtp.ReplyLimits{Line: s.Limits.ReplyLine, Lines: s.Limits.ReplyLines, Octets: s.Limits.Reply},
		ReplyID:          s.ReplyID,
		TextLine:         s.Limits.Line,
		Size:             s.Limits.Size,
		Drain:            s.Limits.Drain,
		Recipients:       s.Limits.Recipients,
		Messages:         s.Limits.Messages,
		Idle:             s.Limits.Idle,
		TinyChunks:       s.Limits.TinyChunks,
		Errors:           s.Limits.Errors,
		Rate:             s.Limits.Rate,
		Session:          s.Limits.Session,
	}
	if s.BareNewlines == config.NormalizeNewlines {
		p.Newlines = inspect.NormalizeNewlines
	}
	if s.NUL == config.RemoveNUL {
		p.NUL = inspect.RemoveNUL
	}
	if s.Unoffered == config.RefuseUnoffered {
		p.Unoffered = inspect.RefuseUnoffered
	}
	if s.EarlyTalkers == config.PassEarly {
		p.EarlyTalkers = inspect.PassEarly
	}
	if s.MalformedReplies == config.CloseReplies {
		p.Malformed = inspect.CloseReplies
	}
	if s.EightBit == config.RejectEightBit {
		p.EightBit = inspect.RejectEightBit
	}
	return p
}

// verdicts returns what the commands meet that are not let through.
func verdicts(list []config.Command) map[smtp.Verb]inspect.Verdict {
	var all map[smtp.Verb]inspect.Verdict
	for _, c := range list {
		if c.Verdict == config.Accept {
			continue
		}
		if all == nil {
			all = make(map[smtp.Verb]inspect.Verdict, len(list))
		}
		all[c.Verb] = verdict(c)
	}
	return all
}

// verdict makes the reply to a command with the enhanced code X.7.0, "other or
// undefined security status" (RFC 3463 section 3.8).
func verdict(c config.Command) inspect.Verdict {
	v := inspect.Verdict{
		Action: inspect.Refuse,
		Reply: &smtp.Reply{
			Code:     c.Code,
			Enhanced: smtp.Enhanced{Class: uint8(c.Code.Class()), Subject: 7},
			Text:     c.Text,
		},
		Reason: event.ReasonCommandPolicy,
	}
	if c.Verdict == config.Disconnect {
		v.Action = inspect.Disconnect
	}
	return v
}
