package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/pkg/doctor"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/resolve"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
)

func newDoctor(e *env) *cobra.Command {
	var asJSON bool
	resolver := argument{kind: "ADDRESS:PORT"}
	c := &cobra.Command{
		Use:   "doctor -c FILE",
		Short: "say what on this machine is in the way",
		Long: `Doctor looks at this machine with the configuration in hand: kernel features and the
data path that they allow, the BPF file system, whether an inspector serves what is
attached, interfaces, policy rules and marks of others, what the walls stop and what they
do not see, local servers on the port, settings of the kernel and of systemd-networkd,
the routes to origins and, while attached, their routes back. It follows the packets of
clients and of origins through all rules of iptables and nftables as they are once
portreeve's own are in place, and names those that drop, mark, divert or masquerade them;
whom the administrator bans is no finding. It changes nothing.

It prints one finding a line: how bad it is, its code, what it is about, what is the
matter, and behind a semicolon the remedy, a command that can be typed as it is wherever
there is one. Codes are stable, and are listed in findings.md. A finding that another one
explains is not printed, and what is the same for many things is printed once.

To try an origin's route back, it opens a connection to it from an address that belongs
to nobody (of 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 or 2001:db8::/32), where that
gets no answer one from the gateway's own address, and closes them again; the origin's log
may say so. It also names origins that may answer clients past this gateway, for they share
a link with them.

Of TLS it reads the certificates that clients are shown (dates, chain, names), asks each
origin what it offers, and compares what the domains under tls.domains publish (MX,
MTA-STS, TLSA) with those certificates.

The exit code is 1 when something would keep mail from flowing.`,
		Example: "  portreeve doctor -c /etc/portreeve.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return diagnose(c.Context(), e, asJSON, resolver.value) },
	}
	e.needConfig(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.Flags().Var(&resolver, "resolver", "DNS server to ask about tls.domains (default the first of /etc/resolv.conf)")
	return c
}

func diagnose(ctx context.Context, e *env, asJSON bool, resolver string) error {
	if err := endAtOnce(ctx); err != nil {
		return err
	}
	c, err := e.load()
	if err != nil {
		return err
	}
	if err := privileged("doctor"); err != nil {
		return err
	}
	list, err := examine(ctx, c, resolver)
	if err != nil {
		return err
	}
	if asJSON {
		err = e.printJSON(list)
	} else {
		err = e.printFindings(list)
	}
	if err == nil && list.Failed() {
		err = errFound
	}
	return err
}

// examine looks at the machine and returns the findings.
func examine(ctx context.Context, c *config.Config, resolver string) (_ finding.List, err error) {
	f, err := facts(c)
	if err != nil {
		return nil, err
	}
	side, err := openKernel(ctx, c.Kernel, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, side.close()) }()
	a, err := attachment(c, f, side)
	if err != nil {
		return nil, err
	}
	m, err := doctor.Look(ctx, c, f, a)
	if err != nil {
		return nil, err
	}
	if m.Ahead, err = ahead(c); err != nil {
		return nil, err
	}
	if m.TLS, err = lookTLS(ctx, c, resolver, m.Silent()); err != nil {
		return nil, err
	}
	return doctor.Examine(c, m), nil
}

// ahead names the TC programs of others that come before ours.
func ahead(c *config.Config) ([]string, error) {
	var found []string
	for _, name := range slices.Concat(c.Interfaces.Client, c.Interfaces.Origin) {
		links, err := steer.Ahead(name)
		if err != nil {
			return nil, err
		}
		filters, err := route.NewFilters(steer.OwnProgram).Ahead(name)
		if err != nil {
			return nil, err
		}
		found = append(found, append(links, filters...)...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// lookTLS looks at TLS, and at what is published of it. It does not talk to silent origins.
func lookTLS(ctx context.Context, c *config.Config, resolver string, silent []netip.AddrPort) (doctor.TLS, error) {
	names, err := resolve.System()
	if resolver != "" {
		server, bad := netip.ParseAddrPort(resolver)
		if bad != nil {
			return doctor.TLS{}, usageError(fmt.Sprintf("--resolver %q is not an address and a port, like 127.0.0.1:53", resolver))
		}
		names, err = resolve.New(server), nil
	}
	if err != nil && asksDNS(c) {
		return doctor.TLS{}, err
	}
	return doctor.LookTLS(ctx, c, doctor.Published{DNS: names}, daemon.Policy, silent...), nil
}

func asksDNS(c *config.Config) bool {
	for _, s := range c.Services {
		if len(s.TLS.Domains) > 0 {
			return true
		}
	}
	return false
}

// attachment compares the kernel side with what the configuration asks for.
func attachment(c *config.Config, f plan.Facts, side *kernelSide) (doctor.Attachment, error) {
	var a doctor.Attachment
	if a.BPFFS = side.useSteer(c.Kernel.BPFFS); a.BPFFS != nil && !errors.Is(a.BPFFS, steer.ErrNoBPFFS) {
		return a, a.BPFFS
	}
	changes, err := side.runner.Changes(plan.Build(c, f))
	if err != nil {
		return a, err
	}
	have, _, err := side.runner.Have()
	if err != nil {
		return a, err
	}
	for _, i := range have {
		if _, is := i.(plan.Lookup); is {
			a.Attached, a.Drift = true, changes
		}
	}
	if a.Attached {
		a.Alive, err = side.steer.Alive()
	}
	return a, err
}

func (e *env) printFindings(list finding.List) error {
	for _, f := range list {
		if err := e.printf("%-8s %s  %s\n", f.Severity, f.Code, f); err != nil {
			return err
		}
	}
	return nil
}
