package sockopt

import (
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv/alone"
)

func TestMain(m *testing.M) { alone.Main(m) }

var (
	any4 = netip.IPv4Unspecified()
	any6 = netip.IPv6Unspecified()
)

// socket returns a TCP socket that is closed at the end of the test.
func socket(t *testing.T, family int) uintptr {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return uintptr(fd)
}

func TestOptionsReachTheSocket(t *testing.T) {
	for _, c := range []struct {
		name          string
		family        int
		level, option int
		set           func(fd uintptr) error
		want          int
	}{
		{"transparent IPv4", unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT, func(fd uintptr) error { return Transparent(fd, any4) }, 1},
		{"transparent IPv6", unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, func(fd uintptr) error { return Transparent(fd, any6) }, 1},
		{"no port IPv4", unix.AF_INET, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, BindAddressNoPort, 1},
		{"no port IPv6", unix.AF_INET6, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, BindAddressNoPort, 1},
		{"reuse", unix.AF_INET, unix.SOL_SOCKET, unix.SO_REUSEADDR, ReuseAddr, 1},
		{"mark", unix.AF_INET6, unix.SOL_SOCKET, unix.SO_MARK, func(fd uintptr) error { return Mark(fd, 0x20000000) }, 0x20000000},
		{"highest mark", unix.AF_INET, unix.SOL_SOCKET, unix.SO_MARK, func(fd uintptr) error { return Mark(fd, 0x80000000) }, 0x80000000},
	} {
		t.Run(c.name, func(t *testing.T) {
			fd := socket(t, c.family)
			if err := c.set(fd); err != nil {
				t.Fatal(err)
			}
			got, err := unix.GetsockoptInt(int(fd), c.level, c.option)
			if err != nil || uint32(got) != uint32(c.want) {
				t.Errorf("option is 0x%x, %v; want 0x%x", got, err, c.want)
			}
		})
	}
}

func TestErrorNamesOptionAndCapability(t *testing.T) {
	four, six := socket(t, unix.AF_INET), socket(t, unix.AF_INET6)
	errs := make(chan error, 3)
	go func() { // its thread has lost its capabilities and ends with it
		runtime.LockOSThread()
		if err := dropCapabilities(); err != nil {
			t.Error(err)
		}
		errs <- Transparent(four, any4)
		errs <- Transparent(six, any6)
		errs <- Mark(four, 1)
	}()
	for _, option := range []string{"IP_TRANSPARENT", "IPV6_TRANSPARENT", "SO_MARK"} {
		err := <-errs
		var failed *Error
		if !errors.As(err, &failed) || failed.Option != option || !errors.Is(err, unix.EPERM) {
			t.Fatalf("error %v, want %s: %v", err, option, unix.EPERM)
		}
		if text := err.Error(); !strings.Contains(text, "set "+option) || !strings.Contains(text, "CAP_NET_RAW") {
			t.Errorf("error %q does not say what failed and what is missing", text)
		}
	}
}

// dropCapabilities takes all effective capabilities from the calling thread.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

func TestErrorWithoutCapability(t *testing.T) {
	err := ReuseAddr(^uintptr(0))
	if want := "set SO_REUSEADDR: bad file descriptor"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
