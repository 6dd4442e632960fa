package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newCompletion(e *env) *cobra.Command {
	shells := []string{"bash", "fish", "powershell", "zsh"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "print the completion script of a shell",
		Long:  "Completion prints the script that completes portreeve's commands and flags in bash, fish, powershell or zsh.",
		Example: `  portreeve completion bash >/etc/bash_completion.d/portreeve
  source <(portreeve completion zsh)`,
		ValidArgs: shells,
		Args:      oneArg("SHELL", shells...),
		RunE: func(c *cobra.Command, args []string) error {
			if err := writeCompletion(c.Root(), args[0], e.stdout); err != nil {
				return fmt.Errorf("cannot write the completion script to standard output: %w", err)
			}
			return nil
		},
	}
}

func writeCompletion(root *cobra.Command, shell string, w io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(w, true)
	case "fish":
		return root.GenFishCompletion(w, true)
	case "powershell":
		return root.GenPowerShellCompletionWithDesc(w)
	default:
		return root.GenZshCompletion(w)
	}
}
