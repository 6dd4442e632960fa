package stream

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Watch waits for many silent connections at once. A goroutine that waits for
// one keeps the stack that it grew while there was something to do, 4 KiB or
// more; a connection that a Watch waits for takes a hundred octets. The zero
// value is ready.
//
// It has an epoll instance of its own, beside the runtime's, and waits for that
// by the runtime's.
type Watch struct {
	mu     sync.Mutex
	epoll  *os.File // nil before it is needed
	last   uint64   // number given to a sleeper
	asleep map[uint64]sleeper
	looked time.Time // when the time of all sleepers was looked at
	awake  bool      // run is under way
}

// sleeper is a connection that somebody waits for.
type sleeper struct {
	until time.Time
	wake  func()
}

// tick is how late the end of a sleeper's time may be noticed.
const tick = time.Second

// Sleep makes wake be called once, in a goroutine of its own: when c has
// something to read, has ended or is broken, when the time is over, or by Wake.
// It does not see that c is closed by this process, nor deadlines: who does
// that calls Wake. An error means that wake will not be called.
func (w *Watch) Sleep(c *Conn, until time.Time, wake func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.open(); err != nil {
		return err
	}
	w.last++
	if err := w.register(c, w.last); err != nil {
		return err
	}
	c.bed = w.last
	w.asleep[c.bed] = sleeper{until, wake}
	if !w.awake {
		w.awake = true
		go w.run()
	}
	return nil
}

// open makes the epoll instance, the first time.
func (w *Watch) open() error {
	if w.epoll != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else the runtime would not poll it
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	w.epoll, w.asleep = os.NewFile(uintptr(fd), "epoll"), make(map[uint64]sleeper)
	return nil
}

// register arms one event for a connection. What is there already counts. The
// number tells the event from those of earlier sleeps, which may still come.
func (w *Watch) register(c *Conn, number uint64) error {
	instance, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(number), Pad: int32(number >> 32)}
	var failed error
	err = instance.Control(func(epoll uintptr) {
		failed = c.raw.Control(func(fd uintptr) {
			err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, int(fd), &event)
			if errors.Is(err, unix.EEXIST) { // it has slept before
				err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_MOD, int(fd), &event)
			}
		})
		failed = errors.Join(failed, os.NewSyscallError("epoll_ctl", err))
	})
	return errors.Join(err, failed)
}

// Wake ends the sleep of a connection, if it sleeps.
func (w *Watch) Wake(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(c.bed)
}

// Asleep returns how many connections sleep.
func (w *Watch) Asleep() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asleep)
}

// end wakes one sleeper. Its registration stays, and counts for nothing any more.
func (w *Watch) end(number uint64) {
	if s, ok := w.asleep[number]; ok {
		delete(w.asleep, number)
		go s.wake()
	}
}

// run wakes sleepers for as long as there are any.
func (w *Watch) run() {
	var room [64]unix.EpollEvent
	for {
		n, err := w.await(room[:])
		if !w.tend(room[:n], err) {
			return
		}
	}
}

// await waits for events, for one tick at most.
func (w *Watch) await(room []unix.EpollEvent) (n int, err error) {
	instance, err := w.epoll.SyscallConn()
	if err != nil {
		return 0, err
	}
	if err := w.epoll.SetReadDeadline(time.Now().Add(tick)); err != nil {
		return 0, err
	}
	var failed error
	err = instance.Read(func(fd uintptr) bool {
		n, failed = unix.EpollWait(int(fd), room, 0)
		return n != 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return max(n, 0), errors.Join(err, failed)
}

// tend wakes those for whom there is an event or whose time is over, or all when
// no events can be had any more. It reports whether anybody is left.
func (w *Watch) tend(events []unix.EpollEvent, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		w.end(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
	}
	if now := time.Now(); err != nil || now.Sub(w.looked) >= tick {
		w.looked = now
		for number, s := range w.asleep {
			if err != nil || !now.Before(s.until) {
				w.end(number)
			}
		}
	}
	w.awake = len(w.asleep) > 0
	return w.awake
}
