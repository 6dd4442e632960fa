package steer

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

func TestInspectorNotAttached(t *testing.T) {
	s, _ := sandbox(t)
	if _, err := s.Inspector(); !errors.Is(err, ErrNotAttached) {
		t.Errorf("inspector: %v", err)
	}
	if _, err := s.Counters(); !errors.Is(err, ErrNotAttached) {
		t.Errorf("counters: %v", err)
	}
	if err := s.Add(plan.Service{Name: "mx"}); !errors.Is(err, ErrNotAttached) {
		t.Errorf("add: %v", err)
	}
}

// listenersOf are the listeners in the slots of a service, by cookie.
func (g *stage) listenersOf(name string) [2]uint64 {
	g.Helper()
	index, err := readSlots(g.set.maps[bpfMapServices])
	must(g.T, err)
	id, found := index.byName[name]
	if !found {
		g.Fatalf("no service %s", name)
	}
	v4, err := slotCookie(g.set.maps[bpfMapListeners], slot4(id))
	must(g.T, err)
	v6, err := slotCookie(g.set.maps[bpfMapListeners], slot6(id))
	must(g.T, err)
	return [2]uint64{v4, v6}
}

// newInspector is another process's inspector.
func (g *stage) newInspector() *Inspector {
	g.Helper()
	i, err := g.Inspector()
	must(g.T, err)
	g.Cleanup(func() { i.Close() })
	return i
}

func TestRegister(t *testing.T) {
	g := newStage(t)
	services, err := g.inspector.Services()
	must(t, err)
	if d := cmp.Diff([]plan.Service{{Name: "mx"}, {Name: "opened", Open: true}, {Name: "closed"}}, services); d != "" {
		t.Error(d)
	}
	first := g.listenersOf("mx")
	if first[0] != g.cookie(world4) || first[1] != g.cookie(world6) {
		t.Errorf("slots hold %v", first)
	}
	must(t, g.inspector.Register([]string{"mx"}, g.listeners[0], g.listeners[1]))
	if again := g.listenersOf("mx"); again != first {
		t.Errorf("registering again: %v, was %v", again, first)
	}

	successor := g.newInspector()
	l4 := listen(t, "127.0.0.1:0")
	must(t, successor.Register([]string{"mx", "closed"}, l4, nil))
	second := g.listenersOf("mx")
	if second[0] == first[0] || second[1] != first[1] {
		t.Errorf("the successor's IPv4 listener alone: %v, was %v", second, first)
	}
	must(t, g.inspector.Unregister([]string{"mx", "opened"}))
	if left := g.listenersOf("mx"); left != [2]uint64{second[0], 0} {
		t.Errorf("after the former owner left: %v", left)
	}
	must(t, l4.Close())
	if left := g.listenersOf("closed"); left != [2]uint64{} {
		t.Errorf("after the listener was closed: %v", left)
	}
}

// A closed listener leaves every slot, though it was registered twice.
func TestCloseEmptiesSlots(t *testing.T) {
	g := newStage(t)
	for range 3 {
		must(t, g.inspector.Register([]string{"mx", "opened", "closed"}, g.listeners[0], g.listeners[1]))
	}
	must(t, g.listeners[0].Close())
	must(t, g.listeners[1].Close())
	for _, name := range []string{"mx", "opened", "closed"} {
		if left := g.listenersOf(name); left != [2]uint64{} {
			t.Errorf("%s: %v", name, left)
		}
	}
}

func TestRefusedListeners(t *testing.T) {
	g := newStage(t)
	other := newSpace(t)
	var elsewhere *net.TCPListener
	other.do(func() { elsewhere = listen(t, "127.0.0.1:0") })
	l4, l6 := listen(t, "127.0.0.1:0"), listen(t, "[::1]:0")
	closed := listen(t, "127.0.0.1:0")
	must(t, closed.Close())
	before := g.listenersOf("mx")
	for _, c := range []struct {
		text     string
		services []string
		l4, l6   syscall.Conn
	}{
		{"MPTCP", []string{"mx"}, mptcp(t), nil},
		{"does not listen", []string{"mx"}, dial(t, world4.client, l4.Addr().String(), 0), nil},
		{"another address family", []string{"mx"}, l6, nil},
		{"another address family", []string{"mx"}, nil, l4},
		{"another network namespace", []string{"mx"}, elsewhere, nil},
		{"use of closed", []string{"mx"}, closed, nil},
		{"no service nothing, nor; run portreeve attach", []string{"nothing", "nor"}, l4, l6},
		{"no service nothing; run portreeve attach", []string{"mx", "nothing"}, l4, l6}, // and mx keeps its own
	} {
		err := g.inspector.Register(c.services, c.l4, c.l6)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v, want %q", err, c.text)
		}
	}
	if after := g.listenersOf("mx"); after != before {
		t.Errorf("slots hold %v, were %v", after, before)
	}
}

// mptcp is what Go listens with unless it is told otherwise.
func mptcp(t *testing.T) syscall.Conn {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		// Without MPTCP in the kernel any other protocol does.
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	must(t, err)
	f := os.NewFile(uintptr(fd), "mptcp")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFits(t *testing.T) {
	s, _ := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	attached := plan.Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Hour}
	must(t, s.Add(attached))
	must(t, s.Add(plan.Service{Name: "mx"}))
	i, err := s.Inspector()
	must(t, err)
	defer i.Close()
	must(t, i.Fits(attached, []string{"mx"}))
	for _, c := range []struct {
		want     plan.Settings
		services []string
		text     string
	}{
		{attached, []string{"mx", "other"}, "no service other; run portreeve attach"},
		{plan.Settings{ClientMark: 1, OriginMark: 4, Heartbeat: time.Hour}, []string{"mx"}, "asks for settings client mark 0x1, origin mark 0x4,"},
		{plan.Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Minute}, []string{"mx"}, "heartbeat 1m0s; run portreeve attach"},
	} {
		if err := i.Fits(c.want, c.services); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v, want %q", err, c.text)
		}
	}
}

func TestUnregisterOfAServiceThatIsGone(t *testing.T) {
	g := newStage(t)
	must(t, g.inspector.Register([]string{"mx", "closed"}, g.listeners[0], g.listeners[1]))
	must(t, g.Remove(plan.Service{Name: "closed"}))
	must(t, g.inspector.Unregister([]string{"closed", "mx"}))
	if left := g.listenersOf("mx"); left != [2]uint64{} {
		t.Errorf("slots still hold %v", left)
	}
}

func TestHeartbeat(t *testing.T) {
	s, _ := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	must(t, s.Add(plan.Settings{ClientMark: 1, Heartbeat: time.Hour}))
	i, err := s.Inspector()
	must(t, err)
	defer i.Close()
	if instance, _, err := i.Owner(); err != nil || instance != 0 {
		t.Errorf("before the first beat: %d, %v", instance, err)
	}
	alive, err := s.Alive()
	must(t, err)
	if !alive.Hung() {
		t.Error("not hung before the first beat")
	}
	if err := i.Beat(0); err == nil {
		t.Error("number 0 was taken")
	}
	before, err := clock{}.now()
	must(t, err)
	must(t, i.Beat(math.MaxUint64))
	instance, age, err := i.Owner()
	must(t, err)
	after, err := clock{}.now()
	must(t, err)
	if instance != math.MaxUint64 || age < 0 || age > after-before {
		t.Errorf("instance %d, age %s of at most %s", instance, age, after-before)
	}
	alive, err = s.Alive()
	must(t, err)
	if alive.Hung() || alive.Limit != time.Hour || alive.Instance != instance {
		t.Errorf("%+v", alive)
	}
	alive.Age = time.Hour + 1
	if !alive.Hung() {
		t.Error("not hung with an old heartbeat")
	}
	alive.Limit = 0
	if alive.Hung() {
		t.Error("hung without a limit")
	}
}

func TestSince(t *testing.T) {
	s, _ := sandbox(t)
	before := time.Now().Truncate(time.Second)
	must(t, s.Add(plan.Objects{}))
	after := time.Now()
	must(t, s.Add(plan.Settings{ClientMark: 1}))
	since, err := s.Since()
	must(t, err)
	if since.Before(before) || since.After(after) {
		t.Errorf("%s, not from %s to %s", since, before, after)
	}
}

// An inspector learns that its maps steer nothing any more, also when others
// took their place.
func TestOwnerNoticesDetach(t *testing.T) {
	for name, again := range map[string]bool{"detached": false, "attached anew": true} {
		t.Run(name, func(t *testing.T) {
			g := newStage(t)
			i := g.newInspector()
			if _, _, err := i.Owner(); err != nil {
				t.Fatal(err)
			}
			must(t, g.Remove(plan.Objects{}))
			if again {
				must(t, g.Add(plan.Objects{}))
			}
			if _, _, err := i.Owner(); !errors.Is(err, ErrNotAttached) {
				t.Errorf("owner: %v, want ErrNotAttached", err)
			}
		})
	}
}

// What an inspector holds outlives its pins, and ends with it, or with a detach.
func TestHold(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	i, err := s.Inspector()
	must(t, err)
	must(t, i.Hold())
	must(t, i.Hold())
	all := len(i.held)
	apply(t, s, slices.DeleteFunc(slices.Clone(want), func(i plan.Item) bool { return i.Kind() == plan.KindTC }))
	must(t, i.Hold())
	if left := len(i.held); hasTCX(t) == (left == all) || left == 0 { // filters of clsact are no links
		t.Errorf("%d links are held, %d after those of TC were ended", all, left)
	}
	apply(t, s, want)
	must(t, i.Hold())
	if again := len(i.held); again != all {
		t.Errorf("%d links are held, want %d", again, all)
	}
	if i.Unpinned() {
		t.Error("unpinned at the beginning")
	}
	must(t, s.dir().removeAll())
	if _, _, err := i.Owner(); err != nil || !i.Unpinned() {
		t.Errorf("without pins: %v, unpinned %t", err, i.Unpinned())
	}
	if err := Elsewhere(s.bpffs); !errors.Is(err, ErrElsewhere) {
		t.Errorf("what is held: %v", err)
	}
	must(t, i.Close())
	await(t, func() bool { return Elsewhere(s.bpffs) == nil })
	must(t, s.Close())
	must(t, s.removeRoot())
	wantNothing(t, s, dir)

	apply(t, s, want)
	i, err = s.Inspector()
	must(t, err)
	must(t, i.Hold())
	apply(t, s, nil) // while it is held
	if _, _, err := i.Owner(); !errors.Is(err, ErrNotAttached) || i.Unpinned() {
		t.Errorf("detached: %v, unpinned %t", err, i.Unpinned())
	}
	if err := Elsewhere(s.bpffs); err != nil {
		t.Errorf("detached, and held: %v", err)
	}
	must(t, i.Close())
}

// An inspector sees what became of its slots, and gets back what is empty,
// taking it from nobody.
func TestPlacesAndReturn(t *testing.T) {
	g := newStage(t)
	all := []string{"mx", "opened", "closed"}
	i := g.newInspector()
	l4, l6 := listen(t, "127.0.0.1:0"), listen(t, "[::1]:0")
	places := func(want ...Place) {
		t.Helper()
		got, err := i.Places(all)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	must(t, i.Register(all, l4, l6))
	places(Held, Held, Held)

	index, err := readSlots(g.set.maps[bpfMapServices])
	must(t, err)
	must(t, g.set.maps[bpfMapListeners].Delete(slot4(index.byName["mx"]))) // by hand
	must(t, g.inspector.Register([]string{"opened"}, g.listeners[0], nil))
	must(t, g.Remove(plan.Service{Name: "closed"}))
	places(Emptied, Taken, Removed)

	must(t, i.Return(all, l4, l6))
	places(Held, Taken, Removed)

	must(t, g.Add(plan.Service{Name: "another"})) // where closed was
	must(t, g.Add(plan.Service{Name: "closed"}))
	places(Held, Taken, Emptied)
	must(t, i.Return(all, l4, l6))
	places(Held, Taken, Held)
	must(t, i.Register(all, l4, l6))
	places(Held, Held, Held)
}

// Without a listener for a family, its slots are none of ours.
func TestPlacesOfOneFamily(t *testing.T) {
	g := newStage(t)
	i := g.newInspector()
	must(t, g.Add(plan.Service{Name: "late"}))
	must(t, i.Register([]string{"late"}, listen(t, "127.0.0.1:0"), nil))
	if got, err := i.Places([]string{"late"}); err != nil || got[0] != Held {
		t.Errorf("%v, %v", got, err)
	}
}

// What an inspector does while it runs needs no privileges: only descriptors
// that it has opened before.
func TestInspectorWithoutPrivileges(t *testing.T) {
	g := newStage(t)
	i := g.newInspector()
	l4, l6 := listen(t, "127.0.0.1:0"), listen(t, "[::1]:0")
	must(t, i.Register([]string{"mx"}, l4, l6))
	must(t, withoutCapabilities(func() error {
		index, err := readSlots(i.set.maps[bpfMapServices])
		if err != nil {
			return err
		}
		if err := i.set.maps[bpfMapListeners].Delete(slot4(index.byName["mx"])); err != nil {
			return err
		}
		if _, err := i.Places([]string{"mx"}); err != nil {
			return err
		}
		if _, err := i.Settings(); err != nil {
			return err
		}
		return errors.Join(i.Return([]string{"mx"}, l4, l6), i.Beat(7), i.Unregister([]string{"mx"}))
	}))
	if left := g.listenersOf("mx"); left != [2]uint64{} {
		t.Errorf("slots still hold %v", left)
	}
}

// withoutCapabilities calls f on this thread without any.
func withoutCapabilities(f func() error) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var was, none [2]unix.CapUserData
	if err := unix.Capget(&header, &was[0]); err != nil {
		return err
	}
	for n := range was {
		none[n].Permitted = was[n].Permitted // to have them back
	}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return err
	}
	defer unix.Capset(&header, &was[0])
	return f()
}

// What the programs would find, an inspector finds too, also when it was bound
// after it started.
func TestBindingIsWhatProgramsFind(t *testing.T) {
	g := newStage(t)
	i := g.newInspector()
	must(t, g.Add(plan.Service{Name: "late"}))
	wide := plan.Binding{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Port: 2525, Service: "late", Transit: true}
	must(t, g.Add(wide))
	must(t, g.Add(plan.Binding{Prefix: netip.MustParsePrefix("198.51.100.9/32"), Port: 2525}))
	for at, want := range map[string]plan.Binding{
		"198.51.100.7:2525":  wide,
		"198.51.100.9:2525":  {}, // bypass
		"198.51.100.7:2526":  {},
		"[2001:db8::7]:2525": {},
	} {
		got, ok := i.Binding(netip.MustParseAddrPort(at))
		if got != want || ok != (want.Service != "") {
			t.Errorf("%s: %v, %v", at, got, ok)
		}
	}
}
