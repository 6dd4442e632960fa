/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What user space tells the programs, and what they tell it. All maps are
 * pinned, and shared by all programs; Go's package steer writes them.
 */
#pragma once

#include "bpf.h"
#include "net.h"
#include "reason.h"

/*
 * The shape of everything below and the order of the reasons. Raise it with
 * any change that programs of the former shape would misread.
 */
enum abi { ABI = 3 };

#define MAX_SERVICES 16384
#define MAX_PREFIXES 1048576
#define MAX_INTERFACES 1024

/* Values that hold for all services. All zero: nothing is steered. */
struct settings {
	enum abi abi;
	__u32 client_mark; /* one bit, ORed into packets of client legs */
	__u32 origin_mark; /* one bit, ORed into packets of origin legs, borne by their sockets */
	__u32 loop_mark;   /* one bit, of a SYN on its way through FORWARD, see loop.h; 0: none goes there */
	__u32 unused;
	enum reason reasons; /* how many are counted; brings the enum into the generated code */
	__u32 closed;	    /* how many services fail closed */
	__u32 forward;	    /* whether there is a netfilter program, for user space */
	__u64 heartbeat_ns; /* a heartbeat older than this means a hung inspector; 0: never */
	__u64 build;	    /* which compiled object the programs are of, for user space */
	__u64 since;	    /* Unix time of creation in seconds, for user space */
};

struct heartbeat {
	__u64 last_ns;	/* CLOCK_MONOTONIC; 0: never */
	__u64 instance; /* the inspector that beats */
};

/*
 * The side of an interface, as bits. What comes in by a bypass may be forwarded
 * uninspected. The loop is our own link by which SYNs leave to be fetched back.
 */
enum side { SIDE_CLIENT = 1, SIDE_ORIGIN = 2, SIDE_BYPASS = 4, SIDE_LOOP = 8 };

/* 64 consecutive ports, the lowest in the lowest bit. */
struct ports {
	__u64 bound;  /* some binding has this port */
	__u64 origin; /* some origin has this port */
};

/*
 * Protocol and port come before the address, so that one trie holds all
 * bindings. IPv4 addresses are mapped into IPv6; the family before them keeps
 * ::/0 from catching IPv4.
 */
struct prefix {
	__u32 bits; /* that count, of those that follow */
	__u8 family;
	__u8 protocol;
	__be16 port;
	__be32 address[4];
};

#define PREFIX_EXACT 160

enum binding_flags {
	BINDING_ADDRESSED = 1, /* the prefix is the gateway's */
	BINDING_TRANSIT = 2,   /* the prefix is an origin's: TC diverts */
	BINDING_BYPASS = 4,    /* leave alone what a wider binding would catch */
};

struct binding {
	__u32 service;
	enum binding_flags flags;
	__u32 bits; /* of the address prefix: a lookup does not tell which one matched */
};

struct origin {
	__u32 bits; /* of the address prefix */
};

/* An address of origins, whatever the port: for packets that show none. */
struct target {
	enum binding_flags flags; /* BINDING_TRANSIT */
};

#define SERVICE_NAME 64

struct service {
	__u8 used;
	__u8 open; /* pass or forward new connections while no inspector is alive */
	__u8 reserved[6];
	__u8 name[SERVICE_NAME]; /* padded with NUL */
};

/* The process that keeps the kernel side as it was attached. No program reads this. */
struct watcher {
	__u64 last_ns; /* CLOCK_MONOTONIC of its last look; 0: never */
	__u64 repairs; /* how many things it has put back since the attach */
};

/* What it did last, in the first half, and what it cannot do, in the second. */
#define NOTES 16

struct note {
	__u64 when;	/* Unix time in seconds; 0: none */
	__u8 text[248]; /* padded with NUL */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct heartbeat);
} heartbeat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct watcher);
} watcher SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NOTES);
	__type(key, __u32);
	__type(value, struct note);
} notes SEC(".maps");

/* Interface index to its sides. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, enum side);
} roles SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, struct ports);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PREFIXES);
	__type(key, struct prefix);
	__type(value, struct binding);
} bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PREFIXES);
	__type(key, struct prefix);
	__type(value, struct origin);
} origins SEC(".maps");

/* The addresses of the transit bindings, with port 0. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PREFIXES);
	__type(key, struct prefix);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

/* Slot 2n holds the IPv4 listener of service n, slot 2n+1 its IPv6 listener. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * MAX_SERVICES);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* A SYN that has been through FORWARD. */
struct pass {
	__be32 source[4];
	__be32 dest[4];
	__be16 source_port;
	__be16 dest_port;
};

/* When it came back, by the coarse clock; those that are old or too many go by themselves. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct pass);
	__type(value, __u64);
} passes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

static __always_inline void count(enum reason reason)
{
	__u32 key = reason;
	__u64 *n = bpf_map_lookup_elem(&stats, &key);

	if (n)
		(*n)++;
}

static __always_inline const struct settings *get_settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

/* The 64 ports around a port in host byte order; the lookup is inlined by the verifier. */
static __always_inline const struct ports *ports_around(__u16 port)
{
	__u32 key = port / 64;

	return bpf_map_lookup_elem(&ports, &key);
}

static __always_inline bool is_bound(__u16 port)
{
	const struct ports *p = ports_around(port);

	return p && (p->bound >> (port % 64)) & 1;
}

static __always_inline bool is_origin(__u16 port)
{
	const struct ports *p = ports_around(port);

	return p && (p->origin >> (port % 64)) & 1;
}

static __always_inline void map_ipv4(__be32 to[4], __be32 address)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = address;
}

static __always_inline void copy_ipv6(__be32 to[4], const __be32 from[4])
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}
