/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * sk_lookup: hands new connections to the inspector's listener. It runs for
 * every TCP packet and UDP datagram of the network namespace that meets no
 * connected socket, so the port decides first.
 *
 * lo has no role, so what goes to a loopback address is never taken. The
 * gateway's own connection to a bound address of one of its interfaces counts
 * as coming by that interface, and is taken (inet_iif).
 */
#include "service.h"

static __always_inline const struct binding *lookup_binding(const struct bpf_sk_lookup *ctx)
{
	struct prefix key = {
		.bits = PREFIX_EXACT,
		.family = ctx->family,
		.protocol = IPPROTO_TCP,
		.port = bpf_htons(ctx->local_port),
	};

	if (ctx->family == AF_INET) {
		map_ipv4(key.address, ctx->local_ip4);
		keep_apart();
	} else {
		key.address[0] = ctx->local_ip6[0];
		key.address[1] = ctx->local_ip6[1];
		key.address[2] = ctx->local_ip6[2];
		key.address[3] = ctx->local_ip6[3];
	}
	return bpf_map_lookup_elem(&bindings, &key);
}

static __always_inline bool lookup_is_client(const struct bpf_sk_lookup *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const enum side *side = bpf_map_lookup_elem(&roles, &ifindex);

	return side && *side & SIDE_CLIENT;
}

/*
 * A drop means a reset at an address of ours, silence at one of an origin's.
 * Whatever another program selects overrides it.
 */
static __always_inline int lookup_dead(__u32 service, enum reason closed, enum reason open)
{
	if (fails_open(service)) {
		count(open);
		return SK_PASS;
	}
	count(closed);
	return SK_DROP;
}

static __always_inline int lookup_assign(struct bpf_sk_lookup *ctx, __u32 service)
{
	const struct settings *set = get_settings();
	struct bpf_sock *sk;
	long err;

	if (!set)
		return SK_PASS;
	sk = get_listener(service, ctx->family);
	if (!sk)
		return lookup_dead(service, REASON_LOOKUP_ABSENT_CLOSED, REASON_LOOKUP_ABSENT_OPEN);
	if (is_hung(set)) {
		bpf_sk_release(sk);
		return lookup_dead(service, REASON_LOOKUP_HUNG_CLOSED, REASON_LOOKUP_HUNG_OPEN);
	}
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	if (err)
		return lookup_dead(service, REASON_LOOKUP_REFUSED, REASON_LOOKUP_REFUSED);
	count(REASON_LOOKUP_ASSIGNED);
	return SK_PASS;
}

SEC("sk_lookup") int steer_lookup(struct bpf_sk_lookup *ctx)
{
	const struct binding *b;

	if (ctx->protocol != IPPROTO_TCP || !is_bound(ctx->local_port))
		return SK_PASS;
	if (!lookup_is_client(ctx)) {
		count(REASON_LOOKUP_INTERFACE);
		return SK_PASS;
	}
	b = lookup_binding(ctx);
	if (!b) {
		count(REASON_LOOKUP_UNBOUND);
		return SK_PASS;
	}
	if (b->flags & BINDING_BYPASS) {
		count(REASON_LOOKUP_BYPASS);
		return SK_PASS;
	}
	return lookup_assign(ctx, b->service);
}
