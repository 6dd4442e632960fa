package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// targetCount keeps the map targets right: it holds a prefix, with port 0, while
// some transit binding has it, whatever its port. A bypass is no hole in a wider
// prefix here: it leaves one port alone, and a packet that shows no port may be for
// another.
type targetCount struct {
	m    *ebpf.Map
	uses map[bpfPrefix]map[bpfPrefix]bpfBindingFlags // by prefix without port, then with port
}

// targetsOf counts the addresses of bindings, read once in the life of the set.
func (s *pinSet) targetsOf() (*targetCount, error) {
	if s.targets != nil {
		return s.targets, nil
	}
	c := &targetCount{m: s.maps[bpfMapTargets], uses: map[bpfPrefix]map[bpfPrefix]bpfBindingFlags{}}
	err := eachPrefix(s.maps[bpfMapBindings], func(key bpfPrefix, v bpfBinding) { c.use(key, v.Flags) })
	if err != nil {
		return nil, err
	}
	s.targets = c
	return c, nil
}

// portless returns the key of the map for a binding's.
func portless(key bpfPrefix) bpfPrefix {
	key.Port = 0
	return key
}

func (c *targetCount) use(key bpfPrefix, flags bpfBindingFlags) {
	at := portless(key)
	flags &= bpfBindingFlagsBINDING_TRANSIT
	if flags == 0 {
		delete(c.uses[at], key)
		return
	}
	if c.uses[at] == nil {
		c.uses[at] = map[bpfPrefix]bpfBindingFlags{}
	}
	c.uses[at][key] = flags
}

// set says how a binding is from now on; flags 0: there is none.
func (c *targetCount) set(key bpfPrefix, flags bpfBindingFlags) error {
	c.use(key, flags)
	at := portless(key)
	var v bpfTarget
	for _, flags := range c.uses[at] {
		v.Flags |= flags
	}
	if v.Flags == 0 {
		if err := c.m.Delete(at); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove the target: %w", err)
		}
		return nil
	}
	if err := c.m.Put(at, v); err != nil {
		return fmt.Errorf("write the target: %w", err)
	}
	return nil
}
