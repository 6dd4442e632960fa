package steer

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// PrivateFS is a BPF file system that is mounted nowhere: only this process sees it. By it
// goes on with its pins who kept them where that of everybody was unmounted.
type PrivateFS struct{ root *os.File }

// NewPrivateFS makes one, which is empty. It takes CAP_SYS_ADMIN.
func NewPrivateFS() (*PrivateFS, error) {
	context, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a BPF file system: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("make a BPF file system: %w", err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a BPF file system: %w", err)
	}
	return &PrivateFS{os.NewFile(uintptr(fd), "bpf")}, nil
}

// Path is where this process, and no other, finds the file system.
func (p *PrivateFS) Path() string {
	return "/proc/self/fd/" + strconv.Itoa(int(p.root.Fd()))
}

// Close ends it, with its pins.
func (p *PrivateFS) Close() error { return p.root.Close() }
