package route

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

const table = 1025 // beyond what fits into a message's header

// everything is the routing of transit and forging in both families.
func everything() []plan.Item {
	var items []plan.Item
	for _, f := range families {
		items = append(items, plan.Route{Family: f, Table: table},
			plan.Rule{Family: f, Interface: "ext0", Mark: 1 << 24, Table: table, Priority: 100},
			plan.Rule{Family: f, Interface: "dmz0", Mark: 1 << 31, Table: table, Priority: 100})
	}
	return append(items, plan.Qdisc{Interface: "ext0"}, plan.Qdisc{Interface: "dmz0"})
}

// foreign is another's routing, almost like ours.
const foreign = `
for f in -4 -6; do
	ip $f rule add pref 100 iif ext0 fwmark 0x1000000/0x1000000 lookup 77 protocol kernel
	ip $f rule add pref 100 iif ext0 fwmark 0x1000000/0x3000000 lookup 1025 protocol kernel
	ip $f rule add pref 100 iif ext0 fwmark 0x1000000/0x1000000 lookup 1025 protocol static
	ip $f rule add pref 101 fwmark 0x1000000/0x1000000 lookup 1025 protocol kernel
	ip $f rule add pref 101 iif ext0 oif dmz0 fwmark 0x1000000/0x1000000 lookup 1025 protocol kernel
	ip $f rule add pref 102 iif ext0 fwmark 0x1000000/0x1000000 lookup 1025 suppress_prefixlength 0 protocol kernel
	ip $f rule add not pref 103 iif ext0 fwmark 0x1000000/0x1000000 lookup 1025 protocol kernel
	ip $f rule add pref 104 iif ext0 fwmark 0x1000000/0x1000000 tos 0x10 lookup 1025 protocol kernel
	ip $f rule add pref 105 iif ext0 fwmark 0x1000000/0x1000000 ipproto tcp dport 25 lookup 1025 protocol kernel
	ip $f route add local default dev lo table 77
	ip $f route add local default dev lo table 78 proto kernel
	ip $f route add blackhole default table 79 proto 25
done
ip route add local 10.9.0.0/16 dev lo table 1025 proto 25
tc qdisc add dev dmz0 clsact
tc filter add dev dmz0 egress prio 2525 protocol all bpf da bytecode '1,6 0 0 4294967295,'`

func run(t *testing.T, h *Hand, changes []plan.Change) {
	t.Helper()
	for _, c := range changes {
		var err error
		switch c.Op {
		case plan.Add:
			err = h.Add(c.Item)
		case plan.Remove:
			err = h.Remove(c.Item)
		case plan.Replace:
			err = h.Replace(c.Old, c.Item)
		}
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
}

func have(t *testing.T, h *Hand) []plan.Item {
	t.Helper()
	items, err := h.Have()
	if err != nil {
		t.Fatalf("Have: %v", err)
	}
	return items
}

func lines(items []plan.Item) string {
	var all []string
	for _, i := range items {
		all = append(all, i.String())
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestWhatIsAddedIsReadBack(t *testing.T) {
	isolate(t)
	before := snapshot(t)
	h := New(Options{})
	run(t, h, plan.Diff(have(t, h), everything()))
	if diff := cmp.Diff(lines(everything()), lines(have(t, h))); diff != "" {
		t.Errorf("after attach (-want +have):\n%s", diff)
	}
	attached := snapshot(t)
	contain(t, attached, "100:\tfrom all fwmark 0x1000000/0x1000000 iif ext0 lookup 1025 proto kernel")
	contain(t, attached, "100:\tfrom all fwmark 0x80000000/0x80000000 iif dmz0 lookup 1025 proto kernel")
	contain(t, attached, "local default dev lo table 1025 proto 25 scope host")
	contain(t, attached, "qdisc clsact ffff: dev ext0 parent ffff:fff1")

	run(t, h, plan.Diff(nil, everything())) // present is a success
	for _, i := range everything() {
		if err := h.Replace(i, i); err != nil {
			t.Errorf("Replace %s: %v", i, err)
		}
	}
	if diff := cmp.Diff(attached, snapshot(t)); diff != "" {
		t.Errorf("a second attach changed (-once +twice):\n%s", diff)
	}

	gone := plan.Diff(everything(), nil)
	run(t, h, gone)
	run(t, h, gone) // absent is a success
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func TestForeignIsUntouched(t *testing.T) {
	isolate(t)
	h := New(Options{Tables: []uint32{table}})
	var ours []plan.Item
	for _, i := range everything() {
		if i.Kind() != plan.KindQdisc {
			ours = append(ours, i)
		}
	}
	run(t, h, plan.Diff(nil, ours))
	sh(t, foreign)
	mixed := snapshot(t)
	want := append(slices.Clone(ours), plan.Qdisc{Interface: "dmz0"}) // whoever made it
	if diff := cmp.Diff(lines(want), lines(have(t, h))); diff != "" {
		t.Errorf("beside foreign rules (-want +have):\n%s", diff)
	}
	run(t, h, plan.Diff(nil, ours))
	if diff := cmp.Diff(mixed, snapshot(t)); diff != "" {
		t.Errorf("a second attach changed (-before +after):\n%s", diff)
	}
	run(t, h, plan.Diff(have(t, h), nil))
	after := snapshot(t)

	isolate(t) // the same without us
	sh(t, foreign)
	if diff := cmp.Diff(withoutMACs(snapshot(t)), withoutMACs(after)); diff != "" {
		t.Errorf("foreign things changed (-alone +after us):\n%s", diff)
	}
}

// withoutMACs drops what two fresh pairs of interfaces differ in.
func withoutMACs(s string) string {
	var kept []string
	for _, l := range strings.Split(s, "\n") {
		if !strings.Contains(l, "fe80::") {
			kept = append(kept, programNumber.ReplaceAllString(l, ""))
		}
	}
	return strings.Join(kept, "\n")
}

func TestRulesWithoutRouteNeedTheTable(t *testing.T) {
	isolate(t)
	run(t, New(Options{}), plan.Diff(nil, everything()))
	sh(t, "ip route flush table 1025; ip -6 route flush table 1025")
	count := func(h *Hand) (n int) {
		for _, i := range have(t, h) {
			if i.Kind() == plan.KindRule {
				n++
			}
		}
		return n
	}
	if n := count(New(Options{})); n != 0 {
		t.Errorf("without a name for the table %d rules were taken for ours", n)
	}
	if n := count(New(Options{Tables: []uint32{77, table}})); n != 4 {
		t.Errorf("with the table named %d rules were found, want 4", n)
	}
}

func TestRemoveSparesTheRuleInFront(t *testing.T) {
	isolate(t)
	rule := plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 1 << 24, Table: table, Priority: 100}
	sh(t, "ip rule add pref 100 iif ext0 fwmark 0x1000000/0x1000000 ipproto tcp lookup 1025 protocol kernel")
	h := New(Options{Tables: []uint32{table}})
	run(t, h, []plan.Change{{Op: plan.Add, Item: rule}})
	before := snapshot(t)
	err := h.Remove(rule)
	if err == nil || !strings.Contains(err.Error(), "ipproto") {
		t.Errorf("error %v does not name the rule in front", err)
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestUsedTableIsRefused(t *testing.T) {
	for _, tc := range []struct{ name, setup, want string }{
		{"default route", "ip route add local default dev lo table 1025", `routing table 1025 is used by others, it holds "local 0.0.0.0/0 dev lo table 1025 proto 3": set kernel.table to a free one`},
		{"any route", "ip route add 10.0.0.0/8 dev ext0 table 1025", `routing table 1025 is used by others, it holds "unicast 10.0.0.0/8 dev ext0 table 1025 proto 3": set kernel.table to a free one`},
		{"rule", "ip rule add pref 7 from 10.0.0.0/8 lookup 1025", `routing table 1025 is used by others, the rule "IPv4 pref 7 from 10.0.0.0/8 lookup 1025 proto 0" leads to it: set kernel.table to a free one`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			isolate(t)
			sh(t, tc.setup)
			before := snapshot(t)
			err := New(Options{}).Add(plan.Route{Family: plan.IPv4, Table: table})
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v\nwant  %s", err, tc.want)
			}
			if diff := cmp.Diff(before, snapshot(t)); diff != "" {
				t.Errorf("changed (-before +after):\n%s", diff)
			}
		})
	}
}

// What others have put into a table of ours since keeps our route from coming back no more
// than it keeps it from being there.
func TestRouteComesBackBesideOthers(t *testing.T) {
	isolate(t)
	want := plan.Route{Family: plan.IPv4, Table: table}
	h := New(Options{Made: []uint32{table}})
	run(t, h, []plan.Change{{Op: plan.Add, Item: want}})
	sh(t, "ip route add 10.0.0.0/8 dev ext0 table 1025; ip rule add pref 7 from 10.0.0.0/8 lookup 1025; ip route del local default table 1025")
	run(t, h, []plan.Change{{Op: plan.Add, Item: want}})
	contain(t, lines(have(t, h)), want.String())
	contain(t, sh(t, "ip route show table 1025"), "10.0.0.0/8 dev ext0")
}

func TestQdiscStaysWhileFiltersAreInIt(t *testing.T) {
	for _, hook := range []string{"ingress", "egress"} {
		t.Run(hook, func(t *testing.T) {
			isolate(t)
			h := New(Options{})
			q := plan.Qdisc{Interface: "ext0"}
			run(t, h, []plan.Change{{Op: plan.Add, Item: q}})
			sh(t, "tc filter add dev ext0 "+hook+" prio 7 protocol all bpf da bytecode '1,6 0 0 4294967295,'")
			before := snapshot(t)
			run(t, h, []plan.Change{{Op: plan.Remove, Item: q}})
			if diff := cmp.Diff(before, snapshot(t)); diff != "" {
				t.Errorf("changed (-before +after):\n%s", diff)
			}
			sh(t, "tc filter del dev ext0 "+hook+" prio 7")
			run(t, h, []plan.Change{{Op: plan.Remove, Item: q}})
			if left := have(t, h); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestOldIngressQdiscServes(t *testing.T) {
	isolate(t)
	sh(t, "tc qdisc add dev ext0 ingress")
	before := snapshot(t)
	h := New(Options{})
	q := plan.Qdisc{Interface: "ext0"}
	if got := lines(have(t, h)); got != q.String() {
		t.Errorf("Have is %q", got)
	}
	run(t, h, []plan.Change{{Op: plan.Add, Item: q}, {Op: plan.Remove, Item: q}})
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestMissingInterfaceIsNamed(t *testing.T) {
	isolate(t)
	there, err := net.Interfaces() // a kernel with tunnels gives each namespace gre0, sit0 and others
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range there {
		names = append(names, i.Name)
	}
	if !slices.Contains(names, "ext0") || !slices.Contains(names, "dmz0") {
		t.Fatalf("interfaces %v", names)
	}
	want := "interface ext7: no such interface; there are " + strings.Join(names, ", ")
	_, asked := Interface("ext7")
	tc := plan.TC{Interface: "ext7", Side: plan.ClientSide, Clsact: true}
	for what, err := range map[string]error{
		"Interface":   asked,
		"Qdisc":       New(Options{}).Add(plan.Qdisc{Interface: "ext7"}),
		"Filters.Add": NewFilters(nil).Add(tc, program(t, "x")),
	} {
		if err == nil || err.Error() != want || !errors.Is(err, ErrNoInterface) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	if err := New(Options{}).Remove(plan.Qdisc{Interface: "ext7"}); err != nil {
		t.Errorf("Remove of an absent interface's qdisc: %v", err)
	}
	if err := NewFilters(nil).Remove(tc); err != nil {
		t.Errorf("Remove of an absent interface's filter: %v", err)
	}
}

func TestInterfaceThatVanished(t *testing.T) {
	isolate(t)
	h := New(Options{})
	run(t, h, plan.Diff(nil, everything()))
	sh(t, "ip link del ext0")
	var rules int
	for _, i := range have(t, h) {
		if i.Kind() == plan.KindRule {
			rules++
		}
	}
	if rules != 4 {
		t.Errorf("%d of 4 rules are found after their interfaces vanished", rules)
	}
	run(t, h, plan.Diff(everything(), nil))
	if left := have(t, h); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLoopbackDownIsExplained(t *testing.T) {
	isolate(t)
	sh(t, "ip link set lo down")
	err := New(Options{}).Add(plan.Route{Family: plan.IPv6, Table: table})
	if err == nil || !strings.Contains(err.Error(), "ip link set dev lo up") {
		t.Errorf("error %v names no remedy", err)
	}
}

// TestConcurrentAttach runs several attaches at once in one namespace.
func TestConcurrentAttach(t *testing.T) {
	isolate(t)
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			for _, c := range plan.Diff(nil, everything()) {
				if err := New(Options{}).Add(c.Item); err != nil {
					t.Errorf("%s: %v", c, err)
				}
			}
		})
	}
	running.Wait()
	if diff := cmp.Diff(lines(everything()), lines(have(t, New(Options{})))); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	run(t, New(Options{}), plan.Diff(everything(), nil))
	if left := have(t, New(Options{})); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
