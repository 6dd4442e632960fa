package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
)

// Judge returns what is wrong with a configuration on a machine with these
// facts, though it is right as a file. An Error means that attaching would
// not do what the operator asks for.
func Judge(c *config.Config, f Facts) finding.List {
	var l finding.List
	judgeInterfaces(&l, c, f)
	for i, s := range c.Services {
		judgeOrigins(&l, c, i, s, f)
		judgeListen(&l, c, i, s, f)
	}
	if c.Kernel.Datapath == config.DatapathTCX && !f.TCX && needsTC(c) {
		l.AddAs("tcx-missing", finding.Error, key(c, "kernel.datapath"),
			"this kernel has no TCX links (Linux 6.6 and later)", "use datapath: auto, which takes the clsact qdisc here")
	}
	l = append(l, JudgeForwarding(c, f)...)
	if len(intercepts(c)) > 0 && c.Kernel.Netfilter == config.NetfilterOff && !ForwardByLink(c, f) {
		l.AddAs("forward-unguarded", finding.Warning, key(c, "kernel.netfilter"),
			"it is off, and without rules nothing stops connections to origins that pass portreeve and leave by an interface that is not on the origin side",
			"use netfilter: auto, or Linux 6.4 or later with datapath: auto, which needs no rules for that")
	}
	return l
}

func judgeInterfaces(l *finding.List, c *config.Config, f Facts) {
	judge := func(side string, names []string, judgeVRF func(l *finding.List, object, name, vrf string)) {
		for i, name := range names {
			object := key(c, "interfaces.%s[%d]", side, i)
			if !slices.Contains(f.Interfaces, name) {
				l.AddAs("interface-missing", finding.Error, object,
					fmt.Sprintf("interface %q does not exist on this machine", name),
					"use one of "+strings.Join(others(f.Interfaces), ", ")+", or create it first")
			}
			if vrf := f.VRFs[name]; vrf != "" {
				judgeVRF(l, object, name, vrf)
			}
		}
	}
	judge("client", c.Interfaces.Client, steeredVRF)
	judge("origin", c.Interfaces.Origin, steeredVRF)
	judge("bypass", c.Interfaces.Bypass, bypassVRF)
}

// steeredVRF refuses an interface in a VRF, or a VRF, on a side: packets are routed
// as if they had come in by the VRF, which our rules, roles and sockets do not
// name. The VRF itself is no way out, for no TC program sees what comes in by it.
func steeredVRF(l *finding.List, object, name, vrf string) {
	if vrf == name {
		l.AddAs("interface-vrf", finding.Error, object, fmt.Sprintf("interface %q is a VRF, and portreeve steers no mail in VRFs", name),
			"use interfaces that are in no VRF")
		return
	}
	l.AddAs("interface-vrf", finding.Error, object, fmt.Sprintf("interface %q is in the VRF %s, and portreeve steers no mail in VRFs", name, vrf),
		fmt.Sprintf("take it out (ip link set %s nomaster), or use an interface that is in no VRF", name))
}

// bypassVRF refuses an interface in a VRF under bypass, where the walls look for the
// interface that the kernel names: the VRF.
func bypassVRF(l *finding.List, object, name, vrf string) {
	if vrf == name {
		return
	}
	l.AddAs("bypass-vrf", finding.Error, object,
		fmt.Sprintf("interface %q is in the VRF %s: to the kernel, what comes in by it came in by %s", name, vrf, vrf),
		fmt.Sprintf("name %s in its place", vrf))
}

// others are the interfaces without lo, which is on neither side.
func others(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "lo" })
}

// judgeOrigins refuses an origin on the gateway itself to a service that
// forges: its replies come by the loopback interface, where no program of ours
// looks.
func judgeOrigins(l *finding.List, c *config.Config, n int, s config.Service, f Facts) {
	for i, o := range s.Origins {
		if s.Forge.Address == config.ForgeNever || !slices.Contains(f.Local, o.Addr()) {
			continue
		}
		l.AddAs("origin-here", finding.Error, key(c, "services[%d].origins[%d]", n, i),
			fmt.Sprintf("service %s would send mail back to the gateway: %s is its own address, and a forged connection to it gets no reply", s.Name, o.Addr()),
			"name the address of a server behind the gateway")
	}
	for i, t := range s.Intercept {
		if t.Prefix.IsSingleIP() && slices.Contains(f.Local, t.Prefix.Addr()) {
			l.AddAs("target-here", finding.Error, key(c, "services[%d].intercept[%d]", n, i),
				fmt.Sprintf("service %s would intercept mail for the gateway: %s is its own address", s.Name, t.Prefix.Addr()),
				"put it under listen, or name an origin's address")
		}
	}
}

// judgeListen warns of addresses that the gateway does not have: packets for
// them are forwarded, never delivered here.
func judgeListen(l *finding.List, c *config.Config, n int, s config.Service, f Facts) {
	for i, t := range s.Listen {
		if !slices.ContainsFunc(f.Local, t.Prefix.Contains) {
			l.AddAs("listen-elsewhere", finding.Warning, key(c, "services[%d].listen[%d]", n, i),
				fmt.Sprintf("no address of this gateway is in %s, so no connection to it arrives here", t.Prefix),
				"add the address to an interface, or put it under intercept if it is an origin's")
		}
	}
}

// JudgeForwarding refuses transit services whose SYNs cannot meet the rules of FORWARD,
// for the kernel does not forward.
func JudgeForwarding(c *config.Config, f Facts) finding.List {
	var l finding.List
	if !Loops(c) {
		return nil
	}
	for _, family := range families(intercepts(c)) {
		names := slices.DeleteFunc(slices.Clone(c.Interfaces.Client), func(name string) bool {
			forwarded, known := f.Forwarding[name]
			return !known || slices.Contains(forwarded, family)
		})
		if len(names) == 0 {
			continue
		}
		sysctl := "net.ipv4.ip_forward"
		if family == IPv6 {
			sysctl = "net.ipv6.conf.all.forwarding"
		}
		l.AddAs("forwarding-off", finding.Error, key(c, "kernel.forward_rules"),
			fmt.Sprintf("connections to addresses under intercept have to meet the rules of FORWARD, and the kernel forwards no %s that comes in by %s", family, strings.Join(names, ", ")),
			fmt.Sprintf("sysctl -w %s=1 # and write it into /etc/sysctl.d, or it is lost at boot; or set kernel.forward_rules to skip", sysctl))
	}
	return l
}

func needsTC(c *config.Config) bool {
	return len(forgedOrigins(c)) > 0 || len(intercepts(c)) > 0
}

func key(c *config.Config, format string, args ...any) string {
	return c.File + ": " + fmt.Sprintf(format, args...)
}
