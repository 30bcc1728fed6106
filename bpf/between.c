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
#define HOPS 64
#define DONT_FRAGMENT 0x4000
/* What a packet grows by on its way back, at most: its head goes, and IPv6's header comes in the place of IPv4's. */
#define GROWS_BACK ((int)(sizeof(struct ipv6hdr) - sizeof(struct iphdr) - sizeof(struct express_head)))

struct express_head {
    u8 version;
    u8 zero[3];
    __be32 number;
    __be64 ticket;
};

/* The headers that a packet is to have. `sum` is the UDP checksum of what it has now, and of what is added. */
struct envelope {
    __be32 source[4];
    __be32 address[4];
    u8 to[6];
    u8 from[6];
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

static __always_inline u32 ip_bytes(u32 v4)
{
    return v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __always_inline void put_udp(struct udphdr *udp, const struct envelope *e)
{
    udp->source = e->source_port;
    udp->dest = e->port;
    udp->len = swap16(sizeof(*udp) + e->bytes);
    udp->check = e->check;
}

static __always_inline void *put_ipv4(struct iphdr *ip, const struct envelope *e)
{
    u64 sum = 0;

    ip->version = 4;
    ip->ihl = IPV4_HEADER_WORDS;
    ip->tos = 0;
    ip->tot_len = swap16(sizeof(*ip) + sizeof(struct udphdr) + e->bytes);
    ip->id = 0;
    ip->frag_off = swap16(DONT_FRAGMENT);
    ip->ttl = HOPS;
    ip->protocol = IPPROTO_UDP;
    ip->check = 0;
    ip->saddr = e->source[3];
    ip->daddr = e->address[3];
    for (int i = 0; i < IPV4_HEADER_WORDS; i++)
        sum += ((u32 *)ip)[i];
    ip->check = ~fold(sum);
    return ip + 1;
}

static __always_inline void *put_ipv6(struct ipv6hdr *ip, const struct envelope *e)
{
    *(__be32 *)ip = __builtin_bswap32(6u << 28);
    ip->payload_len = swap16(sizeof(struct udphdr) + e->bytes);
    ip->nexthdr = IPPROTO_UDP;
    ip->hop_limit = HOPS;
    __builtin_memcpy(&ip->saddr, e->source, sizeof(ip->saddr));
    __builtin_memcpy(&ip->daddr, e->address, sizeof(ip->daddr));
    return ip + 1;
}

/* Writes the headers, and the head where there is one, over what is at the packet's beginning now. Returns 0 where there
 * is no room, which cannot be, but the verifier asks. */
static __always_inline int put_headers(struct xdp_md *ctx, const struct envelope *e, const struct express_head *head)
{
    struct ethhdr *eth = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    u32 more = sizeof(struct udphdr) + (head ? sizeof(*head) : 0);
    u32 v4 = is_mapped(e->address);
    struct udphdr *udp;

    if (v4) {
        if ((void *)(eth + 1) + sizeof(struct iphdr) + more > end)
            return 0;
        udp = put_ipv4((void *)(eth + 1), e);
        put_udp(udp, e);
        if (head)
            *(struct express_head *)(udp + 1) = *head;
    } else {
        if ((void *)(eth + 1) + sizeof(struct ipv6hdr) + more > end)
            return 0;
        udp = put_ipv6((void *)(eth + 1), e);
        put_udp(udp, e);
        if (head)
            *(struct express_head *)(udp + 1) = *head;
    }
    __builtin_memcpy(eth->h_dest, e->to, sizeof(e->to));
    __builtin_memcpy(eth->h_source, e->from, sizeof(e->from));
    eth->h_proto = v4 ? swap16(ETH_P_IP) : swap16(ETH_P_IPV6);
    return 1;
}

/* Sends a packet of a flow's media to its transceiver on another host. Returns what XDP is to do, or 0 where the packet
 * is as it was and a worker's. */
static __always_inline int send_on(struct xdp_md *ctx, const struct flow *flow, const struct datagram *d, void *end)
{
    u32 transceiver = flow->transceiver;
    struct way *way = ways.lookup(&transceiver);
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
    __builtin_memcpy(e.source, way->source, sizeof(e.source));
    __builtin_memcpy(e.address, way->address, sizeof(e.address));
    __builtin_memcpy(e.to, way->to, sizeof(e.to));
    __builtin_memcpy(e.from, way->from, sizeof(e.from));
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
        u64 sum = (u16)~d->udp->check;
        const u32 *words = (const u32 *)&head;
        sum = plus(minus(minus(sum, d->from.address), d->to), e.source);
        sum = plus(plus(sum, e.address), words);
        sum += (u16)~d->udp->source + e.source_port + (u16)~d->udp->dest + e.port;
        /* The length is summed up twice: in UDP's own header and in the one that stands for IP's. */
        sum += 2 * ((u16)~d->udp->len + swap16(sizeof(struct udphdr) + e.bytes));
        e.check = finished(sum);
    } else if (!v4) { /* RFC 8200 section 8.1 */
        count_fallback(FALLBACK_CHECKSUM);
        return 0;
    }
    u32 interface = way->interface;
    u32 before = (void *)(d->udp + 1) - (void *)(long)ctx->data;
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

/* A UDP datagram without VLAN tags, options and extension headers, whole or a later fragment's neighbour no. Returns its
 * header, with both addresses and the room that IP's header leaves for it, or 0. */
static __always_inline struct udphdr *plain_udp(struct xdp_md *ctx, __be32 from[4], __be32 to[4], u32 *room)
{
    struct ethhdr *eth = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;

    if ((void *)(eth + 1) > end)
        return 0;
    if (eth->h_proto == swap16(ETH_P_IP)) {
        struct iphdr *ip = (void *)(eth + 1);
        struct udphdr *udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end || ip->ihl != IPV4_HEADER_WORDS || ip->protocol != IPPROTO_UDP ||
            swap16(ip->frag_off) & (IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
            return 0;
        from[0] = from[1] = to[0] = to[1] = 0;
        from[2] = to[2] = MAPPED_PREFIX;
        from[3] = ip->saddr;
        to[3] = ip->daddr;
        *room = swap16(ip->tot_len) - sizeof(*ip);
        return udp;
    }
    if (eth->h_proto == swap16(ETH_P_IPV6)) {
        struct ipv6hdr *ip = (void *)(eth + 1);
        struct udphdr *udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end || ip->nexthdr != IPPROTO_UDP)
            return 0;
        __builtin_memcpy(from, &ip->saddr, sizeof(ip->saddr));
        __builtin_memcpy(to, &ip->daddr, sizeof(ip->daddr));
        *room = swap16(ip->payload_len);
        return udp;
    }
    return 0;
}

/* What a transceiver on another host sends. Returns a verdict, with what XDP is to do in `action`, or PARSED where the
 * packet is none of that. */
static __always_inline int come_back(struct xdp_md *ctx, int *action)
{
    __be32 from[4], to[4];
    u32 room;
    struct udphdr *udp = plain_udp(ctx, from, to, &room);
    void *end = (void *)(long)ctx->data_end;
    struct envelope e;

    if (!udp || swap16(udp->dest) - FIRST_PORT >= (u32)PORTS)
        return PARSED;
    struct host ours;
    __builtin_memcpy(ours.address, to, sizeof(ours.address));
    if (!inners.lookup(&ours))
        return PARSED;

    *action = XDP_DROP;
    struct express_head *head = (void *)(udp + 1);
    u32 length = swap16(udp->len);
    /* Drop: cut short, or nothing behind the head. */
    if (length > room || length <= sizeof(*udp) + sizeof(*head) || (void *)udp + length > end ||
        (void *)(head + 1) > end || head->version != HEAD_VERSION)
        return VERDICT_BACK_REFUSED;
    __be32 number = head->number;
    if (!number) {
        /* Drop: no answer, or one whose sender leaves the checksum to hardware which it has not: clients would get
         * everything so. */
        if (length != sizeof(*udp) + PROBE_BYTES || (void *)udp + sizeof(*udp) + PROBE_BYTES > end || !udp->check)
            return VERDICT_BACK_REFUSED;
        u64 sum = (u32)bpf_csum_diff(0, 0, (__be32 *)udp, sizeof(*udp) + PROBE_BYTES, 0);
        if (fold(plus(plus(sum, from), to) + udp->len + swap16(IPPROTO_UDP)) != 0xffff)
            return VERDICT_BACK_REFUSED;
        /* Drop: this NIC leaves no room before a packet, so what comes back may not become a client's. No way is then
         * open, and nothing comes back. */
        if (bpf_xdp_adjust_head(ctx, -GROWS_BACK) || bpf_xdp_adjust_head(ctx, GROWS_BACK))
            return VERDICT_BACK_REFUSED;
        *action = XDP_PASS;
        return VERDICT_WAY_ANSWERED;
    }
    struct back *back = backs.lookup(&number);
    /* Drop: who sent this does not know the flow's ticket, or no client was seen yet. */
    if (!back || back->ticket != head->ticket || !back->interface)
        return VERDICT_BACK_REFUSED;
    u32 transceiver = back->transceiver;
    struct way *way = ways.lookup(&transceiver);
    /* Drop: the ticket is known elsewhere than where the flow's transceiver is. */
    if (!way || udp->source != way->port || swap16(udp->dest) != FIRST_PORT + __builtin_bswap32(number) % PORTS)
        return VERDICT_BACK_REFUSED;
    for (int i = 0; i < 4; i++)
        if (from[i] != way->address[i] || to[i] != way->source[i])
            return VERDICT_BACK_REFUSED;
    e.bytes = length - sizeof(*udp) - sizeof(*head);
    /* Drop: longer than a transceiver sends so. */
    if (e.bytes > MOST_BYTES)
        return VERDICT_BACK_REFUSED;

#ifdef MEDIA_ADDRESS_0
    e.source[0] = MEDIA_ADDRESS_0;
    e.source[1] = MEDIA_ADDRESS_1;
    e.source[2] = MEDIA_ADDRESS_2;
    e.source[3] = MEDIA_ADDRESS_3;
#else
    return VERDICT_BACK_REFUSED; /* Drop: nobody knows by which address the client knows us. */
#endif
    __builtin_memcpy(e.address, back->client, sizeof(e.address));
    __builtin_memcpy(e.to, back->to, sizeof(e.to));
    __builtin_memcpy(e.from, back->from, sizeof(e.from));
    e.source_port = swap16(MEDIA_PORT);
    e.port = back->port;
    u32 v4 = is_mapped(e.address);
    e.check = 0;
    if (udp->check) {
        u64 sum = (u16)~udp->check;
        sum = plus(minus(minus(sum, from), to), e.source);
        sum = minus(plus(sum, e.address), (const __be32 *)head);
        sum += (u16)~udp->source + e.source_port + (u16)~udp->dest + e.port;
        sum += 2 * ((u16)~udp->len + swap16(sizeof(*udp) + e.bytes));
        e.check = finished(sum);
    } else if (!v4) {
        return VERDICT_BACK_REFUSED; /* Drop: a client over IPv6 would (RFC 8200 section 8.1). */
    }
    u32 interface = back->interface;
    u32 before = (void *)(head + 1) - (void *)(long)ctx->data;
    u32 after = sizeof(struct ethhdr) + ip_bytes(v4) + sizeof(*udp);
    /* Drop: no room before the packet, of which an answer about the way has had as much. */
    if (bpf_xdp_adjust_head(ctx, (int)before - (int)after) || !put_headers(ctx, &e, 0))
        return VERDICT_BACK_REFUSED;
    *action = bpf_redirect(interface, 0);
    return VERDICT_BACK_EXPRESSED;
}
