package steer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// costRuns is how often each packet is judged for TestRunCost.
const costRuns = 100_000

// TestRunCost prints what a packet costs, by the kernel's BPF statistics, which
// count their own clock reads too: the cost of a program that does nothing is
// printed beside it. It asserts only that each case took the way that it is
// named after.
//
//	go test -run TestRunCost -v ./pkg/steer
func TestRunCost(t *testing.T) {
	g := newStage(t)
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	must(t, err)
	defer stats.Close()

	empty, err := ebpf.NewProgram(classifier())
	must(t, err)
	defer empty.Close()
	report(t, "nothing, the statistics themselves", empty, &ebpf.RunOptions{Data: ethernet(world4.fromClient(world4.origin, ack).bytes())})

	for _, w := range worlds {
		dialled, _ := connect(t, w.client, w.origin, originMark)
		client, origin := addrPort(dialled.LocalAddr()), at(w.origin, smtpPort)
		g.cost(clientHook, w.name()+" other port, not ours", segment(client, at(w.origin, 443), ack).bytes(), ignored)
		g.cost(clientHook, w.name()+" UDP, not ours", ip{src: w.client, dst: w.origin, proto: protoUDP, payload: tcp(53, 53, 0)}.bytes(), ignored)
		g.cost(clientHook, w.name()+" unbound address, not ours", w.fromClient(w.nobody, ack).bytes(), ignored)
		g.cost(clientHook, w.name()+" established", segment(client, origin, ack).bytes(), diverted(bpfReasonREASON_CLIENT_SOCKET))
		g.cost(clientHook, w.name()+" forwarded", w.fromClient(w.origin, ack).bytes(), left(bpfReasonREASON_CLIENT_FORWARDED))
		g.cost(originHook, w.name()+" other port, not ours", segment(at(w.origin, 443), client, ack).bytes(), ignored)
		g.cost(wallHook, w.name()+" forwarded, other port, not ours", segment(client, at(w.origin, 443), ack).bytes(), ignored)
		g.cost(wallHook, w.name()+" forwarded", w.fromClient(w.origin, ack).bytes(), ignored)
		g.cost(originHook, w.name()+" established", segment(origin, client, ack).bytes(), claimed(bpfReasonREASON_ORIGIN_SOCKET))
	}
	for _, w := range worlds {
		g.costLookup(w.name()+" other port, not ours", at(w.own, 80), "")
		g.costLookup(w.name()+" no role, not ours", at(w.own, smtpPort), Reason(bpfReasonREASON_LOOKUP_INTERFACE).String())
	}
	g.giveRole(plan.ClientSide)
	g.costBound("")
	g.bindMany()
	g.costBound(fmt.Sprintf(", %d services", manyServices))
}

// costBound reports what the beginning of a connection costs.
func (g *stage) costBound(among string) {
	g.Helper()
	for _, w := range worlds {
		g.cost(clientHook, w.name()+" SYN"+among, w.fromClient(w.origin, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
		g.costLookup(w.name()+" bound"+among, at(w.own, smtpPort), Reason(bpfReasonREASON_LOOKUP_ASSIGNED).String())
	}
}

// manyServices are bound to an address of each family.
const manyServices = 10_000

func (g *stage) bindMany() {
	g.Helper()
	start := time.Now()
	for n := range manyServices {
		name := fmt.Sprintf("service-%d", n)
		g.add(plan.Service{Name: name})
		v4, v6 := world4.client.As4(), world6.client.As16()
		binary.BigEndian.PutUint16(v4[1:], uint16(n+256))
		binary.BigEndian.PutUint16(v6[6:], uint16(n+256))
		for _, a := range []netip.Addr{netip.AddrFrom4(v4), netip.AddrFrom16(v6)} {
			g.add(plan.Binding{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: smtpPort, Service: name, Transit: true})
		}
	}
	g.Logf("%d services with two bindings each were added in %s", manyServices, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	have, err := g.Have()
	must(g.T, err)
	g.Logf("%d items were read in %s", len(have), time.Since(start).Round(time.Millisecond))
	if len(have) < 3*manyServices {
		g.Errorf("only %d items came back", len(have))
	}
	g.set, err = g.open()
	must(g.T, err)
}

// cost reports what a packet costs a hook's program.
func (g *stage) cost(hook plan.TC, what string, packet []byte, want outcome) {
	g.Helper()
	g.want(hook, what, packet, want)
	name, err := tcProgram(hook, true)
	must(g.T, err)
	report(g.T, what, g.set.programs[name], &ebpf.RunOptions{Data: ethernet(packet), Context: forwarded()})
}

// costLookup reports what a lookup costs.
func (g *stage) costLookup(what string, local netip.AddrPort, want string) {
	g.Helper()
	c := lookupContext{local: local}
	if got := g.lookUp(c).reason; got != want {
		g.Errorf("%s: reason %q, want %q", what, got, want)
	}
	report(g.T, what, g.set.programs[bpfProgSteerLookup], &ebpf.RunOptions{Context: c.bytes()})
}

// report prints the time per run, over costRuns runs.
func report(t *testing.T, what string, p *ebpf.Program, o *ebpf.RunOptions) {
	t.Helper()
	before, err := p.Stats()
	must(t, err)
	o.Repeat = costRuns
	_, err = p.Run(o)
	must(t, err)
	after, err := p.Stats()
	must(t, err)
	runs := after.RunCount - before.RunCount
	if runs < costRuns {
		t.Fatalf("%s: %d runs were counted", what, runs)
	}
	per := (after.Runtime - before.Runtime) / time.Duration(runs)
	t.Logf("%-42s %-16s %4d ns", what, programName(t, p), per.Nanoseconds())
}

func programName(t *testing.T, p *ebpf.Program) string {
	t.Helper()
	info, err := p.Info()
	must(t, err)
	return info.Name
}
