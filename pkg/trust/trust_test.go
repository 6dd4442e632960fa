package trust

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/testenv/pki"
)

const name = "mx.example"

// shown is what an origin shows in its handshake.
func shown(t *testing.T, p *pki.Pair) tls.ConnectionState {
	t.Helper()
	var s tls.ConnectionState
	for _, der := range p.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		s.PeerCertificates = append(s.PeerCertificates, c)
	}
	return s
}

func judge(t *testing.T, p Policy, s tls.ConnectionState) (event.Verification, error) {
	t.Helper()
	j, proof, err := p.Judge(t.Context(), 25)
	if err != nil {
		t.Fatal(err)
	}
	v, err := j(s)
	if anybody := err == nil && v == event.Unverified; proof == anybody {
		t.Errorf("%+v has to prove who it is: %t, and it is %s, %v", p, proof, v, err)
	}
	return v, err
}

func TestRoots(t *testing.T) {
	root := pki.New("root")
	between := root.Intermediate("between")
	policy := Policy{Method: Roots, Name: name, Pool: root.Pool()}
	if v, err := judge(t, policy, shown(t, between.Issue([]string{name}))); v != event.Verified || err != nil {
		t.Errorf("a good chain: %v, %v", v, err)
	}
	for what, bad := range map[string]*pki.Pair{
		"another name":      between.Issue([]string{"other.example"}),
		"expired":           between.Issue([]string{name}, pki.Expired),
		"another authority": pki.New("other").Issue([]string{name}),
	} {
		if v, err := judge(t, policy, shown(t, bad)); err == nil {
			t.Errorf("%s: %v", what, v)
		}
	}
	if _, err := judge(t, policy, tls.ConnectionState{}); failure(err) != event.FailureCertificate {
		t.Errorf("no certificate: %v", err)
	}
}

func failure(err error) event.Failure {
	e, _ := errors.AsType[*Error](err)
	if e == nil {
		return event.NoFailure
	}
	return e.Failure()
}

func TestPins(t *testing.T) {
	root := pki.New("root")
	good := root.Issue([]string{"whatever.example"}, pki.Expired)
	pin := PinOf(good.Certificate)
	policy := Policy{Method: Pins, Pins: []Pin{{}, pin}}
	if v, err := judge(t, policy, shown(t, good)); v != event.Pinned || err != nil {
		t.Errorf("the pinned key: %v, %v", v, err)
	}
	bad := shown(t, root.Issue([]string{name}))
	bad.PeerCertificates = append(bad.PeerCertificates, good.Certificate)
	if v, err := judge(t, policy, bad); failure(err) != event.FailurePin {
		t.Errorf("the pinned certificate behind another: %v, %v", v, err)
	}
}

func TestDANE(t *testing.T) {
	root := pki.New("root")
	between := root.Intermediate("between")
	good := between.Issue([]string{name})
	s := shown(t, good)
	full := between.Certificate.Raw
	key256 := sha256.Sum256(good.Certificate.RawSubjectPublicKeyInfo)
	key512 := sha512.Sum512(good.Certificate.RawSubjectPublicKeyInfo)
	for _, k := range []struct {
		what    string
		records []TLSA
		state   tls.ConnectionState
		want    event.Verification
		failure event.Failure
	}{
		{"no records", nil, s, event.Unverified, 0},
		{"unusable records", []TLSA{{0, 0, 1, key256[:]}, {1, 1, 1, key256[:]}, {3, 7, 1, key256[:]}, {3, 1, 9, key256[:]}, {3, 1, 0, nil}, {3, 1, 1, key256[:31]}, {3, 1, 2, key256[:]}}, s, event.Unverified, 0},
		{"3 1 1", []TLSA{{3, 1, 1, key256[:]}}, s, event.DANE, 0},
		{"3 1 2", []TLSA{{3, 1, 2, key512[:]}}, s, event.DANE, 0},
		{"3 0 0", []TLSA{{3, 0, 0, good.Certificate.Raw}}, s, event.DANE, 0},
		{"3 1 1 of another, then a good one", []TLSA{{3, 1, 1, key512[:32]}, {3, 1, 1, key256[:]}}, s, event.DANE, 0},
		{"3 1 1 of another", []TLSA{{3, 1, 1, key512[:32]}}, s, 0, event.FailureDANE},
		{"3 1 1, unusable beside", []TLSA{{3, 1, 1, key512[:32]}, {1, 1, 1, key256[:]}}, s, 0, event.FailureDANE},
		{"3 1 1, expired and for another name", []TLSA{ee(expired(root))}, shown(t, expired(root)), event.DANE, 0},
		{"2 0 0", []TLSA{{2, 0, 0, full}}, s, event.DANE, 0},
		{"2 0 0, another name", []TLSA{{2, 0, 0, full}}, shown(t, between.Issue([]string{"other.example"})), 0, event.FailureDANE},
		{"2 0 0, expired", []TLSA{{2, 0, 0, full}}, shown(t, between.Issue([]string{name}, pki.Expired)), 0, event.FailureDANE},
		{"2 0 0, not signed by it", []TLSA{{2, 0, 0, full}}, appended(shown(t, root.Issue([]string{name})), between.Certificate), 0, event.FailureDANE},
		{"2 0 0, another authority", []TLSA{{2, 0, 0, full}}, shown(t, pki.New("other").Issue([]string{name})), 0, event.FailureDANE},
	} {
		records := func(context.Context, string, uint16) ([]TLSA, error) { return k.records, nil }
		v, err := judge(t, Policy{Method: DANE, Name: name, Records: records}, k.state)
		if v != k.want || failure(err) != k.failure || (err == nil) != (k.failure == event.NoFailure) {
			t.Errorf("%s: %v, %v", k.what, v, err)
		}
	}
}

var onlyExpired *pki.Pair

func expired(a *pki.Authority) *pki.Pair {
	if onlyExpired == nil {
		onlyExpired = a.Issue([]string{"other.example"}, pki.Expired)
	}
	return onlyExpired
}

func ee(p *pki.Pair) TLSA {
	h := sha256.Sum256(p.Certificate.RawSubjectPublicKeyInfo)
	return TLSA{3, 1, 1, h[:]}
}

func appended(s tls.ConnectionState, c *x509.Certificate) tls.ConnectionState {
	s.PeerCertificates = append(s.PeerCertificates, c)
	return s
}

func TestDANEWithoutAnswer(t *testing.T) {
	p := Policy{Method: DANE, Name: name, Records: func(context.Context, string, uint16) ([]TLSA, error) { return nil, errors.New("SERVFAIL") }}
	if _, proof, err := p.Judge(t.Context(), 25); !proof || failure(err) != event.FailureResolver {
		t.Errorf("an answer that cannot be trusted: %v", err)
	}
}
