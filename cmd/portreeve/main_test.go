package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/pkg/finding"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"portreeve": main,
		"exe":       main, // as which run starts the holder of the keys
		"taken":     taken,
		"asks":      asks,
	})
}

// TestScripts runs testdata/script: a command line and what it prints, one
// file a verb.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: filepath.Join("testdata", "script")})
}

func run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Run(context.Background(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	minimal := filepath.Join("..", "..", "pkg", "config", "minimal.yaml")
	for _, tc := range []struct {
		code int
		args []string
	}{
		{0, []string{"check", "-c", minimal}},
		{0, []string{"version"}},
		{0, []string{"help"}},
		{0, []string{"check", "-h"}},
		{1, []string{"check", "-c", "main.go"}},
		{1, []string{"check", "-c", "no such file"}},
		{2, nil},
		{2, []string{"check"}},
		{2, []string{"check", "--nonsense"}},
		{2, []string{"nonsense"}},
		{2, []string{"help", "nonsense"}},
		{2, []string{"completion"}},
	} {
		if code, out, errs := run(tc.args...); code != tc.code {
			t.Errorf("portreeve %q: exit code %d, want %d\n%s%s", tc.args, code, tc.code, out, errs)
		}
	}
}

func TestReport(t *testing.T) {
	list := finding.List{
		{Severity: finding.Error, Object: "a.yaml: services", Text: "names no service", Remedy: "add one"},
		{Severity: finding.Error, Object: "a.yaml: kernel.table", Text: "is too large"},
	}
	for _, tc := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{errFound, 1, ""},
		{errors.New("attach: no such thing\n"), 1, "portreeve: attach: no such thing\n"},
		{usageError("no such flag"), 2, "portreeve: no such flag\n"},
		{fmt.Errorf("load: %w", list), 1, "portreeve: a.yaml: services: names no service; add one\nportreeve: a.yaml: kernel.table: is too large\n"},
	} {
		var errs bytes.Buffer
		e := &env{stderr: &errs}
		if code := e.report(tc.err); code != tc.code || errs.String() != tc.want {
			t.Errorf("report(%v) = %d, printed %q, want %d, %q", tc.err, code, errs.String(), tc.code, tc.want)
		}
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestOutputIsChecked: an answer that could not be written is a failure.
func TestOutputIsChecked(t *testing.T) {
	minimal := filepath.Join("..", "..", "pkg", "config", "minimal.yaml")
	for _, args := range [][]string{{"version"}, {"check", "-c", minimal}, {"check", "-c", "main.go"}, {"completion", "bash"}} {
		var errs bytes.Buffer
		code := Run(context.Background(), args, strings.NewReader(""), io.Writer(fullDisk{}), &errs)
		if code != 1 || !strings.HasPrefix(errs.String(), "portreeve: cannot write ") || !strings.HasSuffix(errs.String(), "disk full\n") {
			t.Errorf("portreeve %q: exit code %d, %q", args, code, errs.String())
		}
	}
}

func TestDescribe(t *testing.T) {
	vcs := func(revision, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	for _, tc := range []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"", nil, "portreeve devel go1.26.8"},
		{"(devel)", nil, "portreeve devel go1.26.8"},
		{"v1.2.3", vcs("0123456789abcdef", "false"), "portreeve v1.2.3 (commit 0123456789ab) go1.26.8"},
		{"v1.2.3", vcs("0123456789abcdef", "true"), "portreeve v1.2.3 (commit 0123456789ab, modified) go1.26.8"},
		{"v1.2.3", vcs("01", "false"), "portreeve v1.2.3 (commit 01) go1.26.8"},
	} {
		info := &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: tc.version}, Settings: tc.settings}
		if got := describe(info); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
