// Package config turns the configuration file into a Config that is true:
// parsed, completed with defaults and validated, so that nobody below has to
// check again.
//
// It reads twice: what the file says (raw.go, through viper with an instance
// of its own and exact decoding), then what is true (this file's types). It
// owns the reference file and the defaults. It never looks at the machine: what
// depends on interfaces and addresses that exist is judged by plan and doctor.
package config

import (
	"net/netip"
	"time"

	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/protocol"
)

// Config is a validated configuration.
type Config struct {
	File       string // where it came from, for messages
	Interfaces Interfaces
	Services   []Service
	Zones      []Zone
	SMTP       protocol.Rules // what a service has that says nothing else
	TLS        TLS            // the same; its mode may be TLSAuto
	Kernel     Kernel
	Timeouts   Timeouts
	Limits     Limits
	Log        Log
	Metrics    Metrics

	Warnings finding.List // what is allowed and may not be meant
}

// Interfaces names the gateway's sides. An interface may be on both.
type Interfaces struct {
	Client []string // where clients come in
	Origin []string // where the origins are
	Bypass []string // on neither side: what comes in by them may be forwarded to origins uninspected
}

// Service says what to do with whom.
type Service struct {
	Name      string
	Listen    []Target         // addresses or prefixes of this gateway: addressed
	Intercept []Target         // addresses or prefixes of origins: transit
	Origins   []netip.AddrPort // tried in order; empty: the address that the client chose (transparent)
	Forge     Forge
	Fail      Fail
	SMTP      protocol.Rules // complete: what the service leaves out is Config.SMTP's
	TLS       TLS            // complete: what the service leaves out is Config.TLS's
}

// Target is an address prefix and a port that clients connect to. A single
// address is a prefix of full length.
type Target struct {
	Prefix netip.Prefix
	Port   uint16
}

// String returns the form used in the file: "192.0.2.1:25", "[2001:db8::/64]:25".
func (t Target) String() string { return formatTarget(t) }

// Forge says which source address and port the origin leg bears.
type Forge struct {
	Address ForgeAddress
	Port    ForgePort
	OnLink  OnLink
}

// ForgeAddress is when the client's address is the source of the origin leg.
type ForgeAddress uint8

const (
	ForgeAlways ForgeAddress = iota // or refuse the client with 421
	ForgePrefer                     // the same, but the gateway's own address for all clients of an origin where forging is broken
	ForgeNever                      // always the gateway's own address
)

// OnLink is what becomes of a client in the origin's own network: the origin would
// answer it there, past the gateway, so its address cannot be forged.
type OnLink uint8

const (
	OnLinkRefuse OnLink = iota // the client is refused with 421
	OnLinkPlain                // it is served from the gateway's own address
)

// PortMode is how the source port of the origin leg is chosen.
type PortMode uint8

const (
	PortAny    PortMode = iota // the kernel chooses an ephemeral port
	PortExact                  // the client's port, or no connection
	PortGroup                  // the client's port, else another of its group: 1-511, 512-1023, 1024-65535
	PortRandom                 // an unpredictable port of the client's group
	PortNumber                 // Number
)

// ForgePort is a port mode with its number.
type ForgePort struct {
	Mode   PortMode
	Number uint16 // for PortNumber
}

// Fail is what the kernel does with new connections while no inspector is
// alive.
type Fail uint8

const (
	FailClosed Fail = iota // addressed: refused; transit: dropped
	FailOpen               // addressed: whoever else listens; transit: forwarded untouched
)

// Datapath chooses how the TC programs are attached.
type Datapath uint8

const (
	DatapathAuto   Datapath = iota // TCX where the kernel has it, else clsact
	DatapathTCX                    // kernel 6.6 and later
	DatapathClsact                 // TC filters of the clsact qdisc
)

// Netfilter chooses the flavour of iptables that our chains are kept in.
type Netfilter uint8

const (
	NetfilterAuto   Netfilter = iota // the flavour that `iptables` is here
	NetfilterNFT                     // iptables-nft
	NetfilterLegacy                  // iptables-legacy
	NetfilterOff                     // no chains at all
)

// ForwardRules says whether transit connections meet what the administrator has in
// FORWARD.
type ForwardRules uint8

const (
	ForwardHonour ForwardRules = iota // their first packet is led through FORWARD
	ForwardSkip                       // they never get there
)

// Kernel holds what portreeve uses in the kernel; change it only where it
// collides with something else on the gateway.
type Kernel struct {
	BPFFS      string    // mount point of the BPF file system
	RunDir     string    // where journal and lock are kept
	Datapath   Datapath  // how the TC programs are attached
	Netfilter  Netfilter // where our chains are kept
	ClientMark uint32    // one bit: packets and sockets of client legs
	OriginMark uint32    // one bit: packets and sockets of origin legs

	ForwardRules ForwardRules // whether transit connections meet the rules of FORWARD
	LoopMark     uint32       // one bit: a packet on its way through FORWARD and back
	LoopTable    uint32       // the routing table by which it gets there, 1 to 2^31-1, not 253-255

	Table     uint32        // our routing table, 1 to 2^31-1, not 253-255
	Priority  uint32        // of our policy rules; before the rules that would route the packets elsewhere
	Heartbeat time.Duration // age of the last heartbeat at which an inspector counts as hung
}

// Timeouts of a session, RFC 5321 section 4.5.3.2.
type Timeouts struct {
	Connect   time.Duration // to one origin
	Greet     time.Duration // the origin's 220
	Command   time.Duration // the client's next command
	Reply     time.Duration // the origin's reply to a command
	Data      time.Duration // the origin's 354
	Block     time.Duration // one read or write of message content
	End       time.Duration // the origin's reply to the end of data
	Handshake time.Duration // TLS with one side
	Proxy     time.Duration // the PROXY header of a client that has to send one
	Drain     time.Duration // from the order to stop to the end of the last session
}

// Limits bound what one client or all of them can ask of the gateway.
type Limits struct {
	Sessions int // at once, over all services; more are answered 421
}

// Log says which records are written to standard output, and in which form.
type Log struct {
	Format         string // "json" or "text"
	SilentVisitors bool   // also those of clients that came and went without a word
}

// Metrics says where counters can be scraped.
type Metrics struct {
	Listen netip.AddrPort // of the HTTP server; not valid: there is none
}
