package peer

import (
	"errors"
	"net"
)

// Pair returns the two ends of a TCP connection over loopback. The caller closes
// both.
func Pair() (dialled, accepted *net.TCPConn, err error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	dialled, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, nil, err
	}
	if accepted, err = ln.AcceptTCP(); err != nil {
		return nil, nil, errors.Join(err, dialled.Close())
	}
	return dialled, accepted, nil
}
