package keeper

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/confine"
)

// holderSocket is the descriptor under which the holder finds its socket.
const holderSocket = 3

// Start runs a command as the holder of the keys that are granted, and returns the
// socket to it. The command calls Hold with the file that Socket returns there, and
// its standard input. It has no capability but that of reading files, and can
// get none. It ends when the last copy of the socket is closed.
func Start(grants []Grant, program string, args ...string) (*os.File, error) {
	list, err := written(grants)
	if err != nil {
		return nil, fmt.Errorf("start the process that holds the keys: %w", err)
	}
	defer list.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start the process that holds the keys: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "keys"), os.NewFile(uintptr(pair[1]), "inspector")
	defer theirs.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = []string{} // nothing that the inspector's environment may tell
	cmd.Stdin, cmd.Stderr = list, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if err := startBare(cmd); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the process that holds the keys: %w", err)
	}
	go cmd.Wait()
	return ours, nil
}

// written returns a file with the list of grants. It is no pipe: who calls Start may
// become another program before the holder has read anything.
func written(grants []Grant) (*os.File, error) {
	list, err := json.Marshal(grants)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("grants", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "grants")
	if _, err = f.Write(list); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Socket returns the holder's socket, in the holder.
func Socket() *os.File { return os.NewFile(holderSocket, "inspector") }

// startBare starts a command that must not have what this process has: a child has
// the capabilities of the thread that made it. What it keeps is that root reads its
// own files without any, and those of others (a key of postfix's) by this one.
func startBare(cmd *exec.Cmd) error {
	return confine.Bare([]confine.Capability{unix.CAP_DAC_READ_SEARCH}, cmd.Start)
}
