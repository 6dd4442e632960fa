package secure

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/stream"
	"github.com/portreeve/portreeve/testenv/peer"
	"github.com/portreeve/portreeve/testenv/pki"
)

// patience ends what must not hang; nothing is expected to take it.
const patience = 20 * time.Second

// tap is a leg that counts its writes.
type tap struct {
	*stream.Conn
	writes int
}

func (l *tap) Write(p []byte) (int, error) {
	l.writes++
	return l.Conn.Write(p)
}

// wires returns the two ends of a connection.
func wires(t *testing.T) (*tap, *tap) {
	t.Helper()
	a, b, err := peer.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return &tap{Conn: stream.New(a)}, &tap{Conn: stream.New(b)}
}

func configs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca := pki.New("test")
	return &tls.Config{Certificates: []tls.Certificate{ca.Issue([]string{"mx.example"}).TLS()}},
		&tls.Config{RootCAs: ca.Pool(), ServerName: "mx.example"}
}

func soon() time.Time { return time.Now().Add(patience) }

// shake makes both handshakes.
func shake(t *testing.T, sc, cc *tls.Config, judge Judge) (server, client *Conn, of, to event.TLS) {
	t.Helper()
	a, b := wires(t)
	done := make(chan struct{})
	go func() {
		server, of = Server(b, sc, soon())
		if server == nil {
			b.Close()
		}
		close(done)
	}()
	client, to = Client(a, cc, judge, soon())
	if client == nil {
		a.Close()
	}
	<-done
	return server, client, of, to
}

func opened(t *testing.T) (server, client *Conn) {
	t.Helper()
	sc, cc := configs(t)
	server, client, of, to := shake(t, sc, cc, nil)
	if server == nil || client == nil {
		t.Fatalf("no handshake: %+v, %+v", of, to)
	}
	server.SetReadDeadline(soon())
	client.SetReadDeadline(soon())
	return server, client
}

func TestRecord(t *testing.T) {
	sc, cc := configs(t)
	_, _, of, to := shake(t, sc, cc, nil)
	for side, r := range map[string]event.TLS{"server": of, "client": to} {
		if !r.Active() || r.Version != "TLS1.3" || r.Cipher == "" || r.Group == "" || string(r.Name) != "mx.example" || r.Resumed {
			t.Errorf("%s: %+v", side, r)
		}
	}
	if string(to.PeerName) != "CN=mx.example" || of.PeerName != nil {
		t.Errorf("peers are %q and %q", to.PeerName, of.PeerName)
	}
}

// TestFault: a panic in a handshake is one of who waits for it, with its place.
func TestFault(t *testing.T) {
	defer func() {
		f, is := recover().(error)
		if !is || !strings.Contains(f.Error(), "boom") || !strings.Contains(f.Error(), "TestFault") {
			t.Errorf("recovered %v", f)
		}
	}()
	a, b := wires(t)
	sc, cc := configs(t)
	sc.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("boom") }
	go Client(a, cc, nil, soon())
	Server(b, sc, soon())
	t.Error("the fault is gone")
}

func TestReadAndWrite(t *testing.T) {
	server, client := opened(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	go client.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d octets came otherwise, or %v", len(sent), err)
	}
}

// TestOneWriteBelow: a block costs one system call, not one a record.
func TestOneWriteBelow(t *testing.T) {
	server, client := opened(t)
	leg := client.under.Stream.(*tap)
	before := leg.writes
	go io.Copy(io.Discard, server)
	if n, err := client.Write(make([]byte, 64<<10)); n != 64<<10 || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if n := leg.writes - before; n != 1 {
		t.Errorf("64 KiB took %d writes", n)
	}
}

func TestPending(t *testing.T) {
	server, client := opened(t)
	if n, err := server.Pending(); n != 0 || err != nil {
		t.Fatalf("before anything was sent: %d, %v", n, err)
	}
	client.Write([]byte("hello"))
	waitPending(t, server)
	if n, err := server.Pending(); n != 1 || err != nil {
		t.Errorf("asked again: %d, %v", n, err)
	}
	p := make([]byte, 100)
	if n, err := server.Read(p); string(p[:n]) != "hello" || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if n, err := server.Pending(); n != 0 || err != nil {
		t.Errorf("after all was read: %d, %v", n, err)
	}
}

// waitPending waits until something is there to be read.
func waitPending(t *testing.T, c *Conn) {
	t.Helper()
	for deadline := soon(); ; {
		n, err := c.Pending()
		switch {
		case err != nil:
			t.Fatal(err)
		case n > 0:
			return
		case time.Now().After(deadline):
			t.Fatal("nothing came")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestPendingKeepsTheDeadline: a deadline that has passed neither hides what is
// there, nor is forgotten.
func TestPendingKeepsTheDeadline(t *testing.T) {
	server, client := opened(t)
	past := time.Now().Add(-time.Second)
	server.SetReadDeadline(past)
	client.Write([]byte("x"))
	waitPending(t, server)
	var p [1]byte
	if n, err := server.Read(p[:]); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if _, err := server.Read(p[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the deadline is forgotten: %v", err)
	}
	server.SetReadDeadline(soon())
	client.Write([]byte("y"))
	if n, err := server.Read(p[:]); n != 1 || p[0] != 'y' || err != nil {
		t.Errorf("after a deadline: %d, %v", n, err)
	}
}

// TestPartOfARecord is nothing yet, and is read when the rest has come.
func TestPartOfARecord(t *testing.T) {
	server, client := opened(t)
	record := seal(client, []byte("hello"))
	below := client.under.Stream
	below.Write(record[:7])
	for range 50 {
		if n, err := server.Pending(); n != 0 || err != nil {
			t.Fatalf("part of a record: %d, %v", n, err)
		}
		time.Sleep(time.Millisecond)
	}
	below.Write(record[7:])
	p := make([]byte, 10)
	if n, err := server.Read(p); string(p[:n]) != "hello" || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
}

// seal returns what a write puts on the wire.
func seal(c *Conn, p []byte) []byte {
	c.under.held = []byte{}
	c.tls.Write(p)
	record := c.under.held
	c.under.held = nil
	return record
}

func TestEnds(t *testing.T) {
	server, client := opened(t)
	client.CloseNotify()
	var p [1]byte
	if _, err := server.Read(p[:]); err != io.EOF {
		t.Errorf("an end that was told: %v", err)
	}
	if _, err := server.Pending(); err != io.EOF {
		t.Errorf("an end that was told, looked for: %v", err)
	}
	server, client = opened(t)
	client.under.Stream.Write([]byte{23, 3, 3})
	client.under.Stream.(*tap).CloseWrite()
	if _, err := server.Read(p[:]); err != io.ErrUnexpectedEOF {
		t.Errorf("an end inside a record: %v", err)
	}
}

// TestHandshakeIsNotInterrupted: a deadline in the past, by which relay wakes
// sessions, does not cost a handshake.
func TestHandshakeIsNotInterrupted(t *testing.T) {
	sc, cc := configs(t)
	a, b := wires(t)
	done := make(chan event.TLS)
	go func() {
		_, r := Server(b, sc, soon())
		done <- r
	}()
	for range 20 {
		b.SetReadDeadline(time.Unix(1, 0))
		time.Sleep(time.Millisecond)
	}
	if _, r := Client(a, cc, nil, soon()); !r.Active() {
		t.Errorf("client: %+v", r)
	}
	if r := <-done; !r.Active() {
		t.Errorf("server: %+v", r)
	}
}

// TestAnswersOfTLSHaveTime: what TLS itself has to say while it reads, an alert or
// new keys, is said although the deadline of the last write has long passed. Else
// the session would be lost with it.
func TestAnswersOfTLSHaveTime(t *testing.T) {
	server, client := opened(t)
	past := time.Now().Add(-time.Second)
	server.SetWriteDeadline(past)
	client.under.Stream.Write([]byte{23, 3, 3, 0, 17, 16: 0, 21: 0}) // no key has made this record
	var p [1]byte
	if _, err := server.Read(p[:]); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a forged record: %v", err)
	}
	if _, err := client.Read(p[:]); err == nil || !strings.Contains(err.Error(), "remote error") {
		t.Errorf("the alert did not come: %v", err)
	}
	if _, err := server.under.Stream.Write(p[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the deadline is forgotten: %v", err)
	}
}

// owing is a leg whose peer has not acknowledged so many octets.
type owing struct {
	*tap
	octets int
}

func (o *owing) Unacknowledged() int { return o.octets }

// TestUnacknowledged: octets count that were written by the user of the leg, not those
// with which TLS answers what it reads. New keys that the peer asks for are made
// known while its reply is read.
func TestUnacknowledged(t *testing.T) {
	_, client := opened(t)
	below := &owing{tap: client.under.Stream.(*tap)}
	client.under.Stream = below
	if _, err := client.Write([]byte(".\r\n")); err != nil {
		t.Fatal(err)
	}
	const record = 25 // three octets, and what TLS adds
	newKeys := make([]byte, 27)
	for _, step := range []struct {
		name         string
		then         func()
		octets, want int
	}{
		{"after the write", func() {}, record, record},
		{"acknowledged", func() {}, 0, 0},
		{"after new keys", func() {
			client.under.reading = true
			client.under.Write(newKeys)
			client.under.reading = false
		}, len(newKeys), 0},
		{"the write before them is not acknowledged either", func() {}, len(newKeys) + 1, 1},
		{"after another write", func() { client.Write([]byte("x")) }, 1, 1},
	} {
		step.then()
		below.octets = step.octets
		if got := client.Unacknowledged(); got != step.want {
			t.Errorf("%s: %d octets, want %d", step.name, got, step.want)
		}
	}
	client.under.Stream = &still{below.tap.Conn}
	if n := client.Unacknowledged(); n != 0 {
		t.Errorf("%d octets of a leg that cannot tell", n)
	}
}

// still is a leg that can do no more than a session.Leg must.
type still struct{ Stream }

// TestRecordIsBounded: a stranger's certificate and words fill no record.
func TestRecordIsBounded(t *testing.T) {
	long := strings.Repeat("x", 200) + "."
	ca := pki.New("test")
	sc := &tls.Config{Certificates: []tls.Certificate{ca.Issue([]string{strings.Repeat(long, 100), "mx.example"}).TLS()}}
	cc := &tls.Config{RootCAs: ca.Pool(), ServerName: strings.Repeat(long, 20) + "example"}
	_, _, of, to := shake(t, sc, cc, func(tls.ConnectionState) (event.Verification, error) { return event.Unverified, nil })
	if len(of.Name) != 255 || len(to.PeerName) != 1024 {
		t.Errorf("%d octets of a name that was asked for, %d of a subject", len(of.Name), len(to.PeerName))
	}
	if _, _, _, to = shake(t, sc, cc, nil); to.Failure != event.FailureName || len(to.Detail) != 1024 {
		t.Errorf("%q, with %d octets of detail", to.Failure, len(to.Detail))
	}
}

// TestRSAKeyExchangeIsLast: ECDHE is offered first and chosen first, whatever the order
// in the list is. Without RSA key exchange the list is that of crypto/tls.
func TestRSAKeyExchangeIsLast(t *testing.T) {
	pair := pki.New("test").IssueFor(pki.RSA(), []string{"mx.example"})
	isRSA := func(id uint16) bool { return strings.HasPrefix(tls.CipherSuiteName(id), "TLS_RSA_") }
	is12 := func(id uint16) bool { return isRSA(id) || strings.HasPrefix(tls.CipherSuiteName(id), "TLS_ECDHE_") }
	offered := func(suites []uint16) (list []uint16, record event.TLS) {
		sc := &tls.Config{Certificates: []tls.Certificate{pair.TLS()}, CipherSuites: suites, MaxVersion: tls.VersionTLS12}
		sc.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			list = slices.DeleteFunc(slices.Clone(h.CipherSuites), func(id uint16) bool { return !is12(id) })
			return nil, nil
		}
		_, _, record, _ = shake(t, sc, &tls.Config{InsecureSkipVerify: true, CipherSuites: suites}, nil)
		return list, record
	}
	all := Suites(true)
	slices.Reverse(all)
	list, record := offered(all)
	first := slices.IndexFunc(list, isRSA)
	if len(list)-first != len(rsaKeyExchange) || first <= 0 || slices.ContainsFunc(list[first:], func(id uint16) bool { return !isRSA(id) }) || !strings.HasPrefix(record.Cipher, "TLS_ECDHE_") {
		t.Errorf("it offers %x and gets %s", list, record.Cipher)
	}
	without, _ := offered(Suites(false))
	if usual, _ := offered(nil); !slices.Equal(without, usual) || !slices.Equal(without, list[:first]) {
		t.Errorf("it offers %x, crypto/tls %x", without, usual)
	}
	if _, record := offered(rsaKeyExchange); !strings.HasPrefix(record.Cipher, "TLS_RSA_") || record.Group != "" {
		t.Errorf("with nothing better: %+v", record)
	}
}

type deadKey struct{ crypto.Signer }

func (deadKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key holder is gone")
}

// TestFailures makes each failure happen, so that the sentences of crypto/tls by
// which some are known stay true.
func TestFailures(t *testing.T) {
	ca := pki.New("test")
	good := ca.Issue([]string{"mx.example"})
	cases := []struct {
		name           string
		server, client func(*tls.Config)
		of, to         event.Failure
	}{
		{"old server", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, nil, event.FailureVersion, event.FailureVersion},
		{"old client", nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, event.FailureVersion, event.FailureVersion},
		{"other groups", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP384} },
			func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, event.FailureParameters, event.FailureAlert},
		{"other suites", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		},
			func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384} }, event.FailureParameters, event.FailureAlert},
		{"expired", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{ca.Issue([]string{"mx.example"}, pki.Expired).TLS()}
		}, nil, event.FailureAlert, event.FailureExpired},
		{"other name", nil, func(c *tls.Config) { c.ServerName = "other.example" }, event.FailureAlert, event.FailureName},
		{"other authority", nil, func(c *tls.Config) { c.RootCAs = pki.New("other").Pool() }, event.FailureAlert, event.FailureAuthority},
		{"no certificate", func(c *tls.Config) { c.Certificates = nil }, nil, event.FailureKey, event.FailureAlert},
		{"dead key", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: good.Chain, PrivateKey: deadKey{good.Key}}}
		}, nil, event.FailureKey, event.FailureAlert},
		{"client without certificate", func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, nil, event.FailureCertificate, event.NoFailure},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			sc := &tls.Config{Certificates: []tls.Certificate{good.TLS()}}
			cc := &tls.Config{RootCAs: ca.Pool(), ServerName: "mx.example"}
			if k.server != nil {
				k.server(sc)
			}
			if k.client != nil {
				k.client(cc)
			}
			_, _, of, to := shake(t, sc, cc, nil)
			if of.Failure != k.of || to.Failure != k.to {
				t.Errorf("server: %q (%s); client: %q (%s)", of.Failure, of.Detail, to.Failure, to.Detail)
			}
			if strings.Contains(of.Detail+to.Detail, "PRIVATE") {
				t.Error("a key is in the record")
			}
		})
	}
}

func TestStallsAndStrangers(t *testing.T) {
	sc, _ := configs(t)
	_, b := wires(t)
	if c, r := Server(b, sc, time.Now().Add(50*time.Millisecond)); c != nil || r.Failure != event.FailureTimeout {
		t.Errorf("a client that stalls: %+v", r)
	}
	a, b := wires(t)
	a.Write([]byte("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"))
	if _, r := Server(b, sc, soon()); r.Failure != event.FailureNotTLS {
		t.Errorf("a client without TLS: %+v", r)
	}
	a, b = wires(t)
	a.Close()
	if _, r := Server(b, sc, soon()); r.Failure != event.FailureClosed {
		t.Errorf("a client that leaves: %+v", r)
	}
	_, b = wires(t)
	time.AfterFunc(time.Millisecond, func() { b.Close() })
	if _, r := Server(b, sc, soon()); r.Failure != event.FailureClosed {
		t.Errorf("a session that is cut: %+v", r)
	}
	if f := failureOf(&net.OpError{Op: "read", Err: os.NewSyscallError("recvfrom", syscall.EHOSTUNREACH)}); f != event.FailureClosed {
		t.Errorf("a network that is gone: %s", f)
	}
}

// TestJudge: the judge takes the place of crypto/tls, and what it finds is in the
// record.
func TestJudge(t *testing.T) {
	sc, cc := configs(t)
	cc.ServerName = "other.example"
	_, _, _, to := shake(t, sc, cc, func(tls.ConnectionState) (event.Verification, error) { return event.Pinned, nil })
	if to.Peer != event.Pinned {
		t.Errorf("a judge that agrees: %+v", to)
	}
	_, _, _, to = shake(t, sc, cc, func(tls.ConnectionState) (event.Verification, error) { return 0, pinError{} })
	if to.Failure != event.FailurePin {
		t.Errorf("a judge that does not: %+v", to)
	}
}

type pinError struct{}

func (pinError) Error() string          { return "wrong pin" }
func (pinError) Failure() event.Failure { return event.FailurePin }

func TestClientCertificates(t *testing.T) {
	ca := pki.New("test")
	sc := &tls.Config{Certificates: []tls.Certificate{ca.Issue([]string{"mx.example"}).TLS()}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.Pool()}
	cc := &tls.Config{RootCAs: ca.Pool(), ServerName: "mx.example"}
	if _, _, of, _ := shake(t, sc, cc, nil); of.Peer != event.Anonymous {
		t.Errorf("without one: %+v", of)
	}
	cc.Certificates = []tls.Certificate{ca.Issue([]string{"client.example"}).TLS()}
	if _, _, of, _ := shake(t, sc, cc, nil); of.Peer != event.Verified || string(of.PeerName) != "CN=client.example" {
		t.Errorf("with one: %+v", of)
	}
}
