/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * TC ingress on the client side: marks the packets of transit connections, so
 * that a policy rule delivers them here. To divert SYNs alone never works: the
 * rest of the handshake would be forwarded. And to divert the port as a whole
 * would reset connections that were forwarded before we came. So: a SYN (once
 * it has met the host's packet filter, see loop.h), what has a socket here, an
 * ACK with a SYN cookie of ours, and an ICMP error about any of these.
 *
 * The verdict is always TC_NEXT, so that everybody's later programs run; but
 * for the drop that a closed service asks for. Packets are never changed and
 * never assigned to a socket: the mark routes, sk_lookup picks the listener.
 *
 * This is the first wall as well: what could be the beginning of a connection
 * to an origin, and does not show it, is dropped. No honest sender makes it.
 */
#include "flow.h"
#include "loop.h"
#include "wall.h"

static __always_inline int client_mark(struct __sk_buff *skb, const struct settings *set, enum reason reason)
{
	skb->mark |= set->client_mark;
	count(reason);
	return TC_NEXT;
}

static __always_inline int client_leave(enum reason reason)
{
	count(reason);
	return TC_NEXT;
}

static __always_inline int client_dead(__u32 service, enum reason closed, enum reason open)
{
	if (fails_open(service))
		return client_leave(open);
	count(closed);
	return TC_SHOT;
}

/* Sends the beginning of a connection through FORWARD first, where it is to go there. A tiny one shows no header. */
static __always_inline int client_take(struct __sk_buff *skb, const struct settings *set, const struct ip *ip,
				       const struct tcphdr *tcp, bool back, enum reason reason)
{
	if (!set->loop_mark)
		return client_mark(skb, set, reason);
	if (back) {
		if (tcp)
			remember_pass(ip, tcp);
		return client_mark(skb, set, reason);
	}
	if (is_judged(skb, set))
		return TC_NEXT;
	if (tcp && has_passed(skb, ip, tcp)) {
		skb->tc_index = LOOP_BACK;
		return client_mark(skb, set, reason);
	}
	skb->mark |= set->loop_mark;
	count(REASON_LOOP_OUT);
	return TC_NEXT;
}

/*
 * Reports whether a packet of a client has the addresses and ports of an origin leg of
 * ours, which has his address, and any port may be his. Connection tracking takes it for
 * the leg's: a SYN is established, to rules that ban him, too. And what is no SYN would
 * get to the origin past us. No honest sender makes the latter, and who made the former
 * tries again, from another port.
 */
static __always_inline bool client_intrudes(struct __sk_buff *skb, const struct settings *set, const struct ip *ip,
					    const struct tcphdr *tcp)
{
	struct bpf_sock *sk = find_sender(skb, ip, tcp->source, tcp->dest);
	struct bpf_sock *full;
	bool ours;

	if (!sk)
		return false;
	full = bpf_sk_fullsock(sk); /* in TIME_WAIT it is none, and the origin's is closed */
	ours = full && full->mark & set->origin_mark;
	bpf_sk_release(sk);
	return ours;
}

/* Judges the beginning of a connection. */
static __always_inline int client_new(struct __sk_buff *skb, const struct settings *set, const struct binding *b,
				      const struct ip *ip, const struct tcphdr *tcp, enum reason reason)
{
	bool back = is_back(skb, set);
	struct bpf_sock *sk;

	if (back)
		end_loop(skb, set);
	if (b->flags & BINDING_BYPASS)
		return client_leave(REASON_CLIENT_BYPASS);
	sk = get_listener(b->service, ip->family);
	if (!sk)
		return client_dead(b->service, REASON_CLIENT_ABSENT_CLOSED, REASON_CLIENT_ABSENT_OPEN);
	bpf_sk_release(sk);
	if (is_hung(set))
		return client_dead(b->service, REASON_CLIENT_HUNG_CLOSED, REASON_CLIENT_HUNG_OPEN);
	if (set->loop_mark && tcp && client_intrudes(skb, set, ip, tcp)) {
		count(REASON_CLIENT_INTRUDER);
		return TC_SHOT;
	}
	return client_take(skb, set, ip, tcp, back, reason);
}

/* A listener that has sent SYN cookies has no socket for the handshake: the ACK itself proves it. */
static __always_inline bool client_is_cookie(const struct binding *b, const struct ip *ip, const struct tcphdr *tcp)
{
	struct bpf_sock *sk;
	long err;

	if (b->flags & BINDING_BYPASS || (tcp->flags & (TCP_SYN | TCP_ACK)) != TCP_ACK)
		return false;
	sk = get_listener(b->service, ip->family);
	if (!sk)
		return false;
	if (ip->family == AF_INET)
		err = bpf_tcp_check_syncookie(sk, ip->v4, sizeof(*ip->v4), tcp, sizeof(*tcp));
	else
		err = bpf_tcp_check_syncookie(sk, ip->v6, sizeof(*ip->v6), tcp, sizeof(*tcp));
	bpf_sk_release(sk);
	return !err;
}

/* Judges what is not the beginning of a connection; a later bypass leaves running ones alone. */
static __always_inline int client_known(struct __sk_buff *skb, const struct settings *set, const struct binding *b,
					const struct ip *ip, const struct tcphdr *tcp)
{
	struct bpf_sock *sk = find_receiver(skb, ip, tcp->source, tcp->dest);
	bool begun;

	if (sk) {
		begun = sk->state == BPF_TCP_NEW_SYN_RECV;
		bpf_sk_release(sk);
		if (set->loop_mark && (begun || tcp->flags & (TCP_FIN | TCP_RST)))
			keep_entry(skb, ip, tcp, tcp->flags & (TCP_FIN | TCP_RST) ? 0 : ENTRY_MS);
		return client_mark(skb, set, REASON_CLIENT_SOCKET);
	}
	if (client_is_cookie(b, ip, tcp)) {
		if (set->loop_mark)
			keep_entry(skb, ip, tcp, ENTRY_MS);
		return client_mark(skb, set, REASON_CLIENT_COOKIE);
	}
	if (client_intrudes(skb, set, ip, tcp)) {
		count(REASON_CLIENT_INTRUDER);
		return TC_SHOT;
	}
	return client_leave(REASON_CLIENT_FORWARDED);
}

/* Judges what does not show whether it begins a connection to a closed service. */
static __always_inline int client_hidden(const struct ip *ip)
{
	const struct settings *set = get_settings();

	if (!set || !set->client_mark || !is_target(ip))
		return TC_NEXT;
	if (!guards_hidden(set, true))
		return client_leave(REASON_CLIENT_HIDDEN_OPEN);
	count(REASON_CLIENT_HIDDEN);
	return TC_SHOT;
}

/* Behind so many tags may be anything, for anybody. */
static __always_inline int client_tags(void)
{
	const struct settings *set = get_settings();

	if (!set || !set->client_mark || !guards_hidden(set, true))
		return TC_NEXT;
	count(REASON_CLIENT_TAGS);
	return TC_SHOT;
}

static __always_inline int client_tcp(struct cursor *c, const struct ip *ip, struct spare *spare)
{
	const struct settings *set = get_settings();
	const struct binding *b;
	const struct tcphdr *tcp;
	enum shown shown;

	if (!set || !set->client_mark)
		return TC_NEXT;
	shown = show_tcp(c, ip, spare, &b, &tcp);
	if (likely(shown == SHOWN_ELSE))
		return TC_NEXT;
	switch (shown) {
	case SHOWN_LATER:
		if (is_back(c->skb, set))
			end_loop(c->skb, set);
		return client_leave(REASON_CLIENT_FRAGMENT);
	case SHOWN_HIDDEN:
		return client_hidden(ip);
	case SHOWN_TINY:
		return client_new(c->skb, set, b, ip, NULL, REASON_CLIENT_TINY);
	case SHOWN_SYN:
		return client_new(c->skb, set, b, ip, tcp, REASON_CLIENT_SYN);
	default:
		return client_known(c->skb, set, b, ip, tcp);
	}
}

/* Without this a forged source is a black hole for path MTU discovery. */
static __always_inline int client_icmp(struct cursor *c, const struct ip *ip)
{
	const struct settings *set = get_settings();
	struct endpoints ports;
	struct bpf_sock *sk;
	struct spare spare;
	struct prefix key;
	struct ip inner;

	if (!set || !set->client_mark || !parse_icmp_about_tcp(c, ip, &inner, &spare, &ports))
		return TC_NEXT;
	if (!is_bound(bpf_ntohs(ports.source)))
		return TC_NEXT;
	source_prefix(&key, &inner, ports.source);
	if (!find_transit(&key))
		return TC_NEXT;
	sk = find_sender(c->skb, &inner, ports.source, ports.dest);
	if (!sk)
		return TC_NEXT;
	bpf_sk_release(sk);
	return client_mark(c->skb, set, REASON_CLIENT_ICMP);
}

static __always_inline int client_packet(struct cursor c)
{
	struct spare spare;
	struct ip ip;

	switch (parse_ip(&c, &ip, &spare)) {
	case PARSED_NOT_IP:
		return TC_NEXT;
	case PARSED_HIDDEN:
		return client_hidden(&ip);
	case PARSED_TAGS:
		return client_tags();
	case PARSED:
		break;
	}
	if (ip.protocol == IPPROTO_TCP)
		return client_tcp(&c, &ip, &spare);
	return is_icmp(&ip) ? client_icmp(&c, &ip) : TC_NEXT;
}

SEC("tc") int steer_client(struct __sk_buff *skb)
{
	return client_packet(at_ethernet(skb));
}

/* For interfaces without an Ethernet header: tunnels, PPP, WireGuard. */
SEC("tc") int steer_client_l3(struct __sk_buff *skb)
{
	return client_packet(at_network(skb));
}
