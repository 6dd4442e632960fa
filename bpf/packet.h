/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Reading packets. A cursor walks over one packet; parse_X reads the header X
 * at the cursor and moves behind it. A parser says no where a packet is cut
 * short or malformed, and never reads beyond it.
 */
#pragma once

#include "bpf.h"
#include "net.h"

/* RFC 8200 knows six extension headers and asks for each at most once. */
#define MAX_EXTENSIONS 8

/* The kernel takes off any number of tags that only carry a priority; two are more than anybody sends. */
#define MAX_TAGS 4

/* How much of a packet is made readable relative to its network header: no honest headers are longer. */
#define MAX_HEADERS 512

/*
 * Where offsets count from is known when the program is compiled: from the
 * start of an Ethernet header; from the network header, wherever it is, in
 * programs for all other links (tunnels leave the outer header in front); from
 * the start of a netfilter program's packet.
 */
struct cursor {
	struct __sk_buff *skb;		 /* NULL in a netfilter program */
	struct bpf_nf_ctx *hook;	 /* NULL in all other programs */
	const struct bpf_dynptr *packet; /* of a netfilter program */
	bool relative;			 /* to the network header */
	bool far;			 /* behind extension headers: anywhere */
	__u32 at;			 /* offset */
};

static __always_inline struct cursor at_ethernet(struct __sk_buff *skb)
{
	return (struct cursor){.skb = skb, .at = ETH_HLEN};
}

/*
 * The kernel reads relative to the network header in the linear part of a
 * packet only; what of the headers lies behind it is brought there.
 */
static __always_inline struct cursor at_network(struct __sk_buff *skb)
{
	__u32 linear = (long)skb->data_end - (long)skb->data;

	if (unlikely(linear < MAX_HEADERS && linear < skb->len))
		bpf_skb_pull_data(skb, skb->len < MAX_HEADERS ? skb->len : MAX_HEADERS);
	return (struct cursor){.skb = skb, .relative = true};
}

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_EXTENDED, /* none, but behind extension headers */
	FRAGMENT_FIRST,
	FRAGMENT_INSIDE, /* IPv4: begins behind eight bytes of TCP, and so says what its flags are (RFC 3128) */
	FRAGMENT_LATER,
};

/* How far parse_ip came. */
enum parsed {
	PARSED,	       /* the cursor is behind the last IP header */
	PARSED_NOT_IP, /* another protocol, cut short or malformed */
	PARSED_HIDDEN, /* IPv6 whose extension headers are too many or do not end in this packet (RFC 7112); TCP by a detour */
	PARSED_TAGS,   /* behind more tags than MAX_TAGS */
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
	bool split; /* has had a fragment header, that of a whole packet included */
	__u16 detour;  /* IPv6: where a routing header names the last destination, if this is not it; else 0 */
	const __be32 *last; /* that destination, if there is one and it can be read; else NULL */
};

/* Room for headers that do not lie in the linear part of a packet. */
struct spare {
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	};
	struct tcphdr tcp;
	__be32 last[4];
};

/* Copies what is rarely needed; no path of its own for the linear part. */
static __always_inline bool load(const struct cursor *c, void *to, __u32 len)
{
	if (c->packet)
		return !bpf_dynptr_read(to, len, c->packet, c->at, 0);
	if (c->relative)
		return !bpf_skb_load_bytes_relative(c->skb, c->at, to, len, BPF_HDR_START_NET);
	return !bpf_skb_load_bytes(c->skb, c->at, to, len);
}

/*
 * Returns the len bytes at the cursor: where they are if that is in the linear
 * part, else copied to spare; NULL where the packet ends before them. Behind
 * extension headers they are always copied, so that the verifier need not
 * follow each possible offset: it took ten times as long.
 */
static __always_inline const void *look(const struct cursor *c, void *spare, __u32 len)
{
	if (c->skb && !c->relative) {
		const __u8 *data = (void *)(long)c->skb->data;
		const void *end = (void *)(long)c->skb->data_end;

		if (likely(!c->far && (const void *)(data + c->at + len) <= end))
			return data + c->at;
	}
	return load(c, spare, len) ? spare : NULL;
}

/* Reports whether the IP packet ends before len bytes from the cursor; what follows it in the buffer is padding. */
static __always_inline bool ends_before(const struct cursor *c, const struct ip *ip, __u32 len)
{
	return ip->end && c->at + len > ip->end;
}

/* Reports whether a TCP header that is not all here may be what it does not show. In a plain packet it is nothing. */
static __always_inline bool may_hide(const struct ip *ip)
{
	return ip->fragment != FRAGMENT_NONE;
}

static __always_inline __u8 ipv4_fragment(const struct iphdr *h)
{
	if (likely(!(h->frag_off & bpf_htons(IP_MF | IP_OFFSET))))
		return FRAGMENT_NONE;
	if (!(h->frag_off & bpf_htons(IP_OFFSET)))
		return FRAGMENT_FIRST;
	return (h->frag_off & bpf_htons(IP_OFFSET)) == bpf_htons(1) ? FRAGMENT_INSIDE : FRAGMENT_LATER;
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
	ip->last = NULL;
	ip->end = h->tot_len ? c->at + bpf_ntohs(h->tot_len) : 0;
	c->at += len;
	return PARSED;
}

/* Those of RFC 7045 that show what follows them; not all of them pass a Linux host, which answers nothing then. */
static __always_inline bool is_extension(__u8 protocol)
{
	const __u64 low = 1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ROUTING | 1ULL << IPPROTO_FRAGMENT |
			  1ULL << IPPROTO_AH | 1ULL << IPPROTO_DSTOPTS;

	if (likely(protocol < 64))
		return low >> protocol & 1;
	return protocol == IPPROTO_MH || protocol == IPPROTO_HIP || protocol == IPPROTO_SHIM6;
}

static __always_inline __u32 extension_len(__u8 protocol, __u8 len)
{
	return protocol == IPPROTO_AH ? (len + 2) * 4 : (len + 1) * 8;
}

/* A fragment of a fragment shows nothing. */
static __always_inline bool take_fragment(struct ip *ip, const struct ipv6_ext *h)
{
	__u16 off = bpf_ntohs(*(__be16 *)&h->rest);

	if (ip->split || h->nexthdr == IPPROTO_FRAGMENT)
		return false;
	if (off & (IP6_OFFSET | IP6_MF))
		ip->fragment = off & IP6_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
	ip->split = true;
	return true;
}

/*
 * The header says where the packet goes after its destination: hosts that are
 * asked to send it on do so (RFC 8754, RFC 6275). The type says whether the last
 * of them comes first or last.
 */
static __always_inline void take_routing(const struct cursor *c, struct ip *ip, const struct ipv6_ext *h)
{
	__u16 rest = bpf_ntohs(*(__be16 *)&h->rest); /* type, and how many are left */

	if (!(rest & 0xff) || h->len < 2)
		return;
	ip->detour = c->at + (rest >> 8 == RH_SEGMENTS ? 8 : h->len * 8 - 8);
}

/* Moves over one extension header. */
static __always_inline bool parse_extension(struct cursor *c, struct ip *ip)
{
	struct ipv6_ext h;

	if (ends_before(c, ip, sizeof(h)) || !load(c, &h, sizeof(h)))
		return false;
	if (ip->protocol == IPPROTO_ROUTING)
		take_routing(c, ip, &h);
	if (ip->protocol != IPPROTO_FRAGMENT)
		c->at += extension_len(ip->protocol, h.len);
	else if (take_fragment(ip, &h))
		c->at += sizeof(h);
	else
		return false;
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
			return PARSED_HIDDEN;
	}
	return is_extension(ip->protocol) ? PARSED_HIDDEN : PARSED;
}

static __always_inline __u64 pack_extensions(struct cursor *c, struct ip *ip)
{
	enum parsed parsed = parse_extensions(c, ip);

	return (__u64)ip->detour << 48 | (__u64)(c->at & 0xffff) << 32 | parsed << 16 | ip->fragment << 8 | ip->protocol;
}

/* TCP by a detour hides where it goes. Where the last destination cannot be read nobody will follow it. */
static __always_inline enum parsed follow_detour(const struct cursor *c, struct ip *ip, struct spare *spare,
						 enum parsed parsed)
{
	struct cursor at = *c;

	at.at = ip->detour;
	if (parsed == PARSED && (ip->protocol != IPPROTO_TCP || ip->fragment == FRAGMENT_LATER))
		return parsed;
	if (!load(&at, spare->last, sizeof(spare->last)))
		return parsed;
	ip->last = spare->last;
	return PARSED_HIDDEN;
}

static __always_inline enum parsed unpack_extensions(struct cursor *c, struct ip *ip, struct spare *spare, __u64 found)
{
	enum parsed parsed = found >> 16 & 0xff;

	c->at = found >> 32 & 0xffff;
	c->far = true;
	ip->fragment = found >> 8;
	ip->protocol = found;
	ip->detour = found >> 48;
	return likely(!ip->detour) ? parsed : follow_detour(c, ip, spare, parsed);
}

/*
 * The same as functions of their own, so that the verifier follows their ways
 * once, and not once more for each thing that may come after them.
 */
__attribute__((noinline)) __u64 walk_extensions(struct __sk_buff *skb, __u32 at, __u32 end, __u32 protocol,
						__u32 relative)
{
	struct cursor c = {.skb = skb, .at = at, .relative = relative};
	struct ip ip = {.end = end, .protocol = protocol, .fragment = FRAGMENT_EXTENDED};

	return pack_extensions(&c, &ip);
}

__attribute__((noinline)) __u64 walk_hook_extensions(struct bpf_nf_ctx *hook, __u32 at, __u32 end, __u32 protocol)
{
	struct cursor c = {.hook = hook, .at = at};
	struct ip ip = {.end = end, .protocol = protocol, .fragment = FRAGMENT_EXTENDED};
	struct bpf_dynptr packet;

	if (bpf_dynptr_from_skb((struct __sk_buff *)hook->skb, 0, &packet))
		return PARSED_HIDDEN << 16;
	c.packet = &packet;
	return pack_extensions(&c, &ip);
}

static __always_inline enum parsed take_ipv6(struct cursor *c, struct ip *ip, const struct ipv6hdr *h,
					     struct spare *spare)
{
	if (h->version >> 4 != 6)
		return PARSED_NOT_IP;
	ip->v6 = h;
	ip->family = AF_INET6;
	ip->protocol = h->nexthdr;
	ip->fragment = FRAGMENT_NONE;
	ip->last = NULL;
	ip->end = h->payload_len ? c->at + sizeof(*h) + bpf_ntohs(h->payload_len) : 0;
	c->at += sizeof(*h);
	if (likely(h->nexthdr == IPPROTO_TCP) || !is_extension(h->nexthdr))
		return PARSED;
	if (c->hook)
		return unpack_extensions(c, ip, spare,
					 walk_hook_extensions(c->hook, c->at, ip->end, ip->protocol));
	return unpack_extensions(c, ip, spare, walk_extensions(c->skb, c->at, ip->end, ip->protocol, c->relative));
}

static __always_inline enum parsed parse_ipv4(struct cursor *c, struct ip *ip, struct spare *spare)
{
	const struct iphdr *h = look(c, &spare->v4, sizeof(*h));

	return h ? take_ipv4(c, ip, h) : PARSED_NOT_IP;
}

static __always_inline enum parsed parse_ipv6(struct cursor *c, struct ip *ip, struct spare *spare)
{
	const struct ipv6hdr *h = look(c, &spare->v6, sizeof(*h));

	return h ? take_ipv6(c, ip, h, spare) : PARSED_NOT_IP;
}

static __always_inline bool is_tag(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/*
 * Moves over the tags that are still in the packet, as the kernel does with
 * those that name no VLAN: __netif_receive_skb_core takes one off after the
 * other. Returns the protocol behind them; that of a tag where they do not
 * end, 0 where one names a VLAN.
 */
static __always_inline __be16 parse_tags(struct cursor *c, __be16 protocol)
{
	for (int i = 0; i < MAX_TAGS && is_tag(protocol); i++) {
		struct vlan_tag tag;

		if (!load(c, &tag, sizeof(tag)) || tag.tci & bpf_htons(VLAN_VID_MASK))
			return 0;
		c->at += sizeof(tag);
		c->far = true;
		protocol = tag.protocol;
	}
	return protocol;
}

/*
 * Reads the IP header of a packet. What bears a VLAN tag on an interface
 * belongs to the VLAN interface above it, which has programs of its own; the
 * tag 0 only carries a priority.
 */
static __always_inline enum parsed parse_ip(struct cursor *c, struct ip *ip, struct spare *spare)
{
	__be16 protocol = c->skb->protocol;

	if (unlikely(c->skb->vlan_present) && c->skb->vlan_tci & VLAN_VID_MASK)
		return PARSED_NOT_IP;
	if (unlikely(is_tag(protocol)))
		protocol = parse_tags(c, protocol);
	if (protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(c, ip, spare);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(c, ip, spare);
	return unlikely(is_tag(protocol)) ? PARSED_TAGS : PARSED_NOT_IP;
}

/* Reads the IP header of the packet that an ICMP error is about, into spare. */
static __always_inline enum parsed parse_inner_ip(struct cursor *c, struct ip *ip, struct spare *spare, __u8 family)
{
	if (family == AF_INET)
		return load(c, &spare->v4, sizeof(spare->v4)) ? take_ipv4(c, ip, &spare->v4) : PARSED_NOT_IP;
	return load(c, &spare->v6, sizeof(spare->v6)) ? take_ipv6(c, ip, &spare->v6, spare) : PARSED_NOT_IP;
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
