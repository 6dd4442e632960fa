package steer

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// Reason says why a packet met its verdict. The list is the enum in
// bpf/reason.h.
type Reason uint32

const numReasons = Reason(bpfReasonREASONS)

// words are the names of the enum's values in the compiled object, so that C
// and Go cannot differ.
var words = sync.OnceValue(func() map[Reason]string {
	spec, err := embedded()
	if err != nil {
		return nil
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("reason", &enum); err != nil {
		return nil
	}
	m := make(map[Reason]string, len(enum.Values))
	for _, v := range enum.Values {
		name := strings.ToLower(strings.TrimPrefix(v.Name, "REASON_"))
		m[Reason(v.Value)] = strings.ReplaceAll(name, "_", "-")
	}
	return m
})

// String returns the word used in status, metrics and the manual:
// "client-syn".
func (r Reason) String() string {
	if w, found := words()[r]; found && r < numReasons {
		return w
	}
	return fmt.Sprintf("reason-%d", uint32(r))
}

// MarshalText makes a Reason print as its word in JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Reasons returns all reasons in the order of the list.
func Reasons() []Reason {
	all := make([]Reason, numReasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Meaning explains the reason to an operator, in one sentence without a full
// stop.
func (r Reason) Meaning() string { return meanings[bpfReason(r)] }

// Wall names the wall that dropped a packet for this reason: "client", "origin"
// or "forward"; "" if the reason is another. A packet that one of the last two
// dropped was a leak.
func (r Reason) Wall() string {
	switch bpfReason(r) {
	case bpfReasonREASON_CLIENT_ABSENT_CLOSED, bpfReasonREASON_CLIENT_HUNG_CLOSED, bpfReasonREASON_CLIENT_HIDDEN, bpfReasonREASON_CLIENT_TAGS, bpfReasonREASON_CLIENT_INTRUDER:
		return "client"
	case bpfReasonREASON_WALL_LEAK, bpfReasonREASON_WALL_HIDDEN, bpfReasonREASON_WALL_DEAD_CLOSED:
		return "origin"
	case bpfReasonREASON_FORWARD_LEAK, bpfReasonREASON_FORWARD_HIDDEN, bpfReasonREASON_FORWARD_DEAD_CLOSED:
		return "forward"
	}
	return ""
}

var meanings = map[bpfReason]string{
	bpfReasonREASON_LOOKUP_ASSIGNED:      "a listener was looked up and the inspector's was given; more often than there are connections, for TC looks up too",
	bpfReasonREASON_LOOKUP_BYPASS:        "a connection to an address that a bypass leaves alone",
	bpfReasonREASON_LOOKUP_INTERFACE:     "a connection to a bound port by an interface that has no client role, such as lo",
	bpfReasonREASON_LOOKUP_UNBOUND:       "a connection to a bound port of an address that is not bound",
	bpfReasonREASON_LOOKUP_ABSENT_CLOSED: "refused: the service is closed and no inspector has a listener for it",
	bpfReasonREASON_LOOKUP_ABSENT_OPEN:   "left to other listeners: the service is open and no inspector has a listener for it",
	bpfReasonREASON_LOOKUP_HUNG_CLOSED:   "refused: the service is closed and the inspector's heartbeat is too old",
	bpfReasonREASON_LOOKUP_HUNG_OPEN:     "left to other listeners: the service is open and the inspector's heartbeat is too old",
	bpfReasonREASON_LOOKUP_REFUSED:       "the kernel refused the inspector's listener, or another sk_lookup program chose before; the service's fail policy was followed",

	bpfReasonREASON_CLIENT_SYN:           "diverted: the beginning of a transit connection",
	bpfReasonREASON_CLIENT_TINY:          "diverted: a first fragment too small to tell whether it begins a connection",
	bpfReasonREASON_CLIENT_SOCKET:        "diverted: a packet of a transit connection of ours",
	bpfReasonREASON_CLIENT_COOKIE:        "diverted: the end of a handshake with a SYN cookie of ours",
	bpfReasonREASON_CLIENT_ICMP:          "diverted: an ICMP error about a transit connection of ours",
	bpfReasonREASON_CLIENT_BYPASS:        "forwarded: the beginning of a connection to an address that a bypass leaves alone",
	bpfReasonREASON_CLIENT_FORWARDED:     "forwarded: a packet of a connection that is not ours, such as one from before the attach",
	bpfReasonREASON_CLIENT_FRAGMENT:      "a later TCP fragment, which follows its first one once they are put together",
	bpfReasonREASON_CLIENT_HIDDEN:        "dropped: a packet to an origin whose headers do not show whether it begins a connection; no honest sender makes it",
	bpfReasonREASON_CLIENT_HIDDEN_OPEN:   "forwarded uninspected: the same, while no inspector lives and no service is closed",
	bpfReasonREASON_CLIENT_TAGS:          "dropped: a frame with more than four priority tags, behind which may be anything",
	bpfReasonREASON_CLIENT_INTRUDER:      "dropped: a packet of a client that has the addresses and ports of the inspector's own connection to an origin",
	bpfReasonREASON_CLIENT_ABSENT_CLOSED: "dropped: the service is closed and no inspector has a listener for it",
	bpfReasonREASON_CLIENT_ABSENT_OPEN:   "forwarded uninspected: the service is open and no inspector has a listener for it",
	bpfReasonREASON_CLIENT_HUNG_CLOSED:   "dropped: the service is closed and the inspector's heartbeat is too old",
	bpfReasonREASON_CLIENT_HUNG_OPEN:     "forwarded uninspected: the service is open and the inspector's heartbeat is too old",

	bpfReasonREASON_ORIGIN_SOCKET:    "claimed: a reply of an origin to a forged connection of ours",
	bpfReasonREASON_ORIGIN_ICMP:      "claimed: an ICMP error about a forged connection of ours",
	bpfReasonREASON_ORIGIN_FOREIGN:   "left alone: a reply to a connection of the gateway itself",
	bpfReasonREASON_ORIGIN_FORWARDED: "left alone: a reply to a connection that is forwarded past the inspector",
	bpfReasonREASON_ORIGIN_FRAGMENT:  "a later TCP fragment, which follows its first one once they are put together",
	bpfReasonREASON_ORIGIN_HIDDEN:    "left alone: an IPv6 packet with more than eight extension headers, or whose headers do not end in it",

	bpfReasonREASON_WALL_LEAK:        "LEAK stopped: the beginning of a transit connection that was not steered, at the egress of the origin side while an inspector lives",
	bpfReasonREASON_WALL_HIDDEN:      "LEAK stopped: at the egress of the origin side, a packet whose headers do not show whether it begins a connection",
	bpfReasonREASON_WALL_DEAD_CLOSED: "LEAK stopped: at the egress of the origin side, for a closed service without a living inspector",
	bpfReasonREASON_WALL_DEAD_OPEN:   "forwarded uninspected: at the egress of the origin side, for an open service without a living inspector",
	bpfReasonREASON_WALL_BYPASS:      "forwarded: at the egress of the origin side, from an interface or to an address that a bypass leaves alone",

	bpfReasonREASON_FORWARD_LEAK:        "LEAK stopped: the beginning of a transit connection that was not steered, in FORWARD while an inspector lives",
	bpfReasonREASON_FORWARD_HIDDEN:      "LEAK stopped: in FORWARD, a packet whose headers do not show whether it begins a connection",
	bpfReasonREASON_FORWARD_DEAD_CLOSED: "LEAK stopped: in FORWARD, for a closed service without a living inspector",
	bpfReasonREASON_FORWARD_DEAD_OPEN:   "forwarded uninspected: in FORWARD, for an open service without a living inspector",
	bpfReasonREASON_FORWARD_BYPASS:      "forwarded: in FORWARD, from an interface or to an address that a bypass leaves alone",

	bpfReasonREASON_LOOP_OUT:     "sent through FORWARD: the beginning of a transit connection, to meet the rules that it would have met",
	bpfReasonREASON_LOOP_FETCHED: "fetched back: no rule on the way has dropped it; the difference to those sent was banned, or got lost",
	bpfReasonREASON_LOOP_STRAY:   "dropped: what bears the mark of the loop and is not what was sent round, or has been round already",
}
