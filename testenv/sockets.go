package testenv

import (
	"fmt"
	"strconv"
	"strings"
)

// socket is one TCP socket of a node, as /proc/net/tcp shows it.
type socket struct {
	port           uint16 // local
	state          uint64
	unsent, unread uint64 // octets
}

// States in which a process may still read or write, from the kernel's
// tcp_states.h.
const (
	established = 1
	synReceived = 3
	closeWait   = 8
)

func (s *socket) open() bool {
	return s.state == established || s.state == synReceived || s.state == closeWait
}

// Connections counts the connections of a local port whose end on this node is
// not closed yet.
func (n *Node) Connections(port uint16) (count int, err error) {
	sockets, err := n.sockets()
	for _, s := range sockets {
		if s.port == port && s.open() {
			count++
		}
	}
	return count, err
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

// parseSocket reads number, local and remote address:port, state, and
// unsent:unread, in hexadecimal. Of a listener the last are its backlog.
func parseSocket(row []string) (s socket, err error) {
	if len(row) < 5 {
		return s, fmt.Errorf("socket %q has too few columns", row)
	}
	_, port, _ := strings.Cut(row[1], ":")
	unsent, unread, _ := strings.Cut(row[4], ":")
	number, err := strconv.ParseUint(port, 16, 16)
	s.port = uint16(number)
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
