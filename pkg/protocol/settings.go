package protocol

import (
	"math"
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// The most that limits of lines and replies may be, in octets: what a session has room
// for.
const (
	MaxCommandLine = 3000 // of a command, and of a line of a reply
	MaxAuthLine    = 32 << 10
	MaxReply       = 60 << 10
)

// maxAmount bounds counts; RFC 9422 section 4 has six digits for them.
const maxAmount = 999_999

// maxSession is the longest limit for a session.
const maxSession = 30 * 24 * time.Hour

const gib = 1 << 30

// Setting is one key of the section smtp.
type Setting struct {
	Key   string // below smtp; a dot is before a key of a section in it
	visit func(*Rules, Visitor)
}

// Visit calls the visitor's method for the kind of value that the key has, with the
// place of that value in the rules.
func (s Setting) Visit(r *Rules, v Visitor) { s.visit(r, v) }

// Visitor does something with a value, according to its kind.
type Visitor interface {
	Truth(*bool)
	// Word is one of a few words: the number is its index.
	Word(n *uint8, words []string)
	// Number is a whole number from least to most.
	Number(n *int, least, most uint64)
	// Octets is a number of octets: 0, or one from least to most.
	Octets(n *int64, least, most uint64)
	// Time is one from 0 to most.
	Time(d *time.Duration, most time.Duration)
	// Host is a domain, where literal an address literal as well, or nothing.
	Host(name *string, literal bool)
	Extensions(*smtp.Extensions)
	Mechanisms(*[]string)
	Forward(*smtp.Verbs)
	Commands(*[]Command)
}

// Settings are all keys, in the order of reference.yaml.
var Settings = []Setting{
	{"extensions", func(r *Rules, v Visitor) { v.Extensions(&r.Keywords) }},
	{"auth_in_clear", truth(func(r *Rules) *bool { return &r.AuthInClear })},
	{"mechanisms", func(r *Rules, v Visitor) { v.Mechanisms(&r.Mechanisms) }},
	{"forward", func(r *Rules, v Visitor) { v.Forward(&r.Forward) }},
	{"commands", func(r *Rules, v Visitor) { v.Commands(&r.Commands) }},
	{"bare_address", truth(func(r *Rules) *bool { return &r.BareAddress })},
	{"append_domain", func(r *Rules, v Visitor) { v.Host(&r.AppendDomain, false) }},
	{"refuse_routes", truth(func(r *Rules) *bool { return &r.RefuseRoutes })},
	{"refuse_percent", truth(func(r *Rules) *bool { return &r.RefusePercent })},
	{"refuse_bang", truth(func(r *Rules) *bool { return &r.RefuseBang })},
	{"strict_helo", truth(func(r *Rules) *bool { return &r.StrictHello })},
	{"strict_pipelining", truth(func(r *Rules) *bool { return &r.StrictPipelining })},
	{"unoffered_parameters", word(func(r *Rules) *Unoffered { return &r.Unoffered }, "drop", "refuse")},
	{"early_talkers", word(func(r *Rules) *EarlyTalkers { return &r.EarlyTalkers }, "refuse", "pass")},
	{"bare_newlines", word(func(r *Rules) *Newlines { return &r.Newlines }, "reject", "normalize")},
	{"nul", word(func(r *Rules) *NULs { return &r.NUL }, "reject", "remove")},
	{"eight_bit", word(func(r *Rules) *EightBit { return &r.EightBit }, "pass", "reject")},
	{"received", func(r *Rules, v Visitor) { v.Host(&r.Received, true) }},
	{"malformed_replies", word(func(r *Rules) *MalformedReplies { return &r.Malformed }, "replace", "close")},
	{"reply_id", truth(func(r *Rules) *bool { return &r.ReplyID })},

	{"limits.command", number(func(r *Rules) *int { return &r.CommandLine }, 512, MaxCommandLine)}, // RFC 5321 section 4.5.3.1.4
	{"limits.parameter", number(func(r *Rules) *int { return &r.Parameter }, 0, MaxCommandLine)},
	{"limits.auth_line", number(func(r *Rules) *int { return &r.AuthLine }, 512, MaxAuthLine)},
	{"limits.reply_line", number(func(r *Rules) *int { return &r.Replies.Line }, 512, MaxCommandLine)}, // RFC 5321 section 4.5.3.1.5
	{"limits.reply_lines", number(func(r *Rules) *int { return &r.Replies.Lines }, 20, maxAmount)},
	{"limits.reply_size", number(func(r *Rules) *int { return &r.Replies.Octets }, MaxCommandLine, MaxReply)},
	{"limits.line", octets(func(r *Rules) *int { return &r.TextLine }, 998, gib)}, // RFC 5321 section 4.5.3.1.6
	{"limits.size", octets(func(r *Rules) *int64 { return &r.Size }, 0, 1024*gib)},
	{"limits.drain", octets(func(r *Rules) *int64 { return &r.Drain }, 0, 1024*gib)},
	{"limits.recipients", number(func(r *Rules) *int { return &r.Recipients }, 100, maxAmount)}, // RFC 5321 section 4.5.3.1.8
	{"limits.messages", number(func(r *Rules) *int { return &r.Messages }, 0, maxAmount)},
	{"limits.idle", number(func(r *Rules) *int { return &r.Idle }, 0, maxAmount)},
	{"limits.tiny_chunks", number(func(r *Rules) *int { return &r.TinyChunks }, 0, maxAmount)},
	{"limits.errors", number(func(r *Rules) *int { return &r.Errors }, 1, maxAmount)},
	{"limits.rate", number(func(r *Rules) *int { return &r.Rate }, 0, math.MaxInt32)},
	{"limits.session", func(r *Rules, v Visitor) { v.Time(&r.Session, maxSession) }},
}

func truth(at func(*Rules) *bool) func(*Rules, Visitor) {
	return func(r *Rules, v Visitor) { v.Truth(at(r)) }
}

func word[T ~uint8](at func(*Rules) *T, words ...string) func(*Rules, Visitor) {
	return func(r *Rules, v Visitor) {
		n := uint8(*at(r))
		v.Word(&n, words)
		*at(r) = T(n)
	}
}

func number(at func(*Rules) *int, least, most uint64) func(*Rules, Visitor) {
	return func(r *Rules, v Visitor) { v.Number(at(r), least, most) }
}

func octets[T int | int64](at func(*Rules) *T, least, most uint64) func(*Rules, Visitor) {
	return func(r *Rules, v Visitor) {
		n := int64(*at(r))
		v.Octets(&n, least, most)
		*at(r) = T(n)
	}
}
