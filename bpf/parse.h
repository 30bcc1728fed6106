/* SPDX-License-Identifier: Apache-2.0 */
/* From a frame to a UDP datagram for the media port. Each parser moves the cursor past the header it read. */
#pragma once

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines: SipHash and the address constants read words as they lie in memory"
#endif

#define swap16(x) __builtin_bswap16(x)

/* A service tag (802.1ad) and the customer's (802.1Q): more of them is nobody's network. */
#define VLAN_TAGS 2
#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff
/* RFC 8200 section 4.1 knows hop-by-hop options, destination options, routing, fragment, and destination options
 * once more, in this order; its other headers leave nothing behind them to look at. */
#define IPV6_EXTENSIONS 5
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define MAPPED_PREFIX 0xffff0000 /* the third word of ::ffff:a.b.c.d, as it lies in memory */

#define PARSED -1

struct cursor {
    void *at;
    void *end;
};

struct vlan_tag {
    __be16 control;
    __be16 kind; /* of what follows, as in Ethernet's own header */
};

/* The first 8 bytes of any extension header of IPv6, and all of the fragment header. */
struct ipv6_extension {
    u8 next;
    u8 length; /* in units of 8 bytes behind the first 8; the fragment header leaves it 0 */
    __be16 fragment;
    u8 rest[4];
};

/* `bytes` is the payload's length as UDP tells it: a short frame is padded behind that. `plain` where nothing is before
 * the UDP header `udp` but Ethernet's and IP's own. `port` is that of a UDP datagram to our address, and 0 of what is
 * none. */
struct datagram {
    struct flow_key from;
    __be32 to[4];
    struct udphdr *udp;
    u32 bytes;
    u32 plain;
    u32 port;
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

/* `room` is what the IP header leaves for UDP; `unwanted` the verdict on how it came, if it is for the media port, or
 * PARSED. Returns a verdict, or PARSED with the cursor at the payload. */
static __always_inline int parse_udp(struct cursor *c, struct datagram *d, u32 room, int unwanted)
{
    struct udphdr *udp = c->at;

    /* Drop: no socket can take a datagram without a whole UDP header. */
    if ((void *)(udp + 1) > c->end)
        return VERDICT_MALFORMED;
    d->port = swap16(udp->dest);
    if (d->port != MEDIA_PORT)
        return VERDICT_OTHER_TRAFFIC;
    /* Drop: see where the IP headers are read. */
    if (unwanted != PARSED)
        return unwanted;

    u32 length = swap16(udp->len);
    /* Drop: UDP claims more than the IP header or the frame holds, or less than its own header. */
    if (length < sizeof(*udp) || length > room || c->at + length > c->end)
        return VERDICT_MALFORMED;
    /* Drop: nothing to tell apart, and no protocol on this port sends it. */
    if (length == sizeof(*udp))
        return VERDICT_EMPTY;

    d->from.port = udp->source;
    d->bytes = length - sizeof(*udp);
    d->udp = udp;
    c->at = udp + 1;
    return PARSED;
}

static __always_inline int parse_ipv4(struct cursor *c, struct datagram *d)
{
    struct iphdr *ip = c->at;
    int unwanted = PARSED;

    /* Drop: cut short. */
    if ((void *)(ip + 1) > c->end)
        return VERDICT_MALFORMED;

    d->from = (struct flow_key){ .address = { 0, 0, MAPPED_PREFIX, ip->saddr } };
    d->to[0] = d->to[1] = 0;
    d->to[2] = MAPPED_PREFIX;
    d->to[3] = ip->daddr;
    if (ip->protocol != IPPROTO_UDP || !is_ours(d->to))
        return VERDICT_OTHER_TRAFFIC;

    u32 header = ip->ihl * 4, total = swap16(ip->tot_len);
    u32 fragment = swap16(ip->frag_off);
    /* Only the first fragment has ports to look at. Without it the kernel cannot reassemble the others. */
    if (fragment & IP_FRAGMENT_OFFSET)
        return VERDICT_OTHER_TRAFFIC;
    /* Drop: header lengths that contradict each other. */
    if (header < sizeof(*ip) || total < header)
        return VERDICT_MALFORMED;
    /* Drop: sockets of browsers and phones set no options and most networks discard them (RFC 7126), so on this port
     * they are a probe, or a route that the sender wants our stack to take. */
    if (header > sizeof(*ip))
        unwanted = VERDICT_IP_OPTIONS;
    /* Drop: WebRTC keeps below the path MTU, and what reassembly delivers has come round the steering. */
    if (fragment & IP_MORE_FRAGMENTS)
        unwanted = VERDICT_FRAGMENT;

    c->at += header;
    return parse_udp(c, d, total - header, unwanted);
}

static __always_inline int parse_ipv6(struct cursor *c, struct datagram *d)
{
    struct ipv6hdr *ip = c->at;
    int unwanted = PARSED;

    /* Drop: cut short. */
    if ((void *)(ip + 1) > c->end)
        return VERDICT_MALFORMED;

    __builtin_memcpy(d->from.address, &ip->saddr, sizeof(ip->saddr));
    d->from.zero = 0;
    __builtin_memcpy(d->to, &ip->daddr, sizeof(ip->daddr));
    if (!is_ours(d->to))
        return VERDICT_OTHER_TRAFFIC;

    u32 room = swap16(ip->payload_len);
    u8 next = ip->nexthdr;
    c->at = ip + 1;
    for (int i = 0; next != IPPROTO_UDP; i++) {
        d->plain = 0;
        if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
            next != IPPROTO_FRAGMENT)
            return VERDICT_OTHER_TRAFFIC;
        /* Drop: more than a sender has a use for. Passed on, they would be a way round everything below. */
        if (i == IPV6_EXTENSIONS)
            return VERDICT_IP_OPTIONS;

        struct ipv6_extension *extension = c->at;
        /* Drop: cut short. */
        if ((void *)(extension + 1) > c->end)
            return VERDICT_MALFORMED;
        u32 bytes = sizeof(*extension);
        if (next == IPPROTO_FRAGMENT) {
            /* As over IPv4. */
            if (swap16(extension->fragment) & IPV6_FRAGMENT_OFFSET)
                return VERDICT_OTHER_TRAFFIC;
            /* Drop: as over IPv4, and the fragment that is first and last too (RFC 6946): nobody makes those any
             * more (RFC 8021). */
            unwanted = VERDICT_FRAGMENT;
        } else {
            bytes += extension->length * 8;
        }
        /* Drop: reaches past the end of the packet. */
        if (bytes > room)
            return VERDICT_MALFORMED;
        room -= bytes;
        next = extension->next;
        c->at += bytes;
    }
    return parse_udp(c, d, room, unwanted);
}

static __always_inline int is_tag(__be16 kind)
{
    return kind == swap16(ETH_P_8021Q) || kind == swap16(ETH_P_8021AD);
}

/* Returns a verdict, or PARSED with the cursor at the UDP payload. Behind a tag the kernel's own VLAN interface takes
 * the packet, on the core that was chosen here. */
static __always_inline int parse_frame(struct cursor *c, struct datagram *d)
{
    struct ethhdr *eth = c->at;

    d->port = 0;
    if ((void *)(eth + 1) > c->end)
        return VERDICT_OTHER_TRAFFIC;
    __be16 kind = eth->h_proto;
    c->at = eth + 1;
    d->plain = !is_tag(kind);
    for (int i = 0; i < VLAN_TAGS && is_tag(kind); i++) {
        struct vlan_tag *tag = c->at;
        /* Drop: cut short. */
        if ((void *)(tag + 1) > c->end)
            return VERDICT_MALFORMED;
        kind = tag->kind;
        c->at = tag + 1;
    }
    if (kind == swap16(ETH_P_IP))
        return parse_ipv4(c, d);
    if (kind == swap16(ETH_P_IPV6))
        return parse_ipv6(c, d);
    return VERDICT_OTHER_TRAFFIC;
}
