/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Why a packet met its verdict: the one list of reasons. The generated Go code
 * and the words in status, metrics and the manual come from these names:
 * REASON_CLIENT_SYN is "client-syn".
 *
 * What is not ours is not counted, so that it stays cheap: another protocol,
 * a port that nothing is bound to, an address that nothing is bound to (in
 * TC), a packet cut short.
 *
 * The order is the layout of the map stats: append only, or raise ABI.
 */
#pragma once

enum reason {
	/* sk_lookup; TC's socket lookups pass here too: not a count of connections */
	REASON_LOOKUP_ASSIGNED = 0,
	REASON_LOOKUP_BYPASS,
	REASON_LOOKUP_INTERFACE,
	REASON_LOOKUP_UNBOUND,
	REASON_LOOKUP_ABSENT_CLOSED,
	REASON_LOOKUP_ABSENT_OPEN,
	REASON_LOOKUP_HUNG_CLOSED,
	REASON_LOOKUP_HUNG_OPEN,
	REASON_LOOKUP_REFUSED,

	/* TC, client side: packets */
	REASON_CLIENT_SYN,
	REASON_CLIENT_TINY,
	REASON_CLIENT_SOCKET,
	REASON_CLIENT_COOKIE,
	REASON_CLIENT_ICMP,
	REASON_CLIENT_BYPASS,
	REASON_CLIENT_FORWARDED,
	REASON_CLIENT_FRAGMENT,
	REASON_CLIENT_HIDDEN,
	REASON_CLIENT_HIDDEN_OPEN,
	REASON_CLIENT_TAGS,
	REASON_CLIENT_ABSENT_CLOSED,
	REASON_CLIENT_ABSENT_OPEN,
	REASON_CLIENT_HUNG_CLOSED,
	REASON_CLIENT_HUNG_OPEN,

	/* TC, origin side: packets */
	REASON_ORIGIN_SOCKET,
	REASON_ORIGIN_ICMP,
	REASON_ORIGIN_FOREIGN,
	REASON_ORIGIN_FORWARDED,
	REASON_ORIGIN_FRAGMENT,
	REASON_ORIGIN_HIDDEN,

	/* TC, egress of the origin side: beginnings of connections that were not steered */
	REASON_WALL_LEAK,
	REASON_WALL_HIDDEN,
	REASON_WALL_DEAD_CLOSED,
	REASON_WALL_DEAD_OPEN,
	REASON_WALL_BYPASS,

	/* FORWARD, towards interfaces that are not on the origin side: the same */
	REASON_FORWARD_LEAK,
	REASON_FORWARD_HIDDEN,
	REASON_FORWARD_DEAD_CLOSED,
	REASON_FORWARD_DEAD_OPEN,
	REASON_FORWARD_BYPASS,

	/* TC, client side and loop link: SYNs on their way through FORWARD */
	REASON_LOOP_OUT,
	REASON_LOOP_FETCHED,
	REASON_LOOP_STRAY,

	/* TC, client side again */
	REASON_CLIENT_INTRUDER,

	REASONS /* their number */
};
