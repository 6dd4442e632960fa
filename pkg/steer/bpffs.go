package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// threadNetns is the network namespace of the calling thread, which need not
// be the process's.
const threadNetns = "/proc/thread-self/ns/net"

// building is the ending of names of what is not yet in use. Names in a BPF
// file system cannot contain a dot.
const building = "_new"

// ErrNoBPFFS says that there is no BPF file system where one is looked for.
var ErrNoBPFFS = errors.New("no BPF file system")

// checkBPFFS tells a mounted BPF file system from a plain directory.
func checkBPFFS(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("%w at %s: %w; mount one: mkdir -p %[2]s && mount -t bpf bpf %[2]s", ErrNoBPFFS, dir, err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%w at %s; mount one: mount -t bpf bpf %[2]s", ErrNoBPFFS, dir)
	}
	return nil
}

// currentNetns returns the inode of the calling thread's network namespace.
func currentNetns() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(threadNetns, &st); err != nil {
		return 0, fmt.Errorf("identify the network namespace: stat %s: %w", threadNetns, err)
	}
	return st.Ino, nil
}

// root is the directory above those of all network namespaces.
func (s *Steer) root() string { return filepath.Join(s.bpffs, "portreeve") }

// dir is the pin directory of this network namespace.
func (s *Steer) dir() pinDir {
	return pinDir(filepath.Join(s.root(), strconv.FormatUint(s.netns, 10)))
}

// removePin removes a pin; with it goes what only the pin held. Absent is
// success.
func removePin(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explain adds the remedy to the errors of missing privileges. The kernel
// says no more than "operation not permitted", and without CAP_PERFMON its
// verifier refuses packet access that it allows root.
func explain(err error) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM), errors.As(err, &refused) && !errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w; it needs the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, as root has them", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; it needs root, who owns the pins", err)
	}
	return err
}
