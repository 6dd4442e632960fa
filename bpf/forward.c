/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * FORWARD, the third wall: what the second one does not see, because it would
 * leave by an interface that is not on the origin side (one that is new, was
 * made again, or that nobody named), or inside of another packet. A netfilter
 * program where the kernel has links for it (6.4). Before, a rule of iptables
 * (xt_bpf) drops what a program says yes to; that one is asked for all
 * interfaces, for it does not see by which a packet would leave.
 *
 * Neither program type may hold a socket: the heartbeat tells the living.
 */
#include "wall.h"

static __always_inline bool forward_stops(struct cursor *c, enum parsed parsed, const struct ip *ip,
					  struct spare *spare, __u32 from)
{
	struct approach a = {.set = get_settings(), .from = from, .reasons = REASON_FORWARD_LEAK};

	return is_read(parsed) && a.set && a.set->client_mark && stops(c, parsed, ip, spare, &a);
}

/* Reads a pointer of the kernel's that may be nowhere (kernel 5.5). */
static __always_inline const void *follow(const void *at)
{
	const void *to;

	return bpf_probe_read_kernel(&to, sizeof(to), at) ? NULL : to;
}

/*
 * Reports whether the way out wraps packets: IPsec, or a route with an encap.
 * The egress of the interface then sees the outer packet only.
 */
static __always_inline bool is_wrapped(const struct sk_buff *skb)
{
	struct dst_entry *dst = (void *)(skb->_skb_refdst & ~1UL);

	if (has_field(dst->xfrm) && follow(__builtin_preserve_access_index(&dst->xfrm)))
		return true;
	return has_field(dst->lwtstate) && follow(__builtin_preserve_access_index(&dst->lwtstate));
}

/* The origin side's egress has a wall of its own, and from the loop link nothing gets out. */
static __always_inline bool is_walled(const struct bpf_nf_ctx *ctx)
{
	__u32 ifindex = ctx->state->out->ifindex;
	const enum side *side = bpf_map_lookup_elem(&roles, &ifindex);

	return side && *side & (SIDE_ORIGIN | SIDE_LOOP) && likely(!is_wrapped(ctx->skb));
}

static __always_inline enum parsed parse_version(struct cursor *c, struct ip *ip, struct spare *spare)
{
	__u8 version;

	if (!load(c, &version, sizeof(version)))
		return PARSED_NOT_IP;
	return version >> 4 == 4 ? parse_ipv4(c, ip, spare) : parse_ipv6(c, ip, spare);
}

SEC("netfilter") int steer_forward(struct bpf_nf_ctx *ctx)
{
	struct cursor c = {.hook = ctx, .far = true};
	struct bpf_dynptr packet;
	enum parsed parsed;
	struct spare spare;
	struct ip ip = {};

	if (is_walled(ctx))
		return NF_ACCEPT;
	if (bpf_dynptr_from_skb((struct __sk_buff *)ctx->skb, 0, &packet))
		return NF_DROP;
	c.packet = &packet;
	parsed = parse_version(&c, &ip, &spare);
	return forward_stops(&c, parsed, &ip, &spare, ctx->state->in->ifindex) ? NF_DROP : NF_ACCEPT;
}

/* Such a program may only copy from a packet, which begins at its IP header. */
SEC("socket") int steer_forward_match(struct __sk_buff *skb)
{
	struct cursor c = {.skb = skb, .far = true};
	enum parsed parsed;
	struct spare spare;
	struct ip ip = {};

	parsed = parse_ip(&c, &ip, &spare);
	return forward_stops(&c, parsed, &ip, &spare, skb->ingress_ifindex);
}
