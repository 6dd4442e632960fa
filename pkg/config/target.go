package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// fault is what is wrong with a value and what to write in its place.
type fault struct{ text, remedy string }

func faultf(remedy, format string, args ...any) *fault {
	return &fault{fmt.Sprintf(format, args...), remedy}
}

// formatTarget writes a target as the file has it.
func formatTarget(t Target) string {
	host := t.Prefix.String()
	if t.Prefix.IsSingleIP() {
		host = t.Prefix.Addr().String()
	}
	if t.Prefix.Addr().Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(t.Port))
}

// parseTarget reads "192.0.2.1:25", "192.0.2.0/24:25", "[2001:db8::1]:25" or
// "[2001:db8::/64]:25".
func parseTarget(s string) (Target, *fault) {
	host, port, wrong := splitPort(s)
	if wrong != nil {
		return Target{}, wrong
	}
	prefix, wrong := parsePrefix(host)
	if wrong != nil {
		return Target{}, wrong
	}
	if host, bits, found := strings.Cut(host, "/"); found && prefix != prefix.Masked() {
		network := Target{prefix.Masked(), port}
		single := Target{netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen()), port}
		return Target{}, faultf(
			fmt.Sprintf("write %q for the network or %q for the address", network, single),
			"address %s has bits set beyond the %s of its prefix", host, bits)
	}
	if kind := specialKind(prefix); kind != "" {
		return Target{}, faultf("write an address that a client can connect to", "%s is %s", host, kind)
	}
	return Target{prefix, port}, nil
}

// parseOrigin reads "192.0.2.1:25" or "[2001:db8::1]:25". A loopback address
// passes: whether it makes sense depends on the service.
func parseOrigin(s string) (netip.AddrPort, *fault) {
	host, port, wrong := splitPort(s)
	if wrong != nil {
		return netip.AddrPort{}, wrong
	}
	if strings.Contains(host, "/") {
		return netip.AddrPort{}, faultf("write each origin's address and port", "%s is a prefix where one address is expected", quote(s))
	}
	prefix, wrong := parsePrefix(host)
	if wrong != nil {
		return netip.AddrPort{}, wrong
	}
	addr := prefix.Addr()
	if kind := specialKind(prefix); kind != "" && !addr.IsLoopback() {
		return netip.AddrPort{}, faultf("write the address of a mail server", "%s is %s", addr, kind)
	}
	return netip.AddrPortFrom(addr, port), nil
}

// splitPort divides what stands before the last colon, without its brackets,
// from the port behind it.
func splitPort(s string) (string, uint16, *fault) {
	i := strings.LastIndexByte(s, ':')
	switch {
	case bareIPv6(s):
		return "", 0, faultf(`write it as "[2001:db8::1]:25"`, "IPv6 address %s has no brackets", quote(s))
	case s == "":
		return "", 0, faultf(`write it as "192.0.2.1:25" or "[2001:db8::1]:25"`, "is empty")
	case i < 0, strings.HasSuffix(s, "]"):
		return "", 0, faultf("write "+quote(s+":25"), "%s has no port", quote(s))
	}
	port, ok := parsePort(s[i+1:])
	if !ok {
		return "", 0, faultf("write the port as a number, 25 for mail", "port %s is not a number from 1 to 65535", quote(s[i+1:]))
	}
	host := s[:i]
	inner, brackets := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if brackets != closed {
		return "", 0, faultf(`write it as "[2001:db8::1]:25"`, "%s has only one bracket", quote(s))
	}
	if brackets && !strings.Contains(inner, ":") {
		return "", 0, faultf(fmt.Sprintf("write %q", inner+s[i:]), "%s has brackets, which are for IPv6 only", quote(s))
	}
	return inner, port, nil
}

// bareIPv6 reports whether s is an IPv6 address or prefix whose port cannot be
// told from its last group.
func bareIPv6(s string) bool {
	return strings.Count(s, ":") > 1 && !strings.ContainsAny(s, "[]")
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && s[0] != '0'
}

// parsePrefix reads an address, as a prefix of full length, or a prefix.
func parsePrefix(s string) (netip.Prefix, *fault) {
	host, bits, isPrefix := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return netip.Prefix{}, faultf("write the address in numbers: names are not looked up", "%s is not an IP address", quote(host))
	case addr.Zone() != "":
		return netip.Prefix{}, faultf("write the address without a zone", "%s has a zone, which only this machine understands", quote(host))
	case addr.Is4In6():
		return netip.Prefix{}, faultf(fmt.Sprintf("write %q", addr.Unmap()), "%s is an IPv4 address in an IPv6 form", quote(host))
	case !isPrefix:
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, faultf(fmt.Sprintf("write a number from 0 to %d", addr.BitLen()),
			"prefix length %s of %s is not a number from 0 to %d", quote(bits), quote(s), addr.BitLen())
	}
	return prefix, nil
}

// specials are the addresses that nobody can have a TCP connection with from
// another machine.
var specials = []struct {
	prefix netip.Prefix
	kind   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("::/128"), "the unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address, which means something else on every link"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

// specialKind says what is special about the whole of a prefix, nothing when
// it holds ordinary addresses: 0.0.0.0/0 is ordinary.
func specialKind(p netip.Prefix) string {
	for _, s := range specials {
		if s.prefix.Bits() <= p.Bits() && s.prefix.Contains(p.Addr()) {
			return s.kind
		}
	}
	return ""
}
