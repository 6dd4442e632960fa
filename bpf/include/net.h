/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Headers on the wire: IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293),
 * ICMP (RFC 792) and ICMPv6 (RFC 4443).
 */
#pragma once

#include "types.h"

#define AF_INET 2
#define AF_INET6 10

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88A8
#define VLAN_VID_MASK 0x0fff

/* What stands behind the EtherType of a tag that is still in the packet. */
struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

#define IPPROTO_HOPOPTS 0
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#define IPPROTO_MH 135
#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

struct iphdr {
	__u8 version_ihl; /* version in the high half, length in words in the low */
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off; /* flags in the high three bits */
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff /* in units of 8 bytes */

struct ipv6hdr {
	__u8 version; /* in the high half */
	__u8 flow[3];
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

/* The beginning that every extension header shares. */
struct ipv6_ext {
	__u8 nexthdr;
	__u8 len; /* in units of 8 bytes, the first not counted; of AH in units of 4, the first two not counted */
	__u8 rest[6];
};

#define RH_SEGMENTS 4 /* type of routing header (RFC 8754); its list begins with the last destination */

struct ipv6_frag {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off; /* offset in the high 13 bits, more-fragments in the lowest */
	__be32 id;
};

#define IP6_MF 0x0001
#define IP6_OFFSET 0xfff8

struct tcphdr {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 doff; /* in the high half, in words */
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urg_ptr;
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 rest;
};

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12

/* Errors are the ICMPv6 types below 128; four are defined. */
#define ICMP6_UNREACHABLE 1
#define ICMP6_PARAMETER 4
