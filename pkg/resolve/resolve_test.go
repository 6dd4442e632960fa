package resolve

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
