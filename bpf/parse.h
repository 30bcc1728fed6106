/* SPDX-License-Identifier: Apache-2.0 */
/* From a frame to a UDP datagram for the media port. Each parser moves the cursor past the header it read. */
#pragma once

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#include "layout.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines: SipHash and the address constants read words as they lie in memory"
#endif

#define swap16(x) __builtin_bswap16(x)

#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff
#define MAPPED_PREFIX 0xffff0000 /* the third word of ::ffff:a.b.c.d, as it lies in memory */

#define PARSED -1

struct cursor {
    void *at;
    void *end;
};

/* `bytes` is the payload's length as UDP tells it: a short frame is padded behind that. */
struct datagram {
    struct flow_key from;
    __be32 to[4];
    u32 bytes;
};

static __always_inline int is_ours(const __be32 to[4])
{
#ifdef MEDIA_ADDRESS_0
    return to[0] == MEDIA_ADDRESS_0 && to[1] == MEDIA_ADDRESS_1 && to[2] == MEDIA_ADDRESS_2 &&
           to[3] == MEDIA_ADDRESS_3;
#else
    return 1;
#endif
}

/* `room` is what the IP header leaves for UDP. Returns a verdict, or PARSED with the cursor at the payload. */
static __always_inline int parse_udp(struct cursor *c, struct datagram *d, u32 room, int fragment)
{
    struct udphdr *udp = c->at;

    /* Drop: no socket can take a datagram without a whole UDP header. */
    if ((void *)(udp + 1) > c->end)
        return VERDICT_MALFORMED;
    if (udp->dest != swap16(MEDIA_PORT) || !is_ours(d->to))
        return VERDICT_OTHER_TRAFFIC;
    /* Drop: WebRTC keeps below the path MTU, and what reassembly delivers has come round the steering. */
    if (fragment)
        return VERDICT_FRAGMENT;

    u32 length = swap16(udp->len);
    /* Drop: UDP claims more than the IP header or the frame holds, or less than its own header. */
    if (length < sizeof(*udp) || length > room || c->at + length > c->end)
        return VERDICT_MALFORMED;
    /* Drop: nothing to tell apart, and no protocol on this port sends it. */
    if (length == sizeof(*udp))
        return VERDICT_EMPTY;

    d->from.port = udp->source;
    d->bytes = length - sizeof(*udp);
    c->at = udp + 1;
    return PARSED;
}

static __always_inline int parse_ipv4(struct cursor *c, struct datagram *d)
{
    struct iphdr *ip = c->at;

    /* Drop: cut short. */
    if ((void *)(ip + 1) > c->end)
        return VERDICT_MALFORMED;
    if (ip->protocol != IPPROTO_UDP)
        return VERDICT_OTHER_TRAFFIC;

    u32 header = ip->ihl * 4, total = swap16(ip->tot_len);
    u32 fragment = swap16(ip->frag_off);
    /* Only the first fragment has ports to look at. Without it the kernel cannot reassemble the others. */
    if (fragment & IP_FRAGMENT_OFFSET)
        return VERDICT_OTHER_TRAFFIC;
    /* Drop: header lengths that contradict each other. */
    if (header < sizeof(*ip) || total < header)
        return VERDICT_MALFORMED;

    d->from = (struct flow_key){ .address = { 0, 0, MAPPED_PREFIX, ip->saddr } };
    d->to[0] = d->to[1] = 0;
    d->to[2] = MAPPED_PREFIX;
    d->to[3] = ip->daddr;
    c->at += header;
    return parse_udp(c, d, total - header, fragment & IP_MORE_FRAGMENTS);
}

static __always_inline int parse_ipv6(struct cursor *c, struct datagram *d)
{
    struct ipv6hdr *ip = c->at;

    /* Drop: cut short. */
    if ((void *)(ip + 1) > c->end)
        return VERDICT_MALFORMED;
    /* Extension headers, fragments among them, do not occur in WebRTC: the kernel may deal with them. */
    if (ip->nexthdr != IPPROTO_UDP)
        return VERDICT_OTHER_TRAFFIC;

    __builtin_memcpy(d->from.address, &ip->saddr, sizeof(ip->saddr));
    d->from.zero = 0;
    __builtin_memcpy(d->to, &ip->daddr, sizeof(ip->daddr));
    c->at = ip + 1;
    return parse_udp(c, d, swap16(ip->payload_len), 0);
}

/* Returns a verdict, or PARSED with the cursor at the UDP payload. A VLAN tag is another ethertype, so other
 * traffic: put the program on the VLAN's own interface. */
static __always_inline int parse_frame(struct cursor *c, struct datagram *d)
{
    struct ethhdr *eth = c->at;

    if ((void *)(eth + 1) > c->end)
        return VERDICT_OTHER_TRAFFIC;
    c->at = eth + 1;
    if (eth->h_proto == swap16(ETH_P_IP))
        return parse_ipv4(c, d);
    if (eth->h_proto == swap16(ETH_P_IPV6))
        return parse_ipv6(c, d);
    return VERDICT_OTHER_TRAFFIC;
}
