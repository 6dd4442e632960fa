package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/doctor"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
)

func newCheck(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "say what is wrong with a configuration file",
		Long: `Check reads a configuration file and prints everything that is wrong with it, one
finding a line, with file, line and key. It looks at the file; what depends on the machine
is the doctor's. A warning does not fail. A note says by which interfaces addresses under
intercept can be reached while the file is attached.

Two things it does look at where the machine has the interfaces: whether it forwards, without
which addresses under intercept cannot be served, and, as root, whether it gives clients
another source where the file asks for their own, as a NAT router does.`,
		Example: "  portreeve check -c /etc/portreeve.yaml",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return check(c.Context(), e) },
	}
	e.needConfig(c)
	return c
}

func check(ctx context.Context, e *env) error {
	if err := endAtOnce(ctx); err != nil {
		return err
	}
	c, err := e.load()
	if list, ok := errors.AsType[finding.List](err); ok {
		for _, f := range list {
			if err := e.printf("%s\n", f); err != nil {
				return err
			}
		}
		return errFound
	}
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		if err := e.printf("%s: %s\n", w.Severity, w); err != nil {
			return err
		}
	}
	if err := forwards(c); err != nil {
		if failed := e.printf("%s: %s\n", finding.Error, err); failed != nil {
			return failed
		}
		return errFound
	}
	for _, f := range masquerades(ctx, c) {
		if err := e.printf("%s: %s\n", finding.Warning, f); err != nil {
			return err
		}
	}
	if reach := uninspected(c); reach != "" {
		if err := e.printf("%s: note: %s\n", c.File, reach); err != nil {
			return err
		}
	}
	return e.printf("%s: ok: %s\n", c.File, summary(c))
}

// forwards refuses a configuration for whose transit this machine would have to forward.
// Where it has no interface of the client side it is another machine.
func forwards(c *config.Config) error {
	f := plan.Facts{Forwarding: map[string][]plan.Family{}}
	for _, name := range c.Interfaces.Client {
		if families, there := route.Forwards(name); there {
			f.Forwarding[name] = families
		}
	}
	if list := plan.JudgeForwarding(c, f); len(list) > 0 {
		return list
	}
	return nil
}

// masquerades names rules of this machine by which no reply to forged clients would
// come back. Where the machine cannot be read there is nothing to say.
func masquerades(ctx context.Context, c *config.Config) finding.List {
	links, err := route.Links()
	if err != nil {
		return nil
	}
	firewall, err := netfilter.Look(ctx)
	if errors.Is(err, netfilter.ErrChanging) {
		return finding.List{{Severity: finding.Warning, Object: "packet filter", Text: "it is not known whether it gives clients another source: " + err.Error()}}
	}
	if err != nil {
		return nil
	}
	return doctor.Masquerades(c, links, firewall)
}

// uninspected says who reaches transit targets past the inspector: what a file
// that is new on a gateway stops is told before it happens.
func uninspected(c *config.Config) string {
	for _, s := range c.Services {
		if len(s.Intercept) > 0 {
			return fmt.Sprintf("while attached, new connections to addresses under intercept come in by %s, where they are inspected, or by %s; what comes in by another interface, or is sent there by DNAT, is stopped (interfaces.bypass)",
				strings.Join(c.Interfaces.Client, ", "), strings.Join(slices.Concat(c.Interfaces.Origin, c.Interfaces.Bypass), ", "))
		}
	}
	return ""
}

// summary tells in one line what a configuration is about.
func summary(c *config.Config) string {
	names := make([]string, len(c.Services))
	for i, s := range c.Services {
		names[i] = s.Name
	}
	const most = 5
	if len(names) > most {
		names = append(names[:most], "...")
	}
	noun := "services"
	if len(c.Services) == 1 {
		noun = "service"
	}
	return fmt.Sprintf("%d %s (%s), clients on %s, origins on %s", len(c.Services), noun,
		strings.Join(names, ", "), strings.Join(c.Interfaces.Client, ", "), strings.Join(c.Interfaces.Origin, ", "))
}
