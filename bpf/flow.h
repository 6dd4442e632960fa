/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * From a parsed packet to what it belongs to: the prefix it is bound to and
 * the local socket of its connection.
 */
#pragma once

#include "maps.h"
#include "packet.h"

/* The first four bytes of a TCP header. */
struct endpoints {
	__be16 source;
	__be16 dest;
};

static __always_inline void source_prefix(struct prefix *key, const struct ip *ip, __be16 port)
{
	key->bits = PREFIX_EXACT;
	key->family = ip->family;
	key->protocol = IPPROTO_TCP;
	key->port = port;
	if (ip->family == AF_INET)
		map_ipv4(key->address, ip->v4->saddr);
	else
		copy_ipv6(key->address, ip->v6->saddr);
}

static __always_inline void destination_prefix(struct prefix *key, const struct ip *ip, __be16 port)
{
	key->bits = PREFIX_EXACT;
	key->family = ip->family;
	key->protocol = IPPROTO_TCP;
	key->port = port;
	if (ip->family == AF_INET)
		map_ipv4(key->address, ip->v4->daddr);
	else
		copy_ipv6(key->address, ip->v6->daddr);
}

/*
 * The socket of a connection, in any state but LISTEN: half open, established
 * or in TIME_WAIT. The caller releases it. Where there is no connection the
 * kernel looks for a listener, and so runs sk_lookup programs, ours included.
 */
static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb, struct bpf_sock_tuple *t, __u8 family)
{
	struct bpf_sock *sk;

	if (family == AF_INET)
		sk = bpf_skc_lookup_tcp(skb, t, sizeof(t->ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_skc_lookup_tcp(skb, t, sizeof(t->ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NULL;
	if (sk->state != BPF_TCP_LISTEN)
		return sk;
	bpf_sk_release(sk);
	return NULL;
}

static __always_inline void fill_tuple(struct bpf_sock_tuple *t, const struct ip *ip, __be16 source, __be16 dest)
{
	if (ip->family == AF_INET) {
		t->ipv4.saddr = ip->v4->saddr;
		t->ipv4.daddr = ip->v4->daddr;
		t->ipv4.sport = source;
		t->ipv4.dport = dest;
	} else {
		copy_ipv6(t->ipv6.saddr, ip->v6->saddr);
		copy_ipv6(t->ipv6.daddr, ip->v6->daddr);
		t->ipv6.sport = source;
		t->ipv6.dport = dest;
	}
}

/* The socket at the destination of a packet. */
static __always_inline struct bpf_sock *find_receiver(struct __sk_buff *skb, const struct ip *ip, __be16 source,
						      __be16 dest)
{
	struct bpf_sock_tuple t;

	fill_tuple(&t, ip, source, dest);
	return find_socket(skb, &t, ip->family);
}

/* The socket that sent a packet which an ICMP error brings back. */
static __always_inline struct bpf_sock *find_sender(struct __sk_buff *skb, const struct ip *ip, __be16 source,
						    __be16 dest)
{
	struct bpf_sock_tuple t;

	if (ip->family == AF_INET) {
		t.ipv4.saddr = ip->v4->daddr;
		t.ipv4.daddr = ip->v4->saddr;
		t.ipv4.sport = dest;
		t.ipv4.dport = source;
	} else {
		copy_ipv6(t.ipv6.saddr, ip->v6->daddr);
		copy_ipv6(t.ipv6.daddr, ip->v6->saddr);
		t.ipv6.sport = dest;
		t.ipv6.dport = source;
	}
	return find_socket(skb, &t, ip->family);
}

/* An ICMP error goes to the address that sent what it is about (RFC 1122 3.2.2); else it is forged. */
static __always_inline bool is_answer_to(const struct ip *outer, const struct ip *inner)
{
	if (outer->family == AF_INET)
		return outer->v4->daddr == inner->v4->saddr;
	return outer->v6->daddr[0] == inner->v6->saddr[0] && outer->v6->daddr[1] == inner->v6->saddr[1] &&
	       outer->v6->daddr[2] == inner->v6->saddr[2] && outer->v6->daddr[3] == inner->v6->saddr[3];
}

static __always_inline bool is_icmp(const struct ip *ip)
{
	return ip->protocol == (ip->family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/*
 * Reads an ICMP error down to the ports of the TCP packet that it is about.
 * The cursor is at the ICMP header.
 */
static __always_inline bool parse_icmp_about_tcp(struct cursor *c, const struct ip *outer, struct ip *inner,
						 struct spare *spare, struct endpoints *ports)
{
	if (outer->fragment >= FRAGMENT_FIRST || !parse_icmp_error(c, outer->family))
		return false;
	if (parse_inner_ip(c, inner, spare, outer->family) != PARSED)
		return false;
	if (inner->protocol != IPPROTO_TCP || inner->fragment >= FRAGMENT_INSIDE)
		return false;
	return is_answer_to(outer, inner) && load(c, ports, sizeof(*ports));
}
