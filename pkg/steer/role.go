package steer

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"

	"github.com/portreeve/portreeve/pkg/plan"
)

func haveRoles(s *pinSet) ([]plan.Item, error) {
	m := s.maps[bpfMapRoles]
	if m == nil {
		return nil, nil
	}
	names, err := ifaceNames()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	var index, side uint32
	entries := m.Iterate()
	for entries.Next(&index, &side) {
		items = append(items, plan.Role{Interface: nameOf(names, index), Side: plan.Side(side)})
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	return items, nil
}

// putRole refuses the loopback interface: mail of the gateway itself would be
// caught.
func (s *pinSet) putRole(i plan.Role) error {
	iface, err := net.InterfaceByName(i.Interface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", i.Interface, err)
	}
	if iface.Flags&net.FlagLoopback != 0 {
		return fmt.Errorf("interface %s is a loopback interface, whose traffic is never steered", i.Interface)
	}
	if err := s.maps[bpfMapRoles].Put(uint32(iface.Index), uint32(i.Side)); err != nil {
		return fmt.Errorf("write the role of interface %s: %w", i.Interface, err)
	}
	return nil
}

// removeRole succeeds when the interface went away in between: its role shows
// as one of an interface that is gone from then on.
func (s *pinSet) removeRole(i plan.Role) error {
	index, isGone := Gone(i.Interface)
	if !isGone {
		iface, err := net.InterfaceByName(i.Interface)
		if err != nil {
			return nil
		}
		index = uint32(iface.Index)
	}
	if err := s.maps[bpfMapRoles].Delete(index); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove the role of interface %s: %w", i.Interface, err)
	}
	return nil
}
