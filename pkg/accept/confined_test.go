package accept

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// confined runs a function on a thread of its own, which something is taken
// away from before and which ends with it.
func confined(t *testing.T, take func() error, do func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock
		err := take()
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// capabilities takes all effective capabilities from the calling thread.
func capabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// family6 makes the calling thread believe that the kernel has no IPv6.
func family6() error {
	const number, argument = 0, 16 // offsets in struct seccomp_data
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unlessEqual := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
	}
	result := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{
		load(number), unlessEqual(unix.SYS_SOCKET, 3),
		load(argument), unlessEqual(unix.AF_INET6, 1),
		result(unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)),
		result(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

func TestListenWithoutPrivileges(t *testing.T) {
	confined(t, capabilities, func() {
		_, err := Listen(Options{Table: NewTable(nil)})
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "IP_TRANSPARENT") || !strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("%v does not say which option needs what", err)
		}
	})
}

func TestListenWithoutIPv6(t *testing.T) {
	confined(t, family6, func() {
		if _, err := Listen(Options{Table: NewTable(bindings())}); !errors.Is(err, unix.EAFNOSUPPORT) {
			t.Errorf("with an IPv6 binding: %v, want %v", err, unix.EAFNOSUPPORT)
		}
		ls, err := Listen(Options{Table: NewTable([]plan.Binding{bind("192.0.2.1/32", 25, "four")})})
		if err != nil {
			t.Error(err)
			return
		}
		defer ls.Close()
		if len(ls.All()) != 1 || ls.All()[0].Family() != plan.IPv4 || ls.IPv6() != nil {
			t.Errorf("%d listeners, want the one for IPv4", len(ls.All()))
		}
		if err := ls.Replace(NewTable(bindings())); err == nil || !strings.Contains(err.Error(), "IPv6") {
			t.Errorf("a table with an IPv6 binding: %v", err)
		}
	})
}
