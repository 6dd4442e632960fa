package event

import "net/netip"

// Unreached is an origin that could not be reached when a session began.
type Unreached struct {
	Origin  netip.AddrPort
	Trouble Trouble
}

// Trouble says why an origin could not be reached. The words are stable.
type Trouble uint8

const (
	TroubleRefused     Trouble = iota // it refuses connections
	TroubleTimeout                    // it does not answer in time
	TroubleUnreachable                // there is no way to it
	TroubleNoAddress                  // the client's address or port cannot be its source
	TroubleLoop                       // it is this gateway
	TroubleResources                  // the gateway is out of descriptors or memory
	TroubleOnLink                     // it would answer the client past the gateway
	TroubleFamily                     // it is not of the client's family
	TroubleLinkLocal                  // the client's address is link-local

	Troubles // how many there are
)

var troubleWords = [Troubles]string{
	TroubleRefused:     "refused",
	TroubleTimeout:     "timeout",
	TroubleUnreachable: "unreachable",
	TroubleNoAddress:   "no-address",
	TroubleLoop:        "loop",
	TroubleResources:   "resources",
	TroubleOnLink:      "on-link",
	TroubleFamily:      "family",
	TroubleLinkLocal:   "link-local",
}

// String returns the word used in records and counters.
func (t Trouble) String() string { return troubleWords[t] }
