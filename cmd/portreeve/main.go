// Command portreeve is an SMTP inspection gateway that origins do not see.
//
// This package owns the command line: flags, exit codes and the words on the
// terminal. Each verb has a file of its own and leaves the work to a package;
// Run is the whole program as a function, which tests call. What was asked for
// goes to standard output, all else to standard error.
package main

import (
	"context"
	"io"
	"os"
)

//go:generate go run . man ../../deploy/man

func main() {
	code := Run(heedSignals(context.Background()), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(code)
}

// Run carries out one command line and returns the exit code: 0 when all is
// well, 1 when it failed or found something wrong, 2 when the command line
// itself cannot be understood. It reads the environment's PORTREEVE_ variables.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr, environ: os.Environ()}
	root := newRoot(e)
	root.SetArgs(args)
	return e.report(root.ExecuteContext(ctx))
}
