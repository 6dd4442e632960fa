package testenv

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

//go:embed topology.env
var topologyFile string

//go:embed machine.sh
var machineScript string

// Topology holds the addresses of topology.env, the one place where they are
// written; the Vagrant machines take theirs from it too.
type Topology struct {
	Client4, Client6 netip.Addr   // the client's preferred source
	MoreClients      []netip.Addr // further IPv4 sources of the client, for load
	MoreClients6     []netip.Addr // and IPv6 ones
	Gateway4         netip.Addr   // of ext0, where clients come in
	Gateway6         netip.Addr
	Router4, Router6 netip.Addr // of the router, towards the gateway
	Origin4, Origin6 netip.Addr // the origin's preferred source
	More4, More6     netip.Addr // a second address of the origin

	vars map[string]string // every line of the file, for machine.sh
}

// parseTopology reads the lines NAME=VALUE of topology.env.
func parseTopology(text string) (Topology, error) {
	t := Topology{vars: make(map[string]string)}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return Topology{}, fmt.Errorf("topology.env: %q is not NAME=VALUE", line)
		}
		t.vars[name] = value
	}
	return t, t.addresses()
}

// addresses fills the fields that Go code uses from the variables.
func (t *Topology) addresses() error {
	for name, field := range map[string]*netip.Addr{
		"CLIENT4": &t.Client4, "CLIENT6": &t.Client6,
		"GATEWAY_EXT4": &t.Gateway4, "GATEWAY_EXT6": &t.Gateway6,
		"ROUTER_WAN4": &t.Router4, "ROUTER_WAN6": &t.Router6,
		"ORIGIN4": &t.Origin4, "ORIGIN6": &t.Origin6,
		"ORIGIN_MORE4": &t.More4, "ORIGIN_MORE6": &t.More6,
	} {
		addr, err := netip.ParseAddr(t.vars[name])
		if err != nil {
			return fmt.Errorf("topology.env: %s: %w", name, err)
		}
		*field = addr
	}
	return t.moreClients()
}

func (t *Topology) moreClients() error {
	first, err := strconv.Atoi(t.vars["CLIENT_MORE_FIRST"])
	if err != nil {
		return fmt.Errorf("topology.env: CLIENT_MORE_FIRST: %w", err)
	}
	last, err := strconv.Atoi(t.vars["CLIENT_MORE_LAST"])
	if err != nil {
		return fmt.Errorf("topology.env: CLIENT_MORE_LAST: %w", err)
	}
	base := t.Client4.As4()
	network := strings.TrimRight(t.vars["CLIENT6"], "0123456789abcdef")
	for n := first; n <= last; n++ {
		base[3] = byte(n)
		t.MoreClients = append(t.MoreClients, netip.AddrFrom4(base))
		addr, err := netip.ParseAddr(network + strconv.Itoa(n))
		if err != nil {
			return fmt.Errorf("topology.env: CLIENT6 with the last part %d: %w", n, err)
		}
		t.MoreClients6 = append(t.MoreClients6, addr)
	}
	return nil
}

// environ returns the variables as machine.sh wants them.
func (t *Topology) environ() []string {
	env := make([]string, 0, len(t.vars))
	for name, value := range t.vars {
		env = append(env, name+"="+value)
	}
	return env
}
