package apply

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Journal is the list of items that we have made or were about to make, in a
// file of one JSON object a line. A line is on disk before the kernel is
// changed. The file is in a directory that does not survive a reboot, as the
// things that it lists do not.
type Journal struct {
	path  string
	file  *os.File // nil until the first intent
	since time.Time
	items map[string]intent // by type and key
	next  int
	torn  bool  // the file ends in the middle of a line
	stale error // why the file does not say all that is gone
}

// intent is an item with its place in the order of making.
type intent struct {
	item plan.Item
	seq  int
}

// entry is a line of the file.
type entry struct {
	Time   time.Time       `json:"time"`
	Forget bool            `json:"forget,omitempty"`
	Kind   string          `json:"kind"`
	Item   json.RawMessage `json:"item"`
}

// OpenJournal reads the journal at path; a missing file is an empty journal.
// A last line that a crash cut off is ignored: what it announced was not
// begun.
func OpenJournal(path string) (*Journal, error) {
	j := &Journal{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	j.torn = len(data) > 0 && !bytes.HasSuffix(data, []byte("\n"))
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for lines.Scan() {
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		item, err := plan.Decode(e.Kind, e.Item)
		if err != nil {
			return nil, fmt.Errorf("read journal %s: %w", path, err)
		}
		j.note(e.Time, item, e.Forget)
	}
	return j, lines.Err()
}

// Items returns what the journal holds, in the order of its making.
func (j *Journal) Items() []plan.Item {
	held := slices.SortedFunc(maps.Values(j.items), func(a, b intent) int { return a.seq - b.seq })
	items := make([]plan.Item, len(held))
	for n, i := range held {
		items[n] = i.item
	}
	return items
}

// Since returns when the first item still held was made, or zero.
func (j *Journal) Since() time.Time { return j.since }

// Holds reports whether the journal has the item.
func (j *Journal) Holds(i plan.Item) bool {
	_, held := j.items[keyOf(i)]
	return held
}

// Intend writes that the item is about to be made. What the journal holds already
// needs no room for another line: it can be put back also when the disk is full.
func (j *Journal) Intend(i plan.Item) error {
	if held, is := j.items[keyOf(i)]; is && held.item == i {
		return nil
	}
	now := time.Now().UTC()
	if err := j.write(now, i, false); err != nil {
		return err
	}
	j.note(now, i, false)
	return nil
}

// Forget writes that the item is gone. That cannot fail: what is gone stays
// gone, also with a full disk. Stale tells whether it is in the file.
func (j *Journal) Forget(i plan.Item) {
	if !j.Holds(i) {
		return
	}
	now := time.Now().UTC()
	if err := j.write(now, i, true); err != nil {
		j.stale = err
	}
	j.note(now, i, true)
}

// Stale returns why the file still lists items that are gone; nil if it does
// not. Settle and Remove put it right.
func (j *Journal) Stale() error { return j.stale }

// Settle makes the journal hold exactly these items, without the history of
// how it came to be: one line an item. It replaces the file in one step, or
// leaves it alone when it says so already.
func (j *Journal) Settle(items []plan.Item) error {
	if len(items) == 0 {
		return j.Remove()
	}
	var b bytes.Buffer
	for _, i := range items {
		line, err := encode(j.since, i, false)
		if err != nil {
			return err
		}
		b.Write(line)
	}
	if j.unchanged(b.Bytes()) {
		return nil
	}
	if err := j.replace(b.Bytes()); err != nil {
		if j.says(items) {
			return nil // the history only makes it longer
		}
		return err
	}
	since := j.since
	j.items = nil
	for _, i := range items {
		j.note(since, i, false)
	}
	return nil
}

// replace puts another file in place of the journal's, in one step.
func (j *Journal) replace(data []byte) error {
	next := j.path + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		os.Remove(next) // it may be begun
		return fmt.Errorf("write journal: %w", err)
	}
	if err := os.Rename(next, j.path); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.close()
	j.torn, j.stale = false, nil
	return nil
}

// Remove deletes the journal; the last step of detach.
func (j *Journal) Remove() error {
	j.close()
	j.items, j.since, j.torn, j.stale = nil, time.Time{}, false, nil
	for _, path := range []string{j.path + ".new", j.path} {
		if err := remove(path); err != nil {
			return fmt.Errorf("remove journal: %w", err)
		}
	}
	return nil
}

// says reports whether the file as it is lists just these items.
func (j *Journal) says(items []plan.Item) bool {
	if j.stale != nil || len(items) != len(j.items) {
		return false
	}
	for _, i := range items {
		if held, ok := j.items[keyOf(i)]; !ok || held.item != i {
			return false
		}
	}
	return true
}

func (j *Journal) unchanged(want []byte) bool {
	have, err := os.ReadFile(j.path)
	return err == nil && bytes.Equal(have, want)
}

// write appends a line. One that a crash or a full disk has cut off is ended
// first, or this one would be lost with it.
func (j *Journal) write(at time.Time, i plan.Item, forget bool) error {
	line, err := encode(at, i, forget)
	if err != nil {
		return err
	}
	if j.file == nil {
		if j.file, err = os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	if j.torn {
		line = append([]byte("\n"), line...)
	}
	if _, err := j.file.Write(line); err != nil {
		j.torn = true
		return fmt.Errorf("write journal: %w", err)
	}
	j.torn = false
	return nil
}

// note keeps the list in step with the file.
func (j *Journal) note(at time.Time, i plan.Item, forget bool) {
	key := keyOf(i)
	if forget {
		delete(j.items, key)
		return
	}
	if len(j.items) == 0 {
		j.items, j.since = map[string]intent{}, at
	}
	seq := j.next
	if before, held := j.items[key]; held {
		seq = before.seq
	} else {
		j.next++
	}
	j.items[key] = intent{i, seq}
}

func keyOf(i plan.Item) string { return plan.TypeOf(i) + " " + i.Key() }

func (j *Journal) close() {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

func encode(at time.Time, i plan.Item, forget bool) ([]byte, error) {
	item, err := json.Marshal(i)
	if err != nil {
		return nil, fmt.Errorf("write journal: %s: %w", i, err)
	}
	line, err := json.Marshal(entry{Time: at, Forget: forget, Kind: plan.TypeOf(i), Item: item})
	return append(line, '\n'), err
}
