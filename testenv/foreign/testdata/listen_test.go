package smtp_test

import (
	"net"
	"os"
)

// listen is in the place of net.Listen. What listens is an origin: who asks for its
// address is told the gateway's, and so connects through it.
func listen(network, address string) (net.Listener, error) {
	gateway := os.Getenv("FOREIGN_GATEWAY")
	if gateway == "" {
		return net.Listen(network, address)
	}
	listener, err := net.Listen(network, os.Getenv("FOREIGN_ORIGIN"))
	if err != nil {
		return nil, err
	}
	addr, err := net.ResolveTCPAddr(network, gateway)
	return behind{listener, addr}, err
}

type behind struct {
	net.Listener
	gateway net.Addr
}

func (b behind) Addr() net.Addr { return b.gateway }
