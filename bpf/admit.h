/* SPDX-License-Identifier: Apache-2.0 */
/* How much strangers may ask for: a token bucket per source prefix. It is kept as one number, the time at which the
 * prefix will have used what it took (the generic cell rate algorithm, ITU-T I.371 annex A), so a bucket needs no
 * lock: two cores that write at once give a packet too many, and nothing else. */
#pragma once

#include "parse.h"

struct prefix {
    __be32 address[4];
};

static __always_inline struct prefix prefix_of(const struct flow_key *from)
{
    const __be32 *a = from->address;

    if (!a[0] && !a[1] && a[2] == MAPPED_PREFIX)
        return (struct prefix){ { 0, 0, MAPPED_PREFIX, a[3] & UNKNOWN_V4_MASK } };
    return (struct prefix){ { a[0] & UNKNOWN_V6_MASK_0, a[1] & UNKNOWN_V6_MASK_1, a[2] & UNKNOWN_V6_MASK_2,
                              a[3] & UNKNOWN_V6_MASK_3 } };
}

/* Moves *due, in ns, on by one packet; 0 where the burst is used up. An idle bucket is full. */
static __always_inline int take_token(u64 *due, u64 now)
{
    u64 from = *due > now ? *due : now;

    if (from - now > UNKNOWN_WINDOW_NS)
        return 0;
    *due = from + UNKNOWN_INTERVAL_NS;
    return 1;
}
