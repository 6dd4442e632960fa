package trust

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/testenv/pki"
)

// TestReadRoots: a good file is read with CRLF and text in it; what is none has a
// sentence, and nothing is waited for.
func TestReadRoots(t *testing.T) {
	ca, dir := pki.New("root"), t.TempDir()
	put := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	good := append([]byte("# ours\r\n"), bytes.ReplaceAll(ca.PEM(), []byte("\n"), []byte("\r\n"))...)
	for file, want := range map[string]string{
		put("good", good): "",
		put("empty", nil): "has no certificate in PEM",
		put("key", ca.Issue([]string{"x"}).KeyPEM()): "has no certificate in PEM",
		put("large", make([]byte, maxRoots+1)):       "is larger than 1024 KiB",
		dir:                                          "is not a file",
		fifo:                                         "is not a file",
		filepath.Join(dir, "none"):                   "no such file",
	} {
		pool, err := ReadRoots(file)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file)) {
			t.Errorf("%s: %v", file, err)
		}
		if err == nil && !pool.Equal(ca.Pool()) {
			t.Errorf("%s: another authority", file)
		}
	}
}

// TestNames: which certificates are for a name, RFC 6125 sections 6.4 and 7.2.
func TestNames(t *testing.T) {
	root := pki.New("root")
	onlySubject := func(c *x509.Certificate) { c.DNSNames = nil }
	for what, k := range map[string]struct {
		pair *pki.Pair
		good bool
	}{
		"the name":                    {root.Issue([]string{"other.example", name}), true},
		"in capitals":                 {root.Issue([]string{"MX.Example"}), true},
		"a wildcard for the label":    {root.Issue([]string{"*.example"}), true},
		"a wildcard for two":          {root.Issue([]string{"*"}), false},
		"a wildcard in a label":       {root.Issue([]string{"m*.example"}), false},
		"a wildcard one label deeper": {root.Issue([]string{"*.mx.example"}), false},
		"in the subject alone":        {root.Issue([]string{name}, onlySubject), false},
		"an address":                  {root.Issue([]string{"192.0.2.1"}), false},
		"for clients alone": {root.Issue([]string{name}, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), false},
	} {
		v, err := judge(t, Policy{Method: Roots, Name: name, Pool: root.Pool()}, shown(t, k.pair))
		if (err == nil) != k.good || (v == event.Verified) != k.good {
			t.Errorf("%s: %v, %v", what, v, err)
		}
	}
}
