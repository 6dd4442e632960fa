package scenario

import (
	"context"
	"net"
	"net/netip"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/pkg/steer"
	"github.com/portreeve/portreeve/testenv/peer"
)

// slow begins a message, and sends the rest of it when it is told to: a session
// that lasts while inspectors change.
func slow(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "slow start ADDR:PORT | slow stop"
	switch {
	case len(args) == 2 && args[0] == "start":
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return usage(text)
		}
		conn, err := s.dial(netip.AddrPortFrom(s.source(netip.Addr{}, to), 0), to)
		if err != nil {
			return err
		}
		client := peer.NewClient(conn)
		s.slow = client
		if _, err := client.Open("client.example.net"); err != nil {
			return err
		}
		if err := client.Envelope(letter); err != nil {
			return err
		}
		return client.Write("Subject: slow\r\n\r\n")
	case len(args) == 1 && args[0] == "stop" && s.slow != nil:
		if err := s.slow.Write("the rest\r\n.\r\n"); err != nil {
			return err
		}
		reply, err := s.slow.Reply()
		printReply(ts.Stdout(), reply)
		s.slow = nil
		return err
	}
	return usage(text)
}

// usurp takes the slots of services by an inspector that ends before it beats:
// they are empty then.
func usurp(s *stage, _ *testscript.TestScript, services []string) error {
	if err := atLeast(1, services, "usurp SERVICE…"); err != nil {
		return err
	}
	return s.env.Gateway.Enter(func() error {
		hand, err := steer.New(s.env.BPFFS)
		if err != nil {
			return err
		}
		defer hand.Close()
		inspector, err := hand.Inspector()
		if err != nil {
			return err
		}
		defer inspector.Close()
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		listener, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close() // the kernel empties its slots
		return inspector.Register(services, listener.(*net.TCPListener), nil)
	})
}
