package resolve

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/portreeve/portreeve/testenv/nameserver"
)

func serve(t *testing.T) (*nameserver.Server, *Resolver) {
	t.Helper()
	s, err := nameserver.Serve("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, New(s.Addr)
}

func add(t *testing.T, s *nameserver.Server, records ...string) {
	t.Helper()
	if err := s.Add(records...); err != nil {
		t.Fatal(err)
	}
}

func TestTLSA(t *testing.T) {
	s, r := serve(t)
	add(t, s, "_25._tcp.mx.example. 60 IN TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		"_25._tcp.open.example. 60 IN TLSA 3 1 1 00")
	s.Secure("_25._tcp.mx.example.", "_25._tcp.none.example.")
	records, err := r.TLSA(t.Context(), "mx.example", 25)
	if err != nil || len(records) != 1 || records[0].Usage != 3 || records[0].Selector != 1 || records[0].Matching != 1 || len(records[0].Data) != 32 || records[0].Data[1] != 0x11 {
		t.Errorf("secure: %+v, %v", records, err)
	}
	for _, name := range []string{"none.example", "open.example", "unknown.example"} {
		if records, err := r.TLSA(t.Context(), name, 25); len(records) != 0 || err != nil {
			t.Errorf("%s: %+v, %v", name, records, err)
		}
	}
	s.Fail("_25._tcp.bogus.example.", dns.RcodeServerFailure)
	if _, err := r.TLSA(t.Context(), "bogus.example", 25); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("bogus: %v", err)
	}
}

// TestTLSABehindAnAlias: records kept in one place for many hosts, RFC 6698 appendix
// A.2.1.
func TestTLSABehindAnAlias(t *testing.T) {
	s, r := serve(t)
	add(t, s, "_25._tcp.mx.example. 60 IN CNAME _dane.example.", "_dane.example. 60 IN TLSA 3 1 1 0011", "mx.example. 60 IN CNAME host.example.", "host.example. 60 IN A 192.0.2.1")
	s.Secure("_25._tcp.mx.example.")
	if records, err := r.TLSA(t.Context(), "mx.example.", 25); len(records) != 1 || err != nil {
		t.Errorf("%+v, %v", records, err)
	}
	if got, err := r.Addresses(t.Context(), "mx.example"); len(got) != 1 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// TestTLSAWithoutDNSSEC is seen by doctor alone.
func TestTLSAWithoutDNSSEC(t *testing.T) {
	s, r := serve(t)
	add(t, s, "_25._tcp.mx.example. 60 IN TLSA 3 1 1 0011")
	if records, secure, err := r.TLSARecords(t.Context(), "mx.example", 25); len(records) != 1 || secure || err != nil {
		t.Errorf("%+v, %t, %v", records, secure, err)
	}
}

// TestNoMail: a null MX (RFC 7505) names no server.
func TestNoMail(t *testing.T) {
	s, r := serve(t)
	add(t, s, "none.example. 60 IN MX 0 .")
	if got, err := r.MX(t.Context(), "none.example"); len(got) != 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestForgedAnswers: what has another number, is about another question, or is cut
// off is no answer.
func TestForgedAnswers(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		in := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(in)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(in[:n]) != nil {
				continue
			}
			for _, spoil := range []func(*dns.Msg){
				func(m *dns.Msg) { m.Id++ },
				func(m *dns.Msg) { m.Question[0].Name = "other.example." },
			} {
				m := new(dns.Msg).SetReply(q)
				m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{"forged"}}}
				spoil(m)
				if out, err := m.Pack(); err == nil {
					conn.WriteTo(out, from)
				}
			}
		}
	}()
	r := New(netip.MustParseAddrPort(conn.LocalAddr().String()))
	if got, err := r.TXT(t.Context(), "a.example"); len(got) != 0 || err == nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBoundedMemory: however much is asked for, little is remembered, and nothing
// for longer than an hour.
func TestBoundedMemory(t *testing.T) {
	s, r := serve(t)
	add(t, s, "long.example. 604800 IN TXT one")
	if _, err := r.TXT(t.Context(), "long.example"); err != nil {
		t.Fatal(err)
	}
	if until := r.known[question{"long.example.", dns.TypeTXT}].until; time.Until(until) > time.Hour {
		t.Errorf("remembered until %s", until)
	}
	for i := range 2 * maxKnown {
		r.remember(question{fmt.Sprint(i), dns.TypeTXT}, answer{})
	}
	if len(r.known) > maxKnown {
		t.Errorf("%d answers are remembered", len(r.known))
	}
}

// TestMemory: answers are remembered, failures are not.
func TestMemory(t *testing.T) {
	s, r := serve(t)
	add(t, s, "a.example. 60 IN TXT one", "b.example. 0 IN TXT now")
	for range 3 {
		if got, err := r.TXT(t.Context(), "a.example"); err != nil || !slices.Equal(got, []string{"one"}) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := s.Asked(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	for range 3 {
		r.TXT(t.Context(), "b.example")
	}
	if n := s.Asked(); n != 4 {
		t.Errorf("what lives for no time was asked for %d times", n-1)
	}
	s.Fail("c.example.", dns.RcodeServerFailure)
	if _, err := r.TXT(t.Context(), "c.example"); err == nil {
		t.Error("SERVFAIL is no error")
	}
	s.Fail("c.example.", dns.RcodeSuccess)
	add(t, s, "c.example. 60 IN TXT back")
	if got, err := r.TXT(t.Context(), "c.example"); err != nil || len(got) != 1 {
		t.Errorf("after a failure: %q, %v", got, err)
	}
}

// TestLargeAnswers come by TCP.
func TestLargeAnswers(t *testing.T) {
	s, r := serve(t)
	for i := range 40 {
		add(t, s, fmt.Sprintf("big.example. 60 IN MX %d mx%d.Some.Long.Name.example.", i, i))
	}
	got, err := r.MX(t.Context(), "big.example")
	if err != nil || len(got) != 40 || got[0] != "mx0.some.long.name.example" {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func TestSilentServer(t *testing.T) {
	s, r := serve(t)
	s.Close()
	if got, err := r.TXT(t.Context(), "a.example"); err == nil {
		t.Errorf("nobody answered %q", got)
	}
}
