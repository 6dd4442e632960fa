// Command bench measures what portreeve costs, beside HAProxy, nginx and plain
// routing that do the same carrying without looking at the mail. `make bench`
// runs it with the path of the binary.
//
// It owns the measuring: a network of namespaces, Postfix's smtp-source and
// smtp-sink as load, subjects that take turns in it, the CPU time of the whole
// machine per session, and, in a phase of its own, the run time of the BPF
// programs per packet. It never judges: no figure makes it fail. It removes
// everything that it made, also when interrupted.
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
	"strings"
	"syscall"
)

// interrupted is the exit code after SIGINT, as a shell has it.
const interrupted = 130

// options are what the command line says.
type options struct {
	binary   string   // portreeve
	scripts  string   // directory of the tree's scripts
	output   string   // where the JSON goes; empty: nowhere
	subjects []string // names, in order
	rounds   int
	sessions int // in one measurement, at least
	parallel int // of them, at least
	octets   int // of a message
	packets  int // sessions in one measurement of packets; 0: none
	hold     bool
}

func main() {
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
	short := flags.Bool("short", false, "two rounds of a few sessions, for a first look")
	only := flags.String("only", "", "names of `subjects`, separated by commas; default "+strings.Join(names(), ","))
	flags.StringVar(&o.output, "o", ".build/bench.json", "`file` for the results in JSON")
	flags.StringVar(&o.scripts, "scripts", "scripts", "`directory` of the source tree's scripts")
	flags.IntVar(&o.rounds, "rounds", 8, "how often the subjects take turns")
	flags.IntVar(&o.sessions, "sessions", 12000, "sessions of one measurement")
	flags.IntVar(&o.parallel, "parallel", 32, "sessions at once")
	flags.IntVar(&o.octets, "octets", 4096, "octets of a message's body")
	flags.IntVar(&o.packets, "packets", 4000, "sessions of one measurement of packets; 0: do not measure them")
	flags.BoolVar(&o.hold, "hold", false, "measure nothing: keep the load on the one subject of -only until interrupted, for a profiler")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *short {
		o.rounds, o.sessions, o.packets = 2, 3200, 1600
	}
	if *only == "" {
		*only = strings.Join(names(), ",")
	}
	o.subjects = strings.Split(*only, ",")
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
	}
	if o.hold && len(o.subjects) != 1 {
		return errors.New("-hold needs -only with one subject")
	}
	for name, n := range map[string]int{"-rounds": o.rounds, "-sessions": o.sessions, "-parallel": o.parallel, "-octets": o.octets} {
		if n < 1 {
			return fmt.Errorf("%s: %d is less than 1", name, n)
		}
	}
	if o.packets < 0 {
		return fmt.Errorf("-packets: %d is less than 0", o.packets)
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	o.scripts, err = filepath.Abs(o.scripts)
	return err
}

// run measures and shows the results, or keeps up the load.
func run(ctx context.Context, o options) error {
	if o.hold {
		return o.onStage(ctx, func(s *stage) error { return s.keepUp(ctx, subjects[o.subjects[0]]) })
	}
	results, err := measureAll(ctx, o)
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
