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

/* What a TCP packet shows of itself; the binding is set from SHOWN_TINY on, the header from SHOWN_SYN on. */
enum shown {
	SHOWN_ELSE,   /* of no concern: another port or address, or cut short so that nobody takes it */
	SHOWN_LATER,  /* a later fragment, which is nothing without the first */
	SHOWN_HIDDEN, /* neither port nor flags: it may be anything, see is_target */
	SHOWN_TINY,   /* the port, but not the flags: it counts as a SYN */
	SHOWN_SYN,    /* the beginning of a connection */
	SHOWN_KNOWN,  /* a packet of a connection */
};

/*
 * Reads a TCP packet to a transit target, or to what a bypass takes out of one. A
 * first fragment too small for a TCP header hides its flags: a connection could
 * begin in such pieces past the inspector. So does a header that is cut off
 * behind extension headers, which the origin may answer. No honest sender makes
 * either.
 */
static __always_inline enum shown show_tcp(struct cursor *c, const struct ip *ip, struct spare *spare,
					   const struct binding **b, const struct tcphdr **tcp)
{
	const struct endpoints *ports;
	struct prefix key;

	if (unlikely(may_hide(ip))) {
		if (ip->fragment == FRAGMENT_LATER)
			return SHOWN_LATER;
		if (ip->fragment == FRAGMENT_INSIDE || ends_before(c, ip, sizeof(*ports)))
			return SHOWN_HIDDEN;
	}
	ports = look(c, &spare->tcp, sizeof(*ports));
	if (!ports || !is_bound(bpf_ntohs(ports->dest)))
		return SHOWN_ELSE;
	destination_prefix(&key, ip, ports->dest);
	*b = find_transit(&key);
	if (!*b)
		return SHOWN_ELSE;
	if (ends_before(c, ip, sizeof(**tcp)))
		return may_hide(ip) ? SHOWN_TINY : SHOWN_ELSE;
	*tcp = look(c, &spare->tcp, sizeof(**tcp));
	if (!*tcp)
		return SHOWN_ELSE;
	return ((*tcp)->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? SHOWN_SYN : SHOWN_KNOWN;
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
	__u32 from = a->from; /* apart, so that the rest is known when it is compiled: some kernels allow a call to some only */
	const enum side *side = bpf_map_lookup_elem(&roles, &from);

	return side && *side & (SIDE_ORIGIN | SIDE_BYPASS) && !(*side & SIDE_CLIENT);
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

/* Reports whether there is an IP header to judge. */
static __always_inline bool is_read(enum parsed parsed)
{
	return parsed == PARSED || parsed == PARSED_HIDDEN;
}

/* Judges a packet whose IP header was read; the cursor is behind it. */
static __always_inline bool stops(struct cursor *c, enum parsed parsed, const struct ip *ip, struct spare *spare,
				  const struct approach *a)
{
	const struct binding *b;
	const struct tcphdr *tcp;

	if (parsed == PARSED_HIDDEN)
		return stops_hidden(a, ip);
	if (ip->protocol != IPPROTO_TCP)
		return false;
	switch (show_tcp(c, ip, spare, &b, &tcp)) {
	case SHOWN_HIDDEN:
		return stops_hidden(a, ip);
	case SHOWN_TINY:
	case SHOWN_SYN:
		return stops_new(a, b, ip->family);
	default:
		return false;
	}
}
