package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// linkOperations are about devices, their addresses and programs at them.
var linkOperations = []operation{
	{name: "link down", weight: 5, class: links, stops: true, do: func(s *stage) (string, func() error, error) {
		name := pick(s, "ext0", "dmz0")
		return name, func() error {
			return errors.Join(s.does("ip link set "+name+" up"), s.assign())
		}, s.does("ip link set " + name + " down")
	}},
	{name: "loop link down", weight: 4, class: links, fits: loops, do: func(s *stage) (string, func() error, error) {
		name := pick(s, "portreeve0", "portreeve1")
		return name, nil, s.attempts("ip link set " + name + " down")
	}},
	{name: "loop link deleted", weight: 4, class: links, fits: loops, do: func(s *stage) (string, func() error, error) {
		name := pick(s, "portreeve0", "portreeve1")
		return name, nil, s.attempts("ip link del " + name)
	}},
	{name: "loop link renamed", weight: 2, class: links, fits: loops, do: func(s *stage) (string, func() error, error) {
		return "", s.attempted("ip link del reeve9"), s.attempts("ip link set portreeve0 down; ip link set portreeve0 name reeve9")
	}},
	{name: "interface made again", weight: 7, class: links, stops: true, do: func(s *stage) (string, func() error, error) {
		name := pick(s, "ext0", "dmz0")
		s.remade[name] = true
		return name, func() error { return s.remake(name, nil) }, s.does("ip link del " + name)
	}},
	{name: "interface renamed and back", weight: 5, class: links, stops: true, do: func(s *stage) (string, func() error, error) {
		name := pick(s, "ext0", "dmz0")
		return name, s.undoes("ip link set other9 name " + name), s.does("ip link set " + name + " name other9")
	}},
	{name: "address moved and back", weight: 4, class: links, do: func(s *stage) (string, func() error, error) {
		to := pick(s, "dmz0", "lo")
		g := s.env.Gateway4.String()
		other := "172.16.40.2"
		return to, func() error {
			return errors.Join(s.does(fmt.Sprintf("ip address del %s/32 dev %s; ip address del %s/24 dev ext0; ip address add %[1]s/24 dev ext0", g, to, other)), s.assign())
		}, errors.Join(s.does(fmt.Sprintf("ip address del %s/24 dev ext0; ip address add %s/24 dev ext0; ip address add %[1]s/32 dev %[3]s; ip route replace default via %[4]s", g, other, to, s.env.Router4)))
	}},
	{name: "clsact deleted", weight: 3, class: links, fits: func(s *stage) bool { return s.manager.wanted().Filters }, do: func(s *stage) (string, func() error, error) {
		name := pick(s, "ext0", "dmz0")
		return name, nil, s.attempts("tc qdisc del dev " + name + " clsact")
	}},
	{name: "a program before ours", weight: 4, class: links, do: func(s *stage) (string, func() error, error) { return s.meddle(testenv.Ends) }, fits: unfiltered},
	{name: "a program that clears marks", weight: 2, class: links, stops: true, do: func(s *stage) (string, func() error, error) { return s.meddle(testenv.Unmarks) }, fits: unfiltered},
	{name: "a program that redirects", weight: 2, class: links, stops: true, do: func(s *stage) (string, func() error, error) { return s.meddle(testenv.Redirects) }, fits: unfiltered},
}

// loops reports whether there is a loop link.
func loops(s *stage) bool { return !s.manager.wanted().Skip }

// unfiltered reports whether programs are attached by links: filters come behind all of
// those, which nobody can change.
func unfiltered(s *stage) bool { return !s.manager.wanted().Filters }

// attempts runs a script that may fail: what it takes away need not be there.
func (s *stage) attempts(script string) error {
	_, err := s.sh(script + "\ntrue")
	return err
}

func (s *stage) attempted(script string) func() error {
	return func() error { return s.attempts(script) }
}

// meddle attaches a program of somebody else's.
func (s *stage) meddle(what testenv.Meddling) (string, func() error, error) {
	name := "ext0"
	if what == testenv.Ends {
		name = pick(s, "ext0", "dmz0")
	}
	release, err := s.env.Gateway.Meddle(name, what)
	return name, release, err
}

// assign gives the gateway its addresses and routes again.
func (s *stage) assign() error {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	return s.env.Assign(ctx, s.env.Gateway)
}

// nic is what a device is known by, and the other end of it.
type nic struct{ index, address, peerIndex, peerAddress string }

// peer returns the node and the device at the other end of a device of the gateway.
func (s *stage) peer(name string) (*testenv.Node, string) {
	if name == "ext0" {
		return s.env.Router, "wan0"
	}
	return s.env.Origin, "dmz0"
}

func (s *stage) look(name string) (n nic, err error) {
	node, device := s.peer(name)
	if n.index, n.address, err = identity(s.ctx, s.env.Gateway, name); err != nil {
		return n, err
	}
	n.peerIndex, n.peerAddress, err = identity(s.ctx, node, device)
	return n, err
}

func identity(ctx context.Context, n *testenv.Node, device string) (index, address string, err error) {
	said, err := n.Run(ctx, "ip", "-oneline", "link", "show", "dev", device)
	if err != nil {
		return "", "", err
	}
	index, _, _ = strings.Cut(said, ":")
	_, rest, _ := strings.Cut(said, "link/ether ")
	address, _, _ = strings.Cut(rest, " ")
	return index, address, nil
}

// remake makes a device again that was deleted, with addresses and routes; as nobody
// knows it, or as it was.
func (s *stage) remake(name string, as *nic) error {
	node, device := s.peer(name)
	add := []string{"-n", s.env.Gateway.Name, "link", "add", "name", name}
	if as != nil {
		add = append(add, "index", as.index, "address", as.address)
	}
	add = append(add, "type", "veth", "peer", "name", device, "netns", node.Name)
	if as != nil {
		add = append(add, "index", as.peerIndex, "address", as.peerAddress)
	}
	if said, err := exec.CommandContext(s.ctx, "ip", add...).CombinedOutput(); err != nil {
		return fmt.Errorf("make %s: %w: %s", name, err, said)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	return errors.Join(s.assign(), s.env.Assign(ctx, node))
}
