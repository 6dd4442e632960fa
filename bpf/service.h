/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Whether a service can take a new connection. A dead inspector shows by the
 * empty slot (the kernel empties it when the listener is closed), a hung one
 * by its old heartbeat.
 */
#pragma once

#include "maps.h"

/* The listener of a service; the caller releases it. */
static __always_inline struct bpf_sock *get_listener(__u32 service, __u8 family)
{
	__u32 slot = service * 2 + (family == AF_INET6);

	return bpf_map_lookup_elem(&listeners, &slot);
}

/*
 * The coarse clock costs a memory read, and not all program types have it. It
 * runs at most a tick behind the clock of the heartbeat, so the difference may
 * be negative.
 */
static __always_inline bool is_silent(const struct settings *set, bool coarse)
{
	__u32 key = 0;
	const struct heartbeat *beat;
	__u64 now;

	if (!set->heartbeat_ns)
		return false;
	beat = bpf_map_lookup_elem(&heartbeat, &key);
	if (!beat || !beat->last_ns)
		return true;
	now = coarse ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();
	return now > beat->last_ns && now - beat->last_ns > set->heartbeat_ns;
}

static __always_inline bool is_hung(const struct settings *set)
{
	return is_silent(set, true);
}

static __always_inline bool fails_open(__u32 service)
{
	const struct service *s = bpf_map_lookup_elem(&services, &service);

	return s && s->open;
}
