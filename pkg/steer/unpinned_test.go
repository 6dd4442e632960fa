package steer

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

func isLink(i plan.Item) bool {
	return i.Kind() == plan.KindTC || i.Kind() == plan.KindLookup || i.Kind() == plan.KindForward
}

// steeredWithoutPins makes the links of everything after the watcher has looked last, so that
// the inspector alone holds them when the BPF file system is unmounted, and returns their
// numbers by the names of the pins that they had.
func steeredWithoutPins(t *testing.T) (*Steer, string, *Inspector, map[string]link.ID) {
	t.Helper()
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, slices.DeleteFunc(slices.Clone(want), isLink))
	k := NewKept(s)
	t.Cleanup(func() { must(t, k.Close()) })
	must(t, k.Follow())
	apply(t, s, want)
	i, err := s.Inspector()
	must(t, err)
	t.Cleanup(func() { i.Close() })
	must(t, i.Hold())
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
	if _, err := k.Restore(); err != nil {
		t.Fatal(err)
	}
	return s, dir, i, linkIDs(i)
}

// linkIDs are the numbers of the links that an inspector holds.
func linkIDs(i *Inspector) map[string]link.ID {
	ids := map[string]link.ID{}
	for name, l := range i.held {
		ids[name] = l.info.ID
	}
	return ids
}

// wantAllEnded checks that none of the links that an inspector holds is at work. Those at
// FORWARD do not tell: the place of one is free, then.
func wantAllEnded(t *testing.T, i *Inspector) {
	t.Helper()
	for name, l := range i.held {
		info, err := l.Info()
		must(t, err)
		if l.program != bpfProgSteerForward && runs(info) {
			t.Errorf("%s is at work", name)
		}
	}
	if !hasNFLinks(t) {
		return
	}
	p := i.set.programs[bpfProgSteerForward]
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		l, err := attachForward(f, p)
		must(t, err)
		info, err := l.Info()
		must(t, err)
		if at := info.Netfilter().Priority; at != forwardPriorities[0] {
			t.Errorf("something stands at FORWARD of %s: the first free priority is %d", f, at)
		}
		must(t, l.Close())
	}
}

// What is attached and has lost its pin is told from what is missing, and is pinned again
// as it is. Links at FORWARD are made anew, and nothing is there twice.
func TestUnpinnedLinksAreAdopted(t *testing.T) {
	s, dir, i, ids := steeredWithoutPins(t)
	want := everything(t)
	have, err := s.Have()
	must(t, err)
	for _, c := range plan.Diff(have, want) {
		if c.Op != plan.Replace || !strings.HasSuffix(c.Old.String(), "(without a pin)") {
			t.Errorf("to do: %s, there is %v", c, c.Old)
		}
	}
	apply(t, s, want)
	wantItems(t, s, want)
	for name, id := range pins(t, s) {
		program, _, isLink := parseLink(name)
		if isLink && (program == bpfProgSteerForward) == (id == ids[name]) {
			t.Errorf("%s was link %d and is link %d", name, ids[name], id)
		}
	}
	if changes := apply(t, s, want); len(changes) > 0 {
		t.Errorf("a second apply did %v", changes)
	}
	must(t, i.Hold())
	apply(t, s, nil)
	wantNothing(t, s, dir)
	wantAllEnded(t, i)
	if _, _, err := i.Owner(); !errors.Is(err, ErrNotAttached) {
		t.Errorf("the inspector does not see that it was detached: %v", err)
	}
}

// A detach, and an attach that does not want them, ends links without a pin.
func TestUnpinnedLinksAreEnded(t *testing.T) {
	for name, want := range map[string][]plan.Item{
		"detach":        nil,
		"without links": slices.DeleteFunc(everything(t), isLink),
		"objects alone": {plan.Objects{}},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir, i, _ := steeredWithoutPins(t)
			apply(t, s, want)
			wantItems(t, s, want)
			if want == nil {
				wantNothing(t, s, dir)
			}
			wantAllEnded(t, i)
		})
	}
}

// Where only some pins are gone the others stay what they are.
func TestOneUnpinnedLink(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	i, err := s.Inspector()
	must(t, err)
	t.Cleanup(func() { i.Close() })
	must(t, i.Hold())
	for name := range linkIDs(i) {
		before := pins(t, s)
		must(t, os.Remove(s.dir().pin(name)))
		apply(t, s, want)
		wantItems(t, s, want)
		after := pins(t, s)
		if isForwardLink(name) {
			delete(before, name)
			delete(after, name)
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	apply(t, s, nil)
	wantNothing(t, s, dir)
	wantAllEnded(t, i)
}

// The BPF file system is unmounted between attaching and pinning: what was attached is
// gone, and is attached when there is one again.
func TestUnmountedBeforeThePin(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	k := NewKept(s)
	t.Cleanup(func() { must(t, k.Close()) })
	must(t, k.Follow())
	set, err := s.open()
	must(t, err)
	must(t, s.Remove(plan.Lookup{}))
	err = s.pinOnce(lookupLink, set.programs[bpfProgSteerLookup], func() (link.Link, error) {
		netns := openNetns(t)
		l, err := link.AttachNetNs(netns, set.programs[bpfProgSteerLookup])
		must(t, unix.Unmount(dir, unix.MNT_DETACH))
		return l, err
	})
	if err == nil {
		t.Error("a link is pinned where there is no BPF file system")
	}
	must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
	_, err = k.Restore()
	must(t, err)
	if changes := apply(t, s, want); len(changes) != 1 || changes[0].String() != "+ link sk_lookup" {
		t.Errorf("to do: %v", changes)
	}
	wantItems(t, s, want)
}

// It is unmounted behind the pin: the link that was pinned is not taken for one beside it.
func TestUnmountedBehindThePin(t *testing.T) {
	s, dir, _ := gateway(t)
	apply(t, s, everything(t))
	held, err := s.dir().openLink(lookupLink)
	must(t, err)
	defer held.Close()
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	must(t, s.endUnpinned(lookupLink, held.info.ID))
	info, err := held.Info()
	must(t, err)
	if !runs(info) {
		t.Error("it was ended")
	}
	must(t, s.endUnpinned(lookupLink, 0))
	info, err = held.Info()
	must(t, err)
	if runs(info) {
		t.Error("it goes on")
	}
	must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
}

// Links beside those that are pinned, as a copy of a program that was to go to the head
// when it was killed, are ended. Where nothing is pinned, one of them is, and runs the
// program that is pinned.
func TestLinksBeside(t *testing.T) {
	if !hasTCX(t) {
		return // sk_lookup alone has such links, and no copies
	}
	for name, lost := range map[string]bool{"pinned": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			s, dir, _ := gateway(t)
			want := everything(t)
			apply(t, s, want)
			set, err := s.open()
			must(t, err)
			copied, err := set.copyOf(bpfProgSteerClient)
			must(t, err)
			defer copied.Close()
			ext0 := index(t, "ext0")
			beside, err := attachTCX(ext0, copied, false)
			must(t, err)
			defer beside.Close()
			pin := linkName(bpfProgSteerClient, ext0)
			must(t, beside.Pin(s.dir().pin(pin+building)))
			if lost {
				must(t, s.dir().removeLink(pin))
			}
			changes := apply(t, s, want)
			if len(changes) != 1 || changes[0].Old != plan.Item(plan.TC{Interface: "ext0", Side: plan.ClientSide, Unpinned: true}) {
				t.Errorf("to do: %v", changes)
			}
			wantItems(t, s, want)
			info, err := beside.Info()
			must(t, err)
			if runs(info) != lost {
				t.Errorf("the link beside runs: %t", runs(info))
			}
			if chain, err := chainOf(ext0, false); err != nil || len(chain) != 1 {
				t.Errorf("%d programs at ext0: %v", len(chain), err)
			}
			apply(t, s, nil)
			wantNothing(t, s, dir)
		})
	}
}
