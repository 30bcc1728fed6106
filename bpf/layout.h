/* SPDX-License-Identifier: Apache-2.0 */
/* What kernel and Python must lay out alike. edge/xdp/kernel.py has the other half and passes its sizes as cflags:
 * when the two drift apart, this does not compile. */
#pragma once

/* The 18 byte address of wire/address.py, padded: jhash2, over whole words, is the faster of the kernel's two. */
struct flow_key {
    __be32 address[4];
    __be16 port;
    u16 zero;
};

/* Fields are only ever added at the end, where 0 means that nothing is known yet: an edge that takes over from an older
 * one copies what it finds, and zeroes follow it. Beginning with media_due_ns they are the buckets of admit.h. */
struct flow {
    u32 cpu;
    u32 transceiver;
    u64 last_seen_ns;      /* CLOCK_MONOTONIC */
    u64 last_seen_jiffies; /* when the kernel wrote last_seen_ns; 0 when user space did */
    u64 media_due_ns;
    u64 other_due_ns;
    u64 checks_due_ns;
    u32 media_left; /* packets for which the clock need not be asked again */
    u32 zero;
};

/* Chances out of 2^32 that a packet for a core is shed; its worker writes them (edge/xdp/shedding.py). */
struct shed {
    u32 media;
    u32 strangers;
};

struct route_key {
    u64 k0;
    u64 k1;
    u32 live;
    u32 zero;
};

_Static_assert(sizeof(struct flow_key) == FLOW_KEY_BYTES, "flow_key differs from edge/xdp/kernel.py");
_Static_assert(sizeof(struct flow) == FLOW_BYTES, "flow differs from edge/xdp/kernel.py");
_Static_assert(sizeof(struct shed) == SHED_BYTES, "shed differs from edge/xdp/kernel.py");
_Static_assert(sizeof(struct route_key) == ROUTE_KEY_BYTES, "route_key differs from edge/xdp/kernel.py");
