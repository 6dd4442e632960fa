// Package flow names one connection through the gateway: who the client is,
// which address it chose, and which service handles it.
//
// A Flow is made by accept, completed by relay with what the client's zone says,
// and handed down by value; every record, log line and refusal about the
// connection carries its ID. The package does no
// input or output.
package flow

import (
	"crypto/rand"
	"encoding/base32"
	"net/netip"

	"github.com/portreeve/portreeve/pkg/zone"
)

// ID identifies one flow in records and logs: 80 random bits, unique enough
// to be searched for across the logs of several gateways.
type ID [10]byte

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewID returns a fresh random ID. It cannot fail (crypto/rand, Go 1.24).
func NewID() ID {
	var id ID
	rand.Read(id[:])
	return id
}

// String returns the 16 characters under which the flow is logged.
func (id ID) String() string { return idEncoding.EncodeToString(id[:]) }

// AppendText appends the 16 characters of String to b.
func (id ID) AppendText(b []byte) ([]byte, error) { return idEncoding.AppendEncode(b, id[:]), nil }

// MarshalText makes an ID print as its characters in JSON.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// Way says how the client reached the inspector.
type Way uint8

const (
	Addressed Way = iota // the client connected to an address of the gateway
	Transit              // the client connected to the origin's own address
)

// String returns the word used in configuration, records and the manual.
func (w Way) String() string {
	if w == Transit {
		return "transit"
	}
	return "addressed"
}

// MarshalText makes a Way print as its word in JSON.
func (w Way) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// Flow is one client connection. It is a value: copy it freely.
type Flow struct {
	ID      ID
	Client  netip.AddrPort // the client's own address, IPv4 never in its mapped form
	Via     netip.AddrPort // the proxy that named the client; not valid: the client came by itself
	Server  netip.AddrPort // the address that the client, or its proxy, chose
	Zone    zone.Zone      // that the client is in
	Way     Way
	Service string // name of the service that handles it
}
