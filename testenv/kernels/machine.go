package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Size of a guest. The tests are measured to need less than half of the memory,
// the initramfs with all its programs included.
const (
	guestMemory = 1536 // MiB
	guestCPUs   = 2
)

// machine is something that can run the suite and report.
type machine struct {
	name string
	run  func(context.Context, *space, *suite, *report) error
}

// machines lists this machine and a guest for each series.
func machines() []machine {
	list := []machine{{name: "host", run: runHere}}
	for _, s := range debianSeries {
		list = append(list, machine{name: s.name, run: s.run})
	}
	return list
}

func machineNames() []string {
	var names []string
	for _, m := range machines() {
		names = append(names, m.name)
	}
	return names
}

// runHere runs the suite on the kernel of this machine.
func runHere(ctx context.Context, space *space, suite *suite, r *report) error {
	script := filepath.Join(space.root, "testenv/kernels/run-tests.sh")
	cmd := exec.CommandContext(ctx, "sh", append([]string{script, space.root, suite.binaries}, suite.flags()...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The group: the shell would wait for the test that it runs.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	return follow(cmd, space, r)
}

// run runs the suite in a guest with the newest kernel of the series.
func (s series) run(ctx context.Context, space *space, suite *suite, r *report) error {
	k, err := unpackKernel(ctx, space, s)
	if err != nil {
		return err
	}
	t, err := guestTree(ctx, space, suite, k)
	if err != nil {
		return err
	}
	initramfs := filepath.Join(space.temp, "initramfs-"+s.name)
	if err := writeTree(t, initramfs); err != nil {
		return err
	}
	defer os.Remove(initramfs)
	return boot(ctx, k, initramfs, space, r)
}

func writeTree(t tree, name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(t.write(file), file.Close())
}

// boot runs a guest to its end. The first serial line is the kernel's console,
// kept for complaints; the second carries what the tests print.
func boot(ctx context.Context, k kernel, initramfs string, space *space, r *report) error {
	console := filepath.Join(space.dir, r.machine+".console.log")
	if err := os.RemoveAll(console); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=multi", "-cpu", "max",
		"-m", strconv.Itoa(guestMemory), "-smp", strconv.Itoa(guestCPUs),
		"-kernel", k.image(), "-initrd", initramfs, "-append", commandLine(),
		"-serial", "file:"+console, "-serial", "stdio")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := follow(cmd, space, r)
	said, readErr := os.ReadFile(console)
	r.readConsole(string(said))
	return errors.Join(err, readErr)
}

// commandLine is the kernel's. A panic ends the guest. Warnings are printed, for
// readConsole, but not those about a processor that was not served for seconds:
// the guest's are emulated and share this machine's. Time comes from the HPET,
// whose rate is known: that of the TSC is measured while the kernel starts, and
// on a busy machine it comes out so wrong that an hour passes in minutes.
func commandLine() string {
	return strings.Join([]string{
		"console=ttyS0", "loglevel=5", "panic=-1", "clocksource=hpet", "tsc=unstable",
		"nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1", "workqueue.watchdog_thresh=0",
	}, " ")
}

// follow starts a command, reads what it prints line by line into the report, a
// log and our own output, and waits for its end.
func follow(cmd *exec.Cmd, space *space, r *report) error {
	log, err := os.Create(filepath.Join(space.dir, r.machine+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 10 * time.Second
	lines := &lineWriter{each: func(line string) {
		r.readLine(line)
		if shown, ok := display(line); ok {
			fmt.Printf("%-4s | %s\n", r.machine, shown)
		}
	}}
	cmd.Stdout = io.MultiWriter(log, lines)
	err = cmd.Run()
	lines.flush()
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// lineWriter calls each with every line that is written to it.
type lineWriter struct {
	each    func(string)
	partial []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b == '\n' {
			w.flush()
			continue
		}
		w.partial = append(w.partial, b)
	}
	return len(p), nil
}

// flush ends a line.
func (w *lineWriter) flush() {
	w.each(strings.TrimSuffix(string(w.partial), "\r"))
	w.partial = w.partial[:0]
}
