package accept

import (
	"net/netip"
	"slices"

	"github.com/portreeve/portreeve/pkg/plan"
)

// mappedBits is the length of ::ffff:0:0/96, under which IPv4 lives in the
// kernel's map and here.
const mappedBits = 96

// Table finds the binding of an address that a client chose. It decides as the
// kernel's longest-prefix map does: the port must be equal, then the longest
// prefix wins, with IPv4 mapped into IPv6. A Table does not change once made.
type Table struct {
	ports map[uint16]*prefixes
	has6  bool
}

// prefixes are the bindings of one port.
type prefixes struct {
	lengths []int // that occur, longest first
	byKey   map[netip.Prefix]plan.Binding
}

// NewTable returns a table of bindings. Of two with the same prefix and port
// the later one counts, as in the kernel's map.
func NewTable(bindings []plan.Binding) *Table {
	t := &Table{ports: make(map[uint16]*prefixes)}
	for _, b := range bindings {
		t.add(b)
	}
	for _, p := range t.ports {
		slices.SortFunc(p.lengths, func(a, b int) int { return b - a })
	}
	return t
}

// add enters one binding.
func (t *Table) add(b plan.Binding) {
	p := t.ports[b.Port]
	if p == nil {
		p = &prefixes{byKey: make(map[netip.Prefix]plan.Binding)}
		t.ports[b.Port] = p
	}
	key := mapped(b.Prefix)
	if !slices.Contains(p.lengths, key.Bits()) {
		p.lengths = append(p.lengths, key.Bits())
	}
	p.byKey[key] = b
	if b.Service != "" && !b.Prefix.Addr().Unmap().Is4() {
		t.has6 = true
	}
}

// Lookup returns the binding of an address, or false when none covers it or
// the one that does leaves the address alone.
func (t *Table) Lookup(a netip.AddrPort) (plan.Binding, bool) {
	p := t.ports[a.Port()]
	if p == nil {
		return plan.Binding{}, false
	}
	addr := netip.AddrFrom16(a.Addr().As16())
	for _, bits := range p.lengths {
		key, _ := addr.Prefix(bits) // bits came from a prefix: 0 to 128
		if b, ok := p.byKey[key]; ok {
			return b, b.Service != ""
		}
	}
	return plan.Binding{}, false
}

// mapped returns a prefix as the kernel's map holds it: 128 bits, masked.
func mapped(p netip.Prefix) netip.Prefix {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += mappedBits
	}
	return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), bits).Masked()
}
