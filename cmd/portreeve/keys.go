package main

import (
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/keeper"
)

// holdVerb is how the process that holds private keys is started. It is no verb
// for people: without its socket it does nothing.
const holdVerb = "hold-keys"

func newHold() *cobra.Command {
	return &cobra.Command{
		Use:    holdVerb,
		Short:  "hold private keys for the inspector, which starts this by itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			call("portreeve-keys")
			signal.Ignore(unix.SIGHUP) // a terminal sends it to both, and the inspector still has messages to end
			return keeper.Hold(keeper.Socket(), c.InOrStdin())
		},
	}
}
