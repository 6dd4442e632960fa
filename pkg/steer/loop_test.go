package steer

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

const (
	loopMark = 1 << 22
	redirect = 7 // TC_ACT_REDIRECT
)

// With the loop a SYN that would be taken is sent round first; everything else is
// as without.
func TestLoopSends(t *testing.T) {
	g := newStage(t)
	g.add(plan.Loop{Mark: loopMark})
	sent := outcome{next, foreignMark | loopMark, "loop-out"}
	for _, w := range worlds {
		client, _ := connect(t, w.client, w.origin, 0)
		known := segment(addrPort(client.LocalAddr()), at(w.origin, smtpPort), ack)
		g.want(clientHook, w.name()+" SYN", w.fromClient(w.origin, syn).bytes(), sent)
		g.want(clientHook, w.name()+" ACK of a connection", known.bytes(), diverted(bpfReasonREASON_CLIENT_SOCKET))
		g.want(clientHook, w.name()+" dead, closed", w.fromClient(w.closed, syn).bytes(), dropped(bpfReasonREASON_CLIENT_ABSENT_CLOSED))
		g.want(clientHook, w.name()+" dead, open", w.fromClient(w.opened, syn).bytes(), left(bpfReasonREASON_CLIENT_ABSENT_OPEN))
		g.want(clientHook, w.name()+" bypass", w.fromClient(w.bypass, syn).bytes(), left(bpfReasonREASON_CLIENT_BYPASS))
		marked := outcome{next, foreignMark | clientMark | loopMark, "loop-out"}
		if got := g.runMarked(bpfProgSteerClient, w.fromClient(w.origin, syn).bytes(), clientMark); got != marked {
			t.Errorf("%s SYN with the mark of one that was taken: %s, want %s", w.name(), got, marked)
		}
		g.want(wallHook, w.name()+" at the wall", w.fromClient(w.origin, syn).bytes(), dropped(bpfReasonREASON_WALL_LEAK))
	}
	must(t, g.Remove(plan.Loop{Mark: loopMark}))
	g.want(clientHook, "switched off", world4.fromClient(world4.origin, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
}

// The program at our own link fetches SYNs of the client side back, and lets nothing
// else through.
func TestLoopLink(t *testing.T) {
	g := newStage(t)
	g.add(plan.Loop{Mark: loopMark})
	stray := outcome{shot, foreignMark | loopMark, "loop-stray"}
	silent := outcome{shot, foreignMark, ""}
	for _, w := range worlds {
		for _, c := range []struct {
			what   string
			from   plan.Side
			mark   uint32
			packet []byte
			want   outcome
		}{
			{"SYN", plan.ClientSide, loopMark, w.fromClient(w.origin, syn).bytes(), outcome{redirect, foreignMark | loopMark, "loop-fetched"}},
			{"SYN, one-armed", plan.ClientSide | plan.OriginSide, loopMark, w.fromClient(w.origin, syn).bytes(), outcome{redirect, foreignMark | loopMark, "loop-fetched"}},
			{"SYN by an unnamed interface", 0, loopMark, w.fromClient(w.origin, syn).bytes(), stray},
			{"SYN by the origin side", plan.OriginSide, loopMark, w.fromClient(w.origin, syn).bytes(), stray},
			{"SYN without the mark", plan.ClientSide, 0, w.fromClient(w.origin, syn).bytes(), silent},
			{"SYN to another address, as after DNAT", plan.ClientSide, loopMark, w.fromClient(w.nobody, syn).bytes(), stray},
			{"ACK", plan.ClientSide, loopMark, w.fromClient(w.origin, ack).bytes(), stray},
		} {
			g.comesBy(c.from)
			if got := g.atLoop(c.packet, c.mark); got != c.want {
				t.Errorf("%s %s: %s, want %s", w.name(), c.what, got, c.want)
			}
		}
	}
	must(t, g.Remove(plan.Loop{Mark: loopMark}))
	if got := g.atLoop(world4.fromClient(world4.origin, syn).bytes(), loopMark); got != (outcome{shot, foreignMark | loopMark, ""}) {
		t.Errorf("switched off: %s", got)
	}
}

// atLoop runs a packet with a mark through the program at our own link.
func (g *stage) atLoop(packet []byte, mark uint32) outcome {
	g.Helper()
	return g.runMarked(bpfProgSteerLoop, packet, mark)
}

// runMarked runs a packet with a mark through a program.
func (g *stage) runMarked(program string, packet []byte, mark uint32) outcome {
	g.Helper()
	g.clearCounts()
	context := forwarded()
	binary.NativeEndian.PutUint32(context[markOffset:], foreignMark|mark)
	out := make([]byte, 256)
	ret, err := g.set.programs[program].Run(&ebpf.RunOptions{Data: ethernet(packet), Context: context, ContextOut: out})
	must(g.T, err)
	return outcome{int32(ret), binary.NativeEndian.Uint32(out[markOffset:]), g.onlyReason()}
}

const loopTable = steeredTable + 1

// newLoop wires the three with a loop link, whose rule comes before or after that of
// packets that are taken.
func newLoop(t *testing.T, clsact, ruleFirst bool) *triangle {
	t.Helper()
	g := unwired(t, clsact)
	wire(t, "ext0", "c0", g.client)
	wire(t, "dmz0", "o0", g.origin)
	must(t, newVeth(plan.LoopLink, plan.LoopPeer, openNetns(t)))
	for _, end := range []string{plan.LoopPeer, plan.LoopLink} {
		withoutARP(t, end)
		up(t, end)
	}
	awaitRunning(t, plan.LoopLink)
	rules := func() {
		for _, w := range ways {
			must(t, newLinkRoute(family(w.client), loopTable, index(t, plan.LoopLink)))
			must(t, newMarkRule(family(w.client), "ext0", loopMark, loopTable))
		}
	}
	if ruleFirst {
		rules()
	}
	g.connect(ways)
	if !ruleFirst {
		rules()
	}
	g.attach(false)
	g.add(plan.Role{Interface: plan.LoopLink, Side: plan.LoopSide})
	g.add(g.loopProgram())
	g.add(plan.Loop{Mark: loopMark})
	return g
}

// loopProgram fetches SYNs back.
func (g *triangle) loopProgram() plan.TC {
	return plan.TC{Interface: plan.LoopLink, Side: plan.LoopSide, Egress: true, Clsact: g.clsact}
}

// withoutARP makes an interface ask for no neighbours.
func withoutARP(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	must(t, err)
	req.SetUint16(unix.IFF_NOARP)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
}

// A SYN goes round once, the next one from its port is let pass, and no third one. So
// it is where two programs see each packet of a client, as they do while an inspector
// takes over by the other data path, whichever rule comes first.
func TestLoop(t *testing.T) {
	eachDatapath(t, func(t *testing.T, clsact bool) {
		for name, c := range map[string]struct{ twice, ruleFirst bool }{
			"one program":                         {},
			"two programs":                        {twice: true},
			"two programs, the loop's rule first": {twice: true, ruleFirst: true},
		} {
			t.Run(name, func(t *testing.T) {
				g := newLoop(t, clsact, c.ruleFirst)
				if c.twice {
					g.attachAgain()
				}
				goesRound(g)
			})
		}
	})
}

func goesRound(g *triangle) {
	for _, w := range ways {
		g.wantRounds(w, 1)
		g.wantRounds(w, 0)
	}
	g.wantLost(loopedPort) // the kernel does not forward what has a socket here
	must(g.T, g.Remove(g.loopProgram()))
	g.wantLost(loopedPort + 1) // as if a rule had dropped it
}

// loopedPort is a client's, who uses it again.
const loopedPort = 40001

// attachAgain attaches the client side's program once more, as a filter behind the first.
func (g *triangle) attachAgain() {
	g.Helper()
	ifindex := index(g.T, "ext0")
	if err := newClsact(ifindex); !errors.Is(err, unix.EEXIST) {
		must(g.T, err)
	}
	must(g.T, putFilter(ifindex, ingressParent, 100, g.set.programs[bpfProgSteerClient].FD(), "again"))
}

// wantRounds connects to the inspector, whose end stays in TIME_WAIT, and checks how
// often the SYN went round.
func (g *triangle) wantRounds(w way, rounds uint64) {
	t := g.T
	t.Helper()
	from, to := at(w.client, loopedPort), at(w.origin, smtpPort)
	g.clearCounts()
	var c *net.TCPConn
	g.client.do(func() { c = dialFrom(t, from, to.String(), 0) })
	taken := accept(t, g.listener(w))
	n := g.counts()
	for r, want := range map[bpfReason]uint64{
		bpfReasonREASON_CLIENT_SYN: 1, bpfReasonREASON_LOOP_OUT: rounds, bpfReasonREASON_LOOP_FETCHED: rounds,
	} {
		if n[Reason(r)] != want {
			t.Errorf("%s: %d %s, want %d: %v", from, n[Reason(r)], Reason(r), want, n)
		}
	}
	must(t, taken.Close())
	must(t, c.Close())
	awaitState(t, timeWait, to, from)
}

// wantLost begins to connect by all ways, and checks that SYNs were sent round and not taken.
func (g *triangle) wantLost(port uint16) {
	t := g.T
	t.Helper()
	g.clearCounts()
	for _, w := range ways {
		var fd int
		g.client.do(func() { fd = beginDialFrom(t, at(w.client, port), at(w.origin, smtpPort)) })
		defer unix.Close(fd)
	}
	// Two programs count a SYN once, so each client has sent a second one.
	await(t, func() bool { return g.counts()[Reason(bpfReasonREASON_LOOP_OUT)] >= uint64(2*len(ways)) })
	if n := g.counts(); n[Reason(bpfReasonREASON_CLIENT_SYN)] > 0 {
		t.Errorf("from port %d: %v", port, n)
	}
}
