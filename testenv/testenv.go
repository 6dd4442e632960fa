// Package testenv builds small networks of Linux network namespaces in which
// tests and the demo run real mail: a client, a router, the gateway and an
// origin, with the addresses of topology.env.
//
// It owns those namespaces, the processes in them, a private BPF file system
// and a temporary directory, and removes all of them whatever happens to its
// process (see janitor.sh). It never touches the host's own network, and it
// judges nothing: it uses ip, tc, nft and iptables by exec so that what tests
// compare with does not come from the code under test. Tests of this tree and
// cmd/demo use it; the product never does.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options are what an Env can differ in. The zero value is the ordinary
// network with an MTU of 1500 everywhere.
type Options struct {
	// RouterLANMTU is the MTU of the router towards the client; the client's
	// own stays 1500, so that only path MTU discovery can find it. 0: 1500.
	RouterLANMTU int
	// RouterWANMTU is the MTU of the router towards the gateway. 0: 1500.
	RouterWANMTU int
	// Inner puts a further router between gateway and origin.
	Inner bool
	// InnerMTU is the MTU of the inner router towards the origin, unknown to
	// the gateway. 0: 1500.
	InnerMTU int
}

// Env is a running network. Close it.
type Env struct {
	Topology
	Client, Router, Gateway, Origin *Node
	Inner                           *Node  // nil without Options.Inner
	Dir                             string // temporary, for everybody's files
	BPFFS                           string // a BPF file system of the gateway's own
	RunDir                          string // for the gateway's journal and lock; it does not exist yet

	options Options
	prefix  string
	janitor *janitor
}

// made counts the Envs of this process, for their names.
var made atomic.Int64

// New builds a network. It needs root.
func New(ctx context.Context, options Options) (*Env, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("build test network: network namespaces need root: run the tests as root")
	}
	if err := Sweep(); err != nil {
		return nil, err
	}
	topology, err := parseTopology(topologyFile)
	if err != nil {
		return nil, err
	}
	e := &Env{Topology: topology, options: options}
	e.prefix = fmt.Sprintf("portreeve-%d-%d", os.Getpid(), made.Add(1))
	if err := e.hire(); err != nil {
		return nil, err
	}
	if err := e.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build test network: %w", err), e.Close())
	}
	return e, nil
}

// hire makes the directory and starts the janitor who removes it.
func (e *Env) hire() (err error) {
	e.Dir, err = os.MkdirTemp("", e.prefix+"-")
	if err != nil {
		return fmt.Errorf("build test network: %w", err)
	}
	e.janitor, err = hire(e.prefix, e.Dir)
	if err != nil {
		return errors.Join(err, os.Remove(e.Dir))
	}
	return nil
}

// Close removes the network with everything in it and waits for the end of
// that. Processes that still run in it are killed.
func (e *Env) Close() error {
	if err := e.janitor.clean(); err != nil {
		return fmt.Errorf("remove test network %s: %w", e.prefix, err)
	}
	return nil
}

// Nodes returns the machines from the client to the origin.
func (e *Env) Nodes() []*Node {
	nodes := []*Node{e.Client, e.Router, e.Gateway}
	if e.Inner != nil {
		nodes = append(nodes, e.Inner)
	}
	return append(nodes, e.Origin)
}

// build makes directories, namespaces and links and gives each node its role.
func (e *Env) build(ctx context.Context) error {
	// Servers drop their privileges and must still reach their files.
	if err := os.Chmod(e.Dir, 0o755); err != nil {
		return err
	}
	if err := e.makeDirs(); err != nil {
		return err
	}
	e.Client, e.Router = e.node("client"), e.node("router")
	e.Gateway, e.Origin = e.node("gateway"), e.node("origin")
	if e.options.Inner {
		e.Inner = e.node("inner")
	}
	for _, n := range e.Nodes() {
		if _, err := e.host(ctx, "ip", "netns", "add", n.Name); err != nil {
			return err
		}
		// Addresses that are tentative for a second would make every look at
		// the first second different.
		if err := n.SetSysctl("net.ipv6.conf.default.accept_dad", "0"); err != nil {
			return err
		}
	}
	if err := e.connect(ctx); err != nil {
		return err
	}
	for _, n := range e.Nodes() {
		if err := e.Assign(ctx, n); err != nil {
			return err
		}
	}
	if err := e.setMTUs(ctx); err != nil {
		return err
	}
	return e.awaitLinks(ctx)
}

func (e *Env) node(role string) *Node {
	return &Node{Name: e.prefix + "-" + role, Role: role}
}

// makeDirs mounts the gateway's BPF file system. The run directory is for the gateway
// to make, as on a machine that was started a moment ago.
func (e *Env) makeDirs() error {
	e.RunDir, e.BPFFS = filepath.Join(e.Dir, "run"), filepath.Join(e.Dir, "bpf")
	if err := os.Mkdir(e.BPFFS, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("bpf", e.BPFFS, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system at %s: %w", e.BPFFS, err)
	}
	return nil
}

// connect lays the links of topology.env between the nodes.
func (e *Env) connect(ctx context.Context) error {
	links := [][4]string{
		{e.Client.Name, "lan0", e.Router.Name, "lan0"},
		{e.Router.Name, "wan0", e.Gateway.Name, "ext0"},
	}
	if e.Inner == nil {
		links = append(links, [4]string{e.Gateway.Name, "dmz0", e.Origin.Name, "dmz0"})
	} else {
		links = append(links,
			[4]string{e.Gateway.Name, "dmz0", e.Inner.Name, "out0"},
			[4]string{e.Inner.Name, "in0", e.Origin.Name, "dmz0"})
	}
	for _, l := range links {
		_, err := e.host(ctx, "ip", "link", "add", l[1], "netns", l[0], "type", "veth", "peer", "name", l[3], "netns", l[2])
		if err != nil {
			return err
		}
	}
	return nil
}

// Assign gives a node its addresses and routes, as when it was made: for tests that
// have put another device in the place of one, under the same name.
func (e *Env) Assign(ctx context.Context, n *Node) error {
	cmd := n.Command(ctx, "sh", "-c", machineScript, "machine.sh", n.Role)
	cmd.Env = append(cmd.Env, e.environ()...)
	cmd.Env = append(cmd.Env, "ROUTER=yes")
	if e.Inner != nil {
		cmd.Env = append(cmd.Env, "INNER=yes")
	}
	_, err := run(cmd, "machine.sh "+n.Role)
	return err
}

// setMTUs narrows the links of the routers as the options say.
func (e *Env) setMTUs(ctx context.Context) error {
	for _, link := range []struct {
		node   *Node
		device string
		mtu    int
	}{
		{e.Router, "lan0", e.options.RouterLANMTU},
		{e.Router, "wan0", e.options.RouterWANMTU},
		{e.Inner, "in0", e.options.InnerMTU},
	} {
		if link.mtu == 0 || link.node == nil {
			continue
		}
		if _, err := link.node.Run(ctx, "ip", "link", "set", "dev", link.device, "mtu", strconv.Itoa(link.mtu)); err != nil {
			return err
		}
	}
	return nil
}

// awaitLinks waits until every link is running. The kernel notices a carrier
// with a delay, and then moves routes of the device about.
func (e *Env) awaitLinks(ctx context.Context) error {
	for _, n := range e.Nodes() {
		if err := n.awaitLinks(ctx); err != nil {
			return err
		}
	}
	return nil
}

// host runs a command outside of the nodes.
func (e *Env) host(ctx context.Context, name string, args ...string) (string, error) {
	return run(exec.CommandContext(ctx, name, args...), name+" "+strings.Join(args, " "))
}
