package steer

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

const (
	fixedBits  = 32 // of struct prefix, those before the address
	mappedBits = 96 // of an IPv4 address mapped into IPv6, those before it
)

// makePrefix returns the key under which the tries hold a prefix and port.
func makePrefix(p netip.Prefix, port uint16) (bpfPrefix, error) {
	if !p.IsValid() || p.Addr().Is4In6() {
		return bpfPrefix{}, fmt.Errorf("prefix %s is neither one of IPv4 nor one of IPv6", p)
	}
	p = p.Masked()
	key := bpfPrefix{
		Bits:     uint32(fixedBits + p.Bits()),
		Family:   unix.AF_INET6,
		Protocol: unix.IPPROTO_TCP,
		Port:     swapPort(port),
	}
	if p.Addr().Is4() {
		key.Bits += mappedBits
		key.Family = unix.AF_INET
	}
	address := p.Addr().As16()
	for i := range key.Address {
		key.Address[i] = binary.NativeEndian.Uint32(address[4*i:])
	}
	return key, nil
}

// prefixOf is the reverse of makePrefix.
func prefixOf(key bpfPrefix) (netip.Prefix, uint16) {
	var address [16]byte
	for i, word := range key.Address {
		binary.NativeEndian.PutUint32(address[4*i:], word)
	}
	bits := int(key.Bits) - fixedBits
	addr := netip.AddrFrom16(address)
	if key.Family == unix.AF_INET {
		addr, bits = addr.Unmap(), bits-mappedBits
	}
	return netip.PrefixFrom(addr, bits), swapPort(key.Port)
}

// swapPort converts a port between the machine's byte order and the network's.
func swapPort(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// eachPrefix calls f for every entry of a trie.
func eachPrefix[V any](m *ebpf.Map, f func(bpfPrefix, V)) error {
	var key bpfPrefix
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		f(key, value)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read %s: %w", m, err)
	}
	return nil
}

func haveBindings(s *pinSet) ([]plan.Item, error) {
	if s.maps[bpfMapBindings] == nil || s.maps[bpfMapServices] == nil {
		return nil, nil
	}
	index, err := s.index()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	err = eachPrefix(s.maps[bpfMapBindings], func(key bpfPrefix, v bpfBinding) {
		items = append(items, bindingOf(key, v, index))
	})
	return items, err
}

// bindingOf reads an entry. A service that is gone has a name that none can
// have, so that the binding differs from any wanted.
func bindingOf(key bpfPrefix, v bpfBinding, index *slots) plan.Binding {
	i := plan.Binding{
		Addressed: v.Flags&bpfBindingFlagsBINDING_ADDRESSED != 0,
		Transit:   v.Flags&bpfBindingFlagsBINDING_TRANSIT != 0,
	}
	i.Prefix, i.Port = prefixOf(key)
	if v.Flags&bpfBindingFlagsBINDING_BYPASS != 0 {
		return i
	}
	if int(v.Service) < len(index.byID) {
		i.Service = index.byID[v.Service].Name
	}
	if i.Service == "" {
		i.Service = gone(v.Service)
	}
	return i
}

func (s *pinSet) makeBinding(i plan.Binding) (bpfBinding, error) {
	v := bpfBinding{Bits: uint32(i.Prefix.Bits())}
	if i.Addressed {
		v.Flags |= bpfBindingFlagsBINDING_ADDRESSED
	}
	if i.Transit {
		v.Flags |= bpfBindingFlagsBINDING_TRANSIT
	}
	if i.Service == "" {
		v.Flags |= bpfBindingFlagsBINDING_BYPASS
		return v, nil
	}
	index, err := s.index()
	if err != nil {
		return v, err
	}
	id, found := index.byName[i.Service]
	if !found {
		return v, fmt.Errorf("bind %s port %d: there is no service %q", i.Prefix, i.Port, i.Service)
	}
	v.Service = id
	return v, nil
}

// putBinding sets the bit of the port before it writes the binding: a crash
// between the two leaves a bit too many, which costs time, but nothing unseen.
func (s *pinSet) putBinding(i plan.Binding) error {
	key, err := makePrefix(i.Prefix, i.Port)
	if err != nil {
		return err
	}
	v, err := s.makeBinding(i)
	if err != nil {
		return err
	}
	ports, err := s.boundPorts()
	if err != nil {
		return err
	}
	targets, err := s.targetsOf()
	if err != nil {
		return err
	}
	if err := targets.set(key, v.Flags); err != nil {
		return err
	}
	return ports.put(key, func() error { return s.maps[bpfMapBindings].Put(key, v) })
}

func (s *pinSet) removeBinding(i plan.Binding) error {
	key, err := makePrefix(i.Prefix, i.Port)
	if err != nil {
		return err
	}
	ports, err := s.boundPorts()
	if err != nil {
		return err
	}
	targets, err := s.targetsOf()
	if err != nil {
		return err
	}
	if err := ports.remove(key, func() error { return s.maps[bpfMapBindings].Delete(key) }); err != nil {
		return err
	}
	return targets.set(key, 0)
}

func haveOrigins(s *pinSet) ([]plan.Item, error) {
	if s.maps[bpfMapOrigins] == nil {
		return nil, nil
	}
	var items []plan.Item
	err := eachPrefix(s.maps[bpfMapOrigins], func(key bpfPrefix, _ bpfOrigin) {
		var i plan.Origin
		i.Prefix, i.Port = prefixOf(key)
		items = append(items, i)
	})
	return items, err
}

func (s *pinSet) putOrigin(i plan.Origin) error {
	key, err := makePrefix(i.Prefix, i.Port)
	if err != nil {
		return err
	}
	ports, err := s.originPorts()
	if err != nil {
		return err
	}
	v := bpfOrigin{Bits: uint32(i.Prefix.Bits())}
	return ports.put(key, func() error { return s.maps[bpfMapOrigins].Put(key, v) })
}

func (s *pinSet) removeOrigin(i plan.Origin) error {
	key, err := makePrefix(i.Prefix, i.Port)
	if err != nil {
		return err
	}
	ports, err := s.originPorts()
	if err != nil {
		return err
	}
	return ports.remove(key, func() error { return s.maps[bpfMapOrigins].Delete(key) })
}
