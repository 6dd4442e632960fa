/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The part of the kernel's BPF interface that the programs use: contexts,
 * helpers by number, map types, verdicts. All of it is stable user interface
 * of the kernel; nothing here needs CO-RE.
 */
#pragma once

#include "types.h"

#define SEC(name) __attribute__((section(name), used))

/* Map definitions in BTF: the section .maps describes them by types. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_SOCKMAP 15

#define BPF_F_NO_PREALLOC 1U
#define BPF_F_CURRENT_NETNS (-1L)

/* Verdicts of sk_lookup. */
#define SK_DROP 0
#define SK_PASS 1

/*
 * Verdicts of TC. TC_NEXT is TC_ACT_UNSPEC and TCX_NEXT, the only value after
 * which every later program and filter still runs, in both worlds.
 */
#define TC_NEXT (-1)
#define TC_SHOT 2

/* The socket state in which a socket stands for no connection yet. */
#define BPF_TCP_LISTEN 10

/* Context of a TC program, up to the last field in use. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol; /* EtherType, network byte order */
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
};

struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 src_ip4;
	__u32 src_ip6[4];
	__u32 src_port;
	__be16 dst_port;
	__u16 : 16;
	__u32 dst_ip4;
	__u32 dst_ip6[4];
	__u32 state;
	__s32 rx_queue_mapping;
};

struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr;
			__be32 daddr;
			__be16 sport;
			__be16 dport;
		} ipv4;
		struct {
			__be32 saddr[4];
			__be32 daddr[4];
			__be16 sport;
			__be16 dport;
		} ipv6;
	};
};

/* Context of a sk_lookup program; ingress_ifindex since kernel 5.17. */
struct bpf_sk_lookup {
	union {
		struct bpf_sock *sk;
		__u64 cookie;
	};
	__u32 family;
	__u32 protocol;
	__u32 remote_ip4;
	__u32 remote_ip6[4];
	__be16 remote_port;
	__u16 : 16;
	__u32 local_ip4;
	__u32 local_ip6[4];
	__u32 local_port; /* host byte order */
	__u32 ingress_ifindex;
};

/*
 * Helpers, with the kernel that brought them to the program types used here.
 */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len) = (void *)26; /* 4.5 */
static long (*bpf_sk_release)(void *sk) = (void *)86;						     /* 4.20 */
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)95;			     /* 5.1 */
static struct bpf_sock *(*bpf_skc_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns,
					      __u64 flags) = (void *)99; /* 5.2 */
static long (*bpf_tcp_check_syncookie)(struct bpf_sock *sk, const void *ip, __u32 ip_len, const void *tcp,
				       __u32 tcp_len) = (void *)100;				/* 5.2 */
static long (*bpf_sk_assign)(void *ctx, struct bpf_sock *sk, __u64 flags) = (void *)124;	/* 5.9 */
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;					/* 5.11 */
