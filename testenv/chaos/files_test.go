package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileOperations are about the BPF file system and the run directory.
var fileOperations = []operation{
	{name: "a pin removed", weight: 4, class: pinned, do: func(s *stage) (string, func() error, error) {
		pins, err := filepath.Glob(s.env.BPFFS + "/portreeve/*/*")
		if len(pins) == 0 || err != nil {
			return "there is none", nil, err
		}
		pin := pick(s, pins...)
		return filepath.Base(pin), nil, gone(os.Remove(pin))
	}},
	{name: "all pins removed", weight: 3, class: pinned, do: func(s *stage) (string, func() error, error) {
		return "", nil, os.RemoveAll(s.env.BPFFS + "/portreeve")
	}},
	{name: "BPF file system unmounted", weight: 4, class: pinned, do: func(s *stage) (string, func() error, error) {
		return "", func() error { return unix.Mount("bpf", s.env.BPFFS, "bpf", 0, "") }, unix.Unmount(s.env.BPFFS, unix.MNT_DETACH)
	}},
	{name: "run directory wiped", weight: 4, class: runDir, do: func(s *stage) (string, func() error, error) {
		err := os.RemoveAll(s.env.RunDir)
		for range 20 { // what is written meanwhile stands in the way
			if !errors.Is(err, unix.ENOTEMPTY) {
				break
			}
			err = os.RemoveAll(s.env.RunDir)
		}
		return "", nil, err
	}},
	{name: "a file of the run directory removed", weight: 3, class: runDir, do: func(s *stage) (string, func() error, error) {
		all, err := filepath.Glob(s.env.RunDir + "/*")
		if len(all) == 0 || err != nil {
			return "there is none", nil, err
		}
		file := pick(s, all...)
		return filepath.Ext(file), nil, gone(os.Remove(file))
	}},
	{name: "run directory full", weight: 4, class: runDir, do: func(s *stage) (string, func() error, error) {
		if err := os.MkdirAll(s.env.RunDir, 0o700); err != nil {
			return "", nil, err
		}
		if err := unix.Mount("tiny", s.env.RunDir, "tmpfs", 0, "size=4k"); err != nil {
			return "", nil, fmt.Errorf("mount over the run directory: %w", err)
		}
		err := os.WriteFile(filepath.Join(s.env.RunDir, "full"), make([]byte, 8192), 0o600)
		if !errors.Is(err, unix.ENOSPC) {
			return "", nil, fmt.Errorf("the run directory does not get full: %w", err)
		}
		return "", func() error { return unix.Unmount(s.env.RunDir, unix.MNT_DETACH) }, nil
	}},
}

// gone is the error of a removal, but for one of what is gone already.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
