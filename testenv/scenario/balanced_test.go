package scenario

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBalanced tells the stories in which others speak for the client: HAProxy,
// and swaks in the place of a filter, from Debian's packages.
func TestBalanced(t *testing.T) { tell(t, "testdata/balanced") }

// startHAProxy runs HAProxy on the client's side.
func startHAProxy(s *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("haproxy FILE")
	}
	inRoot, err := filepath.Abs("../../scripts/in-root")
	if err != nil {
		return err
	}
	words := []string{inRoot, "haproxy", s.work, "haproxy", "-db", "-f", ts.MkAbs(args[0])}
	return s.start("haproxy", s.env.Client, words, os.Environ())
}
