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

#include "flow.h"

#define LOOP_BACK 0x7265
#define PACKET_HOST 0

/* The mark is gone from what crosses network namespaces; tc_index alone could be another host's. */
static __always_inline bool is_back(const struct __sk_buff *skb, const struct settings *set)
{
	return skb->tc_index == LOOP_BACK && skb->mark & set->loop_mark;
}

/*
 * Two programs see each packet while an inspector takes over by the other data path.
 * What the first has sent round or taken the second leaves alone. Else it would send
 * round again what the first has taken, and that is lost where the rule for the loop
 * comes first. The mark of what is taken does not do alone, for others may set it.
 */
static __always_inline bool is_judged(const struct __sk_buff *skb, const struct settings *set)
{
	return skb->mark & set->loop_mark || (skb->tc_index == LOOP_BACK && skb->mark & set->client_mark);
}

/*
 * A SYN may have a socket here: of a connection that has just ended (TIME_WAIT),
 * when a client uses its port again, or that of the handshake, when it repeats
 * its SYN. The kernel finds such a socket before it routes (early demux), and
 * does not forward what has one. So such a SYN is not sent round again within
 * PASS_NS of the time when one with the same addresses and ports was let pass,
 * and for one more connection only: a ban is late by that at the most, for who
 * uses the very port again, and so is a limit.
 */
#define PASS_NS 60000000000ULL /* as long as TIME_WAIT lasts */
#define PASS_USED 1ULL	       /* in the time's lowest bit: there was the other connection */

static __always_inline void pass_key(struct pass *key, const struct ip *ip, const struct tcphdr *tcp)
{
	if (ip->family == AF_INET) {
		map_ipv4(key->source, ip->v4->saddr);
		map_ipv4(key->dest, ip->v4->daddr);
	} else {
		copy_ipv6(key->source, ip->v6->saddr);
		copy_ipv6(key->dest, ip->v6->daddr);
	}
	key->source_port = tcp->source;
	key->dest_port = tcp->dest;
}

static __always_inline void remember_pass(const struct ip *ip, const struct tcphdr *tcp)
{
	__u64 now = bpf_ktime_get_coarse_ns() & ~PASS_USED;
	struct pass key;

	pass_key(&key, ip, tcp);
	bpf_map_update_elem(&passes, &key, &now, 0);
}

static __always_inline bool has_passed(struct __sk_buff *skb, const struct ip *ip, const struct tcphdr *tcp)
{
	struct bpf_sock *sk;
	struct pass key;
	bool over;
	__u64 *at;

	pass_key(&key, ip, tcp);
	at = bpf_map_lookup_elem(&passes, &key);
	if (likely(!at) || bpf_ktime_get_coarse_ns() - *at > PASS_NS)
		return false;
	sk = find_receiver(skb, ip, tcp->source, tcp->dest);
	if (!sk)
		return false;
	over = sk->state == BPF_TCP_TIME_WAIT;
	bpf_sk_release(sk);
	if (!over)
		return true;
	if (*at & PASS_USED)
		return false;
	*at |= PASS_USED;
	return true;
}

/*
 * The SYN that went round has left an entry in connection tracking, which sees nothing
 * else of the connection: rules that limit how many a client has at a time (connlimit)
 * would count it for two minutes, whatever became of it. So it is kept once the
 * handshake is done, and ends when the client closes.
 */
#define ENTRY_MS 3600000

static __always_inline void keep_entry(struct __sk_buff *skb, const struct ip *ip, const struct tcphdr *tcp, __u32 ms)
{
	struct bpf_ct_opts opts = {.netns_id = -1, .l4proto = IPPROTO_TCP};
	struct bpf_sock_tuple t;
	struct nf_conn *ct;

	fill_tuple(&t, ip, tcp->source, tcp->dest);
	if (ip->family == AF_INET)
		ct = bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv4), &opts, sizeof(opts));
	else
		ct = bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv6), &opts, sizeof(opts));
	if (!ct)
		return;
	bpf_ct_change_timeout(ct, ms);
	bpf_ct_release(ct);
}

/* Takes the bit off; the frame's address is that of our link, so that the kernel took it for another host's. */
static __always_inline void end_loop(struct __sk_buff *skb, const struct settings *set)
{
	bpf_skb_change_type(skb, PACKET_HOST);
	skb->mark &= ~set->loop_mark;
}
