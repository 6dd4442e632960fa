// Command demo shows portreeve to a newcomer: it builds a network of
// namespaces with a real Postfix as the origin, sends two messages through the
// gateway and prints what matters: the reply that the client got, the origin's
// log with the client's address, the gateway's status, and that nothing is left
// behind. `make demo` runs it with the path of the binary.
//
// It removes everything that it made, also when interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
)

// patience is how long the demo waits for any one thing.
const patience = 30 * time.Second

// interrupted is the exit code after SIGINT, as a shell has it.
const interrupted = 130

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo PORTREEVE")
		os.Exit(2)
	}
	err := show(ctx, os.Args[1])
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything that it made is removed")
		os.Exit(interrupted)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is a running demonstration.
type demo struct {
	env    *testenv.Env
	origin *mta.Server
	binary string
	config string
	// what the inspector says: records on standard output, notices on error
	records, notices string
}

// show builds the network, plays the demo in it and removes it.
func show(ctx context.Context, binary string) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, env.Close())
		if err == nil {
			say("Removed: the network namespaces, their processes and files.")
		}
	}()
	d := &demo{
		env: env, binary: binary, config: filepath.Join(env.Dir, "demo.yaml"),
		records: filepath.Join(env.Dir, "records"), notices: filepath.Join(env.Dir, "notices"),
	}
	return d.play(ctx)
}

// play runs the steps.
func (d *demo) play(ctx context.Context) (err error) {
	if err := d.startOrigin(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.origin.Stop()) }()
	before, err := d.env.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := d.writeConfig(); err != nil {
		return err
	}
	if err := d.portreeve(ctx, "attach", "-c", d.config); err != nil {
		return err
	}
	if err := d.carry(ctx); err != nil {
		return err
	}
	if err := d.portreeve(ctx, "detach"); err != nil {
		return err
	}
	return d.compare(ctx, before)
}

// startOrigin starts Postfix and says how the network looks.
func (d *demo) startOrigin(ctx context.Context) (err error) {
	heading("The network")
	say("client %s -- router -- gateway %s -- origin %s", d.env.Client4, d.env.Gateway4, d.env.Origin4)
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.origin, err = mta.StartPostfix(limited, d.env.Origin, filepath.Join(d.env.Dir, "origin"), []netip.Addr{d.env.Origin4})
	if err == nil {
		say("The origin is a real Postfix on port 25.")
	}
	return err
}

// writeConfig writes a service that takes both ways in, and shows it.
func (d *demo) writeConfig() error {
	text := fmt.Sprintf(`interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: mx
    listen: ["%[1]s:25"]        # addressed: clients connect to the gateway
    intercept: ["%[2]s:25"]   # transit: clients connect to the origin
    origins: ["%[2]s:25"]
    forge: {address: always}
`, d.env.Gateway4, d.env.Origin4)
	heading("The configuration of the gateway")
	fmt.Print(text)
	return os.WriteFile(d.config, []byte(text), 0o644)
}

// carry runs the inspector, sends a message each way and shows the status.
func (d *demo) carry(ctx context.Context) (err error) {
	stop, err := d.startInspector(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := d.send(ctx, "addressed", "A message to the gateway's own address", d.env.Gateway4); err != nil {
		return err
	}
	if err := d.send(ctx, "transit", "A message to the origin's address, which passes through the gateway", d.env.Origin4); err != nil {
		return err
	}
	return d.portreeve(ctx, "status")
}

// startInspector starts portreeve run and waits until it carries a session.
// stop ends it in an orderly way.
func (d *demo) startInspector(ctx context.Context) (stop func() error, err error) {
	heading("portreeve run -c demo.yaml &")
	cmd := d.command(context.Background(), "run", "-c", d.config)
	records, err := os.Create(d.records)
	if err != nil {
		return nil, err
	}
	defer records.Close()
	notices, err := os.Create(d.notices)
	if err != nil {
		return nil, err
	}
	defer notices.Close()
	cmd.Stdout, cmd.Stderr = records, notices
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.env.Client.AwaitGreeting(limited, netip.AddrPortFrom(d.env.Gateway4, 25)); err != nil {
		said, _ := os.ReadFile(d.notices)
		return nil, errors.Join(fmt.Errorf("portreeve run: %w: %s", err, said), cmd.Process.Kill(), cmd.Wait())
	}
	return func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}, nil
}

// send sends a message with swaks and shows the dialogue and the origin's log.
func (d *demo) send(ctx context.Context, way, title string, to netip.Addr) error {
	heading("%s (%s)", title, way)
	swaks := d.env.Client.Command(ctx, "swaks", "--server", to.String(), "--local-interface", d.env.Client4.String(),
		"--helo", "client.example.net", "--from", "a@example.net", "--to", way+"@example.org",
		"--header", "Subject: "+way, "--body", "Sent to "+to.String()+".")
	if err := run(swaks); err != nil {
		return err
	}
	line, err := d.logged(ctx, way+"@example.org")
	if err != nil {
		return err
	}
	record, err := d.recorded(ctx, way+"@example.org")
	if err != nil {
		return err
	}
	say("\nThe origin's log:\n  %s\n\nThe gateway's record:\n  %s", line, record)
	return nil
}

// queued finds a recipient's line in Postfix's log and the queue id in it.
const queued = `: ([0-9A-F]+): to=<%s>.* status=sent`

// logged waits until a recipient's message is delivered and returns the line
// of the origin's log that says which client it came from.
func (d *demo) logged(ctx context.Context, recipient string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := regexp.MustCompile(fmt.Sprintf(queued, regexp.QuoteMeta(recipient)))
	line, err := d.origin.AwaitLog(ctx, sent)
	if err != nil {
		return "", err
	}
	id := sent.FindStringSubmatch(line)[1]
	return d.origin.AwaitLog(ctx, regexp.MustCompile(`: `+id+`: client=.*\[`+regexp.QuoteMeta(d.env.Client4.String())+`\]`))
}

// recorded waits for the inspector's record of a recipient's message.
func (d *demo) recorded(ctx context.Context, recipient string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(d.records)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, recipient) && strings.HasSuffix(line, "\n") {
				return strings.TrimSuffix(line, "\n"), nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("no record names %s: %w", recipient, context.Cause(ctx))
		}
	}
}

// compare says whether the gateway is as it was.
func (d *demo) compare(ctx context.Context, before testenv.Snapshot) error {
	heading("What is left on the gateway")
	after, err := d.env.Snapshot(ctx)
	if err != nil {
		return err
	}
	if diff := before.Diff(after); diff != "" {
		return fmt.Errorf("the gateway is not as it was before attach:\n%s", diff)
	}
	say("Nothing: these are as they were before attach:\n  %s", strings.Join(after.Sections(), "\n  "))
	return nil
}

// portreeve runs a verb on the gateway and shows what it prints.
func (d *demo) portreeve(ctx context.Context, args ...string) error {
	heading("%s", strings.ReplaceAll("portreeve "+strings.Join(args, " "), d.env.Dir+"/", ""))
	return run(d.command(ctx, args...))
}

// command prepares portreeve on the gateway.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := d.env.Gateway.Command(ctx, d.binary, args...)
	cmd.Env = append(cmd.Env, d.env.Environ()...)
	return cmd
}

// run runs a command whose output is part of the show.
func run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args[3:], " "), err)
	}
	return nil
}

func heading(format string, args ...any) { fmt.Printf("\n== "+format+"\n\n", args...) }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
