package clothes

import (
	"context"
	"fmt"
	"strings"

	"github.com/portreeve/portreeve/testenv"
)

// kind is a kind of link between the router, who sends the SYNs by its wan0, and
// the gateway, whose ext0 it is.
type kind struct {
	name string
	Wearable
	gateway, router []string // ip commands without the word ip, in place of the ordinary veth; ROUTER is the router's namespace
	origin          string   // the gateway's interface towards the origin, where it is not dmz0
	client          string   // the interface that portreeve is told to be the client side, where it is not ext0: nobody has named ext0
	build           func(context.Context, *testenv.Env) (*Tun, error)
	after           []string // ip commands on the gateway, when everybody has addresses
	refused         string   // portreeve refuses to attach to ext0, and says this
	guest           bool     // part of what the guests of testenv/kernels do: Debian's kernels have it
}

var (
	ethernet = Wearable{V4: true, V6: true, Ethernet: true}
	bare     = Wearable{V4: true, V6: true}
)

// kinds lists them. Which of them a kernel has is its own affair.
var kinds = []kind{
	{name: "veth", Wearable: ethernet, guest: true},
	{name: "bridge", Wearable: ethernet, gateway: []string{
		"link add port0 type veth peer name wan0 netns ROUTER", "link add ext0 type bridge", "link set port0 master ext0 up",
	}},
	{name: "macvlan", Wearable: ethernet, gateway: []string{
		"link add low0 type veth peer name wan0 netns ROUTER", "link add ext0 link low0 type macvlan mode bridge", "link set low0 up",
	}},
	{name: "TUN", Wearable: bare, build: buildTun},
	over("VXLAN", ethernet, "type vxlan id 25 dstport 4789 local HERE4 remote THERE4", false),
	{name: "one-armed", Wearable: Wearable{V4: true, V6: true, Ethernet: true, Shared: true}, origin: "ext0", build: buildOneArmed},
	over("VLAN", ethernet, "link low0 type vlan id 5", true),
	over("GRE", bare, "type gre local HERE4 remote THERE4", true),
	over("GRETAP", ethernet, "type gretap local HERE4 remote THERE4", true),
	over("IPIP", Wearable{V4: true}, "type ipip local HERE4 remote THERE4", true),
	over("SIT", Wearable{V6: true}, "type sit local HERE4 remote THERE4", true),
	over("IP6TNL", bare, "type ip6tnl mode any local HERE6 remote THERE6", true),
	{name: "unnamed", Wearable: ethernet, client: "lan0", after: lan},
	{name: "VRF", Wearable: ethernet, guest: true, client: "lan0", refused: "is in the VRF vrf0", after: append([]string{
		"link add vrf0 type vrf table 1025", "link set vrf0 up", "link set ext0 master vrf0",
		"route add ORIGIN4 dev dmz0 table 1025", "-6 route add ORIGIN6 dev dmz0 table 1025",
		"route add default via ROUTER4 dev ext0 onlink", "-6 route add default via ROUTER6 dev ext0 onlink",
	}, lan...)},
}

// lan makes an interface by which nobody comes in, for portreeve to have a client side.
var lan = []string{"link add lan0 type veth peer name lan1", "link set lan0 up", "link set lan1 up"}

// over is a device above a veth low0.
func over(name string, w Wearable, device string, guest bool) kind {
	side := func(peer, dev, here, there string) []string {
		device := strings.NewReplacer("HERE4", "192.0.2."+here, "THERE4", "192.0.2."+there,
			"HERE6", "2001:db8:25::"+here, "THERE6", "2001:db8:25::"+there).Replace(device)
		var list []string
		if peer != "" {
			list = append(list, peer)
		}
		return append(list, "address add 192.0.2."+here+"/24 dev low0", "-6 address add 2001:db8:25::"+here+"/64 dev low0 nodad",
			"link set low0 up", "link add "+dev+" "+device)
	}
	return kind{
		name: name, Wearable: w, guest: guest,
		gateway: side("link add low0 type veth peer name low0 netns ROUTER", "ext0", "1", "2"),
		router:  side("", "wan0", "2", "1"),
	}
}

// lay puts the link in the place of the ordinary one.
func (k *kind) lay(ctx context.Context, e *testenv.Env) (tun *Tun, err error) {
	if len(k.gateway) == 0 && k.build == nil {
		return nil, k.finish(ctx, e)
	}
	if err := ip(ctx, e, e.Gateway, "link delete ext0"); err != nil {
		return nil, err
	}
	if k.build != nil {
		tun, err = k.build(ctx, e)
	}
	if err == nil {
		err = ip(ctx, e, e.Gateway, k.gateway...)
	}
	if err == nil {
		err = ip(ctx, e, e.Router, k.router...)
	}
	for _, n := range []*testenv.Node{e.Router, e.Gateway, e.Origin} {
		if err == nil {
			err = e.Assign(ctx, n)
		}
	}
	if err == nil {
		err = k.finish(ctx, e)
	}
	return tun, err
}

func (k *kind) finish(ctx context.Context, e *testenv.Env) error {
	if len(k.after) == 0 {
		return nil
	}
	// Or a device that gets a master loses its IPv6 addresses.
	for _, device := range []string{"ext0", "dmz0"} {
		if err := e.Gateway.SetSysctl("net.ipv6.conf."+device+".keep_addr_on_down", "1"); err != nil {
			return err
		}
	}
	return ip(ctx, e, e.Gateway, k.after...)
}

// ip runs ip commands on a node.
func ip(ctx context.Context, e *testenv.Env, n *testenv.Node, lines ...string) error {
	names := strings.NewReplacer("ROUTER4", e.Router4.String(), "ROUTER6", e.Router6.String(), "ROUTER", e.Router.Name,
		"ORIGIN4", e.Origin4.String(), "ORIGIN6", e.Origin6.String(), "ORIGIN", e.Origin.Name)
	for _, line := range lines {
		if _, err := n.Run(ctx, "ip", strings.Fields(names.Replace(line))...); err != nil {
			return err
		}
	}
	return nil
}

// buildTun makes a TUN device on either side and carries between them.
func buildTun(_ context.Context, e *testenv.Env) (*Tun, error) {
	var ends [2]*Tun
	for i, side := range []struct {
		node   *testenv.Node
		device string
	}{{e.Gateway, "ext0"}, {e.Router, "wan0"}} {
		err := side.node.Enter(func() (err error) {
			ends[i], err = NewTun(side.device)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("on %s: %w", side.node.Role, err)
		}
	}
	go ends[0].Pump(ends[1])
	go ends[1].Pump(ends[0])
	return ends[0], nil
}

// buildOneArmed puts router, gateway and origin on one wire; the gateway has one
// interface on it, whose other name serves the addresses of dmz0.
func buildOneArmed(ctx context.Context, e *testenv.Env) (*Tun, error) {
	for _, step := range []struct {
		node  *testenv.Node
		lines []string
	}{
		{e.Gateway, []string{"link delete dmz0"}},
		{e.Router, []string{"link add wan0 type bridge", "link add arm0 type veth peer name dmz0 netns ORIGIN", "link set arm0 master wan0 up"}},
		{e.Gateway, []string{"link add ext0 type veth peer name arm1 netns ROUTER", "link property add dev ext0 altname dmz0"}},
		{e.Router, []string{"link set arm1 master wan0 up"}},
	} {
		if err := ip(ctx, e, step.node, step.lines...); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// absent says whether an error of ip means that the kernel has no such device: it
// says so itself.
func absent(err error) bool {
	return strings.Contains(err.Error(), "Unknown device type") || strings.Contains(err.Error(), "Operation not supported")
}
