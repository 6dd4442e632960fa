/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The one translation unit: the hooks share their maps. Regenerate the
 * object with `go generate ./pkg/steer`.
 */
#include "lookup.c"
#include "client.c"
#include "origin.c"
#include "wall.c"
#include "loop.c"
#include "forward.c"

char _license[] SEC("license") = "Dual BSD/GPL";
