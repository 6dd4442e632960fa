/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The part of the kernel's BPF interface that the programs use: contexts,
 * helpers by number, map types, verdicts. All of it is stable user interface
 * of the kernel, but for what the netfilter program takes from BTF.
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
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_SOCKMAP 15

#define BPF_F_NO_PREALLOC 1U
#define BPF_F_INGRESS 1
#define BPF_HDR_START_NET 1
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

/* Verdicts of a netfilter hook. */
#define NF_DROP 0
#define NF_ACCEPT 1

/* States of sockets: of a connection that is over, of none yet, of one whose handshake is not done. */
#define BPF_TCP_TIME_WAIT 6
#define BPF_TCP_LISTEN 10
#define BPF_TCP_NEW_SYN_RECV 12

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
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	union { /* a pointer on every machine, 64 bits wide; kernel 5.1 */
		struct bpf_sock *sk;
		__u64 : 64;
	};
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

/* The kernel's own types, as far as they are read: found by BTF, whatever their layout is. */
struct net_device {
	int ifindex;
} __attribute__((preserve_access_index));

struct nf_hook_state {
	struct net_device *in;
	struct net_device *out;
} __attribute__((preserve_access_index));

/* A route that packets take. */
struct dst_entry {
	struct xfrm_state *xfrm; /* IPsec */
	struct lwtunnel_state *lwtstate;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned long _skb_refdst; /* the route; the lowest bit is a flag (SKB_DST_NOREF) */
} __attribute__((preserve_access_index));

/* Context of a netfilter program (kernel 6.4). */
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

/* A packet as a netfilter program reads it. */
struct bpf_dynptr {
	__u64 : 64;
	__u64 : 64;
} __attribute__((aligned(8)));

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *packet)
	__attribute__((section(".ksyms"))); /* 6.4 */

/* Reports whether the kernel's type has the field; the loader answers. */
#define has_field(field) __builtin_preserve_field_info(field, 2)

/*
 * Helpers, with the kernel that brought them to the program types used here.
 */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;						     /* 4.1 */
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;				     /* 4.4 */
static long (*bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len) = (void *)26; /* 4.5 */
static long (*bpf_skb_change_type)(struct __sk_buff *skb, __u32 type) = (void *)32;		     /* 4.8 */
static long (*bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;			     /* 4.9 */
static long (*bpf_skb_load_bytes_relative)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len,
					   __u32 start) = (void *)68; /* 4.18 */
static long (*bpf_sk_release)(void *sk) = (void *)86;						     /* 4.20 */
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)95;			     /* 5.1 */
static struct bpf_sock *(*bpf_skc_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns,
					      __u64 flags) = (void *)99; /* 5.2 */
static long (*bpf_tcp_check_syncookie)(struct bpf_sock *sk, const void *ip, __u32 ip_len, const void *tcp,
				       __u32 tcp_len) = (void *)100;				/* 5.2 */
static long (*bpf_probe_read_kernel)(void *to, __u32 len, const void *from) = (void *)113;	/* 5.5 */
static long (*bpf_sk_assign)(void *ctx, struct bpf_sock *sk, __u64 flags) = (void *)124;	/* 5.9 */
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;					/* 5.11 */
static long (*bpf_dynptr_read)(void *to, __u32 len, const struct bpf_dynptr *from, __u32 offset,
			       __u64 flags) = (void *)201; /* 5.19 */

/*
 * Functions of connection tracking. A kernel before 6.0, and one where it is not loaded
 * when we are, has none: then each call is made to return 0 before the program is loaded.
 */
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))

struct nf_conn { /* the kernel compares the name alone */
};

struct bpf_ct_opts {
	__s32 netns_id; /* -1: the packet's */
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
					 struct bpf_ct_opts *opts, __u32 opts_size) __ksym __weak; /* 5.18 */
extern void bpf_ct_release(struct nf_conn *ct) __ksym __weak;					   /* 5.18 */
extern int bpf_ct_change_timeout(struct nf_conn *ct, __u32 ms) __ksym __weak;			   /* 6.0 */
