package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Inspector is the running daemon's side of the kernel: its listeners in the
// slots of the services, and the heartbeat. All that it does later it does by
// descriptors that Steer.Inspector has opened, which takes no privileges. It is
// not safe for concurrent use, but for Beat and Owner.
type Inspector struct {
	set   *pinSet
	dir   *os.File          // the pin directory, for its lock
	pin   os.FileInfo       // of the heartbeat, by which a detach is noticed
	ours  map[uint64]bool   // cookies of the listeners that were registered
	seats map[string]uint32 // numbers of the services that they were registered for
	fills [2]bool           // IPv4 and IPv6: there is a listener for these slots
	held  heldLinks         // see Hold
	clock clock             // for the heartbeat; read at the start, when there are descriptors to be had
}

// Inspector opens the pinned maps for the daemon. The error is ErrNotAttached
// where there are none.
func (s *Steer) Inspector() (*Inspector, error) {
	set, err := openSet(s.dir())
	if err != nil {
		return nil, explain(err)
	}
	if err := set.complete(); err != nil {
		set.Close()
		return nil, err
	}
	i := &Inspector{set: set, ours: map[uint64]bool{}, seats: map[string]uint32{}, held: heldLinks{}}
	if i.dir, err = os.Open(string(set.dir)); err == nil {
		i.pin, err = os.Stat(i.pinPath())
	}
	if err == nil {
		i.clock, err = ourClock()
	}
	if err != nil {
		i.Close()
		return nil, explain(err)
	}
	return i, nil
}

func (i *Inspector) pinPath() string { return i.set.dir.pin(bpfMapHeartbeat) }

// pinned returns ErrNotAttached once the maps that the inspector works with
// are not those of the kernel side any more: it was detached, perhaps attached
// anew with other maps. Where the pins alone are gone the links that it holds go
// on.
func (i *Inspector) pinned() error {
	now, err := os.Stat(i.pinPath())
	switch {
	case err == nil && (os.SameFile(i.pin, now) || i.repinned(now)):
		return nil
	case errors.Is(err, fs.ErrNotExist) && i.held.steer():
		return nil
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return ErrNotAttached
	}
	return err
}

// repinned reports whether a pin that is new is of the map that the inspector works
// with: the pins were lost, and the watcher has put them back. The inspector then goes
// on with the new directory.
func (i *Inspector) repinned(now os.FileInfo) bool {
	pinned, err := ebpf.LoadPinnedMap(i.pinPath(), nil)
	if err != nil {
		return false
	}
	defer pinned.Close()
	if !sameMap(pinned, i.set.maps[bpfMapHeartbeat]) {
		return false
	}
	dir, err := os.Open(string(i.set.dir))
	if err != nil {
		return false
	}
	i.dir.Close()
	i.dir, i.pin = dir, now
	return true
}

func sameMap(a, b *ebpf.Map) bool {
	one, err := a.Info()
	if err != nil {
		return false
	}
	other, err := b.Info()
	if err != nil {
		return false
	}
	id, known := one.ID()
	same, _ := other.ID()
	return known && id == same
}

// Close closes maps and links. Listeners stay in their slots until they are
// closed.
func (i *Inspector) Close() error {
	return errors.Join(i.set.Close(), i.dir.Close(), i.held.close())
}

// Watcher returns what the process has left that keeps the kernel side.
func (i *Inspector) Watcher() (Watcher, error) {
	now, err := i.clock.now()
	if err != nil {
		return Watcher{}, err
	}
	w, err := i.set.watcher(now)
	return w, explain(err)
}

// Services returns the services that the kernel side knows, by slot.
func (i *Inspector) Services() ([]plan.Service, error) {
	index, err := readSlots(i.set.maps[bpfMapServices])
	if err != nil {
		return nil, explain(err)
	}
	return index.list(), nil
}

// Knows returns an error that names those of the services that the kernel side
// does not know. To be asked before Beat and Register, either of which takes the
// traffic from the inspector that runs.
func (i *Inspector) Knows(services []string) error {
	index, err := readSlots(i.set.maps[bpfMapServices])
	if err != nil {
		return explain(err)
	}
	return index.know(services)
}

// Fits returns an error that says why an inspector with these settings and
// services would not work with what is attached; nil if it would.
func (i *Inspector) Fits(want plan.Settings, services []string) error {
	if err := i.Knows(services); err != nil {
		return err
	}
	have, err := i.Settings()
	if err != nil {
		return err
	}
	if have != want {
		return fmt.Errorf("the kernel side has %s, but the configuration asks for %s; run portreeve attach with this configuration", have, want)
	}
	return nil
}

// Settings returns those in force.
func (i *Inspector) Settings() (plan.Settings, error) {
	v, err := i.set.settings()
	if err != nil {
		return plan.Settings{}, explain(err)
	}
	return v.item(), nil
}

// Binding returns the binding that the programs find for an address and port,
// false where there is none. It is for a connection that was steered here by a
// binding which is newer than the inspector's configuration.
func (i *Inspector) Binding(at netip.AddrPort) (plan.Binding, bool) {
	key, err := makePrefix(netip.PrefixFrom(at.Addr(), at.Addr().BitLen()), at.Port())
	if err != nil {
		return plan.Binding{}, false
	}
	var v bpfBinding
	if i.set.maps[bpfMapBindings].Lookup(key, &v) != nil || v.Flags&bpfBindingFlagsBINDING_BYPASS != 0 {
		return plan.Binding{}, false
	}
	var service bpfService
	if i.set.maps[bpfMapServices].Lookup(v.Service, &service) != nil || service.Used == 0 {
		return plan.Binding{}, false
	}
	return plan.Binding{
		Prefix:    netip.PrefixFrom(at.Addr(), int(v.Bits)).Masked(),
		Port:      at.Port(),
		Service:   serviceName(service),
		Addressed: v.Flags&bpfBindingFlagsBINDING_ADDRESSED != 0,
		Transit:   v.Flags&bpfBindingFlagsBINDING_TRANSIT != 0,
	}, true
}

// Register puts listeners into the slots of services: l4 for clients that come
// by IPv4, l6 for IPv6; either may be nil and leaves the slot as it is. Each
// slot goes over from its former owner between two connections, and what waits
// in the queue of the former owner's listener is still that owner's. The kernel
// empties the slot when the listener is closed. Where a service does not exist
// no slot is touched: half a registration would take the traffic of the others
// from an inspector that works.
func (i *Inspector) Register(services []string, l4, l6 syscall.Conn) error {
	return i.withSlots(func(index *slots) error {
		if err := index.know(services); err != nil {
			return err
		}
		return i.register(index, services, l4, l6, false)
	})
}

// Return puts listeners into those slots of services that are empty, and passes
// over services that there are not. An inspector that has lost its place gets it
// back so, and takes it from no other.
func (i *Inspector) Return(services []string, l4, l6 syscall.Conn) error {
	return i.withSlots(func(index *slots) error { return i.register(index, services, l4, l6, true) })
}

func (i *Inspector) register(index *slots, services []string, l4, l6 syscall.Conn, emptyOnly bool) error {
	i.fills = [2]bool{i.fills[0] || l4 != nil, i.fills[1] || l6 != nil}
	return index.each(services, func(name string, id uint32) error {
		i.seats[name] = id
		if err := i.fill(slot4(id), l4, unix.AF_INET, emptyOnly); err != nil {
			return err
		}
		return i.fill(slot6(id), l6, unix.AF_INET6, emptyOnly)
	})
}

// Unregister empties the slots of services that hold a listener which was
// registered here. What a newer inspector has put there stays, and a service
// that was removed meanwhile has no slot.
func (i *Inspector) Unregister(services []string) error {
	return i.withSlots(func(index *slots) error {
		return index.each(services, func(_ string, id uint32) error {
			return errors.Join(i.drain(slot4(id)), i.drain(slot6(id)))
		})
	})
}

// withSlots calls f with the numbers of services, which do not change
// meanwhile.
func (i *Inspector) withSlots(f func(*slots) error) error {
	if err := flock(i.dir, unix.LOCK_EX); err != nil {
		return explain(err)
	}
	defer flock(i.dir, unix.LOCK_UN)
	index, err := readSlots(i.set.maps[bpfMapServices])
	if err != nil {
		return explain(err)
	}
	return f(index)
}

// know returns an error that names the services that there are not.
func (s *slots) know(services []string) error {
	var unknown []string
	for _, name := range services {
		if _, found := s.byName[name]; !found {
			unknown = append(unknown, name)
		}
	}
	if unknown == nil {
		return nil
	}
	return fmt.Errorf("the kernel side has no service %s; run portreeve attach with this configuration", strings.Join(unknown, ", "))
}

// each calls f for each of the services that there are, with its number.
func (s *slots) each(services []string, f func(name string, id uint32) error) error {
	for _, name := range services {
		id, found := s.byName[name]
		if !found {
			continue
		}
		if err := f(name, id); err != nil {
			return fmt.Errorf("service %s: %w", name, explain(err))
		}
	}
	return nil
}

// fill puts a listener into a slot. One that is there already is not put there
// again, lest the kernel drop its only reference together with the old one.
func (i *Inspector) fill(slot uint32, l syscall.Conn, family int, emptyOnly bool) error {
	return withSocket(l, func(fd int) error {
		if err := checkListener(fd, family); err != nil {
			return err
		}
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			return fmt.Errorf("read the listener's cookie: %w", err)
		}
		there, err := slotCookie(i.set.maps[bpfMapListeners], slot)
		if err != nil || there == cookie || emptyOnly && there != 0 {
			return err
		}
		i.ours[cookie] = true
		if err := i.set.maps[bpfMapListeners].Put(slot, uint64(fd)); err != nil {
			return fmt.Errorf("put the listener into slot %d: %w", slot, err)
		}
		return nil
	})
}

// drain empties a slot that holds a listener of ours.
func (i *Inspector) drain(slot uint32) error {
	there, err := slotCookie(i.set.maps[bpfMapListeners], slot)
	if err != nil || !i.ours[there] {
		return err
	}
	if err := i.set.maps[bpfMapListeners].Delete(slot); err != nil && !isAbsent(err) {
		return fmt.Errorf("take the listener out of slot %d: %w", slot, err)
	}
	return nil
}

// slotCookie is the cookie of the socket in a slot, 0 if it is empty.
func slotCookie(listeners *ebpf.Map, slot uint32) (uint64, error) {
	var cookie uint64
	err := listeners.Lookup(slot, &cookie)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read slot %d: %w", slot, err)
	}
	return cookie, nil
}

// withSocket calls f with the descriptor of a listener, which may be nil.
func withSocket(l syscall.Conn, f func(fd int) error) error {
	if l == nil {
		return nil
	}
	conn, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("use the listener: %w", err)
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return fmt.Errorf("use the listener: %w", err)
	}
	return failed
}

// checkListener refuses what the kernel would refuse with a bare number, or
// would take and never use.
func checkListener(fd, family int) error {
	if err := checkNetns(fd); err != nil {
		return err
	}
	for _, c := range []struct {
		option, want int
		complaint    string
	}{
		{unix.SO_DOMAIN, family, "is of another address family than its slot"},
		{unix.SO_PROTOCOL, unix.IPPROTO_TCP, "does not speak plain TCP, perhaps MPTCP (Go's default): ListenConfig.SetMultipathTCP(false)"},
		{unix.SO_ACCEPTCONN, 1, "does not listen"},
	} {
		have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, c.option)
		if err != nil {
			return fmt.Errorf("read option %d of the listener: %w", c.option, err)
		}
		if have != c.want {
			return fmt.Errorf("the listener %s", c.complaint)
		}
	}
	return nil
}

// checkNetns refuses a listener of another network namespace than the calling
// thread's, which sk_lookup would assign to no connection (SO_NETNS_COOKIE,
// kernel 5.14).
func checkNetns(fd int) error {
	here, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("identify the network namespace: %w", err)
	}
	defer unix.Close(here)
	want, err := unix.GetsockoptUint64(here, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return fmt.Errorf("identify the network namespace: %w", err)
	}
	have, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return fmt.Errorf("identify the listener's network namespace: %w", err)
	}
	if have != want {
		return errors.New("the listener is in another network namespace")
	}
	return nil
}

// Beat writes the heartbeat of an inspector. Its number is not 0, which stands
// for none.
func (i *Inspector) Beat(instance uint64) error {
	if instance == 0 {
		return errors.New("write the heartbeat: an inspector's number is not 0")
	}
	now, err := i.clock.now()
	if err != nil {
		return err
	}
	beat := bpfHeartbeat{LastNs: uint64(now), Instance: instance}
	if err := i.set.maps[bpfMapHeartbeat].Put(uint32(0), beat); err != nil {
		return explain(fmt.Errorf("write the heartbeat: %w", err))
	}
	return nil
}

// Owner returns whose heartbeat was written last and how long ago; instance 0
// if there has been none. The error is ErrNotAttached when these maps steer
// nothing any more.
func (i *Inspector) Owner() (instance uint64, age time.Duration, err error) {
	if err := i.pinned(); err != nil {
		return 0, 0, err
	}
	return i.set.owner(i.clock)
}

func (s *pinSet) owner(c clock) (instance uint64, age time.Duration, err error) {
	var beat bpfHeartbeat
	if err := s.maps[bpfMapHeartbeat].Lookup(uint32(0), &beat); err != nil {
		return 0, 0, fmt.Errorf("read the heartbeat: %w", err)
	}
	now, err := c.now()
	return beat.Instance, now - time.Duration(beat.LastNs), err
}
