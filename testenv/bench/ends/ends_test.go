package ends

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// listen starts an origin in clear and returns its address.
func listen(t *testing.T) netip.AddrPort { return listenWith(t, nil) }

// listenWith starts an origin that may offer STARTTLS.
func listenWith(t *testing.T, offer *tls.Config) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(listener, offer) }()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return netip.MustParseAddrPort(listener.Addr().String())
}

func TestOrders(t *testing.T) {
	to := listen(t)
	c := &client{}
	for name, o := range map[string]Order{
		"step by step": {Sessions: 5, Parallel: 2, Messages: 3, Octets: 4096},
		"in groups":    {Sessions: 5, Parallel: 8, Messages: 3, Octets: 4096, Pipelined: true},
		"large":        {Sessions: 2, Parallel: 1, Messages: 1, Octets: 3 << 20},
		"large groups": {Sessions: 1, Parallel: 1, Messages: 2, Octets: 3 << 20, Pipelined: true},
		"tiny":         {Sessions: 1, Parallel: 1, Messages: 2, Octets: 1},
		"nothing":      {},
	} {
		o.To = to
		if r := c.carryOut(o); r.Failure != "" || r.Times != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := c.carryOut(Order{To: to, Sessions: 1, Parallel: 1}); r.Failure == "" {
		t.Error("sessions without a message were not refused")
	}
}

func TestStartTLS(t *testing.T) {
	to := listenWith(t, newIdentity())
	c := &client{}
	for name, o := range map[string]Order{
		"step by step": {Messages: 3, Octets: 4096, StartTLS: true},
		"in groups":    {Messages: 3, Octets: 4096, StartTLS: true, Pipelined: true},
		"large":        {Messages: 1, Octets: 3 << 20, StartTLS: true},
		"in clear":     {Messages: 1, Octets: 4096},
	} {
		o.To, o.Sessions, o.Parallel = to, 5, 2
		if r := c.carryOut(o); r.Failure != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := c.carryOut(Order{To: listen(t), Sessions: 1, Parallel: 1, Messages: 1, StartTLS: true}); r.Failure == "" {
		t.Error("an origin without TLS was as good")
	}
}

func TestHeldSessionsAreInsideTLSThatWasBegun(t *testing.T) {
	c := &client{}
	if r := c.carryOut(Order{To: listenWith(t, newIdentity()), Sessions: 2, Parallel: 1, Hold: true, StartTLS: true}); r.Failure != "" {
		t.Fatalf("%+v", r)
	}
	for _, held := range c.held {
		if inside, ok := held.conn.(*tls.Conn); !ok || !inside.ConnectionState().HandshakeComplete {
			t.Errorf("%T is held", held.conn)
		}
	}
	if r := c.carryOut(Order{}); r.Failure != "" {
		t.Errorf("%+v", r)
	}
}

func TestStartTLSGoesWithFewOrders(t *testing.T) {
	for name, o := range map[string]Order{
		"inside already": {Messages: 1, Secure: true},
		"timed":          {Messages: 1, Timed: true},
		"connecting":     {Connect: true},
	} {
		o.Sessions, o.Parallel, o.StartTLS = 1, 1, true
		if o.check() == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

// An origin that took into TLS what was said before would not notice an injection.
func TestWhatComesBehindStartTLSIsForgotten(t *testing.T) {
	conn, err := net.Dial("tcp", listenWith(t, newIdentity()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	k := &talk{conn: conn, times: new(Times)}
	if err := k.say(nil, "220"); err != nil {
		t.Fatal(err)
	}
	if err := k.say([]byte("STARTTLS\r\nNOOP\r\n"), "220"); err != nil {
		t.Fatal(err)
	}
	k.conn = tls.Client(conn, anybody)
	if err := k.say([]byte("EHLO client.example.net\r\nSTARTTLS\r\nQUIT\r\n"), "250", "502", "221"); err != nil {
		t.Error(err)
	}
}

func TestHeldSessionsAreOpenUntilTheNextOrder(t *testing.T) {
	c := &client{}
	to := listen(t)
	if r := c.carryOut(Order{To: to, Sessions: 7, Parallel: 3, Hold: true}); r.Failure != "" || len(c.held) != 7 {
		t.Fatalf("%d held, %+v", len(c.held), r)
	}
	if r := c.carryOut(Order{}); r.Failure != "" || len(c.held) != 0 {
		t.Fatalf("%d held, %+v", len(c.held), r)
	}
	c.carryOut(Order{To: to, Sessions: 1, Parallel: 1, Hold: true})
	c.held[0].conn.Close()
	if r := c.carryOut(Order{}); r.Failure == "" {
		t.Error("nobody missed a session that was lost")
	}
}

func TestTimesAreOfEveryStep(t *testing.T) {
	c := &client{}
	r := c.carryOut(Order{To: listen(t), Sessions: 3, Parallel: 1, Messages: 1, Octets: 1000, Timed: true})
	if r.Failure != "" || len(r.Times) != 3 {
		t.Fatalf("%+v", r)
	}
	for _, times := range r.Times {
		var sum time.Duration
		for s, d := range times {
			if d <= 0 {
				t.Errorf("%s took %v", Step(s), d)
			}
			sum += d
		}
		if times.Whole() != sum {
			t.Errorf("%v together, want %v", times.Whole(), sum)
		}
	}
}

// An origin that never accepts does for what only connects.
func TestConnects(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(listener.Addr().String())
	o := Order{To: to, Sources: []netip.Addr{netip.MustParseAddr("127.0.0.8"), netip.MustParseAddr("127.0.0.9")},
		Sessions: burst + 1, Parallel: 1, Connect: true}
	c := &client{}
	r := c.carryOut(o)
	if r.Failure != "" || len(r.Connects) != o.Sessions || r.Times != nil {
		t.Fatalf("%+v", r)
	}
	for n, took := range r.Connects {
		if took <= 0 || took > connectPatience {
			t.Errorf("connection %d took %v", n, took)
		}
	}
	checkConnection(t, listener, o.Sources[0])
	listener.Close()
	if r := c.carryOut(o); r.Failure == "" {
		t.Error("nobody listened, and all was well")
	}
	o.Messages = 1
	if r := c.carryOut(o); r.Failure == "" {
		t.Error("one that only connects was to say something")
	}
}

// checkConnection checks where the first connection came from, and that it was
// ended by a reset.
func checkConnection(t *testing.T, listener net.Listener, from netip.Addr) {
	t.Helper()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != from {
		t.Errorf("connected from %s, want %s", got, from)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
}

func TestUnexpectedReplies(t *testing.T) {
	codes := []string{"250", "354"}
	for text, want := range map[string]struct{ done, fails bool }{
		"":                               {},
		"250-a\r\n":                      {},
		"250 a\r\n354":                   {},
		"250-a\r\n250 b\r\n354 c\r\n":    {done: true},
		"250\r\n354\r\n":                 {done: true},
		"550 a\r\n":                      {fails: true},
		"250 a\r\n354 b\r\n250 more\r\n": {fails: true},
	} {
		done, err := match([]byte(text), codes)
		if done != want.done || (err != nil) != want.fails {
			t.Errorf("%q: %v, %v", text, done, err)
		}
	}
}

func TestContentHasItsLength(t *testing.T) {
	for _, octets := range []int{0, 1, 17, 18, 78, 79, 80, 95, 96, 97, 98, 4096, 10_000_000} {
		text, ended := bytes.CutSuffix(content(octets), []byte("\r\n.\r\n"))
		if n := len(text) + 2; !ended || n < octets || n > max(octets+2, 17) || bytes.Contains(text, []byte("\n.")) {
			t.Errorf("%d octets asked for, %d made", octets, n)
		}
	}
}

// TestProcesses starts both ends as they are used.
func TestProcesses(t *testing.T) {
	for end, o := range map[string]Order{
		Origin:   {Timed: true},
		Secure:   {Timed: true, Secure: true},
		StartTLS: {StartTLS: true},
	} {
		t.Run(end, func(t *testing.T) { checkProcesses(t, end, o) })
	}
}

// checkProcesses lets a client carry out an order at an origin, and then one for
// nothing.
func checkProcesses(t *testing.T, end string, o Order) {
	t.Helper()
	spare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := spare.Addr().String()
	spare.Close()
	origin := exec.Command("/proc/self/exe", at)
	origin.Env = Environ(end)
	if err := origin.Start(); err != nil {
		t.Fatal(err)
	}
	defer origin.Wait()
	defer origin.Process.Kill()
	for conn, err := net.Dial("tcp", at); ; conn, err = net.Dial("tcp", at) {
		if err == nil {
			conn.Close()
			break
		}
	}
	o.To, o.Sources = netip.MustParseAddrPort(at), []netip.Addr{netip.MustParseAddr("127.0.0.9")}
	o.Sessions, o.Parallel, o.Messages, o.Octets = 2, 2, 1, 100
	order, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	client := exec.Command("/proc/self/exe")
	client.Env = Environ(Client)
	client.Stdin = strings.NewReader(string(order) + "\n{}\n")
	said, err := client.Output()
	if err != nil {
		t.Fatal(err)
	}
	replies := json.NewDecoder(bytes.NewReader(said))
	for _, timed := range []bool{o.Timed, false} {
		var r Report
		if err := replies.Decode(&r); err != nil || r.Failure != "" || len(r.Times) > 0 != timed {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, bad := range [][]string{{"origin"}, {"origin", "x"}, {"starttls"}, {"starttls", "x"}, {"client", "x"}, {"neither"}} {
		if err := run(bad[0], bad[1:]); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
