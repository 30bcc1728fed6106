/* SPDX-License-Identifier: Apache-2.0 */
/* How much may be asked for: token buckets, each kept as one number, the time at which it will have got back what was
 * taken (the generic cell rate algorithm, ITU-T I.371 annex A). So a bucket needs no lock: two cores that write at once
 * give a packet too many, and nothing else. edge/xdp/limits.py has the rates. */
#pragma once

#include "parse.h"

static __always_inline struct prefix prefix_of(const struct flow_key *from)
{
    const __be32 *a = from->address;

    if (!a[0] && !a[1] && a[2] == MAPPED_PREFIX)
        return (struct prefix){ { 0, 0, MAPPED_PREFIX, a[3] & UNKNOWN_V4_MASK } };
    return (struct prefix){ { a[0] & UNKNOWN_V6_MASK_0, a[1] & UNKNOWN_V6_MASK_1, a[2] & UNKNOWN_V6_MASK_2,
                              a[3] & UNKNOWN_V6_MASK_3 } };
}

/* Moves *due, in ns, on by `interval`; 0 where it is ahead by more than `window`: the burst is used up. An idle bucket
 * is full. */
static __always_inline int take(u64 *due, u64 now, u64 interval, u64 window)
{
    u64 from = *due > now ? *due : now;

    if (from - now > window)
        return 0;
    *due = from + interval;
    return 1;
}

static __always_inline int may_check(struct flow *flow)
{
    return take(&flow->checks_due_ns, bpf_ktime_get_ns(), CHECK_INTERVAL_NS, CHECK_WINDOW_NS);
}

static __always_inline int may_say_more(struct flow *flow)
{
    return !FLOW_INTERVAL_NS || take(&flow->other_due_ns, bpf_ktime_get_ns(), FLOW_INTERVAL_NS, FLOW_WINDOW_NS);
}

/* Media is most of what comes, and the clock is a third of what a packet of it costs: one look at it is for
 * MEDIA_AT_ONCE of them. */
static __always_inline int may_send_media(struct flow *flow)
{
    if (!FLOW_INTERVAL_NS)
        return 1;
    if (flow->media_left) {
        flow->media_left--;
        return 1;
    }
    if (!take(&flow->media_due_ns, bpf_ktime_get_ns(), MEDIA_AT_ONCE * FLOW_INTERVAL_NS, FLOW_WINDOW_NS))
        return 0;
    flow->media_left = MEDIA_AT_ONCE - 1;
    return 1;
}
