package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the service manager of the gateway: it starts `portreeve run --attach`
// again, within a second, whenever that ends.
type manager struct {
	stage *stage

	mu      sync.Mutex
	unit    File       // that it starts
	main    *inspector // nil: none runs
	started int
	resting bool // nothing is started
	going   sync.WaitGroup
}

// inspector is a process of `portreeve run`.
type inspector struct {
	cmd   *exec.Cmd
	file  File
	log   string
	ended chan struct{}
}

const (
	restartPause = 300 * time.Millisecond
	// readyPatience is for an inspector that is to take over.
	readyPatience = 20 * time.Second
)

// start begins another process.
func (m *manager) start(f File) (*inspector, error) {
	m.mu.Lock()
	m.started++
	i := &inspector{file: f, log: filepath.Join(m.stage.env.Dir, fmt.Sprintf("run%d.log", m.started)), ended: make(chan struct{})}
	m.mu.Unlock()
	path, err := m.stage.write(f)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(i.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	i.cmd = m.stage.portreeve(context.Background(), "run", "-c", path, "--attach")
	i.cmd.Stderr = log
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	m.going.Go(func() {
		i.cmd.Wait() // how it ended says its log
		close(i.ended)
	})
	return i, nil
}

// keep makes a process the one that counts, until another does.
func (m *manager) keep(i *inspector) {
	m.mu.Lock()
	m.main, m.unit = i, i.file
	m.mu.Unlock()
	m.going.Go(func() {
		for m.replaced(i) {
			next, err := m.start(m.wanted())
			if err != nil {
				m.stage.ledger.Fail("start an inspector: %v", err)
				return
			}
			if !m.adopt(i, next) {
				next.cmd.Process.Signal(unix.SIGTERM)
				return
			}
			i = next
		}
	})
}

// wanted is the file of the unit.
func (m *manager) wanted() File {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unit
}

// replaced waits until a process ends, and reports whether another is to be started.
func (m *manager) replaced(i *inspector) bool {
	<-i.ended
	for {
		time.Sleep(restartPause)
		m.mu.Lock()
		counts, resting := m.main == i, m.resting
		m.mu.Unlock()
		switch {
		case !counts:
			return false
		case !resting:
			return true
		case m.stage.ctx.Err() != nil:
			return false
		}
	}
}

// adopt makes a process the one that counts, if the one before still does.
func (m *manager) adopt(before, next *inspector) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.main != before {
		return false
	}
	m.main = next
	return true
}

// rest says whether nothing is to be started.
func (m *manager) rest(resting bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resting = resting
}

// configure makes a file the unit's: the next inspector has it.
func (m *manager) configure(f File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unit = f
}

// current is the process that counts.
func (m *manager) current() *inspector {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.main
}

// takeOver starts an inspector of another file beside the one that runs, and makes it
// the one that counts. One that ends at once was refused, and nothing is changed.
func (m *manager) takeOver(f File) (refusal string, err error) {
	i, err := m.start(f)
	if err != nil {
		return "", err
	}
	if i.ready(readyPatience) {
		m.keep(i)
		return "", nil
	}
	select {
	case <-i.ended:
		return i.said(), nil
	default:
		m.keep(i)
		return "", nil
	}
}

// ready waits until the inspector says that it is, or has ended.
func (i *inspector) ready(patience time.Duration) bool {
	limit := time.After(patience)
	for {
		if strings.Contains(i.said(), "msg=ready") {
			return true
		}
		select {
		case <-i.ended:
			return false
		case <-limit:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// said is what it has written, with its watcher and the others that it has started.
func (i *inspector) said() string {
	text, _ := os.ReadFile(i.log) // it may not be there yet
	return string(text)
}

// stop ends the inspector as a service manager does, and starts nothing more.
func (m *manager) stop(patience time.Duration) error {
	m.mu.Lock()
	i := m.main
	m.main = nil
	m.mu.Unlock()
	if i == nil {
		return nil
	}
	err := i.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-i.ended:
	case <-time.After(patience):
		err = errors.Join(fmt.Errorf("the inspector did not stop within %s", patience), i.cmd.Process.Kill())
	}
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return err
}
