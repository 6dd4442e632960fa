package daemon

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/pki"
)

func TestModes(t *testing.T) {
	for _, k := range []struct {
		of   config.TLS
		want session.TLS
	}{
		{config.TLS{Mode: config.TLSMirror}, session.TLS{Mode: "mirror", Client: session.Mirror, Origin: session.Mirror}},
		{config.TLS{Mode: config.TLSPassthrough, Client: config.TLSClient{Require: true}}, session.TLS{Mode: "passthrough", ClientMust: true}},
		{config.TLS{Mode: config.TLSOfClient}, session.TLS{Mode: "client", Client: session.Always}},
		{config.TLS{Mode: config.TLSOfOrigin, Origin: config.TLSOrigin{Require: true}}, session.TLS{Mode: "origin", Origin: session.Always, OriginMust: true}},
		{config.TLS{Mode: config.TLSOff}, session.TLS{Mode: "off"}},
		{config.TLS{Mode: config.TLSMirror, Client: config.TLSClient{Implicit: true}, Origin: config.TLSOrigin{Implicit: true}},
			session.TLS{Mode: "mirror", Client: session.Implicit, Origin: session.Implicit}},
	} {
		if got := whenTLS(k.of); got.Mode != k.want.Mode || got.Client != k.want.Client || got.Origin != k.want.Origin ||
			got.ClientMust != k.want.ClientMust || got.OriginMust != k.want.OriginMust {
			t.Errorf("%+v: %+v, not %+v", k.of, got, k.want)
		}
	}
}

// withFiles is an inspector for a configuration whose certificate exists.
func withFiles(t *testing.T) (*inspector, config.TLS, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	ca := pki.New("test")
	chain, key, err := ca.Issue([]string{"mx.example.org"}, pki.Until(time.Now().AddDate(0, 0, 3))).Write(dir, "mx")
	if err != nil {
		t.Fatal(err)
	}
	authority := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(authority, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	section := config.TLS{
		Mode: config.TLSMirror, Certificates: []config.Certificate{{Chain: chain, Key: key}},
		Client: config.TLSClient{Minimum: config.TLS13, Verify: config.ClientAlways, CA: authority},
		Origin: config.TLSOrigin{Verify: config.OriginCA, CA: authority, Name: "origin.example.org"},
	}
	said := &bytes.Buffer{}
	return &inspector{Options: Options{
		Config: &config.Config{Services: []config.Service{{Name: "mx", TLS: section}}},
		Keys:   keyring.Files{}, Log: slog.New(slog.NewTextHandler(said, nil)),
	}}, section, said
}

func TestTLSOfService(t *testing.T) {
	i, section, said := withFiles(t)
	if err := i.openRing(); err != nil {
		t.Fatal(err)
	}
	got, err := i.tlsOf(section)
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Clients; c.MinVersion != tls.VersionTLS13 || c.ClientAuth != tls.RequireAndVerifyClientCert || c.ClientCAs == nil {
		t.Errorf("clients: %+v", c)
	}
	if p := got.Policy; p.Method != trust.Roots || p.Pool == nil || p.Name != "origin.example.org" || got.Origins.ServerName != p.Name || got.Origins.MinVersion != tls.VersionTLS12 ||
		len(got.Origins.CipherSuites) == 0 || slices.Contains(got.Origins.CipherSuites, tls.TLS_RSA_WITH_AES_128_GCM_SHA256) {
		t.Errorf("origins: %+v, %+v", p, got.Origins)
	}
	i.warnOfExpiry(time.Now())
	i.warnOfExpiry(time.Now().AddDate(0, 0, 4))
	for _, want := range []string{"certificate in use", "a certificate expires soon", "a certificate has expired"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

// TestSuitesOfClients: RSA key exchange is there unless it is turned off, or cannot be.
func TestSuitesOfClients(t *testing.T) {
	i, section, _ := withFiles(t)
	if err := i.openRing(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		of   config.TLSClient
		want bool
	}{
		{config.TLSClient{}, true},
		{config.TLSClient{RSA: config.RSARefuse}, false},
		{config.TLSClient{Minimum: config.TLS13}, false},
	} {
		section.Client = k.of
		c, err := i.clientConfig(section)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(c.CipherSuites, tls.TLS_RSA_WITH_AES_128_GCM_SHA256); got != k.want || !slices.Contains(c.CipherSuites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) {
			t.Errorf("%+v: %x", k.of, c.CipherSuites)
		}
	}
}

// TestTLSFilesThatAreMissing keep the inspector from starting.
func TestTLSFilesThatAreMissing(t *testing.T) {
	i, section, _ := withFiles(t)
	if err := i.openRing(); err != nil {
		t.Fatal(err)
	}
	section.Client.CA = "/nowhere.pem"
	if _, err := i.tlsOf(section); err == nil || !strings.Contains(err.Error(), "/nowhere.pem") {
		t.Errorf("without authorities: %v", err)
	}
	i.Config.Services[0].TLS.Certificates[0].Key = "/nowhere.key"
	if err := i.openRing(); err == nil || !strings.Contains(err.Error(), "/nowhere.key") {
		t.Errorf("without a key: %v", err)
	}
}

func TestPolicies(t *testing.T) {
	pin := config.Pin{1, 2, 3}
	for _, k := range []struct {
		of   config.TLSOrigin
		want trust.Method
	}{
		{config.TLSOrigin{}, trust.Anybody},
		{config.TLSOrigin{Verify: config.OriginSystem}, trust.Roots},
		{config.TLSOrigin{Verify: config.OriginPin, Pins: []config.Pin{pin}}, trust.Pins},
		{config.TLSOrigin{Verify: config.OriginDANE}, trust.DANE},
	} {
		p, err := Policy(k.of)
		if err != nil || p.Method != k.want || (k.want == trust.DANE) != (p.Records != nil) || (k.want == trust.Pins) != (len(p.Pins) == 1 && p.Pins[0] == trust.Pin(pin)) {
			t.Errorf("%s: %+v, %v", k.of.Verify, p, err)
		}
	}
}
