// Package proxy reads the header by which a proxy says on whose behalf it
// connects: the PROXY protocol, versions 1 and 2, as HAProxy's
// proxy-protocol.txt has it.
//
// It owns the header's framing and what an SMTP gateway takes from it, the
// client's address. It never decides whether a peer may send one: relay, its
// only caller, reads it from connections of trusted zones and from no others. It
// never takes an octet from the connection that lies behind the header, so that
// a client that speaks before its greeting is still seen to.
package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Errors of Read, beside those of the connection.
var (
	// ErrNone: what came is no PROXY header at all.
	ErrNone = errors.New("no PROXY header")
	// ErrBroken: a PROXY header that breaks the rules, or names no client of a TCP
	// connection.
	ErrBroken = errors.New("broken PROXY header")
)

// Lengths in octets.
const (
	shortest  = len("PROXY UNKNOWN\r\n") // of all headers
	longest1  = 107                      // of version 1, section 2.1
	fixed2    = 16                       // of version 2, in front of the addresses
	variable2 = 4096                     // of version 2, behind that: the addresses, and more than real extensions take
)

// Read reads a header from r, which is a connection with a read deadline, and
// returns the client that it names. The zero AddrPort stands for the peer itself:
// version 2's LOCAL, by which proxies try whether we are alive, and version 1's
// UNKNOWN.
//
// The error is ErrNone, ErrBroken, or one of r; io.EOF when the peer closed
// without a word.
func Read(r io.Reader) (netip.AddrPort, error) {
	var few [fixed2 + 216]byte // 216: the longest addresses, those of UNIX sockets
	header, err := frame(r, few[:0])
	if err != nil {
		return netip.AddrPort{}, err
	}
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if h.Command == proxyproto.LOCAL {
		return netip.AddrPort{}, nil
	}
	return client(h)
}

// frame reads a whole header behind b, and nothing more: never more octets at a
// time than surely belong to it.
func frame(r io.Reader, b []byte) ([]byte, error) {
	for {
		n, err := lacking(b)
		if n == 0 || err != nil {
			return b, err
		}
		have := len(b)
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			return b, truncated(have, err)
		}
	}
}

// truncated: a peer that closes within the header has broken it, one that closes
// before it has not.
func truncated(have int, err error) error {
	if err == io.ErrUnexpectedEOF || err == io.EOF && have > 0 {
		return fmt.Errorf("%w: it ends within", ErrBroken)
	}
	return err
}

// lacking returns how many octets of the header that b begins are surely to
// come, 0 when it is complete.
func lacking(b []byte) (int, error) {
	switch {
	case len(b) < shortest:
		return shortest - len(b), nil
	case bytes.HasPrefix(b, proxyproto.SIGV2):
		return lacking2(b)
	case bytes.HasPrefix(b, proxyproto.SIGV1):
		return lacking1(b)
	}
	return 0, ErrNone
}

// lacking1: a line that is not complete lacks CRLF, or LF behind a CR.
func lacking1(b []byte) (int, error) {
	n := 2
	switch last := b[len(b)-1]; {
	case last == '\n' && b[len(b)-2] == '\r':
		return 0, nil
	case bytes.IndexByte(b, '\n') >= 0:
		return 0, fmt.Errorf("%w: its line ends without CR", ErrBroken)
	case last == '\r':
		n = 1
	}
	if len(b)+n > longest1 {
		return 0, fmt.Errorf("%w: its line is longer than %d octets", ErrBroken, longest1)
	}
	return n, nil
}

// lacking2: the last two of the fixed octets say how many follow them.
func lacking2(b []byte) (int, error) {
	if len(b) < fixed2 {
		return fixed2 - len(b), nil
	}
	n := int(binary.BigEndian.Uint16(b[fixed2-2:]))
	if n > variable2 {
		return 0, fmt.Errorf("%w: it announces %d octets, more than %d", ErrBroken, n, variable2)
	}
	return fixed2 + n - len(b), nil
}

// client returns the source of the connection that a header is about, IPv4 never
// in its mapped form. Its destination is nobody's business here: where mail goes
// is decided by the address at which the proxy came in.
func client(h *proxyproto.Header) (netip.AddrPort, error) {
	source, _, ok := h.TCPAddrs()
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%w: it is not about a TCP connection", ErrBroken)
	}
	a := source.AddrPort()
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if !possible(a) {
		return netip.AddrPort{}, fmt.Errorf("%w: %s cannot be a client", ErrBroken, a)
	}
	return a, nil
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	thisHost  = netip.PrefixFrom(netip.IPv4Unspecified(), 8) // RFC 1122 section 3.2.1.3: nobody has them
)

// possible reports whether somebody can have connected from a. A loopback address
// is a host of its own on every host, and would be trusted by the origin as itself.
// A link-local address of IPv6 means another host on every link, and the header
// does not say on which.
func possible(a netip.AddrPort) bool {
	ip := a.Addr()
	switch {
	case a.Port() == 0, ip.IsUnspecified(), ip.IsMulticast(), ip.IsLoopback(), ip == broadcast, thisHost.Contains(ip):
		return false
	}
	return !ip.Is6() || !ip.IsLinkLocalUnicast()
}
