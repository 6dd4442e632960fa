package doctor

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysctl reads a kernel setting by its path under /proc/sys; "" when this
// kernel has none of that name. Interface names go in as they are: a dot in
// eth0.25 stays a dot in the path.
func sysctl(path ...string) string {
	data, err := os.ReadFile(filepath.Join(append([]string{"/proc/sys"}, path...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// listeners returns the addresses that TCP sockets of this network namespace
// listen on.
func listeners() ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, path := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found, err := parseListeners(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// parseListeners reads the table of /proc/net/tcp: a header, then a socket a
// line with its local address in the second column and its state in the
// fourth.
func parseListeners(r io.Reader) ([]netip.AddrPort, error) {
	var found []netip.AddrPort
	lines := bufio.NewScanner(r)
	lines.Scan()
	for lines.Scan() {
		column := strings.Fields(lines.Text())
		if len(column) < 4 || column[3] != tcpListen {
			continue
		}
		a, err := parseEndpoint(column[1])
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, lines.Err()
}

// parseEndpoint reads "0100007F:0019": the address as 32-bit words in the
// machine's byte order, the port as a number.
func parseEndpoint(s string) (netip.AddrPort, error) {
	address, port, found := strings.Cut(s, ":")
	raw, err := hex.DecodeString(address)
	if err != nil || !found || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("unreadable address %q", s)
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("unreadable port in %q", s)
	}
	if littleEndian {
		for word := range slices.Chunk(raw, 4) {
			slices.Reverse(word)
		}
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("unreadable address %q", s)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}
