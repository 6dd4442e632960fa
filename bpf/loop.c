/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * TC egress on the loop link: fetches SYNs back that have passed FORWARD, see
 * loop.h. Nothing else has any business here, and all else is dropped. Whether
 * the service still lives is for the client side to judge, once more.
 */
#include "loop.h"
#include "wall.h"

/* What the client side sends round: the beginning of a connection, in one piece or in fragments. */
static __always_inline bool is_sent_round(struct cursor *c)
{
	const struct binding *b;
	const struct tcphdr *tcp;
	struct spare spare;
	struct ip ip;

	if (parse_ip(c, &ip, &spare) != PARSED || ip.protocol != IPPROTO_TCP)
		return false;
	switch (show_tcp(c, &ip, &spare, &b, &tcp)) {
	case SHOWN_LATER:
	case SHOWN_TINY:
	case SHOWN_SYN:
		return true;
	default:
		return false;
	}
}

static __always_inline bool is_by_client(const struct __sk_buff *skb)
{
	__u32 from = skb->ingress_ifindex;
	const enum side *side = bpf_map_lookup_elem(&roles, &from);

	return side && *side & SIDE_CLIENT;
}

SEC("tc") int steer_loop(struct __sk_buff *skb)
{
	const struct settings *set = get_settings();
	struct cursor c = at_ethernet(skb);

	if (!set || !(skb->mark & set->loop_mark))
		return TC_SHOT;
	if (is_back(skb, set) || !is_by_client(skb) || !is_sent_round(&c)) {
		count(REASON_LOOP_STRAY);
		return TC_SHOT;
	}
	skb->tc_index = LOOP_BACK;
	count(REASON_LOOP_FETCHED);
	return bpf_redirect(skb->ingress_ifindex, BPF_F_INGRESS);
}
