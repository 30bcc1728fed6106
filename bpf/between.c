/* SPDX-License-Identifier: Apache-2.0 */
/* The express path between hosts: media of a flow that has proved itself goes to its transceiver on another host, and
 * from there to the client, past the workers. Ethernet's, IP's and UDP's headers are replaced, and a head that names the
 * flow (wire/encapsulation.py) comes before the payload, or is taken off. edge/between.py says which transceivers take
 * it. What cannot go so is left as it was, for a worker.
 *
 * A part of steer.c, before which edge/xdp/program.py puts it. */

#include <uapi/linux/bpf.h>

#include "parse.h"

#define IPV4_HEADER_WORDS 5
/* What is the same in every IP header of ours, by words as they lie in memory. IPv4: version 4 and 5 words; "do not
 * fragment"; 64 hops and UDP. IPv6: version 6; UDP and 64 hops. */
#define IPV4_FIRST 0x0045
#define IPV4_DONT_FRAGMENT 0x0040
#define IPV4_HOPS_UDP (64 | IPPROTO_UDP << 8)
#define IPV6_FIRST 0x60
#define IPV6_UDP_HOPS (IPPROTO_UDP << 16 | 64 << 24)
/* What a packet grows by on its way back, at most: its head goes, and IPv6's header comes in the place of IPv4's. */
#define GROWS_BACK ((int)(sizeof(struct ipv6hdr) - sizeof(struct iphdr) - sizeof(struct express_head)))

struct express_head {
    u8 version;
    u8 zero[3];
    __be32 number;
    __be64 ticket;
};

/* The headers that a packet is to have. What a map holds is copied from there to the packet, and by whole words: a load
 * that spans two stores waits until both are in the cache. */
struct envelope {
    const __be32 *source;
    const __be32 *address;
    const u8 *macs; /* of the next hop, and ours */
    __be16 source_port;
    __be16 port;
    u32 bytes; /* of the UDP payload, with the head */
    __be16 check;
};

static __always_inline int is_mapped(const __be32 a[4])
{
    return !a[0] && !a[1] && a[2] == MAPPED_PREFIX;
}

/* Sums of 16 bit words in ones' complement (RFC 1071), which do not ask where in a longer word each stands. The prefix
 * of a mapped address adds 0xffff to one, which is nothing. */
static __always_inline u64 plus(u64 sum, const __be32 a[4])
{
    return sum + a[0] + a[1] + a[2] + a[3];
}

static __always_inline u64 minus(u64 sum, const __be32 a[4])
{
    return sum + (u32)~a[0] + (u32)~a[1] + (u32)~a[2] + (u32)~a[3];
}

static __always_inline u16 fold(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* The checksum of a UDP datagram whose words so sum up: never 0, which would say that there is none (RFC 768). */
static __always_inline __be16 finished(u64 sum)
{
    u16 check = ~fold(sum);
    return check ? check : 0xffff;
}

static __always_inline void count_fallback(u32 why)
{
    u64 *counter = fallbacks.lookup(&why);

    if (counter)
        ++*counter;
}

/* The way to a transceiver: in an array, at its number or one of the places behind, because a hash table is a call and an
 * array is none. */
static __always_inline struct way *way_of(u32 transceiver)
{
    for (u32 i = 0; i < WAY_PLACES; i++) {
        u32 at = (transceiver + i) % WAYS;
        struct way *way = ways.lookup(&at);
        if (way && way->transceiver == transceiver && way->port)
            return way;
    }
    return 0;
}

static __always_inline u32 ip_bytes(u32 v4)
{
    return v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* The compiler is not to see that this is a number made of pointers: it would add others to a pointer instead, which the
 * verifier does not take. */
static __always_inline u32 distance(const void *from, const void *to)
{
    u32 bytes = to - from;

    asm volatile("" : "+r"(bytes));
    return bytes;
}

static __always_inline void put_udp(void *at, const struct envelope *e, const struct express_head *head)
{
    u32 *udp = at;

    udp[0] = e->source_port | (u32)e->port << 16;
    udp[1] = swap16(sizeof(struct udphdr) + e->bytes) | (u32)e->check << 16;
    if (head)
        *(struct express_head *)(udp + 2) = *head;
}

static __always_inline void put_ipv4(u32 *ip, const struct envelope *e)
{
    u32 first = IPV4_FIRST | (u32)swap16(sizeof(struct iphdr) + sizeof(struct udphdr) + e->bytes) << 16;
    u64 sum = (u64)first + IPV4_DONT_FRAGMENT + IPV4_HOPS_UDP + e->source[3] + e->address[3];

    ip[0] = first;
    ip[1] = IPV4_DONT_FRAGMENT << 16;
    ip[2] = IPV4_HOPS_UDP | (u32)(u16)~fold(sum) << 16;
    ip[3] = e->source[3];
    ip[4] = e->address[3];
}

static __always_inline void put_ipv6(u32 *ip, const struct envelope *e)
{
    ip[0] = IPV6_FIRST;
    ip[1] = swap16(sizeof(struct udphdr) + e->bytes) | IPV6_UDP_HOPS;
    for (int i = 0; i < 4; i++) {
        ip[2 + i] = e->source[i];
        ip[6 + i] = e->address[i];
    }
}

/* Writes the headers, and the head where there is one, over what is at the packet's beginning now. Returns 0 where there
 * is no room, which cannot be, but the verifier asks. */
static __always_inline int put_headers(struct xdp_md *ctx, const struct envelope *e, const struct express_head *head)
{
    void *eth = (void *)(long)ctx->data, *ip = eth + sizeof(struct ethhdr);
    void *end = (void *)(long)ctx->data_end;
    u32 more = sizeof(struct udphdr) + (head ? sizeof(*head) : 0);
    u32 v4 = is_mapped(e->address);

    if (v4) {
        if (ip + sizeof(struct iphdr) + more > end)
            return 0;
        put_ipv4(ip, e);
        put_udp(ip + sizeof(struct iphdr), e, head);
    } else {
        if (ip + sizeof(struct ipv6hdr) + more > end)
            return 0;
        put_ipv6(ip, e);
        put_udp(ip + sizeof(struct ipv6hdr), e, head);
    }
    ((u64 *)eth)[0] = *(const u64 *)e->macs;
    ((u32 *)eth)[2] = *(const u32 *)(e->macs + 8);
    ((struct ethhdr *)eth)->h_proto = v4 ? swap16(ETH_P_IP) : swap16(ETH_P_IPV6);
    return 1;
}

/* Sends a packet of a flow's media to its transceiver on another host. Returns what XDP is to do, or 0 where the packet
 * is as it was and a worker's. */
static __always_inline int send_on(struct xdp_md *ctx, const struct flow *flow, const struct datagram *d, void *end)
{
    struct way *way = way_of(flow->transceiver);
    struct express_head head = { .version = HEAD_VERSION, .number = flow->number, .ticket = flow->ticket };
    struct envelope e;

    if (!way || !way->open)
        return 0;
    if (!d->plain) {
        count_fallback(FALLBACK_HEADERS);
        return 0;
    }
    if ((void *)(d->udp + 1) > end)
        return 0;
    e.source = way->source;
    e.address = way->address;
    e.macs = way->to;
    e.source_port = swap16(FIRST_PORT + __builtin_bswap32(flow->number) % PORTS);
    e.port = way->port;
    e.bytes = d->bytes + sizeof(head);

    u32 v4 = is_mapped(e.address);
    if (ip_bytes(v4) + sizeof(struct udphdr) + e.bytes > way->mtu || d->bytes > MOST_BYTES) {
        count_fallback(FALLBACK_TOO_LONG);
        return 0;
    }
    e.check = 0;
    if (d->udp->check) {
        u64 sum = (u16)~d->udp->check + way->sum;
        sum = minus(minus(sum, d->from.address), d->to);
        sum = plus(sum, (const __be32 *)&head);
        sum += (u16)~d->udp->source + (u16)~d->udp->dest + e.source_port;
        /* The length is summed up twice: in UDP's own header and in the one that stands for IP's. */
        sum += 2 * swap16(sizeof(head));
        e.check = finished(sum);
    } else if (!v4) { /* RFC 8200 section 8.1 */
        count_fallback(FALLBACK_CHECKSUM);
        return 0;
    }
    u32 interface = way->interface;
    u32 before = distance((void *)(long)ctx->data, d->udp + 1);
    u32 after = sizeof(struct ethhdr) + ip_bytes(v4) + sizeof(struct udphdr) + sizeof(head);
    if (bpf_xdp_adjust_head(ctx, (int)before - (int)after)) {
        count_fallback(FALLBACK_HEADROOM);
        return 0;
    }
    if (!put_headers(ctx, &e, &head))
        return XDP_DROP; /* cannot be, but the verifier asks */
    return bpf_redirect(interface, 0);
}

/* Notes where a flow's client is reached, from a packet of his. */
static __always_inline void learn(struct xdp_md *ctx, const struct flow *flow)
{
    struct ethhdr *eth = (void *)(long)ctx->data;
    __be32 number = flow->number;
    struct back *back = backs.lookup(&number);

    if (!back || back->ticket != flow->ticket || (void *)(eth + 1) > (void *)(long)ctx->data_end)
        return;
    __builtin_memcpy(back->to, eth->h_source, sizeof(back->to));
    __builtin_memcpy(back->from, eth->h_dest, sizeof(back->from));
    back->interface = ctx->ingress_ifindex;
}

/* The addresses of a packet, each as two words. */
struct ends {
    u64 from[2];
    u64 to[2];
};

/* A UDP datagram without VLAN tags, options and extension headers, whole or a later fragment's neighbour no, to a port
 * for transceivers on other hosts. Returns its header, with both addresses and the room that IP's header leaves for it,
 * or 0. */
static __always_inline struct udphdr *plain_udp(struct xdp_md *ctx, struct ends *ends, u32 *room)
{
    struct ethhdr *eth = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct udphdr *udp;

    if ((void *)(eth + 1) > end)
        return 0;
    if (eth->h_proto == swap16(ETH_P_IP)) {
        struct iphdr *ip = (void *)(eth + 1);
        udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end || ip->ihl != IPV4_HEADER_WORDS || ip->protocol != IPPROTO_UDP ||
            swap16(ip->frag_off) & (IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
            return 0;
        ends->from[0] = ends->to[0] = 0;
        ends->from[1] = (u64)ip->saddr << 32 | MAPPED_PREFIX;
        ends->to[1] = (u64)ip->daddr << 32 | MAPPED_PREFIX;
        *room = swap16(ip->tot_len) - sizeof(*ip);
    } else if (eth->h_proto == swap16(ETH_P_IPV6)) {
        struct ipv6hdr *ip = (void *)(eth + 1);
        udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end || ip->nexthdr != IPPROTO_UDP)
            return 0;
        for (int i = 0; i < 2; i++) {
            ends->from[i] = ((const u64 *)&ip->saddr)[i];
            ends->to[i] = ((const u64 *)&ip->daddr)[i];
        }
        *room = swap16(ip->payload_len);
    } else {
        return 0;
    }
    return swap16(udp->dest) - FIRST_PORT < (u32)PORTS ? udp : 0;
}

/* Whether the packet came by this way. */
static __always_inline int came_by(const struct way *way, const struct ends *ends, const struct udphdr *udp)
{
    const u64 *there = (const u64 *)way->address, *here = (const u64 *)way->source;

    return udp->source == way->port && ends->from[0] == there[0] && ends->from[1] == there[1] &&
           ends->to[0] == here[0] && ends->to[1] == here[1];
}

/* Gives the packet of a flow, whose ticket is right and which came by the flow's way, to the client. */
static __always_inline int give_back(struct xdp_md *ctx, const struct back *back, const struct way *way,
                                     const struct udphdr *udp, const struct express_head *head, int *action)
{
#ifdef MEDIA_ADDRESS_0
    const __be32 media[4] = { MEDIA_ADDRESS_0, MEDIA_ADDRESS_1, MEDIA_ADDRESS_2, MEDIA_ADDRESS_3 };
    u32 interface = back->interface;
    struct envelope e = { media, back->client, back->to, swap16(MEDIA_PORT), back->port };

    e.bytes = swap16(udp->len) - sizeof(*udp) - sizeof(*head);
    /* Drop: no client was seen yet; or longer than a transceiver sends so. */
    if (!interface || e.bytes > MOST_BYTES)
        return VERDICT_BACK_REFUSED;
    u32 v4 = is_mapped(e.address);
    if (udp->check) {
        u64 sum = (u16)~udp->check + (u16)~way->sum;
        sum = plus(plus(sum, media), e.address);
        sum = minus(sum, (const __be32 *)head);
        sum += e.source_port + e.port + (u16)~udp->dest;
        sum += 2 * (u16)~swap16(sizeof(*head));
        e.check = finished(sum);
    } else if (!v4) {
        return VERDICT_BACK_REFUSED; /* Drop: a client over IPv6 would (RFC 8200 section 8.1). */
    }
    u32 before = distance((void *)(long)ctx->data, head + 1);
    u32 after = sizeof(struct ethhdr) + ip_bytes(v4) + sizeof(*udp);
    /* Drop: no room before the packet, of which an answer about the way has had as much. */
    if (bpf_xdp_adjust_head(ctx, (int)before - (int)after) || !put_headers(ctx, &e, 0))
        return VERDICT_BACK_REFUSED;
    *action = bpf_redirect(interface, 0);
    return VERDICT_BACK_EXPRESSED;
#else
    return VERDICT_BACK_REFUSED; /* Drop: nobody knows by which address the client knows us. */
#endif
}

/* The verdict on what is said about a way, or on anything else without a ticket, to an address of ours. */
static __always_inline int answer_about_way(struct xdp_md *ctx, const struct ends *ends, struct udphdr *udp,
                                            const struct express_head *head, int *action)
{
    void *end = (void *)(long)ctx->data_end;

    /* Drop: no answer, or one whose sender leaves the checksum to hardware which it has not: clients would get
     * everything so. */
    if (head->number || swap16(udp->len) != sizeof(*udp) + PROBE_BYTES ||
        (void *)udp + sizeof(*udp) + PROBE_BYTES > end || !udp->check)
        return VERDICT_BACK_REFUSED;
    u64 sum = (u32)bpf_csum_diff(0, 0, (__be32 *)udp, sizeof(*udp) + PROBE_BYTES, 0);
    sum = plus(plus(sum, (const __be32 *)ends->from), (const __be32 *)ends->to);
    if (fold(sum + udp->len + swap16(IPPROTO_UDP)) != 0xffff)
        return VERDICT_BACK_REFUSED;
    /* Drop: this NIC leaves no room before a packet, so what comes back may not become a client's. No way is then
     * open, and nothing comes back. */
    if (bpf_xdp_adjust_head(ctx, -GROWS_BACK) || bpf_xdp_adjust_head(ctx, GROWS_BACK))
        return VERDICT_BACK_REFUSED;
    *action = XDP_PASS;
    return VERDICT_WAY_ANSWERED;
}

/* What a transceiver on another host sends. Returns a verdict, with what XDP is to do in `action`, or PARSED where the
 * packet is none of that. Most of it has its ticket, so that is what is looked at first: an address with a way is one of
 * `inners`. */
static __always_inline int come_back(struct xdp_md *ctx, int *action)
{
    struct ends ends;
    u32 room;
    struct udphdr *udp = plain_udp(ctx, &ends, &room);
    void *end = (void *)(long)ctx->data_end;

    if (!udp)
        return PARSED;
    *action = XDP_DROP;
    struct express_head *head = (void *)(udp + 1);
    u32 length = swap16(udp->len);
    /* Not cut short, and something behind the head. */
    int whole = length <= room && length > sizeof(*udp) + sizeof(*head) && (void *)udp + length <= end &&
                (void *)(head + 1) <= end && head->version == HEAD_VERSION;

    if (whole && head->number) {
        __be32 number = head->number;
        struct back *back = backs.lookup(&number);
        if (back && back->ticket == head->ticket &&
            swap16(udp->dest) == FIRST_PORT + __builtin_bswap32(number) % PORTS) {
            struct way *way = way_of(back->transceiver);
            if (way && came_by(way, &ends, udp))
                return give_back(ctx, back, way, udp, head, action);
        }
    }
    if (!inners.lookup((struct host *)ends.to))
        return PARSED;
    /* Drop: who sent this does not know the flow's ticket, or is elsewhere than the flow's transceiver. */
    return whole ? answer_about_way(ctx, &ends, udp, head, action) : VERDICT_BACK_REFUSED;
}
