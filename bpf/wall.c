/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * TC egress on the origin side, the second wall: the beginning of a connection
 * to a transit target that leaves here without a socket of this host was not
 * steered. Whatever let it past the client side (a foreign mark, rule, program
 * or route, an unnamed interface), while an inspector lives it is a leak.
 *
 * A packet of the host's own has its socket and came in by no interface. A
 * forwarded one has lost its sender's socket (ip_rcv), or a program redirected
 * it, and came in by one.
 */
#include "wall.h"

static __always_inline bool is_own(struct __sk_buff *skb)
{
	return skb->sk && !skb->ingress_ifindex;
}

static __always_inline int wall_packet(struct __sk_buff *skb, struct cursor c)
{
	struct approach a = {
		.set = get_settings(), .from = skb->ingress_ifindex, .is_tc = true, .reasons = REASON_WALL_LEAK};
	enum parsed parsed;
	struct spare spare;
	struct ip ip = {};

	if (is_own(skb))
		return TC_NEXT;
	parsed = parse_ip(&c, &ip, &spare);
	if (!is_read(parsed) || !a.set || !a.set->client_mark)
		return TC_NEXT;
	return stops(&c, parsed, &ip, &spare, &a) ? TC_SHOT : TC_NEXT;
}

SEC("tc") int steer_wall(struct __sk_buff *skb)
{
	return wall_packet(skb, at_ethernet(skb));
}

/* For interfaces without an Ethernet header: tunnels, PPP, WireGuard. */
SEC("tc") int steer_wall_l3(struct __sk_buff *skb)
{
	return wall_packet(skb, at_network(skb));
}
