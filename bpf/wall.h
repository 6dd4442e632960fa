/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Whether a packet may begin a connection to an origin past the inspector. Two
 * walls ask it besides the client side: the egress of the origin side, and
 * FORWARD towards all other ways. Neither relies on marks, routes or
 * rules, nor on the other.
 */
#pragma once

#include "flow.h"
#include "service.h"

/* The transit binding of a destination, or the bypass that takes it out of a wider one. */
static __always_inline const struct binding *find_transit(const struct prefix *key)
{
	const struct binding *b = bpf_map_lookup_elem(&bindings, key);

	return b && b->flags & (BINDING_TRANSIT | BINDING_BYPASS) ? b : NULL;
}

static __always_inline bool has_transit(const struct prefix *key)
{
	const struct target *t = bpf_map_lookup_elem(&targets, key);

	return t && t->flags & BINDING_TRANSIT;
}

/* Reports whether some port of the destination, or of the last one of a detour, is a transit service's. */
static __always_inline bool is_target(const struct ip *ip)
{
	struct prefix key;

	destination_prefix(&key, ip, 0);
	if (has_transit(&key))
		return true;
	if (likely(!ip->last))
		return false;
	copy_ipv6(key.address, ip->last);
	return has_transit(&key);
}

/*
 * Reports whether packets that show no port are dropped: they are while an
 * inspector lives, and always where any service fails closed, for nobody can
 * tell whether it is that one's.
 */
static __always_inline bool guards_hidden(const struct settings *set, bool coarse)
{
	return set->closed || !is_silent(set, coarse);
}

/* A packet at a wall. The reasons of all walls come in the same order. */
struct approach {
	const struct settings *set;
	__u32 from;	     /* interface that it came in by */
	bool is_tc;	     /* may look at listeners and the coarse clock; else the heartbeat is all */
	enum reason reasons; /* the first of the wall's */
};

#define STOP_LEAK 0
#define STOP_HIDDEN 1
#define STOP_DEAD_CLOSED 2
#define PASS_DEAD_OPEN 3
#define PASS_BYPASS 4

static __always_inline bool stop(const struct approach *a, int how)
{
	count(a->reasons + how);
	return true;
}

static __always_inline bool pass(const struct approach *a, int how)
{
	count(a->reasons + how);
	return false;
}

/* What comes from the origins' side, or by an interface that the operator lets pass, is not to be steered. */
static __always_inline bool may_pass(const struct approach *a)
{
	const enum side *side = bpf_map_lookup_elem(&roles, &a->from);

	return side && !(*side & SIDE_CLIENT);
}

static __always_inline bool is_served(const struct approach *a, __u32 service, __u8 family)
{
	struct bpf_sock *sk;

	if (!a->is_tc)
		return !is_silent(a->set, false);
	sk = get_listener(service, family);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return !is_hung(a->set);
}

/* Judges the beginning of a connection: while an inspector lives, it was not steered and so is a leak. */
static __always_inline bool stops_new(const struct approach *a, const struct binding *b, __u8 family)
{
	if (b->flags & BINDING_BYPASS || may_pass(a))
		return pass(a, PASS_BYPASS);
	if (is_served(a, b->service, family))
		return stop(a, STOP_LEAK);
	return fails_open(b->service) ? pass(a, PASS_DEAD_OPEN) : stop(a, STOP_DEAD_CLOSED);
}

static __always_inline bool stops_hidden(const struct approach *a, const struct ip *ip)
{
	if (!is_target(ip))
		return false;
	if (may_pass(a))
		return pass(a, PASS_BYPASS);
	return guards_hidden(a->set, a->is_tc) ? stop(a, STOP_HIDDEN) : pass(a, PASS_DEAD_OPEN);
}

static __always_inline bool stops_tcp(struct cursor *c, const struct ip *ip, struct spare *spare,
				      const struct approach *a)
{
	const struct endpoints *ports;
	const struct binding *b;
	const struct tcphdr *tcp;
	struct prefix key;

	if (unlikely(may_hide(ip)) && ends_before(c, ip, sizeof(*ports)))
		return stops_hidden(a, ip);
	ports = look(c, &spare->tcp, sizeof(*ports));
	if (!ports || !is_bound(bpf_ntohs(ports->dest)))
		return false;
	destination_prefix(&key, ip, ports->dest);
	b = find_transit(&key);
	if (!b)
		return false;
	if (ends_before(c, ip, sizeof(*tcp)))
		return may_hide(ip) && stops_new(a, b, ip->family);
	tcp = look(c, &spare->tcp, sizeof(*tcp));
	return tcp && (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && stops_new(a, b, ip->family);
}

/* Reports whether there is an IP header to judge. */
static __always_inline bool is_read(enum parsed parsed)
{
	return parsed == PARSED || parsed == PARSED_HIDDEN;
}

/* Judges a packet whose IP header was read; the cursor is behind it. */
static __always_inline bool stops(struct cursor *c, enum parsed parsed, const struct ip *ip, struct spare *spare,
				  const struct approach *a)
{
	if (parsed == PARSED_HIDDEN)
		return stops_hidden(a, ip);
	if (ip->protocol != IPPROTO_TCP || ip->fragment == FRAGMENT_LATER)
		return false;
	if (unlikely(ip->fragment == FRAGMENT_INSIDE))
		return stops_hidden(a, ip);
	return stops_tcp(c, ip, spare, a);
}
