/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The integer types of the kernel's interface. The system's headers are not
 * used: they pull in a C library, and Debian's lack what kernels after 6.1
 * brought.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;

/* Values in network byte order. */
typedef __u16 __be16;
typedef __u32 __be32;

typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define bpf_htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))
#else
#define bpf_htons(x) ((__be16)(x))
#define bpf_htonl(x) ((__be32)(x))
#endif
#define bpf_ntohs(x) ((__u16)bpf_htons(x))

#define __always_inline inline __attribute__((always_inline))
/* Keeps the compiler from merging loads of two branches into one from a computed context address, which the verifier refuses. */
#define keep_apart() asm volatile("" : : : "memory")
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
