package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// portsPerWord is the number of ports that one entry of the map ports covers.
const portsPerWord = 64

// portCount keeps one half of the map ports right: the bit of a port is set
// while any prefix in the trie has the port.
type portCount struct {
	bits *ebpf.Map
	word func(*bpfPorts) *uint64 // which half
	uses map[uint16]map[bpfPrefix]bool
}

// boundPorts counts the ports of bindings, read once in the life of the set.
func (s *pinSet) boundPorts() (*portCount, error) {
	if s.bound != nil {
		return s.bound, nil
	}
	c := newPortCount(s.maps[bpfMapPorts], func(p *bpfPorts) *uint64 { return &p.Bound })
	err := eachPrefix(s.maps[bpfMapBindings], func(key bpfPrefix, _ bpfBinding) { c.use(key) })
	if err != nil {
		return nil, err
	}
	s.bound = c
	return c, nil
}

// originPorts counts the ports of origins, read once in the life of the set.
func (s *pinSet) originPorts() (*portCount, error) {
	if s.ours != nil {
		return s.ours, nil
	}
	c := newPortCount(s.maps[bpfMapPorts], func(p *bpfPorts) *uint64 { return &p.Origin })
	err := eachPrefix(s.maps[bpfMapOrigins], func(key bpfPrefix, _ bpfOrigin) { c.use(key) })
	if err != nil {
		return nil, err
	}
	s.ours = c
	return c, nil
}

func newPortCount(bits *ebpf.Map, word func(*bpfPorts) *uint64) *portCount {
	return &portCount{bits: bits, word: word, uses: map[uint16]map[bpfPrefix]bool{}}
}

func (c *portCount) use(key bpfPrefix) {
	port := swapPort(key.Port)
	if c.uses[port] == nil {
		c.uses[port] = map[bpfPrefix]bool{}
	}
	c.uses[port][key] = true
}

// put writes an entry of the trie, after the bit of its port.
func (c *portCount) put(key bpfPrefix, write func() error) error {
	port := swapPort(key.Port)
	if len(c.uses[port]) == 0 {
		if err := c.mark(port, true); err != nil {
			return err
		}
	}
	if err := write(); err != nil {
		return fmt.Errorf("write the prefix: %w", err)
	}
	c.use(key)
	return nil
}

// remove deletes an entry of the trie, and then the bit of a port that no
// other has.
func (c *portCount) remove(key bpfPrefix, drop func() error) error {
	if err := drop(); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove the prefix: %w", err)
	}
	port := swapPort(key.Port)
	delete(c.uses[port], key)
	if len(c.uses[port]) > 0 {
		return nil
	}
	return c.mark(port, false)
}

// mark sets or clears the bit of a port.
func (c *portCount) mark(port uint16, on bool) error {
	var v bpfPorts
	key := uint32(port / portsPerWord)
	if err := c.bits.Lookup(key, &v); err != nil {
		return fmt.Errorf("read the bit of port %d: %w", port, err)
	}
	bit := uint64(1) << (port % portsPerWord)
	if on {
		*c.word(&v) |= bit
	} else {
		*c.word(&v) &^= bit
	}
	if err := c.bits.Put(key, v); err != nil {
		return fmt.Errorf("write the bit of port %d: %w", port, err)
	}
	return nil
}
