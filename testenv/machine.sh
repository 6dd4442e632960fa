#!/bin/sh
# machine.sh ROLE: give this machine (or network namespace) the addresses, routes
# and sysctls of a role: client, router, gateway, inner, origin.
#
# It takes the variables of topology.env from its environment. ROUTER=yes says
# that a router stands between client and gateway, INNER=yes that one stands
# between gateway and origin. It may be run again: nothing changes then.
set -eu

up() { # DEVICE
	ip link set dev "$1" up
}

address() { # DEVICE IPV4 IPV6
	ip address replace "$2/24" dev "$1"
	ip -6 address replace "$3/64" dev "$1" nodad
}

route() { # PREFIX4 PREFIX6 HOW4... -- HOW6...
	prefix4=$1 prefix6=$2
	shift 2
	how4=
	while [ "$1" != -- ]; do
		how4="$how4 $1"
		shift
	done
	shift
	# shellcheck disable=SC2086 # words of a route
	ip route replace "$prefix4" $how4
	ip -6 route replace "$prefix6" "$@"
}

# Of several IPv6 addresses the kernel prefers the last one added as a source,
# hence src in the routes of client and origin.

forward() {
	sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

client() {
	up lan0
	address lan0 "$CLIENT4" "$CLIENT6"
	n=$CLIENT_MORE_FIRST
	while [ "$n" -le "$CLIENT_MORE_LAST" ]; do
		address lan0 "${CLIENT4%.*}.$n" "${CLIENT6%::*}::$n"
		n=$((n + 1))
	done
	if [ "${ROUTER:-no}" = yes ]; then
		route default default via "$ROUTER_LAN4" -- via "$ROUTER_LAN6" src "$CLIENT6"
		return
	fi
	route "$GATEWAY_EXT_NET4" "$GATEWAY_EXT_NET6" dev lan0 -- dev lan0 src "$CLIENT6"
	route "$ORIGIN_NET4" "$ORIGIN_NET6" via "$GATEWAY_EXT4" -- via "$GATEWAY_EXT6" src "$CLIENT6"
}

router() {
	forward
	up lan0
	up wan0
	address lan0 "$ROUTER_LAN4" "$ROUTER_LAN6"
	address wan0 "$ROUTER_WAN4" "$ROUTER_WAN6"
	route "$ORIGIN_NET4" "$ORIGIN_NET6" via "$GATEWAY_EXT4" -- via "$GATEWAY_EXT6"
}

gateway() {
	forward
	up ext0
	up dmz0
	address ext0 "$GATEWAY_EXT4" "$GATEWAY_EXT6"
	if [ "${INNER:-no}" = yes ]; then
		address dmz0 "$GATEWAY_INNER4" "$GATEWAY_INNER6"
		route "$ORIGIN_NET4" "$ORIGIN_NET6" via "$INNER_OUT4" -- via "$INNER_OUT6"
	else
		address dmz0 "$GATEWAY_DMZ4" "$GATEWAY_DMZ6"
	fi
	if [ "${ROUTER:-no}" = yes ]; then
		route default default via "$ROUTER_WAN4" -- via "$ROUTER_WAN6"
	else
		route "$CLIENT_NET4" "$CLIENT_NET6" dev ext0 -- dev ext0
	fi
}

inner() {
	forward
	up out0
	up in0
	address out0 "$INNER_OUT4" "$INNER_OUT6"
	address in0 "$GATEWAY_DMZ4" "$GATEWAY_DMZ6"
	route "$CLIENT_NET4" "$CLIENT_NET6" via "$GATEWAY_INNER4" -- via "$GATEWAY_INNER6"
}

# The origin's replies to clients must pass the gateway: that is what makes a
# forged source address work.
origin() {
	up dmz0
	address dmz0 "$ORIGIN4" "$ORIGIN6"
	address dmz0 "$ORIGIN_MORE4" "$ORIGIN_MORE6"
	route default default via "$GATEWAY_DMZ4" -- via "$GATEWAY_DMZ6" src "$ORIGIN6"
}

up lo
case ${1:-} in
client | router | gateway | inner | origin) "$1" ;;
*)
	echo "machine.sh: no role \"${1:-}\"; roles are client, router, gateway, inner, origin" >&2
	exit 2
	;;
esac
