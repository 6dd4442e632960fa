package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/testenv/nameserver"
	"github.com/portreeve/portreeve/testenv/pki"
)

// TestDoctorOfTLS is the whole verb, with DNS that this test serves: it says what is
// wrong with certificate and records, in both forms, and exits with 1.
func TestDoctorOfTLS(t *testing.T) {
	names, err := nameserver.Serve("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	names.Secure("_25._tcp.mx.example.org.")
	if err := names.Add("example.org. 60 IN MX 10 mx.example.org.", "_25._tcp.mx.example.org. 60 IN TLSA 3 1 1 "+strings.Repeat("00", 32),
		`_mta-sts.example.org. 60 IN TXT "v=STSv1;"`); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	chain, key, err := pki.New("test").Issue([]string{"mx.example.org"}, pki.Expired).Write(dir, "mx")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "portreeve.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `interfaces: {client: [lo-a], origin: [lo-b]}
kernel: {run_dir: %q, bpffs: %[1]q}
services:
  - name: mx
    listen: ["192.0.2.1:25"]
    origins: ["127.0.0.1:1"]
    forge: {address: never}
    tls:
      certificates: [{chain: %q, key: %q}]
      domains: [example.org]
`, dir, chain, key), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run("doctor", "-c", file, "--resolver", names.Addr.String())
	if code != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{
		"error    certificate-expired  certificate " + chain + ": it has expired on ",
		"error    dane-certificate  domain example.org: the TLSA records of mx.example.org do not fit the certificate that clients are shown",
		"warning  sts-unusable  domain example.org: its MTA-STS policy cannot be used: its TXT record \"v=STSv1;\" has no id",
		"warning  origin-tls-unseen  origin 127.0.0.1:1: cannot see what it offers: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	code, out, errs = run("doctor", "-c", file, "--json", "--resolver", names.Addr.String())
	if err := json.Unmarshal([]byte(out), &[]any{}); err != nil || code != 1 || !strings.Contains(out, "do not fit") {
		t.Errorf("as JSON, %d: %v\n%s%s", code, err, out, errs)
	}
	if code, _, errs := run("doctor", "-c", file, "--resolver", "somewhere"); code != 2 || !strings.Contains(errs, "is not an address and a port") {
		t.Errorf("a resolver that is none: %d, %s", code, errs)
	}
}
