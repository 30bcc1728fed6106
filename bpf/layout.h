/* SPDX-License-Identifier: Apache-2.0 */
/* What kernel and Python must lay out alike. edge/kernel.py has the other half and passes its sizes as cflags:
 * when the two drift apart, this does not compile. */
#pragma once

/* The 18 byte address of wire/address.py, padded: jhash2, over whole words, is the faster of the kernel's two. */
struct flow_key {
    __be32 address[4];
    __be16 port;
    u16 zero;
};

struct flow {
    u32 cpu;
    u32 transceiver;
    u64 last_seen_ns;      /* CLOCK_MONOTONIC */
    u64 last_seen_jiffies; /* when the kernel wrote last_seen_ns; 0 when user space did */
};

struct route_key {
    u64 k0;
    u64 k1;
    u32 live;
    u32 zero;
};

_Static_assert(sizeof(struct flow_key) == FLOW_KEY_BYTES, "flow_key differs from edge/kernel.py");
_Static_assert(sizeof(struct flow) == FLOW_BYTES, "flow differs from edge/kernel.py");
_Static_assert(sizeof(struct route_key) == ROUTE_KEY_BYTES, "route_key differs from edge/kernel.py");
