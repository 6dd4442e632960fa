package route

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

const loopTable = table + 1

// looped is the routing of the loop.
func looped() []plan.Item {
	items := []plan.Item{plan.Link{Name: plan.LoopLink}}
	for _, f := range families {
		items = append(items, plan.Route{Family: f, Table: loopTable, Link: plan.LoopLink},
			plan.Rule{Family: f, Interface: "ext0", Mark: 1 << 26, Table: loopTable, Priority: 100})
	}
	return items
}

// The link and what leads to it come, are found without being told the table, and go
// without a trace.
func TestLoopLink(t *testing.T) {
	isolate(t)
	before := snapshot(t)
	h := New(Options{})
	run(t, h, plan.Diff(nil, looped()))
	contain(t, lines(have(t, h)), lines(looped()))
	contain(t, sh(t, "ip -d link show portreeve0"), "NOARP")
	for _, f := range []string{"-4 route get 198.51.100.1", "-6 route get 2001:db8::1"} {
		contain(t, sh(t, "ip "+f+" mark 0x4000000 iif ext0 2>/dev/null || true; ip "+strings.Fields(f)[0]+" route show table 1026"), "dev portreeve0")
	}
	if addresses := sh(t, "ip -o addr show dev portreeve0; ip -o addr show dev portreeve1"); addresses != "" {
		t.Errorf("addresses:\n%s", addresses)
	}
	run(t, h, plan.Diff(have(t, h), nil))
	if after := snapshot(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Whatever was done to the link, it carries packets again, and is the same: a program at
// its egress stays there, which cannot be attached anew without a BPF file system.
func TestLoopLinkIsMended(t *testing.T) {
	for fault, act := range map[string]string{
		"it is down":                        "ip link set portreeve0 down",
		"its other end is down":             "ip link set portreeve1 down",
		"it asks for neighbours":            "ip link set portreeve0 arp on",
		"its MTU was changed":               "ip link set portreeve0 mtu 1280",
		"it is a port of another interface": "ip link add br0 type bridge; ip link set portreeve0 master br0",
		"it was renamed":                    "ip link set portreeve0 down; ip link set portreeve0 name other; ip link set other up",
	} {
		t.Run(fault, func(t *testing.T) {
			isolate(t)
			h := New(Options{Tables: []uint32{loopTable}})
			run(t, h, plan.Diff(nil, looped()))
			index := sh(t, "ip -o link show portreeve0 | cut -d: -f1")
			sh(t, act)
			contain(t, lines(have(t, h)), "("+fault+")")
			run(t, h, plan.Diff(have(t, h), looped()))
			if left := plan.Diff(have(t, h), looped()); len(left) > 0 {
				t.Errorf("still to do: %v", left)
			}
			if now := sh(t, "ip -o link show portreeve0 | cut -d: -f1"); now != index {
				t.Errorf("it was made anew: number %s, then %s", index, now)
			}
		})
	}
}

// One of which an end is gone to another network namespace, or is known by nothing any
// more, is made anew.
func TestLoopLinkIsMadeAnew(t *testing.T) {
	for name, act := range map[string]string{
		"moved":   "ip netns add looptest; ip link set portreeve1 netns looptest",
		"unknown": "ip link set portreeve0 down; ip link set portreeve0 address 02:00:00:00:00:09; ip link set portreeve0 mtu 1280",
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			t.Cleanup(func() { sh(t, "ip netns del looptest 2>/dev/null || true") })
			h := New(Options{Tables: []uint32{loopTable}})
			run(t, h, plan.Diff(nil, looped()))
			sh(t, act)
			run(t, h, plan.Diff(have(t, h), looped()))
			if left := plan.Diff(have(t, h), looped()); len(left) > 0 {
				t.Errorf("still to do: %v", left)
			}
		})
	}
}

// A link whose maker was killed before its ends had their alias is ours all the same.
func TestHalfMadeLoopLink(t *testing.T) {
	isolate(t)
	before := snapshot(t)
	h := New(Options{})
	run(t, h, plan.Diff(nil, looped()[:1]))
	sh(t, "for end in portreeve0 portreeve1; do ip link set $end down; ip link set $end alias ''; done")
	contain(t, lines(have(t, h)), "(it is down)")
	run(t, h, plan.Diff(have(t, h), nil))
	if after := snapshot(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A link of another that has the alias is not touched.
func TestForeignAlias(t *testing.T) {
	isolate(t)
	sh(t, "ip link add app0 type veth peer name app1; ip link set app0 alias portreeve")
	h := New(Options{})
	run(t, h, plan.Diff(nil, looped()))
	if left := plan.Diff(have(t, h), looped()); len(left) > 0 {
		t.Errorf("still to do: %v", left)
	}
	run(t, h, plan.Diff(have(t, h), nil))
	sh(t, "ip link show app0")
}

// A link of another that has the name is not touched.
func TestForeignLoopLink(t *testing.T) {
	isolate(t)
	sh(t, "ip link add portreeve0 type veth peer name another")
	h := New(Options{})
	err := h.Add(plan.Link{Name: plan.LoopLink})
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "rename it") {
		t.Errorf("%v", err)
	}
	if err := h.Remove(plan.Link{Name: plan.LoopLink}); err != nil {
		t.Error(err)
	}
	sh(t, "ip link show portreeve0")
	if found := have(t, h); len(found) > 0 {
		t.Errorf("it is taken for ours: %s", lines(found))
	}
}
