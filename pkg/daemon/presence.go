package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// present begins the name of a socket of each inspector, from before it changes
// anything until the end of its drain. Such names (abstract ones) belong to the
// network namespace, as the kernel side does, take no file and no privileges, and
// go with the process, however it ends.
const present = "@portreeve/inspector/"

// Presence makes an inspector known to others, which are ordered by it: older
// ones still have sessions, newer ones are about to take over.
type Presence struct {
	number uint64
	socket io.Closer // nil: somebody else's
}

// Appear makes an inspector known that is newer than any that is there. Its
// caller closes it.
func Appear() (*Presence, error) {
	others, err := presences()
	if err != nil {
		return nil, err
	}
	number := uint64(time.Now().UnixNano())
	if len(others) > 0 {
		number = max(number, slices.Max(others)+1) // the clock may have been set back
	}
	name := &net.UnixAddr{Net: "unixgram", Name: present + strconv.FormatUint(number, 10)}
	socket, err := net.ListenUnixgram(name.Net, name)
	if err != nil {
		return nil, fmt.Errorf("tell other inspectors of this one: %w", err)
	}
	return &Presence{number, socket}, nil
}

// Reappear returns a presence whose socket was handed on, see File. It owns the
// socket.
func Reappear(number uint64, socket *os.File) *Presence { return &Presence{number, socket} }

// Known returns the presence of an inspector for a process that works for it and
// asks who is older or newer than that.
func Known(number uint64) *Presence { return &Presence{number: number} }

// Number is the inspector's: newer ones have higher ones.
func (p *Presence) Number() uint64 { return p.number }

// File returns the socket to hand it on to another program of the same process,
// which owns it. Others know the inspector until both are closed.
func (p *Presence) File() (*os.File, error) {
	f, err := p.socket.(*net.UnixConn).File()
	if err != nil {
		return nil, fmt.Errorf("tell other inspectors of this one: %w", err)
	}
	return f, nil
}

// Close makes others see the inspector no more.
func (p *Presence) Close() error { return p.socket.Close() }

// Elders reports whether an older inspector has not ended yet.
func (p *Presence) Elders() (bool, error) {
	return p.any(func(other uint64) bool { return other < p.number })
}

// Heirs reports whether a newer inspector is there: what it has made ready is
// not to be removed, and all that is not its own is its to remove.
func (p *Presence) Heirs() (bool, error) {
	return p.any(func(other uint64) bool { return other > p.number })
}

// Present is how many inspectors there are in this network namespace.
func Present() (int, error) {
	all, err := presences()
	return len(all), err
}

// Outrun reports whether another inspector is newer, and still there.
func (p *Presence) Outrun(by uint64) (bool, error) {
	return p.any(func(other uint64) bool { return other == by && other > p.number })
}

func (p *Presence) any(is func(uint64) bool) (bool, error) {
	others, err := presences()
	return slices.ContainsFunc(others, is), err
}

// presences reads the numbers of all inspectors of this network namespace.
func presences() ([]uint64, error) {
	f, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil, fmt.Errorf("look for other inspectors: %w", err)
	}
	defer f.Close()
	var all []uint64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		_, text, found := strings.Cut(lines.Text(), " "+present)
		if number, err := strconv.ParseUint(text, 10, 64); found && err == nil {
			all = append(all, number)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("look for other inspectors: %w", err)
	}
	return all, nil
}
