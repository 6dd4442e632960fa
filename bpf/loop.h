/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The loop: the way of a SYN through the host's packet filter. Without us the
 * beginning of a transit connection would be forwarded, and meet the rules of
 * PREROUTING, FORWARD and POSTROUTING. So it is: the client side marks it with
 * a bit of its own, a policy rule leads it to a link of ours, and the program
 * at that link's egress sends it back to the ingress of the interface by which
 * it came. There the client side takes the bit off, and steers it.
 *
 * What fails on the way ends in silence. A packet that a rule drops is gone;
 * one that loses the bit leaves by the ordinary route, where the walls stop
 * it; without the program it reaches the other end of the link, where nobody
 * is. A packet goes round once: tc_index, which nobody on the way writes, says
 * that it has been.
 */
#pragma once

#include "maps.h"

#define LOOP_BACK 0x7265
#define PACKET_HOST 0

/* The mark is gone from what crosses network namespaces; tc_index alone could be another host's. */
static __always_inline bool is_back(const struct __sk_buff *skb, const struct settings *set)
{
	return skb->tc_index == LOOP_BACK && skb->mark & set->loop_mark;
}

/*
 * Sends a packet round. It may have a socket here: of a connection that has just
 * ended (TIME_WAIT), when a client uses its port again, or that of the handshake,
 * when it repeats its SYN. The kernel finds such a socket before it routes
 * (early demux), and does not forward what has one. It does not look for any where
 * a packet bears the description of a tunnel; this one is empty, and the route takes
 * its place. What has a socket so goes the same way, and no ban is evaded by a port
 * that was used before.
 */
static __always_inline void begin_loop(struct __sk_buff *skb, const struct settings *set)
{
	__u64 none = 0; /* the oldest form of a key, of 8 bytes, which all kernels take */

	bpf_skb_set_tunnel_key(skb, &none, sizeof(none), 0);
	skb->mark |= set->loop_mark;
}

/* Takes the bit off; the frame's address is that of our link, so that the kernel took it for another host's. */
static __always_inline void end_loop(struct __sk_buff *skb, const struct settings *set)
{
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark &= ~set->loop_mark;
}
