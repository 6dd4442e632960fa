package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
)

// env is what every verb gets: the three streams, the environment and the
// flags that all verbs share.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string

	file    argument      // -c, of verbs that called needConfig
	setting []settingFlag // global flags that go before the file
}

// settingFlag is a flag that goes before a key of the file.
type settingFlag struct {
	key  string
	flag *pflag.Flag
}

// argument is the value of a flag, with the word that help shows for it.
type argument struct{ kind, value string }

func (a *argument) String() string     { return a.value }
func (a *argument) Set(s string) error { a.value = s; return nil }
func (a *argument) Type() string       { return a.kind }

// addSetting adds such a flag for all verbs.
func (e *env) addSetting(root *cobra.Command, name, key, usage string) {
	flag := root.PersistentFlags().VarPF(&argument{kind: "DIR"}, name, "", usage)
	e.setting = append(e.setting, settingFlag{key, flag})
}

// overrides returns the values of those flags that were given.
func (e *env) overrides() []config.Override {
	var given []config.Override
	for _, s := range e.setting {
		if s.flag.Changed {
			given = append(given, config.Override{Key: s.key, Value: s.flag.Value.String(), Source: "--" + s.flag.Name})
		}
	}
	return given
}

// needConfig gives a verb the flag -c and makes it mandatory.
func (e *env) needConfig(c *cobra.Command) {
	e.file.kind = "FILE"
	c.Flags().VarP(&e.file, "config", "c", "the configuration file")
	if err := c.MarkFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err) // the flag was made a line above
	}
	c.PreRunE = func(*cobra.Command, []string) error {
		if e.file.value == "" {
			return usageError("no configuration: name the file with -c FILE")
		}
		return nil
	}
}

// mayConfig gives a verb the flag -c, which it can do without.
func (e *env) mayConfig(c *cobra.Command) {
	c.Flags().VarP(&e.file, "config", "c", "the configuration file, where it sets kernel.bpffs, kernel.run_dir or kernel.table")
	if err := c.MarkFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err) // the flag was made a line above
	}
}

// given is all that a configuration is made of here.
func (e *env) given(name string, data []byte) apply.Given {
	return apply.Given{Name: name, Data: data, Environ: config.Environ(e.environ), Overrides: e.overrides()}
}

// read reads the file that -c names.
func (e *env) read() (apply.Given, error) {
	data, err := config.Read(e.file.value)
	return e.given(e.file.value, data), err
}

// load reads the configuration that -c names.
func (e *env) load() (*config.Config, error) {
	return config.Load(e.file.value, e.environ, e.overrides()...)
}

// settings returns the configuration of a verb that needs none: that of -c if
// it was given.
func (e *env) settings() (*config.Config, error) {
	if e.file.value != "" {
		return e.load()
	}
	return config.WithoutFile(e.environ, e.overrides()...)
}

// printf writes what was asked for.
func (e *env) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(e.stdout, format, args...); err != nil {
		return fmt.Errorf("cannot write to standard output: %w", err)
	}
	return nil
}

// usageError says what is wrong with the command line.
type usageError string

func (u usageError) Error() string { return string(u) }

// errFound is the error of a verb whose output already says what is wrong.
var errFound = errors.New("something is wrong")

// report prints an error, once, and returns the exit code.
func (e *env) report(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return 1
	}
	if usage, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(e.stderr, "portreeve: %s\n", usage)
		return 2
	}
	if list, ok := errors.AsType[finding.List](err); ok {
		for _, f := range list {
			fmt.Fprintf(e.stderr, "portreeve: %s\n", f)
		}
		return 1
	}
	fmt.Fprintf(e.stderr, "portreeve: %s\n", strings.TrimRight(err.Error(), "\n"))
	return 1
}
