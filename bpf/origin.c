/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * TC ingress on the origin side: marks the origins' replies to connections
 * whose source we forged, so that a policy rule delivers them here instead of
 * forwarding them to the client.
 *
 * The gateway's own connections to an origin do not bear the mark, nor do
 * connections that are forwarded past us. The verdict is always TC_NEXT, see
 * client.c.
 */
#include "flow.h"

/*
 * A socket in TIME_WAIT has lost its mark; it can only be one of ours or of
 * the gateway's own, which are delivered here in any case.
 */
static __always_inline bool origin_is_ours(struct bpf_sock *sk, const struct settings *set)
{
	struct bpf_sock *full = bpf_sk_fullsock(sk);

	return !full || full->mark & set->origin_mark;
}

static __always_inline int origin_verdict(struct __sk_buff *skb, const struct settings *set, struct bpf_sock *sk,
					  enum reason reason)
{
	bool ours;

	if (!sk) {
		count(REASON_ORIGIN_FORWARDED);
		return TC_NEXT;
	}
	ours = origin_is_ours(sk, set);
	bpf_sk_release(sk);
	if (!ours) {
		count(REASON_ORIGIN_FOREIGN);
		return TC_NEXT;
	}
	skb->mark |= set->origin_mark;
	count(reason);
	return TC_NEXT;
}

static __always_inline int origin_tcp(struct cursor *c, const struct ip *ip, struct spare *spare)
{
	const struct settings *set = get_settings();
	const struct endpoints *ports = look(c, &spare->tcp, sizeof(*ports));
	struct prefix key;

	if (!ports || !is_origin(bpf_ntohs(ports->source)) || !set || !set->origin_mark)
		return TC_NEXT;
	source_prefix(&key, ip, ports->source);
	if (!bpf_map_lookup_elem(&origins, &key))
		return TC_NEXT;
	return origin_verdict(c->skb, set, find_receiver(c->skb, ip, ports->source, ports->dest),
			      REASON_ORIGIN_SOCKET);
}

/* Any router on the way to an origin may send it: what it is about decides. */
static __always_inline int origin_icmp(struct cursor *c, const struct ip *ip)
{
	const struct settings *set = get_settings();
	struct endpoints ports;
	struct spare spare;
	struct prefix key;
	struct ip inner;

	if (!set || !set->origin_mark || !parse_icmp_about_tcp(c, ip, &inner, &spare, &ports))
		return TC_NEXT;
	if (!is_origin(bpf_ntohs(ports.dest)))
		return TC_NEXT;
	destination_prefix(&key, &inner, ports.dest);
	if (!bpf_map_lookup_elem(&origins, &key))
		return TC_NEXT;
	return origin_verdict(c->skb, set, find_sender(c->skb, &inner, ports.source, ports.dest), REASON_ORIGIN_ICMP);
}

static __always_inline int origin_packet(struct cursor c)
{
	struct spare spare;
	struct ip ip;

	switch (parse_ip(&c, &ip, &spare)) {
	case PARSED_NOT_IP:
	case PARSED_TAGS:
		return TC_NEXT;
	case PARSED_HIDDEN:
		count(REASON_ORIGIN_HIDDEN);
		return TC_NEXT;
	case PARSED:
		break;
	}
	if (ip.protocol == IPPROTO_TCP) {
		if (unlikely(ip.fragment >= FRAGMENT_INSIDE)) {
			count(REASON_ORIGIN_FRAGMENT);
			return TC_NEXT;
		}
		return origin_tcp(&c, &ip, &spare);
	}
	return is_icmp(&ip) ? origin_icmp(&c, &ip) : TC_NEXT;
}

SEC("tc") int steer_origin(struct __sk_buff *skb)
{
	return origin_packet(at_ethernet(skb));
}

/* For interfaces without an Ethernet header: tunnels, PPP, WireGuard. */
SEC("tc") int steer_origin_l3(struct __sk_buff *skb)
{
	return origin_packet(at_network(skb));
}
