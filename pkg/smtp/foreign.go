package smtp

import "bytes"

// What comes to the port of SMTP that is not SMTP is known by how it begins.

// How TLS begins (RFC 8446 section 5.1), and headers of the PROXY protocol of versions 1
// and 2 (proxy-protocol.txt).
var (
	handshake = []byte{0x16, 3}
	proxy1    = []byte("PROXY ")
	proxy2    = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// StartsTLS reports whether octets in the place of a line are not one, but a handshake,
// as far as they go.
func StartsTLS(said []byte) bool { return len(said) > 0 && said[0] == handshake[0] }

// ForeignProtocol names the protocol of what a client has said, "" if nobody knows it.
func ForeignProtocol(said []byte) string {
	line, _, _ := bytes.Cut(said, crlf)
	switch {
	case StartsTLS(said):
		return "TLS"
	case bytes.HasPrefix(said, proxy1), bytes.HasPrefix(said, proxy2):
		return "PROXY header"
	case bytes.Contains(line, []byte(" HTTP/")):
		return "HTTP"
	}
	return ""
}

// Greets reports whether what a client has said begins with HELO or EHLO, as far as it
// goes.
func Greets(said []byte) bool {
	verb := said[:min(len(said), 4)]
	return (EqualFold(verb, "EHLO"[:len(verb)]) || EqualFold(verb, "HELO"[:len(verb)])) &&
		(len(said) < 5 || said[4] == ' ' || said[4] == '\r')
}
