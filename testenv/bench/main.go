// Command bench measures what portreeve costs, beside HAProxy, nginx, a floor in C and
// plain routing that do the same carrying without looking at the mail, beside a Postfix
// that looks, and beside another build of portreeve. `make bench` runs it with the path
// of the binary.
//
// It owns the measuring: a network of namespaces, a load and an origin in it,
// subjects that are up all the time and take turns, and sections of results: the CPU
// time per session, per pipelined message and per octet of large ones, memory of idle
// sessions, latency of one client and of a crowd, the time that connect(2) takes, the
// run time of the BPF programs per packet, and what can be counted: system calls, context
// switches, packets and allocations. It never judges: aims stand beside the figures, and
// no figure makes it fail. It removes everything that it made, also when interrupted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// interrupted is the exit code after SIGINT, as a shell has it.
const interrupted = 130

// options are what the command line says.
type options struct {
	binary   string   // portreeve
	before   string   // another build of it, to be compared with; empty: none
	scripts  string   // directory of the tree's scripts
	output   string   // where the JSON goes; empty: nowhere
	subjects []string // names, in order
	sections []section
	quick    bool // for a first look
	hold     bool

	instead work // of what each section has for its own; 0: that
}

func main() {
	ends.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	err = run(ctx, o)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: interrupted; everything that it made is removed")
		os.Exit(interrupted)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: bench [FLAG...] PORTREEVE")
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.quick, "short", false, "one or two rounds of few sessions, for a first look")
	sections := flags.String("sections", sectionNames(), "names of the `sections` to measure, separated by commas")
	only := flags.String("only", "", "names of `subjects`, separated by commas; default: all of "+strings.Join(names(), ","))
	flags.StringVar(&o.before, "before", "", "`path` of another portreeve, measured beside the one that is given")
	flags.StringVar(&o.output, "o", ".build/bench.json", "`file` for the results in JSON")
	flags.StringVar(&o.scripts, "scripts", "scripts", "`directory` of the source tree's scripts")
	flags.IntVar(&o.instead.rounds, "rounds", 0, "how often the subjects take turns in each section; 0: its own number")
	flags.IntVar(&o.instead.sessions, "sessions", 0, "sessions of one measurement; 0: the section's own number")
	flags.IntVar(&o.instead.parallel, "parallel", 0, "sessions at once; 0: the section's own number")
	flags.IntVar(&o.instead.octets, "octets", 0, "octets of a message; 0: the section's own number")
	flags.BoolVar(&o.hold, "hold", false, "measure nothing: keep the load of the one section of -sections on the one subject of -only until interrupted, for a profiler")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.subjects = strings.Split(*only, ",")
	if *only == "" {
		o.subjects = slices.DeleteFunc(names(), func(name string) bool { return name == otherBuild && o.before == "" })
	}
	var err error
	if o.sections, err = choose(*sections); err != nil {
		return o, err
	}
	if flags.NArg() != 1 {
		return o, errors.New("give the path of the portreeve to be measured")
	}
	o.binary = flags.Arg(0)
	return o, o.check()
}

// check refuses options that make no sense and makes paths absolute.
func (o *options) check() (err error) {
	for _, name := range o.subjects {
		if subjects[name] == nil {
			return fmt.Errorf("-only: there is no subject %q, only %s", name, strings.Join(names(), ", "))
		}
		if name == otherBuild && o.before == "" {
			return fmt.Errorf("-only: %s needs -before with the path of that build", otherBuild)
		}
	}
	if o.hold && (len(o.subjects) != 1 || len(o.sections) != 1) {
		return errors.New("-hold needs -only with one subject and -sections with one section")
	}
	if o.hold && !takesPart(o.subjects[0], o.work(o.sections[0])) {
		return fmt.Errorf("-hold: %s takes no part in section %s", o.subjects[0], o.sections[0].name)
	}
	for name, n := range map[string]int{"-rounds": o.instead.rounds, "-sessions": o.instead.sessions, "-parallel": o.instead.parallel, "-octets": o.instead.octets} {
		if n < 0 {
			return fmt.Errorf("%s: %d is less than 0", name, n)
		}
	}
	for _, path := range []*string{&o.binary, &o.before, &o.scripts} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// run measures and shows the results, or keeps up the load.
func run(ctx context.Context, o options) error {
	if o.hold {
		return o.onStage(ctx, o.work(o.sections[0]), func(s *stage) error { return s.keepUp(ctx, subjects[o.subjects[0]]) })
	}
	results, err := measureAll(ctx, &o)
	if err != nil {
		return err
	}
	if err := results.print(os.Stdout); err != nil {
		return err
	}
	return writeJSON(o.output, results)
}

// writeJSON writes the results to a file, if one is wanted.
func writeJSON(file string, results *Results) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
