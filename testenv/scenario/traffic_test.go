package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/peer"
)

// target reads NODE ADDR:PORT.
func (s *stage) target(args []string, text string) (*testenv.Node, netip.AddrPort, error) {
	if len(args) != 2 {
		return nil, netip.AddrPort{}, usage(text)
	}
	node, err := s.node(args[0])
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return nil, netip.AddrPort{}, usage(text)
	}
	return node, to, nil
}

func greets(s *stage, _ *testscript.TestScript, args []string) error {
	node, to, err := s.target(args, "greets NODE ADDR:PORT")
	if err != nil {
		return err
	}
	ctx, cancel := s.patience()
	defer cancel()
	return node.AwaitGreeting(ctx, to)
}

func refused(s *stage, _ *testscript.TestScript, args []string) error {
	node, to, err := s.target(args, "refused NODE ADDR:PORT")
	if err != nil {
		return err
	}
	ctx, cancel := s.patience()
	defer cancel()
	conn, err := node.Dial(ctx, netip.AddrPort{}, to)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s was not refused", to)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s was not refused: %w", to, err)
	}
	return nil
}

// silence is how long a SYN goes without an answer before it counts as
// dropped. A link of a test network answers in less than a millisecond, and
// this spans the first retransmission.
const silence = 1500 * time.Millisecond

func silent(s *stage, _ *testscript.TestScript, args []string) error {
	node, to, err := s.target(args, "silent NODE ADDR:PORT")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, silence)
	defer cancel()
	conn, err := node.Dial(ctx, netip.AddrPort{}, to)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s answered", to)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s answered: %w", to, err)
	}
	return nil
}

func send(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "send [from=ADDR] [port=N] ADDR:PORT FILE"
	var from netip.Addr
	var port int
	var err error
	for len(args) > 2 && err == nil {
		name, value, _ := strings.Cut(args[0], "=")
		switch name {
		case "from":
			from, err = netip.ParseAddr(value)
		case "port":
			port, err = strconv.Atoi(value)
		default:
			return usage(text)
		}
		args = args[1:]
	}
	if err != nil || len(args) != 2 {
		return usage(text)
	}
	to, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return usage(text)
	}
	reply, err := s.deliver(netip.AddrPortFrom(s.source(from, to), uint16(port)), to, message(ts, args[1]))
	printReply(ts.Stdout(), reply)
	return err
}

// source returns the client's address to send from: the wanted one, or the
// preferred one of the destination's family.
func (s *stage) source(wanted netip.Addr, to netip.AddrPort) netip.Addr {
	switch {
	case wanted.IsValid():
		return wanted
	case to.Addr().Is4():
		return s.env.Client4
	}
	return s.env.Client6
}

// dial connects from the client with a deadline for everything.
func (s *stage) dial(from, to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := s.patience()
	defer cancel()
	conn, err := s.env.Client.Dial(ctx, from, to)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return conn, conn.SetDeadline(deadline)
}

// deliver sends a message in a session of its own. A final reply other than
// 250 is an error too.
func (s *stage) deliver(from, to netip.AddrPort, m peer.Message) (peer.Reply, error) {
	conn, err := s.dial(from, to)
	if err != nil {
		return peer.Reply{}, err
	}
	defer conn.Close()
	client := peer.NewClient(conn)
	if ehlo, err := client.Open("client.example.net"); err != nil || ehlo.Code != 250 {
		return ehlo, fmt.Errorf("EHLO: %q, %w", ehlo.Raw, err)
	}
	reply, err := client.Send(m)
	if err != nil {
		return reply, err
	}
	if reply.Code != 250 {
		return reply, fmt.Errorf("end of data: %q", reply.Raw)
	}
	quit, err := client.Command("QUIT")
	if err != nil || quit.Code != 221 {
		return reply, fmt.Errorf("QUIT: %q, %w", quit.Raw, err)
	}
	return reply, nil
}

func flood(s *stage, _ *testscript.TestScript, args []string) error {
	const text = "flood FIRST ADDR:PORT COUNT"
	if len(args) != 3 {
		return usage(text)
	}
	first, bad := netip.ParseAddr(args[0])
	to, wrong := netip.ParseAddrPort(args[1])
	count, err := strconv.Atoi(args[2])
	if bad != nil || wrong != nil || err != nil {
		return usage(text)
	}
	return s.env.Client.Flood(first, to, count)
}

func breaks(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "breaks rst|fin ADDR:PORT FILE"
	if len(args) != 3 || (args[0] != "rst" && args[0] != "fin") {
		return usage(text)
	}
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return usage(text)
	}
	m := message(ts, args[2])
	whole := m.Content + ".\r\n"
	before := len(s.origin.Sessions())
	for length := range len(whole) {
		if err := s.breakOff(to, m, whole[:length], args[0] == "rst"); err != nil {
			return fmt.Errorf("after %d octets of the content: %w", length, err)
		}
	}
	// Each of them was seen by the origin: an attempt that never got there
	// would prove nothing.
	_, err = s.sessions(func(seen []peer.Session) bool { return len(seen) >= before+len(whole) })
	return err
}

// breakOff sends the beginning of a message's content and ends the
// connection.
func (s *stage) breakOff(to netip.AddrPort, m peer.Message, beginning string, reset bool) error {
	conn, err := s.dial(netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := peer.NewClient(conn)
	if _, err := client.Open("client.example.net"); err != nil {
		return err
	}
	if err := client.Envelope(m); err != nil {
		return err
	}
	if err := client.Write(beginning); err != nil {
		return err
	}
	if reset {
		return peer.Reset(conn)
	}
	return conn.CloseWrite()
}

// halfSent is a client in the middle of a message.
type halfSent struct {
	*peer.Client
	rest string
}

// midway begins a message and stops in its middle, and later sends the rest: a
// session that lasts while an inspector is stopped, or another takes over.
func midway(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "midway start ADDR:PORT FILE | midway stop CODE…"
	switch {
	case len(args) == 3 && args[0] == "start":
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return usage(text)
		}
		return s.beginMessage(to, message(ts, args[2]))
	case len(args) >= 2 && args[0] == "stop" && s.midway != nil:
		return s.midway.end(args[1:])
	}
	return usage(text)
}

func (s *stage) beginMessage(to netip.AddrPort, m peer.Message) error {
	conn, err := s.dial(netip.AddrPortFrom(s.source(netip.Addr{}, to), 0), to)
	if err != nil {
		return err
	}
	half := len(m.Content) / 2
	s.midway = &halfSent{peer.NewClient(conn), m.Content[half:] + ".\r\n"}
	if _, err := s.midway.Open("client.example.net"); err != nil {
		return err
	}
	if err := s.midway.Envelope(m); err != nil {
		return err
	}
	return s.midway.Write(m.Content[:half])
}

// end sends the rest and reads the replies, which have these codes.
func (h *halfSent) end(codes []string) error {
	if err := h.Write(h.rest); err != nil {
		return err
	}
	for _, want := range codes {
		reply, err := h.Reply()
		if err != nil {
			return err
		}
		if strconv.Itoa(reply.Code) != want {
			return fmt.Errorf("%q in place of %s", reply.Raw, want)
		}
	}
	return nil
}

func capture(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return usage("capture NODE DEVICE")
	}
	node, err := s.node(args[0])
	if err != nil {
		return err
	}
	if s.capture != nil {
		s.capture.Close()
	}
	s.seen = 0
	s.capture, err = node.Capture(args[1])
	return err
}

// madeHere is the TTL and hop limit of packets that the sender is next to:
// every router between would have taken one off.
const madeHere = 64

func syn(s *stage, _ *testscript.TestScript, args []string) error {
	const text = "syn relayed|forwarded FROM TO:PORT LOW-HIGH"
	if len(args) != 4 {
		return usage(text)
	}
	from, err := netip.ParseAddr(args[1])
	if err != nil {
		return usage(text)
	}
	to, err := netip.ParseAddrPort(args[2])
	if err != nil {
		return usage(text)
	}
	var low, high uint16
	if _, err := fmt.Sscanf(args[3], "%d-%d", &low, &high); err != nil {
		return usage(text)
	}
	p, err := s.nextSYN(to)
	if err != nil {
		return err
	}
	relayed := p.TTL == madeHere
	if p.From.Addr() != from || p.From.Port() < low || p.From.Port() > high || relayed != (args[0] == "relayed") {
		return fmt.Errorf("the SYN is from %s with TTL %d, want %s from %s and a port of %s", p.From, p.TTL, args[0], from, args[3])
	}
	return nil
}

// nextSYN returns the first SYN towards an address after the one that was
// returned before.
func (s *stage) nextSYN(to netip.AddrPort) (testenv.Packet, error) {
	ctx, cancel := s.patience()
	defer cancel()
	index := 0
	return s.capture.Await(ctx, func(p testenv.Packet) bool {
		index++
		if index <= s.seen || !p.Opening() || p.To != to {
			return false
		}
		s.seen = index
		return true
	})
}

func fragments(s *stage, _ *testscript.TestScript, args []string) error {
	from, err := netip.ParseAddr(strings.Join(args, ""))
	if err != nil {
		return usage("fragments FROM")
	}
	ctx, cancel := s.patience()
	defer cancel()
	_, err = s.capture.Await(ctx, func(p testenv.Packet) bool { return p.Fragment && p.From.Addr() == from })
	return err
}

func oversize(s *stage, _ *testscript.TestScript, args []string) error {
	size, err := strconv.Atoi(strings.Join(args, ""))
	if err != nil {
		return usage("oversize SIZE")
	}
	for _, p := range s.capture.Packets() {
		if p.Size > size {
			return nil
		}
	}
	return fmt.Errorf("no packet of more than %d octets was captured", size)
}
