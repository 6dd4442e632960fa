package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/resolve"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/nameserver"
	"github.com/portreeve/portreeve/testenv/peer"
	"github.com/portreeve/portreeve/testenv/pki"
)

// gateName is what the gateway's certificate is for, originName the origin's.
const (
	gateName   = "gate.example.org"
	originName = "origin.example.org"
)

var authority = pki.New("relay's tests")

func certificate(name string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{authority.Issue([]string{name}).TLS()}}
}

// believing is a client that accepts the gateway's certificate and no other.
func believing() *tls.Config { return &tls.Config{RootCAs: authority.Pool(), ServerName: gateName} }

// withTLS gives the service TLS.
func withTLS(s session.TLS, p trust.Policy) func(*Options) {
	return func(o *Options) {
		mx := o.Services["mx"]
		mx.TLS = &TLS{Session: s, Clients: certificate(gateName), Origins: &tls.Config{ServerName: p.Name}, Policy: &p}
		o.Services["mx"] = mx
	}
}

var mirror = session.TLS{Mode: "mirror", Client: session.Mirror, Origin: session.Mirror}

// securely carries a message inside TLS.
func (c *client) securely(t *testing.T) {
	t.Helper()
	if err := c.StartTLS(believing()); err != nil {
		t.Fatal(err)
	}
	ehlo, err := c.Command("EHLO client.example.net")
	if err != nil || strings.Contains(ehlo.Raw, "STARTTLS") {
		t.Fatalf("EHLO inside: %q, %v", ehlo.Raw, err)
	}
	if reply, err := c.Send(mail); err != nil || reply.Raw != "250 2.0.0 Queued as TEST1\r\n" {
		t.Fatalf("message: %q, %v", reply.Raw, err)
	}
	if reply, err := c.Command("QUIT"); err != nil || reply.Code != 221 {
		t.Fatalf("QUIT: %q, %v", reply.Raw, err)
	}
	c.expectEnd()
}

func (g *gate) record() event.Session {
	g.t.Helper()
	g.empty()
	g.records.mu.Lock()
	defer g.records.mu.Unlock()
	if len(g.records.full) != 1 {
		g.t.Fatalf("%d records", len(g.records.full))
	}
	return g.records.full[0]
}

func TestMirror(t *testing.T) {
	b := peer.Behaviour{Extensions: []string{"PIPELINING"}, TLS: certificate(originName)}
	g := start(t, b, withTLS(mirror, trust.Policy{Method: trust.Roots, Name: originName, Pool: authority.Pool()}))
	c := g.open()
	c.securely(t)
	seen := g.await(over)[0]
	if seen.TLS == "" || seen.Name != originName || len(seen.Messages) != 1 || seen.Messages[0].Content != mail.Content {
		t.Errorf("the origin saw %+v", seen)
	}
	r := g.record()
	if r.Mode != "mirror" || r.Messages != 1 || !r.ClientTLS.Active() || !r.OriginTLS.Active() || r.OriginTLS.Peer != event.Verified || string(r.ClientTLS.Name) != gateName {
		t.Errorf("record: %+v, client %+v, origin %+v", r, r.ClientTLS, r.OriginTLS)
	}
}

// TestMirrorLarge carries a message of many records, and a client that sends it
// faster than it is handed on.
func TestMirrorLarge(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, withTLS(mirror, trust.Policy{}))
	c := g.open()
	if err := c.StartTLS(believing()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Command("EHLO client.example.net"); err != nil {
		t.Fatal(err)
	}
	m := mail
	m.Content = strings.Repeat(strings.Repeat("x", 70)+"\r\n", 20000)
	if reply, err := c.Send(m); err != nil || reply.Code != 250 {
		t.Fatalf("%q, %v", reply.Raw, err)
	}
	c.conn.Close()
	if got := g.await(over)[0].Messages[0].Content; got != m.Content {
		t.Errorf("%d octets became %d", len(m.Content), len(got))
	}
}

// TestOriginIsNotTrusted: the client hears 454, and nothing of it reaches such an
// origin.
func TestOriginIsNotTrusted(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate("other.example.org")}, withTLS(mirror, trust.Policy{Method: trust.Roots, Name: originName, Pool: authority.Pool()}))
	c := g.open()
	if err := c.StartTLS(believing()); err == nil || !strings.Contains(err.Error(), "454 4.7.0") {
		t.Fatalf("STARTTLS: %v", err)
	}
	if reply, err := c.Command("MAIL FROM:<a@example.net>"); err != nil || !strings.HasPrefix(reply.Raw, "421 4.7.0") {
		t.Errorf("MAIL: %q, %v", reply.Raw, err)
	}
	if r := g.record(); r.OriginTLS.Failure != event.FailureName || r.ClientTLS.Failure != event.FailureRefused || r.End != event.EndOriginTLS {
		t.Errorf("record: %+v, client %+v, origin %+v", r, r.ClientTLS, r.OriginTLS)
	}
	if seen := g.await(over)[0]; len(seen.Commands) != 2 {
		t.Errorf("the origin saw %q", seen.Commands)
	}
}

// TestOriginFailsTLS: where any certificate would do, a client that is told 454
// can send in clear, on another connection from its own address.
func TestOriginFailsTLS(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: &tls.Config{}}, forging, withTLS(mirror, trust.Policy{}))
	from := netip.MustParseAddr("127.0.0.99")
	c := g.dialFrom(from, g.addr())
	if _, err := c.Open("client.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := c.StartTLS(believing()); err == nil || !strings.Contains(err.Error(), "454 4.7.0") {
		t.Fatalf("STARTTLS: %v", err)
	}
	if reply, err := c.Send(mail); err != nil || reply.Code != 250 {
		t.Fatalf("message: %q, %v", reply.Raw, err)
	}
	c.conn.Close()
	r := g.record()
	if r.OriginTLS.Failure != event.FailureAlert || r.ClientTLS.Failure != event.FailureRefused || r.Messages != 1 {
		t.Errorf("record: %+v, client %+v, origin %+v", r, r.ClientTLS, r.OriginTLS)
	}
	both := func(s []peer.Session) bool { return len(s) == 2 && s[1].Done }
	seen := g.await(both)
	if len(seen[1].Messages) != 1 || seen[1].TLS != "" {
		t.Errorf("the origin saw %+v", seen)
	}
	if second := seen[1].Client; second.Addr() != from || r.Forged != second || seen[0].Client == second {
		t.Errorf("the origin saw it come from %s and %s; record: %s", seen[0].Client, second, r.Forged)
	}
}

// TestOriginKnowsRSAOnly: an origin that knows no better key exchange has TLS by it where
// it can be anybody, and nothing where it has to prove who it is, also with the right
// certificate.
func TestOriginKnowsRSAOnly(t *testing.T) {
	pair := authority.IssueFor(pki.RSA(), []string{originName})
	key := sha256.Sum256(pair.Certificate.RawSubjectPublicKeyInfo)
	dane := func(usage uint8) trust.Policy {
		return trust.Policy{Method: trust.DANE, Name: originName, Records: func(context.Context, string, uint16) ([]trust.TLSA, error) {
			return []trust.TLSA{{Usage: usage, Selector: 1, Matching: 1, Data: key[:]}}, nil
		}}
	}
	for what, k := range map[string]struct {
		policy trust.Policy
		proof  bool
	}{
		"anybody":                  {trust.Policy{}, false},
		"DANE with no use":         {dane(1), false},
		"DANE":                     {dane(3), true},
		"a pin":                    {trust.Policy{Method: trust.Pins, Pins: []trust.Pin{trust.PinOf(pair.Certificate)}}, true},
		"an authority that it has": {trust.Policy{Method: trust.Roots, Name: originName, Pool: authority.Pool()}, true},
	} {
		t.Run(what, func(t *testing.T) {
			g := start(t, peer.Behaviour{TLS: &tls.Config{
				Certificates: []tls.Certificate{pair.TLS()}, MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256},
			}}, withTLS(mirror, k.policy))
			c := g.open()
			if !k.proof {
				c.securely(t)
				if o := g.record().OriginTLS; o.Version != "TLS1.2" || o.Cipher != "TLS_RSA_WITH_AES_128_GCM_SHA256" || o.Peer != event.Unverified {
					t.Errorf("the record: %+v", o)
				}
				return
			}
			if err := c.StartTLS(believing()); err == nil {
				t.Error("there is TLS")
			}
			c.conn.Close()
			if r := g.record(); r.OriginTLS.Failure != event.FailureAlert || r.Messages != 0 {
				t.Errorf("the record: %+v, origin %+v", r, r.OriginTLS)
			}
		})
	}
}

// TestOriginKnowsBetter: who can be anybody gets the better key exchange, if it knows one.
func TestOriginKnowsBetter(t *testing.T) {
	config := certificate(originName)
	config.Certificates[0] = authority.IssueFor(pki.RSA(), []string{originName}).TLS()
	config.MaxVersion = tls.VersionTLS12
	config.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
	g := start(t, peer.Behaviour{TLS: config}, withTLS(mirror, trust.Policy{}))
	g.open().securely(t)
	if o := g.record().OriginTLS; o.Cipher != "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA" {
		t.Errorf("the record: %+v", o)
	}
}

// TestResolverFails: without knowing whom to expect there is no handshake, and no
// mail.
func TestResolverFails(t *testing.T) {
	p := trust.Policy{Method: trust.DANE, Name: originName, Records: func(context.Context, string, uint16) ([]trust.TLSA, error) { return nil, errors.New("SERVFAIL") }}
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, withTLS(mirror, p))
	c := g.dial()
	if ehlo, err := c.Open("client.example.net"); err != nil || !strings.HasPrefix(ehlo.Raw, "421 4.7.0") {
		t.Fatalf("EHLO: %q, %v", ehlo.Raw, err)
	}
	if r := g.record(); r.OriginTLS.Failure != event.FailureResolver {
		t.Errorf("origin %+v", r.OriginTLS)
	}
}

func TestImplicitOnBothSides(t *testing.T) {
	s := session.TLS{Mode: "mirror", Client: session.Implicit, Origin: session.Implicit}
	g := start(t, peer.Behaviour{TLS: certificate(originName), Implicit: true}, withTLS(s, trust.Policy{}))
	c := g.dial()
	if err := c.Secure(believing()); err != nil {
		t.Fatal(err)
	}
	if reply, err := c.Deliver(mail); err != nil || reply.Code != 250 {
		t.Fatalf("%q, %v", reply.Raw, err)
	}
	if seen := g.await(over)[0]; seen.TLS == "" || len(seen.Messages) != 1 {
		t.Errorf("the origin saw %+v", seen)
	}
}

// TestImplicitWithoutOrigin: what we have to say is said inside TLS.
func TestImplicitWithoutOrigin(t *testing.T) {
	s := session.TLS{Mode: "client", Client: session.Implicit}
	g := start(t, peer.Behaviour{}, withTLS(s, trust.Policy{}))
	g.origin.Close()
	c := g.dial()
	if err := c.Secure(believing()); err != nil {
		t.Fatal(err)
	}
	c.expect("421 4.4.1")
}

// TestDrainInsideTLS: a session that waits inside TLS is woken.
func TestDrainInsideTLS(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, withTLS(mirror, trust.Policy{}))
	c := g.open()
	if err := c.StartTLS(believing()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if cut := g.relay.Drain(ctx); cut != 0 {
		t.Errorf("%d sessions were cut", cut)
	}
	c.expect("421 4.3.2")
}

// passing makes STARTTLS be carried.
func passing(o *Options) {
	mx := o.Services["mx"]
	mx.TLS = &TLS{Session: session.TLS{Mode: "passthrough"}, Opaque: true}
	o.Services["mx"] = mx
}

// TestPassThrough: client and origin have TLS with each other, and we count.
func TestPassThrough(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, passing)
	c := g.open()
	if err := c.StartTLS(&tls.Config{RootCAs: authority.Pool(), ServerName: originName}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Command("EHLO client.example.net"); err != nil {
		t.Fatal(err)
	}
	m := mail
	m.Content = strings.Repeat(strings.Repeat("x", 70)+"\r\n", 50000) // more than is noted at once
	if reply, err := c.Send(m); err != nil || reply.Code != 250 {
		t.Fatalf("%q, %v", reply.Raw, err)
	}
	if _, err := c.Command("QUIT"); err != nil {
		t.Fatal(err)
	}
	c.conn.CloseWrite()
	if _, err := io.Copy(io.Discard, c.conn); err != nil {
		t.Errorf("the end: %v", err)
	}
	if seen := g.await(over)[0]; len(seen.Messages) != 1 || seen.Messages[0].Content != m.Content {
		t.Errorf("the origin took %d messages", len(seen.Messages))
	}
	r := g.record()
	if r.End != event.EndOpaque || r.Opaque == nil || r.Opaque.FromClient <= int64(len(m.Content)) || r.Opaque.FromOrigin == 0 || r.Messages != 0 || r.Opaque.Detail != "" {
		t.Errorf("record: %+v, %+v", r, r.Opaque)
	}
}

// TestDrainWaitsForAnOpaqueSession: nobody knows whether a message is under way in
// it, so it is let go on, until it ends or is cut.
func TestDrainWaitsForAnOpaqueSession(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, passing)
	c := g.open()
	if err := c.StartTLS(&tls.Config{RootCAs: authority.Pool(), ServerName: originName}); err != nil {
		t.Fatal(err)
	}
	left := g.drain(t.Context())
	for range 10 {
		for _, one := range g.relay.live.all() {
			one.interrupt() // as the drain does, at any time
		}
		if reply, err := c.Command("EHLO client.example.net"); err != nil || reply.Code != 250 {
			t.Fatalf("%q, %v", reply.Raw, err)
		}
	}
	c.conn.CloseWrite()
	if n := <-left; n != 0 {
		t.Errorf("%d sessions cut", n)
	}
	if r := g.record(); r.Opaque == nil || r.Opaque.Detail != "" {
		t.Errorf("record: %+v, %+v", r, r.Opaque)
	}
}

// TestTunnel: octets in both directions, each side's end by itself.
func TestTunnel(t *testing.T) {
	client, a := pipe(t)
	b, origin := pipe(t)
	c := &call{r: new(Relay), client: newLeg(a), origin: newLeg(b)}
	done := make(chan event.Opaque)
	go func() { done <- c.tunnel(patience, time.Time{}) }()
	client.Write([]byte("to the origin"))
	client.CloseWrite()
	if got, err := io.ReadAll(origin); string(got) != "to the origin" || err != nil {
		t.Errorf("the origin got %q, %v", got, err)
	}
	origin.Write(bytes.Repeat([]byte("x"), 3<<20))
	origin.CloseWrite()
	if got, err := io.ReadAll(client); len(got) != 3<<20 || err != nil {
		t.Errorf("the client got %d octets, %v", len(got), err)
	}
	if o := <-done; o.FromClient != 13 || o.FromOrigin != 3<<20 || o.Detail != "" {
		t.Errorf("%+v", o)
	}
}

// TestIdleTunnelHoldsNoPipe: it has its two connections open and nothing else.
func TestIdleTunnelHoldsNoPipe(t *testing.T) {
	before := heldOutside(t)
	client, a := pipe(t)
	b, origin := pipe(t)
	c := &call{r: new(Relay), client: newLeg(a), origin: newLeg(b)}
	done := make(chan event.Opaque)
	go func() { done <- c.tunnel(patience, time.Time{}) }()
	echo := func() {
		client.Write([]byte("ping"))
		if _, err := io.ReadFull(origin, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	deadline := time.Now().Add(patience)
	for heldOutside(t) > before {
		if time.Now().After(deadline) {
			t.Fatal("pipes are held")
		}
		time.Sleep(time.Millisecond)
	}
	echo()
	client.Close()
	origin.Close()
	<-done
}

// TestTunnelWithoutPipes: a stretch for which no pipe is left is carried all the same.
func TestTunnelWithoutPipes(t *testing.T) {
	client, a := pipe(t)
	b, origin := pipe(t)
	r := New(Options{Pipes: 1})
	if !r.pipes.take() || r.pipes.take() {
		t.Fatal("not one pipe")
	}
	before := held(t)
	done := make(chan event.Opaque)
	c := &call{r: r, client: newLeg(a), origin: newLeg(b)}
	go func() { done <- c.tunnel(patience, time.Time{}) }()
	content := bytes.Repeat([]byte("octets of a message\r\n"), 100_000)
	for _, way := range [][2]*net.TCPConn{{client, origin}, {origin, client}} {
		go way[0].Write(content)
		got := make([]byte, len(content))
		if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("other octets arrive: %v", err)
		}
		if n := held(t); n > before {
			t.Errorf("%d ends of pipes are held", n-before)
		}
	}
	r.pipes.release()
	client.CloseWrite()
	origin.CloseWrite()
	if o := <-done; o.FromClient != int64(len(content)) || o.FromOrigin != o.FromClient || o.Detail != "" {
		t.Errorf("%+v", o)
	}
	if !r.pipes.take() {
		t.Error("a pipe that nobody uses is not to be had")
	}
}

// held counts the ends of pipes that this process has open, in a pool or not.
func held(t *testing.T) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// heldOutside is held without those that wait in a pool for the next splice(2).
func heldOutside(t *testing.T) int {
	runtime.GC() // empties pools, in two rounds
	runtime.GC()
	return held(t)
}

func TestTunnelIsBounded(t *testing.T) {
	for _, k := range []struct {
		idle  time.Duration
		until time.Time
		want  string
	}{
		{20 * time.Millisecond, time.Time{}, "neither side"},
		{patience, time.Now().Add(20 * time.Millisecond), "too long"},
	} {
		_, a := pipe(t)
		b, _ := pipe(t)
		c := &call{r: new(Relay), client: newLeg(a), origin: newLeg(b)}
		if o := c.tunnel(k.idle, k.until); !strings.Contains(o.Detail, k.want) {
			t.Errorf("%+v, want %q", o, k.want)
		}
	}
}

// TestTunnelToTheDeaf: a peer that takes nothing any more holds neither half, also
// when the other half has ended.
func TestTunnelToTheDeaf(t *testing.T) {
	const soon = 200 * time.Millisecond
	flood := make([]byte, 64<<20) // more than the kernel takes
	for _, ends := range []bool{false, true} {
		for want, run := range map[string]func(*call) event.Opaque{
			"neither side": func(c *call) event.Opaque { return c.tunnel(soon, time.Time{}) },
			"too long":     func(c *call) event.Opaque { return c.tunnel(patience, time.Now().Add(soon)) },
		} {
			t.Run(want, func(t *testing.T) {
				t.Parallel()
				client, a := pipe(t)
				b, origin := pipe(t)
				if ends {
					client.CloseWrite()
				}
				go origin.Write(flood)
				done := make(chan event.Opaque, 1)
				go func() { done <- run(&call{r: new(Relay), client: newLeg(a), origin: newLeg(b)}) }()
				select {
				case o := <-done:
					if !strings.Contains(o.Detail, want) {
						t.Errorf("%+v", o)
					}
				case <-time.After(patience):
					t.Fatal("the stretch goes on")
				}
			})
		}
	}
}

// TestTunnelReset: what one side breaks off ends the other.
func TestTunnelReset(t *testing.T) {
	client, a := pipe(t)
	b, _ := pipe(t)
	c := &call{r: new(Relay), client: newLeg(a), origin: newLeg(b)}
	done := make(chan event.Opaque)
	go func() { done <- c.tunnel(patience, time.Time{}) }()
	peer.Reset(client)
	if o := <-done; o.Detail == "" {
		t.Error("a reset is not told")
	}
}

// TestPassThroughReset: the origin sees a reset, not an end.
func TestPassThroughReset(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, passing)
	c := g.open()
	if err := c.StartTLS(&tls.Config{RootCAs: authority.Pool(), ServerName: originName}); err != nil {
		t.Fatal(err)
	}
	peer.Reset(c.conn)
	if r := g.record(); r.Opaque == nil || r.Opaque.Detail == "" {
		t.Errorf("record: %+v", r)
	}
}

// TestTunnelResetAfterTheEnd: most peers end TLS so, and nothing that was on its
// way is lost.
func TestTunnelResetAfterTheEnd(t *testing.T) {
	client, a := pipe(t)
	b, origin := pipe(t)
	c := &call{r: new(Relay), client: newLeg(a), origin: newLeg(b)}
	done := make(chan event.Opaque)
	go func() { done <- c.tunnel(patience, time.Time{}) }()
	origin.Write([]byte("221 bye"))
	origin.CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "221 bye" || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
	peer.Reset(client)
	if o := <-done; o.Detail != "" {
		t.Errorf("%+v", o)
	}
}

// pipe returns the two ends of a connection.
func pipe(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	a, b, err := peer.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestRestInsideTLS: a silent client inside TLS costs no goroutine, and is heard
// when it speaks again.
func TestRestInsideTLS(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, withTLS(mirror, trust.Policy{}))
	c := g.open()
	if err := c.StartTLS(believing()); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		g.awaitRest(n + 1)
		if reply, err := c.Command("EHLO client.example.net"); err != nil || reply.Code != 250 {
			t.Fatalf("%q, %v", reply.Raw, err)
		}
	}
	if reply, err := c.Send(mail); err != nil || reply.Code != 250 {
		t.Fatalf("%q, %v", reply.Raw, err)
	}
}

// TestDANE asks a real DNS server for the origin's records.
func TestDANE(t *testing.T) {
	origin := authority.Issue([]string{"whatever.example.org"})
	g := start(t, peer.Behaviour{TLS: &tls.Config{Certificates: []tls.Certificate{origin.TLS()}}})
	port := g.relay.opts.Services["mx"].Dialer.Origins[0].Port()
	names, err := nameserver.Serve("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	hash := sha256.Sum256(origin.Certificate.RawSubjectPublicKeyInfo)
	record := fmt.Sprintf("_%d._tcp.%s.", port, originName)
	if err := names.Add(fmt.Sprintf("%s 0 IN TLSA 3 1 1 %x", record, hash)); err != nil {
		t.Fatal(err)
	}
	o := Options{Services: map[string]Service{"mx": g.relay.opts.Services["mx"]}}
	withTLS(mirror, trust.Policy{Method: trust.DANE, Name: originName, Records: resolve.New(names.Addr).TLSA})(&o)
	g.relay.Replace(o.Services, nil)

	for n, want := range []event.Verification{event.Unverified, event.DANE} { // first without DNSSEC
		c := g.open()
		c.securely(t)
		g.empty()
		if r := g.records.full[n]; r.OriginTLS.Peer != want {
			t.Errorf("session %d: %+v", n, r.OriginTLS)
		}
		names.Secure(record)
	}
	names.Fail(record, dns.RcodeServerFailure)
	c := g.dial()
	if ehlo, err := c.Open("client.example.net"); err != nil || ehlo.Code != 421 {
		t.Errorf("without an answer: %q, %v", ehlo.Raw, err)
	}
}

// TestDANEInsists: who takes the origin's offer of STARTTLS out gets no mail, where
// the origin has TLSA records of use; in no mode, and whatever the client does.
func TestDANEInsists(t *testing.T) {
	usable := trust.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	for _, s := range []session.TLS{mirror, {Mode: "origin", Origin: session.Always}} {
		for _, k := range []struct {
			name    string
			records []trust.TLSA
			code    int
		}{
			{"a record", []trust.TLSA{usable}, 421},
			{"a record of no use", []trust.TLSA{{Usage: 1, Selector: 1, Matching: 1, Data: make([]byte, 32)}}, 250},
			{"none", nil, 250},
		} {
			p := trust.Policy{Method: trust.DANE, Name: originName, Records: func(context.Context, string, uint16) ([]trust.TLSA, error) { return k.records, nil }}
			g := start(t, peer.Behaviour{}, withTLS(s, p))
			c := g.dial()
			if ehlo, err := c.Open("client.example.net"); err != nil || ehlo.Code != k.code {
				t.Errorf("%s, %s: %q, %v", s.Mode, k.name, ehlo.Raw, err)
			}
			c.conn.Close()
		}
	}
}
