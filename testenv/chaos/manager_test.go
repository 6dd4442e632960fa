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
	either  bool // what is attached is the unit's file or that of the process that counts
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
	// ready and outrun are what an inspector says that has taken over, or has not since
	// another was started after it.
	ready  = "msg=ready"
	outrun = "a newer inspector has taken over already"
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
	m.main, m.unit, m.either = i, i.file, false
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

// configure makes a file the unit's, which somebody has attached since an inspector was the
// one that worked: the next one has it. One that was started meanwhile has attached the file
// before, and nobody knows which of the two came last.
func (m *manager) configure(f File, before *inspector) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.either = before == nil || m.main != before
	m.unit = f
}

// attached are the files of which one is attached.
func (m *manager) attached() []File {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.either && m.main != nil {
		return []File{m.unit, m.main.file}
	}
	return []File{m.unit}
}

// working is the process that counts, if it has taken over and not ended.
func (m *manager) working() *inspector {
	i := m.current()
	if i == nil || !strings.Contains(i.said(), ready) {
		return nil
	}
	select {
	case <-i.ended:
		return nil
	default:
		return i
	}
}

// current is the process that counts.
func (m *manager) current() *inspector {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.main
}

// takeOver starts an inspector of another file beside the one that runs, and makes it
// the one that counts. One that ends at once was refused, and nothing is changed; but not
// where the manager itself has started another meanwhile, since the one before had ended.
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
		if strings.Contains(i.said(), outrun) {
			return "", nil
		}
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
		if strings.Contains(i.said(), ready) {
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
	i := m.leave()
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

// kill ends the inspector at once, and starts nothing more.
func (m *manager) kill() {
	if i := m.leave(); i != nil {
		i.cmd.Process.Kill() // or it has ended
	}
}

// leave returns the process that counts, which then does not any more.
func (m *manager) leave() *inspector {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.main
	m.main = nil
	return i
}
