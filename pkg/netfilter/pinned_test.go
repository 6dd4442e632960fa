package netfilter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// pin makes a BPF file system in a mount namespace of the test's own, and in it a
// program that a rule may ask.
func pin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("bpf", dir, "bpf", 0, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "steer_forward_match")
	repin(t, path)
	return path
}

func repin(t *testing.T, path string) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Pin(path); err != nil {
		t.Fatal(err)
	}
}

// asking is a firewall with rules that ask the pinned program, in both families.
func asking(legacy bool, match string) []plan.Item {
	both := []plan.Family{plan.IPv4, plan.IPv6}
	return plan.Netfilter(plan.Firewall{
		Legacy: legacy, Transit: both, Forged: both, ClientMark: 1 << 24, OriginMark: 1 << 25, Match: match,
		LoopMark: 1 << 26, Link: plan.LoopLink,
	})
}

// A rule that asks a pinned program is read back in the words that it was written
// in, and leaves nothing.
func TestPinnedProgram(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		h, want := New(), asking(legacy, pin(t))
		before := snapshot(t)
		run(t, h, plan.Diff(have(t, h), want))
		if diff := cmp.Diff(text(want), text(have(t, h))); diff != "" {
			t.Errorf("after attach (-want +have):\n%s", diff)
		}
		if again := plan.Diff(have(t, New()), want); len(again) > 0 {
			t.Errorf("a second attach would change %v", again)
		}
		once := snapshot(t)
		run(t, h, plan.Diff(nil, want))
		if diff := cmp.Diff(once, snapshot(t)); diff != "" {
			t.Errorf("the second time changed (-once +twice):\n%s", diff)
		}
		run(t, h, plan.Diff(want, nil))
		if diff := cmp.Diff(before, snapshot(t)); diff != "" && !legacy { // whose tables stay
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
		if left := have(t, h); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	})
}

// The pin is lost, for example with its file system: iptables does not understand
// the rule any more, and iptables-legacy changes nothing in a table that has it.
// Detach and attach get along.
func TestPinIsLost(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		match := pin(t)
		h, want := New(), asking(legacy, match)
		lose := func() {
			run(t, h, plan.Diff(nil, want))
			if err := os.Remove(match); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text(want), text(have(t, h))); diff != "" {
				t.Errorf("without the pin (-want +have):\n%s", diff)
			}
		}
		lose()
		run(t, h, plan.Diff(have(t, h), nil))
		if left := have(t, h); len(left) > 0 {
			t.Errorf("left %v", left)
		}

		repin(t, match)
		lose()
		objects := plan.Objects{}
		for _, c := range plan.Diff(have(t, h), append(want, objects)) {
			if c.Item == plan.Item(objects) {
				repin(t, match)
				continue
			}
			run(t, h, []plan.Change{c})
		}
		if again := plan.Diff(have(t, New()), want); len(again) > 0 {
			t.Errorf("a further attach would change %v", again)
		}
	})
}

// Where the kernel has no xt_bpf, which older kernels need for the wall at FORWARD,
// attach says so and how to get it. It can be taken away in a guest of
// testenv/kernels only, whose modules are its own.
func TestWithoutMatchModule(t *testing.T) {
	if os.Getenv("PORTREEVE_TEST_GUEST") == "" {
		t.Log("not in a guest: the kernel's modules are not ours to take away")
		return
	}
	modules, err := filepath.Glob("/lib/modules/*/kernel/net/netfilter/xt_bpf.ko*")
	if err != nil || len(modules) != 1 {
		t.Fatalf("modules %v, %v", modules, err)
	}
	away := filepath.Join(t.TempDir(), filepath.Base(modules[0]))
	sh(t, "mv "+modules[0]+" "+away)
	defer sh(t, "mv "+away+" "+modules[0])
	// Namespaces of tests before may still go.
	sh(t, "for n in $(seq 600); do [ ! -e /sys/module/xt_bpf ] && exit; rmmod xt_bpf 2>/dev/null || sleep 0.1; done; exit 1")
	eachFlavour(t, func(t *testing.T, legacy bool) {
		match, h := pin(t), New()
		for _, c := range plan.Diff(nil, asking(legacy, match)) {
			f, isRule := c.Item.(plan.Filter)
			if !isRule || !f.AsksProgram() {
				run(t, h, []plan.Change{c})
				continue
			}
			tl := tool{f.Family, legacy}
			want := tl.String() + ": the kernel lacks what the rule needs: load it (modprobe -a nf_tables nft_compat xt_bpf), or set kernel.netfilter to off: "
			if legacy {
				want = tl.String() + ": the kernel lacks what the rule needs: load it (modprobe -a " + tl.base()[:len(tl.base())-1] + "_filter xt_bpf), or set kernel.netfilter to off: "
			}
			if err := h.Add(f); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error %v\nwant  %s…", err, want)
			}
		}
	})
}
