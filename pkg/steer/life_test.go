package steer

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// hasTCX says whether TCX links belong to a test's items; TestTCX asserts that
// it is right, and what Add says where the kernel has none.
func hasTCX(t *testing.T) bool {
	t.Helper()
	yes, err := TCXSupported()
	must(t, err)
	return yes
}

// everything is one plan with every kind of item that steer owns.
func everything(t *testing.T) []plan.Item {
	t.Helper()
	items := []plan.Item{
		plan.Objects{},
		plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: 3 * time.Second},
		plan.Service{Name: "mx"},
		plan.Service{Name: strings.Repeat("x", 63), Open: true},
		plan.Origin{Prefix: prefix("172.16.20.0/24"), Port: 25},
		plan.Origin{Prefix: prefix("2001:db8:20::254/128"), Port: 587},
		plan.Role{Interface: "ext0", Side: plan.ClientSide},
		plan.Role{Interface: "dmz0", Side: plan.ClientSide | plan.OriginSide},
		plan.Binding{Prefix: prefix("172.16.40.1/32"), Port: 25, Service: "mx", Addressed: true},
		plan.Binding{Prefix: prefix("172.16.20.254/32"), Port: 25, Service: "mx", Addressed: true, Transit: true},
		plan.Binding{Prefix: prefix("172.16.20.0/24"), Port: 25, Service: strings.Repeat("x", 63), Transit: true},
		plan.Binding{Prefix: prefix("172.16.20.1/32"), Port: 25},
		plan.Binding{Prefix: prefix("0.0.0.0/0"), Port: 65535, Service: "mx", Transit: true},
		plan.Binding{Prefix: prefix("::/0"), Port: 1, Service: "mx", Transit: true},
		plan.Binding{Prefix: prefix("2001:db8:40::/48"), Port: 25, Service: "mx", Addressed: true},
		plan.Lookup{},
	}
	if hasTCX(t) {
		items = append(items,
			plan.TC{Interface: "ext0", Side: plan.ClientSide},
			plan.TC{Interface: "dmz0", Side: plan.ClientSide},
			plan.TC{Interface: "dmz0", Side: plan.OriginSide},
			plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true})
	}
	if hasNFLinks(t) {
		items = append(items, plan.Forward{Family: plan.IPv4}, plan.Forward{Family: plan.IPv6})
	}
	return items
}

// gateway makes a sandbox with the interfaces of everything.
func gateway(t *testing.T) (*Steer, string, *space) {
	t.Helper()
	s, dir := sandbox(t)
	other := newSpace(t)
	wire(t, "ext0", "c0", other)
	wire(t, "dmz0", "o0", other)
	return s, dir, other
}

// apply does what the package apply does.
func apply(t *testing.T, s *Steer, want []plan.Item) []plan.Change {
	t.Helper()
	have, err := s.Have()
	must(t, err)
	changes := plan.Diff(have, want)
	for _, c := range changes {
		switch c.Op {
		case plan.Add:
			err = s.Add(c.Item)
		case plan.Replace:
			err = s.Replace(c.Old, c.Item)
		case plan.Remove:
			err = s.Remove(c.Item)
		}
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
	return changes
}

// wantItems checks what the kernel holds.
func wantItems(t *testing.T, s *Steer, want []plan.Item) {
	t.Helper()
	have, err := s.Have()
	must(t, err)
	if changes := plan.Diff(have, want); len(changes) > 0 {
		t.Errorf("still to do: %v", changes)
	}
}

// wantNothing checks that nothing is left, not even a directory.
func wantNothing(t *testing.T, s *Steer, dir string) {
	t.Helper()
	wantItems(t, s, nil)
	if left, err := filepath.Glob(filepath.Join(dir, "portreeve*")); err != nil || left != nil {
		t.Errorf("left %v %v", left, err)
	}
}

// pins are the pinned objects by name, with their kernel identity.
func pins(t *testing.T, s *Steer) map[string]any {
	t.Helper()
	m := map[string]any{}
	entries, err := os.ReadDir(string(s.dir()))
	must(t, err)
	for _, e := range entries {
		m[e.Name()] = identity(t, s.dir().pin(e.Name()))
	}
	return m
}

func identity(t *testing.T, path string) any {
	t.Helper()
	if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
		defer m.Close()
		i, err := m.Info()
		must(t, err)
		id, _ := i.ID()
		return id
	}
	if p, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
		defer p.Close()
		i, err := p.Info()
		must(t, err)
		id, _ := i.ID()
		return id
	}
	l, err := link.LoadPinnedLink(path, nil)
	must(t, err)
	defer l.Close()
	i, err := l.Info()
	must(t, err)
	return i.ID
}

func TestEveryItemComesBack(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	wantItems(t, s, want)
	before := pins(t, s)

	if changes := apply(t, s, want); len(changes) > 0 {
		t.Errorf("a second apply did %v", changes)
	}
	for _, i := range want { // even if asked to
		must(t, s.Add(i))
	}
	if d := cmp.Diff(before, pins(t, s)); d != "" {
		t.Errorf("adding again changed:\n%s", d)
	}
	wantItems(t, s, want)

	apply(t, s, nil)
	wantNothing(t, s, dir)
	for _, i := range want { // absent is success
		must(t, s.Remove(i))
	}
	wantNothing(t, s, dir)
}

func TestReplace(t *testing.T) {
	s, _, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	for n, i := range want {
		switch i := i.(type) {
		case plan.Settings:
			want[n] = plan.Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Hour}
		case plan.Service:
			i.Open = !i.Open
			want[n] = i
		case plan.Role:
			i.Side = plan.OriginSide
			want[n] = i
		case plan.Binding:
			i.Transit, i.Service = !i.Transit, "mx"
			want[n] = i
		}
	}
	changes := apply(t, s, want)
	if i := slices.IndexFunc(changes, func(c plan.Change) bool { return c.Op != plan.Replace }); i >= 0 {
		t.Errorf("%s is no replacement", changes[i])
	}
	wantItems(t, s, want)
}

// A failed apply is undone change by change.
func TestUndo(t *testing.T) {
	s, dir, _ := gateway(t)
	have, err := s.Have()
	must(t, err)
	changes := plan.Diff(have, everything(t))
	for _, c := range changes {
		must(t, s.Add(c.Item))
	}
	for _, c := range slices.Backward(changes) {
		must(t, s.Remove(c.Undo().Item))
	}
	wantNothing(t, s, dir)
}

// The bit of a port is set as long as any binding has the port.
func TestPortBits(t *testing.T) {
	s, _ := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	must(t, s.Add(plan.Service{Name: "mx"}))
	one := plan.Binding{Prefix: prefix("192.0.2.1/32"), Port: 25, Service: "mx"}
	two := plan.Binding{Prefix: prefix("2001:db8::1/128"), Port: 25, Service: "mx"}
	origin := plan.Origin{Prefix: prefix("192.0.2.1/32"), Port: 25}
	steps := []struct {
		do    func(plan.Item) error
		item  plan.Item
		ports bpfPorts
	}{
		{s.Add, one, bpfPorts{Bound: 1 << 25}},
		{s.Add, one, bpfPorts{Bound: 1 << 25}},
		{s.Add, two, bpfPorts{Bound: 1 << 25}},
		{s.Add, origin, bpfPorts{Bound: 1 << 25, Origin: 1 << 25}},
		{s.Remove, one, bpfPorts{Bound: 1 << 25, Origin: 1 << 25}},
		{s.Remove, one, bpfPorts{Bound: 1 << 25, Origin: 1 << 25}},
		{s.Remove, two, bpfPorts{Origin: 1 << 25}},
		{s.Remove, origin, bpfPorts{}},
		{s.Remove, origin, bpfPorts{}},
	}
	for n, step := range steps {
		if n%2 == 0 { // the count must also be right when it is read anew
			must(t, s.Close())
		}
		must(t, step.do(step.item))
		set, err := s.open()
		must(t, err)
		var ports bpfPorts
		must(t, set.maps[bpfMapPorts].Lookup(uint32(0), &ports))
		if ports != step.ports {
			t.Errorf("step %d: %+v, want %+v", n, ports, step.ports)
		}
	}
}

// A service's number is given to another only after its listeners are gone.
func TestServiceNumbers(t *testing.T) {
	g := newStage(t)
	must(t, g.Remove(plan.Service{Name: "mx"}))
	g.add(plan.Service{Name: "another"})
	alive, err := g.Alive()
	must(t, err)
	want := []ServiceAlive{{Name: "another"}, {Name: "opened", Open: true}, {Name: "closed"}}
	if d := cmp.Diff(want, alive.Services); d != "" {
		t.Error(d)
	}
}

func TestNoMoreServices(t *testing.T) {
	s, _ := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	set, err := s.open()
	must(t, err)
	index, err := set.index()
	must(t, err)
	for id := range index.byID {
		index.set(uint32(id), plan.Service{Name: gone(uint32(id))})
	}
	err = s.Add(plan.Service{Name: "one too many"})
	if err == nil || !strings.Contains(err.Error(), "16384 services already") {
		t.Error(err)
	}
}

func TestRefusedItems(t *testing.T) {
	s, _, _ := gateway(t)
	must(t, s.Add(plan.Objects{}))
	for text, i := range map[string]plan.Item{
		"has 64 octets":        plan.Service{Name: strings.Repeat("x", 64)},
		"has 0 octets":         plan.Service{},
		`no service "mx"`:      plan.Binding{Prefix: prefix("192.0.2.1/32"), Port: 25, Service: "mx"},
		"neither one of IPv4":  plan.Origin{Prefix: prefix("::ffff:192.0.2.0/120"), Port: 25},
		"is a loopback":        plan.Role{Interface: "lo", Side: plan.ClientSide},
		"interface nowhere0":   plan.Role{Interface: "nowhere0", Side: plan.ClientSide},
		"cannot change clsact": plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: true},
		"no such device":       plan.TC{Interface: "nowhere0", Side: plan.ClientSide},
		"not an item of steer": plan.Route{},
		"no TC program is for": plan.TC{Interface: "ext0", Side: plan.ClientSide | plan.OriginSide},
	} {
		if err := s.Add(i); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", i, err, text)
		}
	}
}

// Interfaces come and go; what referred to them stays visible and removable.
func TestInterfaceGone(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	number := index(t, "ext0")
	must(t, deleteLink(number))

	for n, i := range want {
		switch i := i.(type) {
		case plan.Role:
			i.Interface = strings.ReplaceAll(i.Interface, "ext0", gone(number))
			want[n] = i
		case plan.TC:
			i.Interface = strings.ReplaceAll(i.Interface, "ext0", gone(number))
			want[n] = i
		}
	}
	wantItems(t, s, want)
	apply(t, s, nil)
	wantNothing(t, s, dir)
}

// An interface that comes back under its name is served again.
func TestInterfaceBack(t *testing.T) {
	s, _, other := gateway(t)
	want := everything(t)
	apply(t, s, want)
	must(t, deleteLink(index(t, "ext0")))
	wire(t, "ext0", "c0", other)
	apply(t, s, want)
	wantItems(t, s, want)
}

// foreignProgram stands for a program of another build.
func foreignProgram(t *testing.T, kind ebpf.ProgramType, attach ebpf.AttachType) *ebpf.Program {
	t.Helper()
	spec := classifier()
	spec.Type, spec.AttachType = kind, attach
	spec.Instructions[0].Constant = 1 // SK_PASS
	p, err := ebpf.NewProgram(spec)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

// ageLink makes a link and the pin of its program those of another build.
func ageLink(t *testing.T, s *Steer, name string, p *ebpf.Program) {
	t.Helper()
	l, err := s.dir().openLink(name)
	must(t, err)
	defer l.Close()
	must(t, l.Update(p))
	must(t, s.dir().replace(l.program, p))
}

// Programs of another build are replaced under the same links, but for those at
// FORWARD, which the kernel cannot change.
func TestReplaceProgramsInPlace(t *testing.T) {
	s, _, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	before := pins(t, s)

	ageLink(t, s, lookupLink, foreignProgram(t, ebpf.SkLookup, ebpf.AttachSkLookup))
	if hasTCX(t) {
		ageLink(t, s, linkName(bpfProgSteerClient, index(t, "ext0")), foreignProgram(t, ebpf.SchedCLS, 0))
	}
	have, err := s.Have()
	must(t, err)
	changes := plan.Diff(have, want)
	if len(changes) != 1 || !strings.Contains(changes[0].String()+changes[0].Old.String(), "program steer_lookup of another build") {
		t.Fatalf("to do: %v", changes)
	}
	apply(t, s, want)
	wantItems(t, s, want)

	after := pins(t, s)
	for name, id := range before {
		_, isNew := id.(ebpf.ProgramID)
		isNew = isNew || strings.HasPrefix(name, linkPrefix+bpfProgSteerForward) // see replaceForward
		if isNew == (after[name] == id) {
			t.Errorf("%s was %v and is %v", name, id, after[name])
		}
	}
	if len(after) != len(before) {
		t.Errorf("pins %v, before %v", after, before)
	}
	must(t, s.Replace(plan.Objects{}, plan.Objects{Fault: "what was"})) // the undo
	wantItems(t, s, want)
}

// A replacement that was interrupted anywhere is done again.
func TestReplaceInterrupted(t *testing.T) {
	s, _, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	for what, damage := range map[string]func(){
		"after a link": func() {
			l, err := s.dir().openLink(lookupLink)
			must(t, err)
			defer l.Close()
			must(t, l.Update(foreignProgram(t, ebpf.SkLookup, ebpf.AttachSkLookup)))
		},
		"after a pin": func() {
			must(t, s.dir().replace(bpfProgSteerOrigin, foreignProgram(t, ebpf.SchedCLS, 0)))
		},
		"without a pin": func() { must(t, os.Remove(s.dir().pin(bpfProgSteerOriginL3))) },
		"before a rename": func() {
			must(t, foreignProgram(t, ebpf.SchedCLS, 0).Pin(s.dir().pin(bpfProgSteerClient+building)))
			must(t, s.dir().replace(bpfProgSteerClient, foreignProgram(t, ebpf.SchedCLS, 0)))
		},
	} {
		damage()
		if changes := apply(t, s, want); len(changes) != 1 {
			t.Errorf("%s: %v", what, changes)
		}
		wantItems(t, s, want)
		if left, err := filepath.Glob(s.dir().pin("*" + building)); err != nil || left != nil {
			t.Errorf("%s: left %v %v", what, left, err)
		}
	}
}

// A detach that was killed between the steps of ending a link leaves nothing that
// passes for one that stands; attach makes it again, detach finishes. One that has not been
// ended yet is taken back, so that nothing passes in between; one at FORWARD does not tell.
func TestEndInterrupted(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	all, err := s.dir().names(linkPrefix)
	must(t, err)
	for _, name := range all {
		for _, ended := range []bool{false, true} {
			held, err := s.dir().openLink(name) // as an inspector does
			must(t, err)
			must(t, os.Rename(s.dir().pin(name), s.dir().pin(name+ending)))
			if ended {
				must(t, held.Detach())
			}
			changes := apply(t, s, want)
			wantItems(t, s, want)
			if !ended && !isForwardLink(name) {
				wantKept(t, s, held)
			} else {
				wantEnded(t, s, held)
			}
			if len(changes) != 1 || changes[0].Op == plan.Remove {
				t.Errorf("%s, ended %t: %v", name, ended, changes)
			}
			must(t, held.Close())
		}
	}
	for _, name := range all {
		must(t, os.Rename(s.dir().pin(name), s.dir().pin(name+ending)))
	}
	apply(t, s, nil)
	wantNothing(t, s, dir)
}

// wantEnded expects that a link runs no more. One at FORWARD that does keeps its
// priority from the one that is pinned now.
func wantEnded(t *testing.T, s *Steer, l *pinnedLink) {
	t.Helper()
	now, err := s.dir().openLink(l.name)
	must(t, err)
	defer now.Close()
	info, err := l.Info()
	must(t, err)
	if runs(info) {
		t.Errorf("%s runs on", l.name)
	}
	if l.program == bpfProgSteerForward && now.info.Netfilter().Priority != l.info.Netfilter().Priority {
		t.Errorf("%s runs on at priority %d", l.name, l.info.Netfilter().Priority)
	}
}

// wantKept expects that a link is pinned by its name, and runs.
func wantKept(t *testing.T, s *Steer, l *pinnedLink) {
	t.Helper()
	now, err := s.dir().openLink(l.name)
	must(t, err)
	defer now.Close()
	if now.info.ID != l.info.ID || !runs(now.info) {
		t.Errorf("%s is link %d, and was link %d", l.name, now.info.ID, l.info.ID)
	}
}

// What is killed while it ends a link at FORWARD, which does not show its end,
// has taken its name from it before.
func TestRenamedBeforeItsEnd(t *testing.T) {
	needNFLinks(t)
	s, _, _ := gateway(t)
	must(t, s.Add(plan.Objects{}))
	must(t, s.Add(plan.Forward{Family: plan.IPv4}))
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, string(s.dir()), unix.IN_MOVED_FROM|unix.IN_DELETE)
	must(t, err)
	must(t, s.Remove(plan.Forward{Family: plan.IPv4}))
	events := make([]byte, 4096)
	n, err := unix.Read(watch, events)
	must(t, err)
	if first := binary.NativeEndian.Uint32(events[4:]); n < unix.SizeofInotifyEvent || first != unix.IN_MOVED_FROM {
		t.Errorf("the first thing that happened to a pin is %#x", first)
	}
}

// An attach that was killed before its rename is a leftover like others.
func TestUnfinished(t *testing.T) {
	for what, finish := range map[string]func(*Steer) error{
		"detach": func(s *Steer) error { return s.Remove(plan.Objects{}) },
		"attach": func(s *Steer) error { return s.Replace(plan.Objects{Fault: "unfinished"}, plan.Objects{}) },
	} {
		t.Run(what, func(t *testing.T) {
			s, dir := sandbox(t)
			must(t, os.MkdirAll(string(s.dir().aside()), 0o700))
			must(t, buildSet(s.dir().aside()))
			have, err := s.Have()
			must(t, err)
			if d := cmp.Diff([]plan.Item{plan.Objects{Fault: "unfinished"}}, have); d != "" {
				t.Error(d)
			}
			must(t, finish(s))
			if what == "attach" {
				wantItems(t, s, []plan.Item{plan.Objects{}})
				must(t, s.Remove(plan.Objects{}))
			}
			wantNothing(t, s, dir)
		})
	}
}

// A detach that was killed before its last step left an empty directory.
func TestEmptyRootIsALeftover(t *testing.T) {
	s, dir := sandbox(t)
	must(t, os.Mkdir(s.root(), 0o700))
	have, err := s.Have()
	must(t, err)
	if d := cmp.Diff([]plan.Item{plan.Objects{Fault: "unfinished"}}, have); d != "" {
		t.Error(d)
	}
	must(t, s.Remove(plan.Objects{}))
	wantNothing(t, s, dir)
}

func TestLeftoverBesideObjects(t *testing.T) {
	s, dir := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	must(t, os.MkdirAll(string(s.dir().aside()), 0o700))
	if changes := apply(t, s, []plan.Item{plan.Objects{}}); len(changes) != 1 {
		t.Error(changes)
	}
	wantItems(t, s, []plan.Item{plan.Objects{}})
	apply(t, s, nil)
	wantNothing(t, s, dir)
}

// Maps of another release are not touched, and said to be what they are, even
// if they have another shape.
func TestOtherABI(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	for _, size := range []uint32{4, 8, 1000} {
		apply(t, s, want)
		pinSettings(t, s, size, 99)
		have, err := s.Have()
		must(t, err)
		if !strings.Contains(have[0].String(), "ABI 99, this build speaks 3") {
			t.Error(have[0])
		}
		for what, err := range map[string]error{
			"add":     s.Add(plan.Objects{}),
			"replace": s.Replace(have[0], plan.Objects{}),
			"change":  s.Add(plan.Service{Name: "new"}),
		} {
			if err == nil || !strings.Contains(err.Error(), "detach with the release that attached") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := s.Inspector(); err == nil {
			t.Error("an inspector opened the maps")
		}
		apply(t, s, nil)
		wantNothing(t, s, dir)
	}
}

// pinSettings puts another release's map in place of ours.
func pinSettings(t *testing.T, s *Steer, size, abi uint32) {
	t.Helper()
	must(t, s.Close())
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1})
	must(t, err)
	defer m.Close()
	value := make([]byte, size)
	binary.NativeEndian.PutUint32(value, abi)
	must(t, m.Put(uint32(0), value))
	must(t, os.Remove(s.dir().pin(bpfMapSettings)))
	must(t, m.Pin(s.dir().pin(bpfMapSettings)))
}

// Whatever pin is missing or is something else: Have works, a change is
// refused, and detach removes the rest.
func TestDamaged(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	all := pins(t, s)
	for name := range all {
		if strings.HasPrefix(name, linkPrefix) {
			continue
		}
		apply(t, s, want)
		must(t, os.Remove(s.dir().pin(name)))
		if len(name)%2 == 0 { // or a thing of another kind
			must(t, foreignMap(t).Pin(s.dir().pin(name)))
		}
		must(t, s.Close())
		have, err := s.Have()
		must(t, err)
		if !strings.Contains(have[0].String(), name) {
			t.Errorf("without %s: %s", name, have[0])
		}
		if err := s.Add(plan.Service{Name: "new"}); err == nil || !strings.Contains(err.Error(), "is damaged: no usable") {
			t.Errorf("without %s: a change gave %v", name, err)
		}
		if _, err := s.Counters(); err == nil {
			t.Errorf("without %s: the counters were read", name)
		}
		if _, isMap := all[name].(ebpf.MapID); isMap {
			if err := s.Replace(have[0], plan.Objects{}); err == nil {
				t.Errorf("without %s: replaced", name)
			}
		}
		for _, c := range plan.Diff(have, nil) {
			if err := s.Remove(c.Item); err != nil {
				t.Errorf("without %s: %s: %v", name, c, err)
			}
		}
		wantNothing(t, s, dir)
	}
}

func foreignMap(t *testing.T) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 3, MaxEntries: 1})
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// A pin directory left by a network namespace that is no more, whose inode
// ours has now: its links do nothing, and are made anew.
func TestInodeReused(t *testing.T) {
	s, _, _ := gateway(t)
	want := everything(t)
	former := newSpace(t)
	former.do(func() {
		must(t, s.Add(plan.Objects{}))
		must(t, s.Add(plan.Lookup{})) // attaches to the thread's network namespace
	})
	wantItems(t, s, []plan.Item{plan.Objects{}})
	apply(t, s, want)
	wantItems(t, s, want)
}

// Clsact filters are handed the pinned program, and the new one when it is
// replaced.
func TestFilters(t *testing.T) {
	s, _, _ := gateway(t)
	f := &fakeFilters{programs: map[plan.TC]ebpf.ProgramID{}}
	s.UseFilters(f)
	tc := plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: true}
	want := []plan.Item{plan.Objects{}, tc}
	apply(t, s, want)
	wantItems(t, s, want)
	if id := pins(t, s)[bpfProgSteerClient]; f.programs[tc] != id {
		t.Errorf("the filter runs program %v, pinned is %v", f.programs[tc], id)
	}
	if !OwnProgram(uint32(f.programs[tc])) {
		t.Error("the filter's program is not known as ours")
	}
	other := foreignProgram(t, ebpf.SchedCLS, 0)
	must(t, s.dir().replace(bpfProgSteerClient, other))
	apply(t, s, want)
	if id := pins(t, s)[bpfProgSteerClient]; f.programs[tc] != id {
		t.Errorf("after the replacement the filter runs program %v, pinned is %v", f.programs[tc], id)
	}
	// Pins are lost, for example with their file system: the filters stay, but their
	// maps are nobody's any more.
	must(t, s.dir().removeAll())
	apply(t, s, want)
	if id := pins(t, s)[bpfProgSteerClient]; f.programs[tc] != id {
		t.Errorf("after the loss of pins the filter runs program %v, pinned is %v", f.programs[tc], id)
	}
	wantItems(t, s, want)
	f.programs[tc]++ // as after a crash in the middle
	if changes := apply(t, s, want); len(changes) != 1 || !strings.Contains(changes[0].Old.String(), "filter portreeve_client of ext0 runs another program") {
		t.Errorf("a filter with another program: %v", changes)
	}
	wantItems(t, s, want)
	apply(t, s, nil)
	if len(f.programs) > 0 {
		t.Errorf("left %v", f.programs)
	}
	info, err := other.Info()
	must(t, err)
	if id, _ := info.ID(); OwnProgram(uint32(id)) || OwnProgram(0) {
		t.Error("a foreign program is taken for ours")
	}
}

// fakeFilters keeps the programs that it is given.
type fakeFilters struct{ programs map[plan.TC]ebpf.ProgramID }

func (f *fakeFilters) Have() (all []plan.TC, _ error) {
	for t := range f.programs {
		all = append(all, t)
	}
	return all, nil
}

func (f *fakeFilters) Runs(t plan.TC, program uint32) (bool, error) {
	return uint32(f.programs[t]) == program, nil
}

func (f *fakeFilters) Add(t plan.TC, fd int) error {
	id, err := programID(fd)
	f.programs[t] = id
	return err
}

// programID is the kernel's number of a program.
func programID(fd int) (ebpf.ProgramID, error) {
	fd, err := dup(fd)
	if err != nil {
		return 0, err
	}
	p, err := ebpf.NewProgramFromFD(fd)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

func (f *fakeFilters) Remove(t plan.TC) error {
	delete(f.programs, t)
	return nil
}
