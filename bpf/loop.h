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

/* Takes the bit off; the frame's address is that of our link, so that the kernel took it for another host's. */
static __always_inline void end_loop(struct __sk_buff *skb, const struct settings *set)
{
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark &= ~set->loop_mark;
}
