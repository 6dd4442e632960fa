package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// PolicyRule is a policy rule, ours or another's.
type PolicyRule struct {
	Family   plan.Family
	Priority uint32
	Inverted bool         // applies to what does not match
	From     netip.Prefix // invalid: any
	To       netip.Prefix // invalid: any
	In       string       // iif, may be empty
	Out      string       // oif, may be empty
	Mark     uint32       // matched under Mask
	Mask     uint32       // 0: the mark does not matter
	Table    uint32       // 0: another action than a lookup
	Protocol uint8        // RTPROT number: 2 kernel, 3 boot, 4 static
	Others   []string     // further selectors and actions
}

// String shows the rule much as `ip rule` does.
func (r PolicyRule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s pref %d", r.Family, r.Priority)
	if r.Inverted {
		b.WriteString(" not")
	}
	for _, s := range []struct {
		word  string
		value netip.Prefix
	}{{"from", r.From}, {"to", r.To}} {
		if s.value.IsValid() {
			fmt.Fprintf(&b, " %s %s", s.word, s.value)
		}
	}
	if r.In != "" {
		fmt.Fprintf(&b, " iif %s", r.In)
	}
	if r.Out != "" {
		fmt.Fprintf(&b, " oif %s", r.Out)
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark 0x%x/0x%x", r.Mark, r.Mask)
	}
	for _, o := range r.Others {
		b.WriteString(" " + o)
	}
	if r.Table != 0 {
		fmt.Fprintf(&b, " lookup %d", r.Table)
	}
	fmt.Fprintf(&b, " proto %d", r.Protocol)
	return b.String()
}

// ownShape reports whether the rule has exactly the selectors of ours: an
// interface and one mark bit, protocol kernel, a lookup, and nothing else.
func (r PolicyRule) ownShape() bool {
	return r.Protocol == unix.RTPROT_KERNEL && r.In != "" && r.Out == "" &&
		!r.From.IsValid() && !r.To.IsValid() && !r.Inverted && len(r.Others) == 0 &&
		r.Mark == r.Mask && r.Mask != 0 && r.Mask&(r.Mask-1) == 0 && r.Table != 0
}

// item returns the rule as plan knows it.
func (r PolicyRule) item() plan.Rule {
	return plan.Rule{Family: r.Family, Interface: r.In, Mark: r.Mark, Table: r.Table, Priority: r.Priority}
}

// PolicyRules returns all rules of both families, by family in the order in
// which the kernel tries them.
func PolicyRules() ([]PolicyRule, error) {
	var all []PolicyRule
	for _, f := range families {
		some, err := collect(unix.RTM_GETRULE, nl.NewIfInfomsg(int(afOf(f))), func(m []byte) (PolicyRule, bool) {
			if len(m) < unix.SizeofRtMsg {
				return PolicyRule{}, false
			}
			h := nl.DeserializeRtMsg(m)
			return parseRule(h, attributes(m, unix.SizeofRtMsg)), h.Family == afOf(f)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s rules: %w", f, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// frActToTable is FR_ACT_TO_TBL: the rule is a lookup.
const frActToTable = 1

// parseRule reads a rule. The fields of its header lie where a route's do:
// the action is in Type, the number of bits in Dst_len and Src_len.
func parseRule(h *nl.RtMsg, a map[uint16][]byte) PolicyRule {
	r := PolicyRule{
		Family:   familyOf(h.Family),
		Priority: number(a[nl.FRA_PRIORITY]),
		Inverted: h.Flags&netlink.FibRuleInvert != 0,
		In:       text(a[nl.FRA_IIFNAME]),
		Out:      text(a[nl.FRA_OIFNAME]),
		Mark:     number(a[nl.FRA_FWMARK]),
		Mask:     number(a[nl.FRA_FWMASK]),
	}
	if p := a[nl.FRA_PROTOCOL]; len(p) > 0 {
		r.Protocol = p[0]
	}
	if _, given := a[nl.FRA_SRC]; given {
		r.From = prefix(h.Family, a[nl.FRA_SRC], h.Src_len)
	}
	if _, given := a[nl.FRA_DST]; given {
		r.To = prefix(h.Family, a[nl.FRA_DST], h.Dst_len)
	}
	if h.Type == frActToTable {
		r.Table = uint32(h.Table)
		if t, long := a[nl.FRA_TABLE]; long {
			r.Table = number(t)
		}
	}
	r.Others = others(h, a)
	return r
}

// others names what PolicyRule has no field for. A selector that is newer
// than this program is among them: a rule that has one is never ours.
func others(h *nl.RtMsg, a map[uint16][]byte) []string {
	var found []string
	if h.Type != frActToTable {
		found = append(found, fmt.Sprintf("action %d", h.Type))
	}
	if h.Tos != 0 {
		found = append(found, fmt.Sprintf("tos 0x%02x", h.Tos))
	}
	for t, value := range a {
		if s := show(t, value); s != "" {
			found = append(found, s)
		}
	}
	slices.Sort(found)
	return found
}

// The masks of ports are newer than the library (kernel 6.15).
const (
	fraSportMask = 28
	fraDportMask = 29
)

// show returns a selector in words, "" for one that has a field or means
// nothing.
func show(t uint16, value []byte) string {
	order := nl.NativeEndian()
	switch t {
	case nl.FRA_DST, nl.FRA_SRC, nl.FRA_IIFNAME, nl.FRA_OIFNAME, nl.FRA_PRIORITY, nl.FRA_FWMARK,
		nl.FRA_FWMASK, nl.FRA_TABLE, nl.FRA_PROTOCOL, nl.FRA_PAD:
		return ""
	case nl.FRA_SUPPRESS_PREFIXLEN, nl.FRA_SUPPRESS_IFGROUP:
		if number(value) == 0xffffffff { // the kernel's "none"
			return ""
		}
	case fraSportMask, fraDportMask:
		if len(value) == 2 && order.Uint16(value) == 0xffff { // all of the port
			return ""
		}
	case nl.FRA_SPORT_RANGE, nl.FRA_DPORT_RANGE:
		if len(value) == 4 {
			return fmt.Sprintf("%s %d-%d", selector(t), order.Uint16(value), order.Uint16(value[2:]))
		}
	case nl.FRA_UID_RANGE:
		if len(value) == 8 {
			return fmt.Sprintf("%s %d-%d", selector(t), order.Uint32(value), order.Uint32(value[4:]))
		}
	}
	switch len(value) {
	case 1:
		return fmt.Sprintf("%s %d", selector(t), value[0])
	case 4:
		return fmt.Sprintf("%s %d", selector(t), order.Uint32(value))
	}
	return fmt.Sprintf("%s 0x%x", selector(t), value)
}

func selector(t uint16) string {
	names := map[uint16]string{
		nl.FRA_GOTO: "goto", nl.FRA_FLOW: "realms", nl.FRA_TUN_ID: "tun_id",
		nl.FRA_SUPPRESS_IFGROUP: "suppress_ifgroup", nl.FRA_SUPPRESS_PREFIXLEN: "suppress_prefixlength",
		nl.FRA_L3MDEV: "l3mdev", nl.FRA_UID_RANGE: "uidrange", nl.FRA_IP_PROTO: "ipproto",
		nl.FRA_SPORT_RANGE: "sport", nl.FRA_DPORT_RANGE: "dport",
		fraSportMask: "sport_mask", fraDportMask: "dport_mask",
	}
	if n, known := names[t]; known {
		return n
	}
	return fmt.Sprintf("selector %d", t)
}

// ownRules returns the rules of our shape that lead to a table of ours: one
// that holds our route, or that the options name.
func (h *Hand) ownRules(own []TableRoute) ([]PolicyRule, error) {
	tables := slices.Clone(h.tables)
	for _, r := range own {
		tables = append(tables, r.Table)
	}
	all, err := PolicyRules()
	return slices.DeleteFunc(all, func(r PolicyRule) bool {
		return !r.ownShape() || !slices.Contains(tables, r.Table)
	}), err
}

// addRule makes a rule. The protocol is kernel because systemd-networkd
// deletes the rules of all others when it starts (ManageForeignRoutingPolicyRules).
func addRule(r plan.Rule) error {
	err := netlink.RuleAdd(libraryRule(r))
	if !errors.Is(err, unix.EEXIST) {
		return explain(err)
	}
	if _, found, err := positions(r); err != nil || found {
		return err
	}
	return fmt.Errorf("a rule of another with the same priority, interface and mark is in the way: set kernel.priority to a free one: %w", err)
}

// removeRule deletes a rule. The kernel deletes the first rule that has what
// the request names, and a rule may have more selectors than ours: were such
// a one first, it would go in place of ours. Then nothing is deleted.
func removeRule(r plan.Rule) error {
	ahead, found, err := positions(r)
	if err != nil || !found {
		return err
	}
	if ahead != nil {
		return fmt.Errorf("the kernel would delete the rule %q in its place, which is not ours: delete that one first and put it back afterwards", ahead)
	}
	if err := netlink.RuleDel(libraryRule(r)); err != nil && !gone(err) {
		return explain(err)
	}
	return nil
}

// positions looks for our rule, and for a foreign one before it that a
// request to delete ours would hit.
func positions(r plan.Rule) (ahead *PolicyRule, found bool, err error) {
	all, err := PolicyRules()
	if err != nil {
		return nil, false, err
	}
	for _, have := range all {
		if have.Protocol != unix.RTPROT_KERNEL || have.item() != r {
			continue
		}
		if have.ownShape() {
			return ahead, true, nil
		}
		if ahead == nil {
			ahead = &have
		}
	}
	return nil, false, nil
}

// libraryRule is the rule as the library wants it.
func libraryRule(r plan.Rule) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = int(afOf(r.Family))
	rule.Priority = int(r.Priority)
	rule.IifName = r.Interface
	rule.Mark = r.Mark
	rule.Mask = &r.Mark
	rule.Table = int(r.Table)
	rule.Protocol = unix.RTPROT_KERNEL
	rule.Type = unix.RTN_UNICAST
	return rule
}
