package scenario

import (
	"context"
	"net"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/pkg/steer"
)

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
