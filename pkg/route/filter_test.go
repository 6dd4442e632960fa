package route

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/portreeve/portreeve/pkg/plan"
)

var programNumber = regexp.MustCompile(` (id|tag|jited|name) [0-9a-f]+`)

var (
	client = plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: true}
	origin = plan.TC{Interface: "ext0", Side: plan.OriginSide, Clsact: true}
	wall   = plan.TC{Interface: "ext0", Side: plan.OriginSide, Clsact: true, Egress: true}
)

func filtersAt0(t *testing.T, f *Filters) []plan.TC {
	t.Helper()
	have, err := f.Have()
	if err != nil {
		t.Fatalf("Have: %v", err)
	}
	return have
}

func add(t *testing.T, f *Filters, tc plan.TC, fd int) {
	t.Helper()
	if err := f.Add(tc, fd); err != nil {
		t.Fatalf("Add %s: %v", tc, err)
	}
}

// foreignFilters are of one priority, handle and even name with ours, or in
// the way of our priority.
const foreignFilters = `
tc filter add dev ext0 ingress prio 1 protocol all handle 0x25 bpf da bytecode '1,6 0 0 4294967295,'
tc filter add dev ext0 ingress prio 2526 protocol ip bpf da bytecode '1,6 0 0 4294967295,'
tc filter add dev ext0 egress prio 2525 protocol all bpf da bytecode '1,6 0 0 4294967295,'`

func TestFilterRoundTrip(t *testing.T) {
	for _, kind := range []string{"clsact", "ingress"} {
		t.Run(kind, func(t *testing.T) {
			isolate(t)
			sh(t, "tc qdisc add dev ext0 "+kind)
			before := snapshot(t)
			f := NewFilters(nil)
			one, two := program(t, "one"), program(t, "two")
			add(t, f, client, one)
			add(t, f, origin, two)
			if n := len(filtersAt0(t, f)); n != 2 {
				t.Errorf("%d filters, want 2", n)
			}
			attached := snapshot(t)
			contain(t, attached, "portreeve_client direct-action")
			contain(t, attached, "portreeve_origin direct-action")
			add(t, f, client, one)
			if diff := cmp.Diff(attached, snapshot(t)); diff != "" {
				t.Errorf("a second Add changed (-once +twice):\n%s", diff)
			}
			for _, tc := range []plan.TC{client, origin, client} {
				if err := f.Remove(tc); err != nil {
					t.Errorf("Remove %s: %v", tc, err)
				}
			}
			if diff := cmp.Diff(before, snapshot(t)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// The kernel takes a filter for the egress of the old qdisc, and puts it at the
// ingress.
func TestNoWallWithoutEgress(t *testing.T) {
	isolate(t)
	sh(t, "tc qdisc add dev ext0 ingress")
	before := snapshot(t)
	f := NewFilters(nil)
	err := f.Add(wall, program(t, "one"))
	if err == nil || !strings.Contains(err.Error(), "the qdisc ingress on ext0 has no egress") {
		t.Errorf("Add: %v", err)
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestForeignFiltersAreUntouched(t *testing.T) {
	isolate(t)
	sh(t, "tc qdisc add dev ext0 clsact"+foreignFilters)
	before := snapshot(t)
	f := NewFilters(nil)
	if ahead, err := f.Ahead("ext0"); err != nil || len(ahead) > 0 {
		t.Errorf("ahead of nothing: %v %v", ahead, err)
	}
	add(t, f, client, program(t, "one"))
	contain(t, snapshot(t), "pref 2 bpf chain 0 handle 0x25 portreeve_client")
	if ahead, err := f.Ahead("ext0"); err != nil || len(ahead) != 1 || !strings.HasPrefix(ahead[0], "tc filter dev ext0 ingress pref 1 bpf") {
		t.Errorf("ahead: %q %v", ahead, err)
	}
	if err := f.Remove(client); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(origin); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("foreign filters changed (-before +after):\n%s", diff)
	}
}

// TestWallIsAtEgress: beside the filters at ingress, and in nobody's way.
func TestWallIsAtEgress(t *testing.T) {
	isolate(t)
	sh(t, "tc qdisc add dev ext0 clsact")
	before := snapshot(t)
	f := NewFilters(nil)
	one := program(t, "one")
	for _, tc := range []plan.TC{client, origin, wall} {
		add(t, f, tc, one)
	}
	if n := len(filtersAt0(t, f)); n != 3 {
		t.Errorf("%d filters, want 3", n)
	}
	l, err := findLink("ext0")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filtersAt(l.Attrs().Index, netlink.HANDLE_MIN_EGRESS)
	if err != nil || len(f.own(found, wall)) != 1 || len(f.own(found, origin)) != 0 {
		t.Errorf("at egress: %v %v", found, err)
	}
	for _, tc := range []plan.TC{wall, client, origin} {
		if err := f.Remove(tc); err != nil {
			t.Errorf("Remove %s: %v", tc, err)
		}
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestNewProgramReplacesOld: the name stays, the program is another.
func TestNewProgramReplacesOld(t *testing.T) {
	isolate(t)
	sh(t, "tc qdisc add dev ext0 clsact")
	f := NewFilters(nil)
	add(t, f, client, program(t, "one"))
	first := only(t)
	fd := program(t, "two")
	add(t, f, client, fd)
	second := only(t)
	if number, err := programOf(fd); err != nil || second.program != number {
		t.Errorf("the filter's program is %d, want %d (%v)", second.program, number, err)
	}
	if first.program == second.program {
		t.Error("the program is still the old one")
	}
	runs := func(program uint32, want bool) {
		t.Helper()
		if got, err := f.Runs(client, program); err != nil || got != want {
			t.Errorf("Runs %d: %t, want %t (%v)", program, got, want, err)
		}
	}
	runs(second.program, true)
	runs(first.program, false)
	// An Add that was interrupted leaves the old one beside the new.
	l, err := findLink("ext0")
	if err != nil {
		t.Fatal(err)
	}
	if err := attach(l, hookOf(client), program(t, "three"), client.Filter(), 9); err != nil {
		t.Fatal(err)
	}
	runs(second.program, false)
	if err := f.Remove(client); err != nil {
		t.Fatal(err)
	}
	runs(second.program, true)
}

func only(t *testing.T) filter {
	t.Helper()
	l, err := findLink("ext0")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filtersAt(l.Attrs().Index, netlink.HANDLE_MIN_INGRESS)
	all := NewFilters(nil).own(found, client)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d filters, want 1 (%v)", len(all), err)
	}
	return all[0]
}

// TestProgramDecides: a filter of our name whose program is not ours is
// somebody else's.
func TestProgramDecides(t *testing.T) {
	isolate(t)
	sh(t, "tc qdisc add dev ext0 clsact")
	theirs := program(t, "theirs")
	add(t, NewFilters(nil), client, theirs)
	number, err := programOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t)
	f := NewFilters(func(p uint32) bool { return p != number })
	if have := filtersAt0(t, f); len(have) > 0 {
		t.Errorf("their filter was taken for ours: %v", have)
	}
	add(t, f, client, program(t, "ours"))
	if n := strings.Count(snapshot(t), "portreeve_client"); n != 2 {
		t.Errorf("%d filters of the name, want theirs and ours", n)
	}
	if err := f.Remove(client); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("their filter changed (-before +after):\n%s", diff)
	}
}

func TestFilterRefusals(t *testing.T) {
	isolate(t)
	f := NewFilters(nil)
	if err := f.Add(client, 0); err == nil {
		t.Error("a descriptor that is no program was accepted")
	}
	if err := f.Add(client, program(t, "x")); err == nil {
		t.Error("a filter without a qdisc was accepted")
	}
}
