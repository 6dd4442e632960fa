package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/pkg/doctor"
)

// untold are the codes that no story can provoke on one kernel, in network namespaces,
// and where they are provoked.
var untold = map[string]string{
	"kernel-lacks":       "pkg/doctor; a kernel without a feature",
	"kernel-unknown":     "pkg/doctor; a kernel that says neither yes nor no",
	"tcx-missing":        "testenv/kernels; a kernel before 6.6",
	"forward-unguarded":  "testenv/kernels; a kernel before 6.4",
	"interface-vrf":      "pkg/doctor, pkg/plan; guests have VRFs, see testenv/clothes",
	"bypass-vrf":         "pkg/doctor, pkg/plan; guests have VRFs",
	"origin-unreachable": "pkg/doctor; an error that routing does not explain",
	"flowtable":          "pkg/doctor; a kernel with nf_flow_table",
}

// TestEachFindingHasAStory looks for each of doctor's codes in the stories: what is no
// information is found there, too, and is gone again.
func TestEachFindingHasAStory(t *testing.T) {
	told := map[string]bool{}
	err := filepath.WalkDir("testdata", func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".txtar" {
			return err
		}
		story, err := os.ReadFile(path)
		for _, line := range regexp.MustCompile(`(?m)^(finds|says|stdout) .*$`).FindAllString(string(story), -1) {
			for _, word := range regexp.MustCompile(`[a-z0-9-]+`).FindAllString(line, -1) {
				told[word] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range doctor.Codes {
		if why, is := untold[c.Name]; told[c.Name] == is {
			t.Errorf("%s: told: %t; %q", c.Name, told[c.Name], why)
		}
	}
}

// judgement is a finding of doctor, as it prints it for scripts.
type judgement struct {
	Severity, Code, Object, Text, Remedy string
}

func (j judgement) String() string {
	return fmt.Sprintf("%s %s: %s: %s; %s", j.Severity, j.Code, j.Object, j.Text, j.Remedy)
}

// examine runs doctor on the gateway with the story's portreeve.yaml and these flags.
func (s *stage) examine(ts *testscript.TestScript, flags []string) ([]judgement, error) {
	out, err := s.onGateway(ts, append([]string{binary, "doctor", "-c", "portreeve.yaml", "--json"}, flags...)...)
	exit, failed := errors.AsType[*exec.ExitError](err)
	if failed && (exit.ExitCode() != 1 || len(exit.Stderr) > 0) {
		return nil, fmt.Errorf("doctor: %w: %s", err, exit.Stderr)
	}
	if err != nil && !failed {
		return nil, fmt.Errorf("doctor: %w", err)
	}
	var all []judgement
	return all, json.Unmarshal(out, &all)
}

// onGateway runs a command as `exec gateway` does, and returns its output.
func (s *stage) onGateway(ts *testscript.TestScript, words ...string) ([]byte, error) {
	ctx, cancel := s.patience()
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.work, ".bin", "gateway"), words...)
	cmd.Dir, cmd.Env = s.work, s.environ(ts)
	return cmd.Output()
}

// flagsOf parts flags from codes.
func flagsOf(args []string) (flags, codes []string) {
	n := slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "-") })
	if n < 0 {
		n = len(args)
	}
	return args[:n], args[n:]
}

// finds wants doctor to complain of these codes, and to call nothing else an error.
// It prints what doctor says of them.
func finds(s *stage, ts *testscript.TestScript, args []string) error {
	flags, codes := flagsOf(args)
	all, err := s.examine(ts, flags)
	if err != nil {
		return err
	}
	var missing, others []string
	for _, code := range codes {
		if !slices.ContainsFunc(all, func(j judgement) bool { return j.Code == code && j.Severity != "info" }) {
			missing = append(missing, code)
		}
	}
	for _, j := range all {
		switch {
		case slices.Contains(codes, j.Code):
			fmt.Fprintln(ts.Stdout(), j)
		case j.Severity == "error":
			others = append(others, j.String())
		}
	}
	if missing != nil || others != nil {
		return fmt.Errorf("doctor does not find %s; it finds\n%s", strings.Join(missing, ", "), strings.Join(others, "\n"))
	}
	return nil
}

// says wants doctor to say these codes for information, and prints what it says.
func says(s *stage, ts *testscript.TestScript, args []string) error {
	flags, codes := flagsOf(args)
	all, err := s.examine(ts, flags)
	if err != nil {
		return err
	}
	for _, code := range codes {
		n := slices.IndexFunc(all, func(j judgement) bool { return j.Code == code && j.Severity == "info" })
		if n < 0 {
			return fmt.Errorf("doctor does not say %s; it says\n%v", code, all)
		}
		fmt.Fprintln(ts.Stdout(), all[n])
	}
	return nil
}

// remedy types the remedy of a finding on the gateway, as it is printed, and wants
// the finding to be gone.
func remedy(s *stage, ts *testscript.TestScript, args []string) error {
	flags, codes := flagsOf(args)
	if len(codes) != 1 {
		return usage("remedy [--FLAG…] CODE")
	}
	all, err := s.examine(ts, flags)
	if err != nil {
		return err
	}
	of := func(j judgement) bool { return j.Code == codes[0] && j.Severity != "info" }
	i := slices.IndexFunc(all, of)
	if i < 0 {
		return fmt.Errorf("doctor does not find %s", codes[0])
	}
	fmt.Fprintln(ts.Stdout(), all[i].Remedy)
	if _, err := s.onGateway(ts, "sh", "-ec", all[i].Remedy); err != nil {
		if exit, ended := errors.AsType[*exec.ExitError](err); ended {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return fmt.Errorf("%s: %w", all[i].Remedy, err)
	}
	if all, err = s.examine(ts, flags); err != nil {
		return err
	}
	if i := slices.IndexFunc(all, of); i >= 0 {
		return fmt.Errorf("doctor still says: %s", all[i])
	}
	return nil
}

// ownFiles gives a process mounts of its own, with copies of what is in /etc and
// nothing in /run, and then waits to be ended.
const ownFiles = `mount -t tmpfs own /run
mkdir /run/etc && cp -a /etc/. /run/etc && mount --bind /run/etc /etc
exec sleep infinity`

// private gives the gateway's commands files of their own, which others do not see.
func private(s *stage, ts *testscript.TestScript, _ []string) error {
	const name = "private"
	if err := s.start(name, s.env.Gateway, []string{"unshare", "--mount", "sh", "-ec", ownFiles}, s.environ(ts)); err != nil {
		return err
	}
	pid, asleep := s.processes[name].cmd.Process.Pid, false
	err := s.await(func() bool {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		asleep = strings.TrimSpace(string(comm)) == "sleep"
		return asleep || err != nil
	})
	if err != nil || !asleep {
		return fmt.Errorf("no files of its own: %w", err)
	}
	return s.wrap(s.env.Gateway, fmt.Sprintf("--mount=/proc/%d/ns/mnt --wdns=%s", pid, s.work))
}
