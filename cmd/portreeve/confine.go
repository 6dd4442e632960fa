package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/confine"
	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/pkg/keeper"
	"github.com/portreeve/portreeve/pkg/steer"
)

// itself is this very program, whatever has taken its place on the disk.
const itself = "/proc/self/exe"

// handover is what run leaves to itself when it runs itself again in its confines:
// descriptors, and what is behind them.
type handover struct {
	Config   int    // a memory file with the configuration, as it was read
	Keys     int    // the socket to the process that holds keys; 0: there is none
	Hidden   bool   // files of keys cannot be opened here (Landlock)
	Attach   int    // the socket to the process that attaches; 0: there is none
	Attacher int    // the number of that process
	Present  int    // the socket by which other inspectors know this one; 0: it is to be made
	Number   uint64 // this inspector's among them
	Watched  int    // the pipe that ends the watcher; 0: there is none
	BPF      bool   // CAP_BPF was kept, since this kernel asks for it

	files []*os.File // of the descriptors, which would be closed without them
}

// hands adds a file to what is handed over, and returns its descriptor.
func (h *handover) hands(f *os.File) int {
	h.files = append(h.files, f)
	return int(f.Fd())
}

// handoverVariable has the handover. It is no setting for people.
const handoverVariable = "_PORTREEVE_RUN"

// confine begins the inspector: it does what takes privileges, starts the processes
// that go on having some, and runs the inspector in confines, where it has hardly any.
// It returns only when that cannot be.
func (e *env) confine(ctx context.Context, how runManner) error {
	given, err := e.read()
	if err != nil {
		return err
	}
	c, err := given.Config()
	if err != nil {
		return err
	}
	if err := privileged("run"); err != nil {
		return err
	}
	var presence *daemon.Presence
	if how.attach {
		if err := privileged("attach"); err != nil {
			return err
		}
		if presence, err = daemon.Appear(); err != nil {
			return err
		}
		defer presence.Close()
		if err := endAtOnce(ctx); err != nil {
			return err
		}
		if err := e.forewarn(ctx, c); err != nil {
			return err
		}
		ctx = heedSignals(ctx)
		if err := e.prepare(ctx, c); err != nil {
			return err
		}
	}
	file, err := sealed(given.Data)
	if err != nil {
		return err
	}
	h, log := new(handover), notices(e.stderr)
	h.Config = h.hands(file)
	confines, err := h.confines(c, log)
	if err != nil {
		return err
	}
	if presence != nil {
		if err := e.startAttacher(h, file, presence); err != nil {
			return err
		}
	}
	if err := startHolder(h, &confines, c); err != nil {
		return err
	}
	if !how.noWatch {
		if err := startWatcher(h, c.Kernel, log); err != nil {
			return err
		}
	}
	if err := halted(ctx); err != nil { // the inspector would not know of that signal
		return err
	}
	return runAgain(h, confines, log)
}

// confines are those of an inspector of this configuration, keys apart.
func (h *handover) confines(c *config.Config, log *slog.Logger) (confines confine.Confines, err error) {
	confines = confine.Confines{Needed: needs(c), Capabilities: keeps(c)}
	if h.BPF, err = asksBPF(c.Kernel, confines.Capabilities); err != nil {
		return confines, err
	}
	if h.BPF {
		log.Warn("the inspector keeps CAP_BPF, without which this kernel lets nobody read or write BPF maps; Linux 5.19 asks for less")
		confines.Capabilities = append(confines.Capabilities, unix.CAP_BPF)
	}
	return confines, legible(confines)
}

// keeps are the capabilities that the inspector of a configuration works with: for
// IP_TRANSPARENT and SO_MARK, and for ports below 1024, be they forged or its own.
func keeps(c *config.Config) []confine.Capability {
	keep := []confine.Capability{unix.CAP_NET_RAW}
	if bindsLow(c) {
		keep = append(keep, unix.CAP_NET_BIND_SERVICE)
	}
	return keep
}

func bindsLow(c *config.Config) bool {
	if c.Metrics.Listen.IsValid() && c.Metrics.Listen.Port() < firstFree {
		return true
	}
	return slices.ContainsFunc(c.Services, func(s config.Service) bool {
		switch s.Forge.Port.Mode {
		case config.PortAny:
			return false
		case config.PortNumber:
			return s.Forge.Address != config.ForgeNever && s.Forge.Port.Number < firstFree
		}
		return s.Forge.Address != config.ForgeNever // the client's port, or one of its group
	})
}

// firstFree is the first port that everybody may bind, unless a sysctl says otherwise.
const firstFree = 1024

// asksBPF reports whether the inspector cannot use the maps of the kernel side without
// CAP_BPF, as before Linux 5.19 where kernel.unprivileged_bpf_disabled is not 0. What
// else is wrong with them the inspector says itself.
func asksBPF(k config.Kernel, keep []confine.Capability) (bool, error) {
	err := confine.Bare(keep, func() error { return usesMaps(k.BPFFS) })
	if !errors.Is(err, unix.EPERM) {
		return false, nil
	}
	if have, err := effective(); err != nil || !(capability{bits: []uint{unix.CAP_BPF}}).in(have) {
		return false, errors.Join(fmt.Errorf("run: this kernel lets nobody read or write BPF maps without CAP_BPF, which this process (uid %d) lacks; run it as root, or give it this capability", os.Geteuid()), err)
	}
	return true, nil
}

// usesMaps opens the pins of the kernel side and reads what an inspector does.
func usesMaps(bpffs string) error {
	s, err := steer.New(bpffs)
	if err != nil {
		return err
	}
	i, err := s.Inspector()
	if err != nil {
		return err
	}
	_, services := i.Services()
	return errors.Join(services, i.Close())
}

// needs returns what the inspector still has to read in its confines, be it kept
// from everybody else.
func needs(c *config.Config) []string {
	var files []string
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

// legible tells what the inspector needs and cannot read. Root reads the files of
// others by capabilities that the inspector gives up.
func legible(c confine.Confines) error {
	return confine.Bare(c.Capabilities, func() error {
		for _, path := range c.Needed {
			f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err == nil {
				f.Close()
			}
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("run: the inspector, which gives up the right to read other users' files, cannot read %s; let it belong to the user %d, with the directories on the way to it", path, os.Geteuid())
			}
		}
		return nil
	})
}

// startHolder starts the process that holds the private keys of a configuration, if it
// has any.
func startHolder(h *handover, confines *confine.Confines, c *config.Config) error {
	grants := grantsOf(c)
	if len(grants) == 0 {
		return nil
	}
	socket, err := keeper.Start(grants, itself, holdVerb)
	if err != nil {
		return err
	}
	h.Keys = h.hands(socket)
	for _, g := range grants {
		confines.Keys = append(confines.Keys, g.Pair.Key)
	}
	return nil
}

// grantsOf says which keys a configuration uses, and for what.
func grantsOf(c *config.Config) (all []keeper.Grant) {
	for _, s := range c.Services {
		for _, p := range daemon.PairsOf(s.TLS) {
			all = append(all, keeper.Grant{Pair: p, Decrypt: s.TLS.Client.ExchangesRSA()})
		}
	}
	return all
}

// runAgain runs this program again in confines.
func runAgain(h *handover, confines confine.Confines, log *slog.Logger) error {
	for _, f := range h.files {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("hand a descriptor on: %w", err)
		}
	}
	h.Hidden = len(confines.Keys) > 0
	err := h.exec(confines)
	if errors.Is(err, confine.ErrNoLandlock) {
		log.Warn("private keys are held by another process, but nothing keeps this one from reading their files", "cause", confine.ErrNoLandlock)
		h.Hidden, confines.Keys = false, nil
		err = h.exec(confines)
	}
	return err
}

func (h *handover) exec(confines confine.Confines) error {
	defer runtime.KeepAlive(h) // and so its files open
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return confines.Exec(itself, os.Args, append(os.Environ(), handoverVariable+"="+string(text)))
}

// begin is what the inspector does before anything else. It returns what an earlier run
// of this process has left, nil where there was none.
func begin() (*handover, error) {
	h, err := handed()
	if err != nil {
		return nil, err
	}
	return h, confine.Hide()
}

// handed returns what an earlier run of this process has left, nil where there was
// none.
func handed() (*handover, error) {
	text, given := os.LookupEnv(handoverVariable)
	if !given {
		return nil, nil
	}
	os.Unsetenv(handoverVariable)
	h := new(handover)
	if err := json.Unmarshal([]byte(text), h); err != nil {
		return nil, fmt.Errorf("environment %s: it is not for people; leave it out", handoverVariable)
	}
	for _, fd := range []int{h.Config, h.Keys, h.Attach, h.Present, h.Watched} {
		if fd != 0 {
			unix.CloseOnExec(fd)
		}
	}
	call("portreeve")
	return h, nil
}

// call gives the process the name that ps shows. What is run by itself would be
// called exe.
func call(name string) {
	os.WriteFile("/proc/self/comm", []byte(name), 0) // the name matters to people only
}

// confined returns an error where the inspector has more capabilities than its
// configuration asks for: it was not run by confine, or a kernel gave them back.
func (h *handover) confined(c *config.Config) error {
	keep := keeps(c)
	if h.BPF {
		keep = append(keep, unix.CAP_BPF)
	}
	within, err := confine.Within(keep)
	if err == nil && !within {
		err = fmt.Errorf("run: the inspector has capabilities that it has given up; if the environment has %s, leave it out", handoverVariable)
	}
	return err
}

// presence returns what makes other inspectors know this one.
func (h *handover) presence() *daemon.Presence {
	return daemon.Reappear(h.Number, os.NewFile(uintptr(h.Present), "presence"))
}

// keys returns the way to the private keys, nil where there are none.
func (h *handover) keys() (*keeper.Keys, error) {
	if h.Keys == 0 {
		return nil, nil
	}
	return keeper.Connect(os.NewFile(uintptr(h.Keys), "keys"), h.Hidden)
}

// config returns the configuration that was read.
func (h *handover) config(e *env) (*config.Config, error) {
	data, err := contents(os.NewFile(uintptr(h.Config), "configuration"))
	if err != nil {
		return nil, err
	}
	return e.given(e.file.value, data).Config()
}

// sealed returns a file with some data that is nowhere on a disk, and that nobody
// can change.
func sealed(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("configuration", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("keep the configuration in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "configuration")
	if _, err = f.Write(data); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("keep the configuration in memory: %w", err)
	}
	return f, nil
}

// contents reads such a file, and closes it. Others may read it at the same time, by
// the same place in it.
func contents(f *os.File) ([]byte, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the configuration that was handed on: %w", err)
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("read the configuration that was handed on: %w", err)
	}
	return data, nil
}
