/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Reading packets in TC programs. A cursor walks over one packet; parse_X
 * reads the header X at the cursor and moves behind it. A parser says no
 * where a packet is cut short or malformed, and never reads beyond it.
 */
#pragma once

#include "bpf.h"
#include "net.h"

/* RFC 8200 knows six extension headers and asks for each at most once. */
#define MAX_EXTENSIONS 8

struct cursor {
	struct __sk_buff *skb;
	__u32 at; /* offset into the packet */
	bool far; /* behind extension headers: anywhere */
};

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

/* How far parse_ip came. */
enum parsed {
	PARSED,		/* the cursor is behind the last IP header */
	PARSED_NOT_IP,	/* another protocol, cut short or malformed */
	PARSED_HEADERS, /* IPv6 with too many extension headers */
};

/* An IP header with what its extension headers say. */
struct ip {
	union { /* by family */
		const struct iphdr *v4;
		const struct ipv6hdr *v6;
	};
	__u32 end; /* offset at which the IP packet ends; 0: with the buffer */
	__u8 family;
	__u8 protocol;
	__u8 fragment;
};

/* Room for headers that do not lie in the linear part of a packet. */
struct spare {
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	};
	struct tcphdr tcp;
};

/*
 * Returns the len bytes at the cursor: where they are if that is in the linear
 * part, else copied to spare; NULL where the packet ends before them. Behind
 * extension headers they are always copied, so that the verifier need not
 * follow each possible offset: it took ten times as long.
 */
static __always_inline const void *look(const struct cursor *c, void *spare, __u32 len)
{
	const __u8 *data = (void *)(long)c->skb->data;
	const void *end = (void *)(long)c->skb->data_end;
	__u32 at = c->at;

	if (likely(!c->far && (const void *)(data + at + len) <= end))
		return data + at;
	return bpf_skb_load_bytes(c->skb, at, spare, len) ? NULL : spare;
}

/* Copies what is rarely needed; no path of its own for the linear part. */
static __always_inline bool load(const struct cursor *c, void *to, __u32 len)
{
	return !bpf_skb_load_bytes(c->skb, c->at, to, len);
}

static __always_inline __u8 ipv4_fragment(const struct iphdr *h)
{
	if (likely(!(h->frag_off & bpf_htons(IP_MF | IP_OFFSET))))
		return FRAGMENT_NONE;
	return h->frag_off & bpf_htons(IP_OFFSET) ? FRAGMENT_LATER : FRAGMENT_FIRST;
}

/* A length of 0 is that of a merged packet of more than 64 KiB (BIG TCP). */
static __always_inline enum parsed take_ipv4(struct cursor *c, struct ip *ip, const struct iphdr *h)
{
	__u32 len = (h->version_ihl & 0x0f) * 4;

	if (h->version_ihl >> 4 != 4 || len < sizeof(*h))
		return PARSED_NOT_IP;
	ip->v4 = h;
	ip->family = AF_INET;
	ip->protocol = h->protocol;
	ip->fragment = ipv4_fragment(h);
	ip->end = h->tot_len ? c->at + bpf_ntohs(h->tot_len) : 0;
	c->at += len;
	return PARSED;
}

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_DSTOPTS;
}

/*
 * Moves over one extension header. A routing header with segments left says
 * that the packet's address is not where it goes in the end: not ours.
 */
static __always_inline bool parse_extension(struct cursor *c, struct ip *ip)
{
	struct ipv6_ext h;

	if (!load(c, &h, sizeof(h)))
		return false;
	if (ip->protocol == IPPROTO_ROUTING && h.segments_left)
		return false;
	if (ip->protocol == IPPROTO_FRAGMENT) {
		__u16 off = bpf_ntohs(*(__be16 *)&h.type);

		if (off & (IP6_OFFSET | IP6_MF))
			ip->fragment = off & IP6_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
		c->at += sizeof(h);
	} else {
		c->at += (h.len + 1) * 8;
	}
	c->far = true;
	ip->protocol = h.nexthdr;
	return true;
}

/* Behind the header of a later fragment come no headers, but the middle of something. */
static __always_inline enum parsed parse_extensions(struct cursor *c, struct ip *ip)
{
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (!is_extension(ip->protocol) || ip->fragment == FRAGMENT_LATER)
			return PARSED;
		if (!parse_extension(c, ip))
			return PARSED_NOT_IP;
	}
	return is_extension(ip->protocol) ? PARSED_HEADERS : PARSED;
}

static __always_inline enum parsed take_ipv6(struct cursor *c, struct ip *ip, const struct ipv6hdr *h)
{
	if (h->version >> 4 != 6)
		return PARSED_NOT_IP;
	ip->v6 = h;
	ip->family = AF_INET6;
	ip->protocol = h->nexthdr;
	ip->fragment = FRAGMENT_NONE;
	ip->end = h->payload_len ? c->at + sizeof(*h) + bpf_ntohs(h->payload_len) : 0;
	c->at += sizeof(*h);
	if (likely(!is_extension(h->nexthdr)))
		return PARSED;
	return parse_extensions(c, ip);
}

/*
 * Reads the IP header of a packet. What bears a VLAN tag on an interface
 * belongs to the VLAN interface above it, which has programs of its own; the
 * tag 0 only carries a priority.
 */
static __always_inline enum parsed parse_ip(struct cursor *c, struct ip *ip, struct spare *spare)
{
	if (unlikely(c->skb->vlan_present) && c->skb->vlan_tci & VLAN_VID_MASK)
		return PARSED_NOT_IP;
	if (c->skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *h = look(c, &spare->v4, sizeof(*h));

		return h ? take_ipv4(c, ip, h) : PARSED_NOT_IP;
	}
	if (c->skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *h = look(c, &spare->v6, sizeof(*h));

		return h ? take_ipv6(c, ip, h) : PARSED_NOT_IP;
	}
	return PARSED_NOT_IP;
}

/* Reads the IP header of the packet that an ICMP error is about, into spare. */
static __always_inline enum parsed parse_inner_ip(struct cursor *c, struct ip *ip, struct spare *spare, __u8 family)
{
	if (family == AF_INET)
		return load(c, &spare->v4, sizeof(spare->v4)) ? take_ipv4(c, ip, &spare->v4) : PARSED_NOT_IP;
	return load(c, &spare->v6, sizeof(spare->v6)) ? take_ipv6(c, ip, &spare->v6) : PARSED_NOT_IP;
}

static __always_inline bool is_icmp_error(__u8 family, __u8 type)
{
	if (family == AF_INET)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
	return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
}

/* Moves over the header of an ICMP error, to the packet that it is about. */
static __always_inline bool parse_icmp_error(struct cursor *c, __u8 family)
{
	struct icmphdr h;

	if (!load(c, &h, sizeof(h)) || !is_icmp_error(family, h.type))
		return false;
	c->at += sizeof(h);
	return true;
}
