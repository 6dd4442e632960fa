package steer

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// release is the kernel's version as a number: 6.12 is 6012.
func release(t *testing.T, version string) int {
	t.Helper()
	parts := strings.SplitN(version, ".", 3)
	major, err := strconv.Atoi(parts[0])
	must(t, err)
	minor, err := strconv.Atoi(strings.TrimRight(parts[1], "-+abcdefghijklmnopqrstuvwxyz"))
	must(t, err)
	return major*1000 + minor
}

func runningRelease(t *testing.T) int {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	return release(t, unix.ByteSliceToString(u.Release[:]))
}

// Each feature is there exactly from the release on that it names.
func TestProbe(t *testing.T) {
	sandbox(t)
	here := runningRelease(t)
	for _, f := range Probe() {
		if here >= release(t, f.Kernel) {
			if f.Err != nil {
				t.Errorf("%s: %v", f.Name, f.Err)
			}
		} else if !f.Missing() {
			t.Errorf("%s: %v, though kernel %s brought it", f.Name, f.Err, f.Kernel)
		}
		if f.Missing() && f.Needed {
			t.Errorf("%s is needed and missing", f.Name)
		}
	}
}

// TCX links are made where the kernel has them, and said to be missing where
// not.
func TestTCX(t *testing.T) {
	s, _, _ := gateway(t)
	must(t, s.Add(plan.Objects{}))
	err := s.Add(plan.TC{Interface: "ext0", Side: plan.ClientSide})
	has, probed := TCXSupported()
	must(t, probed)
	if want := runningRelease(t) >= release(t, "6.6"); has != want {
		t.Errorf("TCX supported: %t, want %t", has, want)
	}
	if has {
		must(t, err)
		wantItems(t, s, []plan.Item{plan.Objects{}, plan.TC{Interface: "ext0", Side: plan.ClientSide}})
		return
	}
	if !errors.Is(err, ebpf.ErrNotSupported) {
		t.Errorf("attach: %v", err)
	}
	wantItems(t, s, []plan.Item{plan.Objects{}})
}

// The refusal to read a field is told from other refusals.
func TestProbeWithoutPrivileges(t *testing.T) {
	s, _ := sandbox(t)
	keepCapabilities(t)
	for _, f := range Probe() {
		if f.Err == nil || f.Missing() || !strings.Contains(f.Err.Error(), "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON") {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	if _, err := TCXSupported(); err == nil {
		t.Error("TCX was judged")
	}
	if err := s.Add(plan.Objects{}); err == nil || !strings.Contains(err.Error(), "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON") {
		t.Errorf("add: %v", err)
	}
}

// The documented capabilities are enough for everything.
func TestCapabilities(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	keepCapabilities(t, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
	apply(t, s, want)
	wantItems(t, s, want)
	if _, err := s.Alive(); err != nil {
		t.Error(err)
	}
	must(t, s.dir().replace(bpfProgSteerClient, foreignProgram(t, ebpf.SchedCLS, 0)))
	apply(t, s, want)
	apply(t, s, nil)
	wantNothing(t, s, dir)
}

// An inspector needs no capability to take and leave its slots, where it may
// open the pins (kernel 5.19; CAP_BPF before).
func TestInspectorCapabilities(t *testing.T) {
	g := newStage(t)
	l4 := listen(t, "127.0.0.1:0")
	keepCapabilities(t)
	i := g.newInspector()
	must(t, i.Register([]string{"mx"}, l4, nil))
	must(t, i.Beat(1))
	if _, _, err := i.Owner(); err != nil {
		t.Error(err)
	}
	must(t, i.Unregister([]string{"mx"}))
}

// keepCapabilities drops all others from the calling thread, which ends with
// the test; cleaning up needs CAP_SYS_ADMIN, which comes back for that.
func keepCapabilities(t *testing.T, keep ...int) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, few [2]unix.CapUserData
	must(t, unix.Capget(&header, &all[0]))
	few = all
	few[0].Effective, few[1].Effective = 0, 0
	for _, c := range keep {
		few[c/32].Effective |= 1 << (c % 32)
	}
	must(t, unix.Capset(&header, &few[0]))
	t.Cleanup(func() { must(t, unix.Capset(&header, &all[0])) })
}

func TestNewWithoutBPFFS(t *testing.T) {
	for dir, text := range map[string]string{
		t.TempDir():           "; mount one: mount -t bpf bpf ",
		t.TempDir() + "/none": "no such file or directory; mount one: mkdir -p ",
	} {
		if _, err := New(dir); !errors.Is(err, ErrNoBPFFS) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}

// A pin directory that is another user's cannot even be looked at.
func TestForbiddenDirectory(t *testing.T) {
	s, _ := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	must(t, s.Close())
	must(t, os.Lchown(string(s.dir()), 65534, 65534))
	must(t, os.Lchown(s.root(), 65534, 65534))
	keepCapabilities(t)
	if _, err := s.Have(); err == nil || !strings.Contains(err.Error(), "it needs root") {
		t.Error(err)
	}
}

// Nor is one used that another user made beforehand.
func TestForeignRoot(t *testing.T) {
	s, _ := sandbox(t)
	must(t, os.Mkdir(s.root(), 0o700))
	for what, spoil := range map[string]func() error{
		"owner": func() error { return errors.Join(os.Lchown(s.root(), 65534, 65534), os.Chmod(s.root(), 0o700)) },
		"mode":  func() error { return errors.Join(os.Lchown(s.root(), 0, 0), os.Chmod(s.root(), 0o770)) },
	} {
		must(t, spoil())
		if err := s.Add(plan.Objects{}); err == nil || !strings.Contains(err.Error(), "only this user can write") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, errors.Join(os.Lchown(s.root(), 0, 0), os.Chmod(s.root(), 0o700)))
	must(t, s.Add(plan.Objects{}))
}
