package metrics

import (
	"bytes"
	"net/netip"
	"sync/atomic"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// Counters is an event.Sink that counts, for monitoring; metrics.md lists what. An
// event costs a few additions in memory that nobody waits for and allocates
// nothing. What is counted is told apart by words of ours and of the
// configuration only: nothing that a peer chose can make it grow.
type Counters struct {
	services map[string]*counts // never changes, so it needs no lock
	unknown  *counts            // flows of no known service, which a replaced configuration can leave
	lost     func() uint64      // records that were lost
	kernel   Kernel
	forging  func() []OriginForging
	watch    func() (KernelWatch, error)
}

// Served is a service whose flows are counted.
type Served struct {
	Name    string
	Origins []netip.AddrPort // that its connections are directed to; empty: the client's choice
}

// counts are those of one service.
type counts struct {
	opened    atomic.Uint64
	ended     [event.Ends]atomic.Uint64
	commands  [1]atomic.Uint64
	refused   [event.Reasons]atomic.Uint64
	unforged  [event.Unforgeds]atomic.Uint64
	octets    [ways]atomic.Uint64
	rewritten [1]atomic.Uint64                      // replies
	removed   [smtp.NumExtensions + 1]atomic.Uint64 // EHLO keywords; last: those that we do not know
	messages  [event.Outcomes]atomic.Uint64
	opaque    [opaqueWays]atomic.Uint64 // octets
	said      [classes]atomic.Uint64    // by origins about messages
	rcpts     [fates]atomic.Uint64
	content   [1]atomic.Uint64 // octets

	clientTLS, originTLS tlsCounts

	greeting histogram // from the start to the origin's greeting
	duration histogram // of sessions that were greeted
	verdict  histogram // from the end of data to the origin's reply

	origins     map[netip.AddrPort]*failures // never changes
	transparent failures                     // of origins that clients chose
}

// failures of one origin.
type failures [event.Troubles]atomic.Uint64

// ways of octets, from the gateway's point of view.
const (
	clientIn = iota
	clientOut
	originIn
	originOut
	ways
)

// classes of replies.
const (
	class2 = iota
	class4
	class5
	classes
)

// fates of recipients.
const (
	rcptAccepted = iota
	rcptDeferred
	rcptRefused
	fates
)

// NewCounters returns the counters of a number of services, all zero.
func NewCounters(services []Served) *Counters {
	c := &Counters{services: make(map[string]*counts, len(services)), unknown: new(counts)}
	for _, s := range services {
		n := &counts{origins: make(map[netip.AddrPort]*failures, len(s.Origins))}
		for _, o := range s.Origins {
			n.origins[o] = new(failures)
		}
		c.services[s.Name] = n
	}
	return c
}

// of returns the counts of a flow's service.
func (c *Counters) of(f *flow.Flow) *counts {
	if n, known := c.services[f.Service]; known {
		return n
	}
	return c.unknown
}

// Opened counts a session that begins.
func (c *Counters) Opened(f *flow.Flow) { c.of(f).opened.Add(1) }

// Refused counts a reply of ours that refused something.
func (c *Counters) Refused(f *flow.Flow, why event.Reason) {
	if why == event.NoReason { // a rule that does not say its own
		why = event.ReasonPolicy
	}
	c.of(f).refused[why].Add(1)
}

// unreached counts an origin that could not be reached.
func (n *counts) unreached(u event.Unreached) {
	of, directed := n.origins[u.Origin]
	if !directed {
		of = &n.transparent
	}
	of[u.Trouble].Add(1)
}

// Message counts a message that met its end.
func (c *Counters) Message(m *event.Message) {
	n := c.of(&m.Flow)
	n.messages[m.Outcome].Add(1)
	n.content[0].Add(uint64(m.Size))
	n.recipients(m)
	n.origin(m.Reply.Code)
	if m.Content > 0 && m.Reply.Code != 0 {
		n.verdict.observe(m.Total - m.Content)
	}
}

// origin counts what an origin said last about a message, if it said anything.
func (n *counts) origin(code smtp.Code) {
	switch code.Class() {
	case 2:
		n.said[class2].Add(1)
	case 4:
		n.said[class4].Add(1)
	case 5:
		n.said[class5].Add(1)
	}
}

// recipients counts those of a message. Beyond the first ones, which the record
// has, all that were not accepted count as refused for good.
func (n *counts) recipients(m *event.Message) {
	deferred := 0
	for i := range m.Recipients {
		if m.Recipients[i].Answer.Code.Class() == 4 {
			deferred++
		}
	}
	n.rcpts[rcptAccepted].Add(uint64(m.Accepted))
	n.rcpts[rcptDeferred].Add(uint64(deferred))
	n.rcpts[rcptRefused].Add(uint64(m.Refused - deferred))
}

// Session counts a session that is over.
func (c *Counters) Session(s *event.Session) {
	n := c.of(&s.Flow)
	n.ended[s.End].Add(1)
	n.unforged[s.Unforged].Add(1)
	n.commands[0].Add(uint64(s.Commands))
	n.octets[clientIn].Add(uint64(s.ClientIn))
	n.octets[clientOut].Add(uint64(s.ClientOut))
	n.octets[originIn].Add(uint64(s.OriginIn))
	n.octets[originOut].Add(uint64(s.OriginOut))
	n.clientTLS.count(s.ClientTLS, s.Opaque != nil)
	n.originTLS.count(s.OriginTLS, s.Opaque != nil)
	if s.Opaque != nil {
		n.opaque[opaqueFromClient].Add(uint64(s.Opaque.FromClient))
		n.opaque[opaqueFromOrigin].Add(uint64(s.Opaque.FromOrigin))
	}
	n.keywords(s.Removed)
	n.rewritten[0].Add(uint64(len(s.Rewritten)))
	for _, u := range s.Unreached {
		n.unreached(u)
	}
	if s.Greeted > 0 { // a client that is turned away says nothing about how long sessions take
		n.greeting.observe(s.Greeted)
		n.duration.observe(s.Duration)
	}
}

// Octets that were carried without being looked at.
const (
	opaqueFromClient = iota
	opaqueFromOrigin
	opaqueWays
)

// keywords counts those that were taken out of a reply to EHLO.
func (n *counts) keywords(removed event.Text) {
	for len(removed) > 0 {
		var word []byte
		word, removed, _ = bytes.Cut(removed, space)
		which := smtp.NumExtensions
		if k, good := smtp.ParseKeyword(word); good && k.Known {
			which = int(k.Ext)
		}
		n.removed[which].Add(1)
	}
}

var space = []byte(" ")

// live returns how many sessions are open. Ends are read before beginnings: a
// session that begins and ends meanwhile must not be seen to end only. An end
// without a beginning, which would be a fault of ours, must not make 2^64 of it.
func (n *counts) live() uint64 {
	over := uint64(0)
	for i := range n.ended {
		over += n.ended[i].Load()
	}
	return max(n.opened.Load(), over) - over
}
