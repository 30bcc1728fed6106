/* SPDX-License-Identifier: Apache-2.0 */
/* The express path: media of a flow that has proved itself goes to the socket of its transceiver, past the workers. Its
 * destination port is all that changes. edge/express.py says which transceivers take it. */
#pragma once

#include "parse.h"

/* Returns 0 where the header is out of reach. The checksum is mended by what changed (RFC 1624, equation 3), so one that
 * was wrong stays wrong. Without one (RFC 768) there is none afterwards either, and none that is there becomes 0. */
static __always_inline int change_port(struct udphdr *udp, void *end, u16 port)
{
    if ((void *)(udp + 1) > end)
        return 0;
    __be16 wanted = swap16(port);
    if (udp->check) {
        u32 sum = (u16)~udp->check + (u16)~udp->dest + wanted;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16 check = ~sum;
        udp->check = check ? check : 0xffff;
    }
    udp->dest = wanted;
    return 1;
}
