package testenv

import (
	"fmt"
	"strconv"
	"strings"
)

// socket is one TCP socket of a node, as /proc/net/tcp shows it.
type socket struct {
	state          uint64
	unsent, unread uint64 // octets
}

// States of the kernel's tcp_states.h. In the first three a process may still read
// or write.
const (
	established = 1
	synReceived = 3
	closeWait   = 8
	timeWait    = 6
	listening   = 10
)

func (s *socket) open() bool {
	return s.state == established || s.state == synReceived || s.state == closeWait
}

// Connected reports whether a TCP connection has an end on this node that is
// not closed yet.
func (n *Node) Connected() (bool, error) {
	used, err := n.used()
	if err != nil || used == n.atRest.Load() {
		return false, err
	}
	sockets, err := n.sockets()
	if err != nil {
		return false, err
	}
	only := true // listeners
	for _, s := range sockets {
		if s.open() {
			return true, nil
		}
		only = only && (s.state == listening || s.state == timeWait)
	}
	if now, err := n.used(); only && now == used {
		n.atRest.Store(used)
		return false, err
	}
	return false, nil
}

// used counts the TCP sockets of both families, listeners too, but not those in
// TIME_WAIT. The kernel keeps the number; a list of them takes it a walk through
// the connections of all namespaces, some milliseconds.
func (n *Node) used() (total int64, err error) {
	err = n.Enter(func() error {
		for _, name := range []string{"sockstat", "sockstat6"} {
			rows, err := columns("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for _, row := range rows { // TCP: inuse 3 orphan 0 ...
				if len(row) > 2 && (row[0] == "TCP:" || row[0] == "TCP6:") {
					number, err := strconv.ParseInt(row[2], 10, 64)
					if err != nil {
						return err
					}
					total += number
				}
			}
		}
		return nil
	})
	return total, err
}

// Pending counts the octets of all connections of this node that were written
// and not acknowledged, and that came and were not read.
func (n *Node) Pending() (unsent, unread uint64, err error) {
	sockets, err := n.sockets()
	for _, s := range sockets {
		if s.open() {
			unsent += s.unsent
			unread += s.unread
		}
	}
	return unsent, unread, err
}

// sockets reads the TCP sockets of both families.
func (n *Node) sockets() (all []socket, err error) {
	err = n.Enter(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			rows, err := columns("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for _, row := range rows[1:] { // below the heading
				s, err := parseSocket(row)
				if err != nil {
					return err
				}
				all = append(all, s)
			}
		}
		return nil
	})
	return all, err
}

// parseSocket reads number, local and remote address:port, and of interest: state
// and unsent:unread, in hexadecimal. Of a listener the last are its backlog.
func parseSocket(row []string) (s socket, err error) {
	if len(row) < 5 {
		return s, fmt.Errorf("socket %q has too few columns", row)
	}
	unsent, unread, _ := strings.Cut(row[4], ":")
	for _, f := range []struct {
		text string
		into *uint64
	}{{row[3], &s.state}, {unsent, &s.unsent}, {unread, &s.unread}} {
		if err == nil {
			*f.into, err = strconv.ParseUint(f.text, 16, 64)
		}
	}
	if err != nil {
		return s, fmt.Errorf("socket %q: %w", row, err)
	}
	return s, nil
}
