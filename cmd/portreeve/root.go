package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/config"
)

const manual = `portreeve stands in the path of SMTP connections on a Linux gateway, speaks
SMTP on both sides, refuses what must not pass, and hands on the rest so that
the origin sees the client's own IP address.

The kernel side is installed by attach and removed by detach; the inspector is
run. What was asked for goes to standard output, all else to standard error.

Exit codes: 0 all is well; 1 it failed, or something is wrong; 2 the command
line cannot be understood.`

// newRoot returns the command with all its verbs.
func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:               "portreeve COMMAND",
		Short:             "an SMTP inspection gateway that origins do not see",
		Long:              manual,
		Version:           buildVersion(),
		Args:              verb,
		RunE:              func(*cobra.Command, []string) error { return usageError(`no command; "portreeve help" lists them`) },
		SilenceErrors:     true, // env.report prints them
		SilenceUsage:      true,
		DisableAutoGenTag: true, // no build date in the manual
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
	}
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetUsageFunc(usage)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	defaults := config.Default().Kernel
	e.addSetting(root, "bpffs", "kernel.bpffs", "mount point of the BPF file system (default "+defaults.BPFFS+")")
	e.addSetting(root, "run-dir", "kernel.run_dir", "directory of journal and lock (default "+defaults.RunDir+")")
	root.SetHelpCommand(newHelp())
	root.AddCommand(
		newAttach(e),
		newCheck(e),
		newDetach(e),
		newDoctor(e),
		newRun(e),
		newStatus(e),
		newVersion(e),
		newWatch(e),
		newCompletion(e),
		newMan(),
		newHold(),
		newAttachForRun(e),
	)
	for _, c := range root.Commands() {
		c.Args = asUsage(c.Args)
	}
	return root
}

// verb refuses what is not one of the commands. cobra calls it only when no
// command was found.
func verb(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	remedy := `"portreeve help" lists them`
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		remedy = fmt.Sprintf("did you mean %q?", near[0])
	}
	return usageError(fmt.Sprintf("unknown command %q; %s", args[0], remedy))
}

// flagError says what is wrong with a flag, or with the command before it.
func flagError(c *cobra.Command, err error) error {
	if words := c.Flags().Args(); !c.HasParent() && len(words) > 0 {
		return verb(c, words)
	}
	return usageError(fmt.Sprintf("%v; %q shows its flags", err, c.CommandPath()+" --help"))
}

// asUsage makes a refusal of arguments an error of usage.
func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError(err.Error())
		}
		return nil
	}
}

// noArgs refuses arguments.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, but got %q", c.Name(), args[0])
	}
	return nil
}

// oneArg requires one argument, one of some values where they are given.
func oneArg(name string, values ...string) cobra.PositionalArgs {
	if len(values) > 0 {
		name += " (" + strings.Join(values, ", ") + ")"
	}
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) != 1:
			return fmt.Errorf("%s takes one argument, %s, but got %d", c.Name(), name, len(args))
		case len(values) > 0 && !slices.Contains(values, args[0]):
			return fmt.Errorf("%s takes one argument, %s, but got %q", c.Name(), name, args[0])
		}
		return nil
	}
}
