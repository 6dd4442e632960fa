package steer

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// slots is the index of the map services: which number has which name. One
// read of 16,384 entries replaces as many for each service that is added.
type slots struct {
	byName map[string]uint32
	byID   []plan.Service // an empty name: the number is free
	next   uint32         // no number below is free
}

// readSlots reads the map services in one system call (kernel 5.6).
func readSlots(m *ebpf.Map) (*slots, error) {
	var cursor ebpf.MapBatchCursor
	keys := make([]uint32, m.MaxEntries())
	values := make([]bpfService, len(keys))
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read services: %w", err)
	}
	s := &slots{byName: map[string]uint32{}, byID: make([]plan.Service, len(keys))}
	for i, v := range values[:n] {
		if v.Used == 0 {
			continue
		}
		name := serviceName(v)
		s.byName[name] = keys[i]
		s.byID[keys[i]] = plan.Service{Name: name, Open: v.Open != 0}
	}
	return s, nil
}

func serviceName(v bpfService) string { return string(bytes.TrimRight(v.Name[:], "\x00")) }

// free returns a number for a new service.
func (s *slots) free() (uint32, error) {
	for ; int(s.next) < len(s.byID); s.next++ {
		if s.byID[s.next].Name == "" {
			return s.next, nil
		}
	}
	return 0, fmt.Errorf("there are %d services already, the most that the kernel side holds", len(s.byID))
}

// closed returns how many services fail closed.
func (s *slots) closed() uint32 {
	var n uint32
	for _, i := range s.byID {
		if i.Name != "" && !i.Open {
			n++
		}
	}
	return n
}

func (s *slots) set(id uint32, i plan.Service) {
	s.byName[i.Name] = id
	s.byID[id] = i
}

func (s *slots) clear(id uint32) {
	delete(s.byName, s.byID[id].Name)
	s.byID[id] = plan.Service{}
	s.next = min(s.next, id)
}

// list returns the services by number.
func (s *slots) list() []plan.Service {
	list := make([]plan.Service, 0, len(s.byName))
	for _, i := range s.byID {
		if i.Name != "" {
			list = append(list, i)
		}
	}
	return list
}

// index returns the index of services, read once in the life of the set.
func (s *pinSet) index() (*slots, error) {
	if s.slots != nil {
		return s.slots, nil
	}
	slots, err := readSlots(s.maps[bpfMapServices])
	s.slots = slots
	return slots, err
}

func haveServices(s *pinSet) ([]plan.Item, error) {
	if s.maps[bpfMapServices] == nil {
		return nil, nil
	}
	index, err := s.index()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	for _, i := range index.list() {
		items = append(items, i)
	}
	return items, nil
}

// putService writes a service to its number, or to a free one.
func (s *pinSet) putService(i plan.Service) error {
	v := bpfService{Used: 1}
	if i.Name == "" || len(i.Name) >= len(v.Name) {
		return fmt.Errorf("service name %q has %d octets, not 1 to %d", i.Name, len(i.Name), len(v.Name)-1)
	}
	index, err := s.index()
	if err != nil {
		return err
	}
	id, found := index.byName[i.Name]
	if !found {
		if id, err = index.free(); err != nil {
			return err
		}
	}
	if i.Open {
		v.Open = 1
	}
	copy(v.Name[:], i.Name)
	if err := s.maps[bpfMapServices].Put(id, v); err != nil {
		return fmt.Errorf("write service number %d: %w", id, err)
	}
	index.set(id, i)
	return s.putClosed(index.closed())
}

// removeService frees a service's number and its listeners. The lock keeps an
// inspector from registering by the number of what was there before.
func (s *pinSet) removeService(i plan.Service) error {
	index, err := s.index()
	if err != nil {
		return err
	}
	id, found := index.byName[i.Name]
	if !found {
		return nil
	}
	unlock, err := s.dir.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, slot := range []uint32{slot4(id), slot6(id)} {
		if err := s.maps[bpfMapListeners].Delete(slot); err != nil && !isAbsent(err) {
			return fmt.Errorf("remove the listener in slot %d: %w", slot, err)
		}
	}
	if err := s.maps[bpfMapServices].Put(id, bpfService{}); err != nil {
		return fmt.Errorf("clear service number %d: %w", id, err)
	}
	index.clear(id)
	return s.putClosed(index.closed())
}

// slot4 and slot6 are the slots of a service's listeners, see maps.h.
func slot4(id uint32) uint32 { return 2 * id }
func slot6(id uint32) uint32 { return 2*id + 1 }

// isAbsent tells a missing key; an empty slot of a SOCKMAP is EINVAL to a
// delete (kernels up to 6.18).
func isAbsent(err error) bool {
	return errors.Is(err, ebpf.ErrKeyNotExist) || errors.Is(err, unix.EINVAL)
}

// lock keeps changes of listeners and of service numbers apart between
// processes. It is the kernel's lock on the pin directory, so it ends with its
// holder.
func (d pinDir) lock() (unlock func(), _ error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, fmt.Errorf("lock the pin directory: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func flock(dir *os.File, how int) error {
	if err := unix.Flock(int(dir.Fd()), how); err != nil {
		return fmt.Errorf("lock the pin directory %s: %w", dir.Name(), err)
	}
	return nil
}
