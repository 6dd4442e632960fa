package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// judgement is a finding of doctor, as it prints it for scripts.
type judgement struct {
	Severity, Code, Object, Text, Remedy string
}

// examine runs doctor on the gateway with the story's portreeve.yaml.
func (s *stage) examine(ts *testscript.TestScript) ([]judgement, error) {
	ctx, cancel := s.patience()
	defer cancel()
	cmd := s.env.Gateway.Command(ctx, binary, "doctor", "-c", "portreeve.yaml", "--json")
	cmd.Dir, cmd.Env = s.work, s.environ(ts)
	out, err := cmd.Output()
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

// finds wants doctor to complain of these codes, and to call nothing else an error.
// It prints what doctor says of them.
func finds(s *stage, ts *testscript.TestScript, codes []string) error {
	all, err := s.examine(ts)
	if err != nil {
		return err
	}
	var missing []string
	for _, code := range codes {
		if !slices.ContainsFunc(all, func(j judgement) bool { return j.Code == code && j.Severity != "info" }) {
			missing = append(missing, code)
		}
	}
	var others []string
	for _, j := range all {
		switch {
		case slices.Contains(codes, j.Code):
			fmt.Fprintf(ts.Stdout(), "%s %s: %s: %s; %s\n", j.Severity, j.Code, j.Object, j.Text, j.Remedy)
		case j.Severity == "error":
			others = append(others, fmt.Sprintf("%s: %s: %s", j.Code, j.Object, j.Text))
		}
	}
	if missing != nil || others != nil {
		return fmt.Errorf("doctor does not find %s; it finds\n%s", strings.Join(missing, ", "), strings.Join(others, "\n"))
	}
	return nil
}

// remedy types the remedy of a finding on the gateway, as it is printed, and wants
// the finding to be gone.
func remedy(s *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("remedy CODE")
	}
	all, err := s.examine(ts)
	if err != nil {
		return err
	}
	of := func(j judgement) bool { return j.Code == args[0] && j.Severity != "info" }
	i := slices.IndexFunc(all, of)
	if i < 0 {
		return fmt.Errorf("doctor does not find %s", args[0])
	}
	fmt.Fprintln(ts.Stdout(), all[i].Remedy)
	ctx, cancel := s.patience()
	defer cancel()
	cmd := s.env.Gateway.Command(ctx, "sh", "-ec", all[i].Remedy)
	cmd.Dir, cmd.Env = s.work, s.environ(ts)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", all[i].Remedy, err, out)
	}
	if all, err = s.examine(ts); err != nil {
		return err
	}
	if i := slices.IndexFunc(all, of); i >= 0 {
		return fmt.Errorf("doctor still says: %s: %s: %s; %s", args[0], all[i].Object, all[i].Text, all[i].Remedy)
	}
	return nil
}
