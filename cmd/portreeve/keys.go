package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/pkg/keeper"
	"github.com/portreeve/portreeve/pkg/keyring"
)

// holdVerb is how the process that holds private keys is started. It is no verb
// for people: without its socket it does nothing.
const holdVerb = "hold-keys"

func newHold() *cobra.Command {
	return &cobra.Command{
		Use:    holdVerb,
		Short:  "hold private keys for the inspector, which starts this by itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			call("portreeve-keys")
			signal.Ignore(unix.SIGHUP) // a terminal sends it to both, and the inspector still has messages to end
			return keeper.Hold(keeper.Socket(), c.InOrStdin())
		},
	}
}

// keysVariable tells the inspector, when it has been run again in its confines,
// by which descriptor it reaches the keys.
const keysVariable = "_PORTREEVE_KEYS"

// itself is this very program, whatever has taken its place on the disk.
const itself = "/proc/self/exe"

// reachKeys returns the way to the private keys of a configuration, nil where it
// has none. The first time it does not return: it starts the process that holds
// them, and runs the inspector again in confines that keep it from reading them.
func (e *env) reachKeys(c *config.Config, log *slog.Logger) (*keeper.Keys, error) {
	pairs := daemon.Pairs(c)
	if len(pairs) == 0 {
		return nil, nil
	}
	socket, err := givenSocket()
	if err != nil {
		return nil, err
	}
	confined := socket != nil
	if !confined {
		if info, err := os.Stat(e.file.value); err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("configuration %s: it is read twice where services show certificates, and is not a file; write it to one", e.file.value)
		}
		if socket, err = keeper.Start(pairs, itself, holdVerb); err != nil {
			return nil, err
		}
		if err := confine(pairs, e.needs(c), socket); !errors.Is(err, keeper.ErrNoLandlock) {
			return nil, err
		}
		log.Warn("private keys are held by another process, but nothing keeps this one from reading their files", "cause", keeper.ErrNoLandlock)
	}
	return keeper.Connect(socket, confined)
}

// givenSocket returns the socket that an earlier run of this process has left, nil
// where there is none.
func givenSocket() (*os.File, error) {
	text, given := os.LookupEnv(keysVariable)
	if !given {
		return nil, nil
	}
	os.Unsetenv(keysVariable)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("environment %s: %q is not a descriptor; leave it out", keysVariable, text)
	}
	unix.CloseOnExec(fd)
	call("portreeve")
	return os.NewFile(uintptr(fd), "keys"), nil
}

// call gives the process the name that ps shows. What is run by itself would be
// called exe.
func call(name string) {
	os.WriteFile("/proc/self/comm", []byte(name), 0) // the name matters to people only
}

// needs returns what the inspector still has to read in its confines, be it kept
// from everybody else.
func (e *env) needs(c *config.Config) []string {
	os.MkdirAll(c.Kernel.RunDir, 0o700) // what comes to be later is in no rule; apply says why it cannot be
	files := []string{e.file.value, c.Kernel.RunDir, "/run/xtables.lock"}
	for _, s := range c.Services {
		files = append(files, s.TLS.Client.CA, s.TLS.Origin.CA)
	}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} { // of crypto/x509
		files = append(files, filepath.SplitList(os.Getenv(name))...)
	}
	for i, f := range files {
		if whole, err := filepath.Abs(f); f != "" && err == nil {
			files[i] = whole
		}
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// confine runs this program again where it cannot read the keys. It returns only
// when that cannot be.
func confine(pairs []keyring.Pair, needs []string, socket *os.File) error {
	keys := make([]string, len(pairs))
	for i, p := range pairs {
		keys[i] = p.Key
	}
	fd := socket.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("hand the keys' socket on: %w", err)
	}
	err := keeper.Exec(keys, needs, itself, os.Args, append(os.Environ(), keysVariable+"="+strconv.Itoa(int(fd))))
	unix.CloseOnExec(int(fd))
	return err
}
