package testenv

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

//go:embed janitor.sh
var janitorScript string

// janitor is a process that removes an Env as soon as we ask for it or are
// gone: by a return, a panic, a signal, kill -9. It is in a session of its own,
// so that a Ctrl-C at the terminal reaches us and not it.
type janitor struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	report strings.Builder
}

// hire starts a janitor for the namespaces prefix-* and the directory dir. It
// is hired before the first of them is made.
func hire(prefix, dir string) (*janitor, error) {
	j := &janitor{}
	j.cmd = exec.Command("sh", "-c", janitorScript, "janitor", prefix, dir, strconv.Itoa(os.Getpid()))
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	j.cmd.Stderr = &j.report
	stdin, err := j.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("hire janitor: %w", err)
	}
	j.stdin = stdin
	if err := j.cmd.Start(); err != nil {
		return nil, fmt.Errorf("hire janitor: %w", err)
	}
	return j, nil
}

// clean makes the janitor do its work and waits for the end of it.
func (j *janitor) clean() error {
	closing := j.stdin.Close()
	err := j.cmd.Wait()
	if said := strings.TrimSpace(j.report.String()); said != "" {
		return errors.New(said)
	}
	return errors.Join(closing, err)
}

// stale matches names that bear the process id of their owner.
var stale = regexp.MustCompile(`^(portreeve-([0-9]+)-[0-9]+)-`)

// Sweep removes what test environments of processes that no longer exist left
// behind. It finds something only when a janitor was killed as well.
func Sweep() error {
	prefixes := make(map[string]string) // to the directory
	for _, pattern := range []string{filepath.Join(netnsDir, "portreeve-*"), filepath.Join(os.TempDir(), "portreeve-*")} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("sweep stale test environments: %w", err)
		}
		for _, path := range paths {
			collectStale(prefixes, path)
		}
	}
	var failures []error
	for prefix, dir := range prefixes {
		j, err := hire(prefix, dir)
		if err == nil {
			err = j.clean()
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// collectStale notes the prefix and the directory of a path that belongs to a
// process that is gone.
func collectStale(prefixes map[string]string, path string) {
	match := stale.FindStringSubmatch(filepath.Base(path))
	if match == nil {
		return
	}
	if _, err := os.Stat("/proc/" + match[2]); err == nil {
		return
	}
	switch {
	case filepath.Dir(path) != netnsDir:
		prefixes[match[1]] = path
	case prefixes[match[1]] == "":
		prefixes[match[1]] = filepath.Join(os.TempDir(), match[1]+"-gone")
	}
}
