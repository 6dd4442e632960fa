package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/accept"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/testenv/alone"
	"github.com/portreeve/portreeve/testenv/peer"
)

// TestMain makes the addresses of clients that a PROXY header names local: a
// header must not name one of 127.0.0.0/8.
func TestMain(m *testing.M) { alone.Main(m, "route add local 192.0.2.0/24 dev lo") }

// patience ends what must not hang; nothing is expected to take it.
const patience = 20 * time.Second

// gate is a relay with one service, "mx", before one origin.
type gate struct {
	t         testing.TB
	relay     *Relay
	listeners *accept.Listeners
	served    chan error
	origin    *peer.Origin
	records   *records
	log       *syncBuffer
}

// start opens a gate. Clients reach it at its listener's own address.
func start(t testing.TB, b peer.Behaviour, adjust ...func(*Options)) *gate {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, origin: peer.Serve(b, ln), records: &records{}, log: &syncBuffer{}, served: make(chan error, 1)}
	t.Cleanup(func() { g.origin.Close() })
	o := Options{
		Services: map[string]Service{"mx": {Dialer: &forward.Dialer{
			Origins: []netip.AddrPort{netip.MustParseAddrPort(ln.Addr().String())},
			Timeout: 10 * patience,
		}}},
		Sink: g.records,
		Log:  slog.New(slog.NewTextHandler(g.log, nil)),
	}
	for _, a := range adjust {
		a(&o)
	}
	g.relay = New(o)
	g.listen()
	return g
}

// listen makes the gate's listeners serve their own addresses.
func (g *gate) listen() {
	g.t.Helper()
	ls, err := accept.Listen(accept.Options{Table: accept.NewTable(nil)})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(ls.Close)
	var own []plan.Binding
	for _, l := range ls.All() {
		a := l.Addr()
		own = append(own, plan.Binding{Prefix: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), Port: a.Port(), Service: "mx", Addressed: true})
	}
	if err := ls.Replace(accept.NewTable(own)); err != nil {
		g.t.Fatal(err)
	}
	g.listeners = ls
	go func() { g.served <- g.relay.Serve(ls) }()
}

// addr is where IPv4 clients connect to.
func (g *gate) addr() netip.AddrPort { return g.listeners.All()[0].Addr() }

// client is a connection of a client with the tools to talk over it.
type client struct {
	*peer.Client
	t    testing.TB
	conn *net.TCPConn
}

// dial connects a client.
func (g *gate) dial() *client { return g.dialFrom(netip.Addr{}, g.addr()) }

func (g *gate) dialFrom(from netip.Addr, to netip.AddrPort) *client {
	g.t.Helper()
	d := net.Dialer{Timeout: patience}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := d.DialContext(g.t.Context(), "tcp", to.String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{Client: peer.NewClient(conn), t: g.t, conn: conn.(*net.TCPConn)}
}

// open is a session whose EHLO is done.
func (g *gate) open() *client {
	g.t.Helper()
	c := g.dial()
	if _, err := c.Open("client.example.net"); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// expect reads a reply and compares its beginning.
func (c *client) expect(beginning string) {
	c.t.Helper()
	reply, err := c.Reply()
	if err != nil || !strings.HasPrefix(reply.Raw, beginning) {
		c.t.Errorf("reply %q, %v; want %s", reply.Raw, err, beginning)
	}
}

// expectEnd reads the end of the stream: neither octets nor a reset.
func (c *client) expectEnd() {
	c.t.Helper()
	if reply, err := c.Reply(); !errors.Is(err, io.EOF) || reply.Raw != "" {
		c.t.Errorf("got %q, %v; want the end of the stream", reply.Raw, err)
	}
}

// mail is an ordinary message.
var mail = peer.Message{From: "a@example.net", To: []string{"b@example.org"}, Content: "Subject: test\r\n\r\nHello\r\n"}

// await waits for a condition of the origin.
func (g *gate) await(condition func([]peer.Session) bool) []peer.Session {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	sessions, err := g.origin.Await(ctx, condition)
	if err != nil {
		g.t.Fatal(err)
	}
	return sessions
}

// over reports whether the first session of the origin has ended.
func over(s []peer.Session) bool { return len(s) > 0 && s[0].Done }

// empty waits until no session is under way.
func (g *gate) empty() {
	g.t.Helper()
	select {
	case <-g.relay.live.gone():
	case <-time.After(patience):
		g.t.Fatalf("sessions left: %+v", g.relay.Sessions())
	}
}

// forging makes the service forge the client's address.
func forging(o *Options) {
	o.Services["mx"].Dialer.Forge = config.Forge{Address: config.ForgeAlways}
}

// notForging makes the service use the gateway's own address.
func notForging(o *Options) {
	o.Services["mx"].Dialer.Forge = config.Forge{Address: config.ForgeNever}
}

// records keeps what sessions reported.
type records struct {
	mu       sync.Mutex
	messages []event.Outcome
	unforged []event.Unforged // of messages
	ends     []event.End
	forged   []netip.AddrPort
	full     []event.Session
	flows    []flow.Flow
	tried    []event.Unreached
}

func (r *records) Opened(*flow.Flow)                {}
func (r *records) Refused(*flow.Flow, event.Reason) {}

func (r *records) Message(m *event.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, m.Outcome)
	r.unforged = append(r.unforged, m.Unforged)
}

func (r *records) Session(s *event.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, s.End)
	r.forged = append(r.forged, s.Forged)
	r.full = append(r.full, *s)
	r.flows = append(r.flows, s.Flow)
	r.tried = append(r.tried, s.Unreached...)
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
