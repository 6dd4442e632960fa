package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/portreeve/portreeve/pkg/config"
)

// manualDate stands at the foot of every page: the month in which the manual
// was last revised, not that of a build, so that the same source makes the
// same pages.
var manualDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "write the manual's pages",
		Hidden: true, // for packagers and go generate
		Args:   oneArg("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			root.Long += "\n\n" + environment()
			return writeManual(root, args[0])
		},
	}
}

func writeManual(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write the manual: %w", err)
	}
	header := &doc.GenManHeader{Section: "8", Source: "portreeve", Manual: "Portreeve Manual", Date: &manualDate}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("cannot write the manual to %s: %w", dir, err)
	}
	return writeTexts(dir)
}

// environment describes the variables for the manual.
func environment() string {
	var b strings.Builder
	b.WriteString("Environment variables go before the file's values, flags before both:\n")
	for _, v := range config.Variables() {
		fmt.Fprintf(&b, "\n    %-30s %s", v.Name, v.Key)
	}
	return b.String()
}
