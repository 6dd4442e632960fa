package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"github.com/portreeve/portreeve/pkg/config"
)

// Given is all that a configuration was made of: another process makes the same of it.
// In what config accepts all but the name is UTF-8, as JSON is.
type Given struct {
	Name      string            // of the file, for messages
	Data      []byte            // of the file, as it was read
	Environ   []string          // entries of the environment that the configuration is made of
	Overrides []config.Override // from the command line
	Inspector uint64            `json:",omitempty"` // that has attached it for itself; 0: none has
}

// Config makes the configuration.
func (g Given) Config() (*config.Config, error) {
	return config.Parse(g.Name, g.Data, g.Environ, g.Overrides...)
}

// Same reports whether the same configuration is made of both, whatever its file is called
// and by whichever way a setting was given.
func (g Given) Same(other Given) bool {
	other.Name = g.Name
	one, err := g.Config()
	if err != nil {
		return false
	}
	two, err := other.Config()
	return err == nil && reflect.DeepEqual(one, two)
}

// Memory is what the verbs leave for whoever keeps the kernel side as it was attached:
// the configuration, and whether a detach was begun. It is in two files beside the
// journal, which holds what was made, not why. To read it takes no lock, but what was
// read holds only while one has it: another attach or detach may come in between.
type Memory struct {
	given     string // file of what attach was given
	detaching string // file that is there while a detach is under way, or was killed
}

// NewMemory returns the memory with a path in front of the endings of its files.
func NewMemory(path string) Memory {
	return Memory{given: path + ".config", detaching: path + ".detaching"}
}

// Keep writes what was attached, in one step, also over a detach that was killed. If it
// cannot, nothing is remembered: who keeps the kernel side as it was before would
// work against the attach.
func (m Memory) Keep(g Given) error {
	data, err := json.Marshal(g)
	next := m.given + ".new"
	if err == nil {
		err = os.WriteFile(next, data, 0o600)
	}
	if err == nil {
		err = remove(m.detaching)
	}
	if err == nil {
		err = os.Rename(next, m.given)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("remember the configuration: %w", err), m.forget())
	}
	return nil
}

// Given returns what Keep has written; false where that was never or is not to be kept
// any more. What is there and makes no sense is an error.
func (m Memory) Given() (g Given, kept bool, err error) {
	data, err := os.ReadFile(m.given)
	if errors.Is(err, fs.ErrNotExist) {
		return Given{}, false, nil
	}
	if err != nil {
		return Given{}, false, fmt.Errorf("read which configuration is attached: %w", err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		return Given{}, false, fmt.Errorf("read which configuration is attached: %s: %w; run portreeve attach again", m.given, err)
	}
	if g.Name == "" {
		return Given{}, false, fmt.Errorf("read which configuration is attached: %s names none; run portreeve attach again", m.given)
	}
	return g, true, nil
}

// BeginDetach writes that nothing is to be kept any more. It comes before anything is
// removed, and takes no room on a disk that is full.
func (m Memory) BeginDetach() error {
	err := os.Rename(m.given, m.detaching)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(m.detaching, nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write that a detach is under way: %w", err)
	}
	return nil
}

// Detaching reports whether a detach was begun and has not come to its end.
func (m Memory) Detaching() (bool, error) {
	_, err := os.Lstat(m.detaching)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look whether a detach is under way: %w", err)
	}
	return true, nil
}

// EndDetach removes the memory; the last step of detach.
func (m Memory) EndDetach() error {
	if err := m.forget(); err != nil {
		return fmt.Errorf("remove what was remembered: %w", err)
	}
	return nil
}

// forget removes all files, that of the detach last.
func (m Memory) forget() (failed error) {
	for _, path := range []string{m.given + ".new", m.given, m.detaching} {
		failed = errors.Join(failed, remove(path))
	}
	return failed
}

// remove deletes a file; one that is absent is a success.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
