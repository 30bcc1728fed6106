/* SPDX-License-Identifier: Apache-2.0 */
/* Puts every packet for the media port on the core whose worker owns it, and drops what nobody asked for. Media of a
 * flow that has proved itself goes to its transceiver at once, on this host or another.
 *
 * A STUN binding request is steered by the sealed ufrag in USERNAME, anything else by its source address, RTP from
 * an unknown address by its SSRC. A CPUMAP moves the packet to the core, where the kernel's own stack hands it to that
 * core's socket. Only what goes past the workers is changed (bpf/express.h, bpf/between.c).
 *
 * Compiled by edge/xdp/program.py, which puts `enum verdict` (bpf/verdicts.py), structs and maps (bpf/layout.py) in
 * front. edge/xdp/steering.py sets MEDIA_PORT, MEDIA_ADDRESS_0 to _3 (optional) and the limits of edge/xdp/limits.py.
 * edge/relay/classify.py says the same in Python: read that first.
 * Each packet is counted exactly once. */

#include <uapi/linux/bpf.h>

#include "admit.h"
#include "express.h"
#include "parse.h"
#include "stun.h"
#include "ufrag.h"

/* A second at the slowest tick a kernel is built with (100 Hz), a tenth of one at the fastest. */
#ifndef LAST_SEEN_EVERY_JIFFIES
#define LAST_SEEN_EVERY_JIFFIES 100
#endif

/* RFC 7983: what a datagram is, by its first byte. */
#define STUN_LAST 3
#define RTP_FIRST 128
#define RTP_LAST 191
/* RFC 5761: which of RTP and RTCP, by its second. */
#define RTCP_FIRST 192
#define RTCP_LAST 223

struct rtp_header {
    u8 flags;
    u8 type;
    __be16 sequence;
    __be32 timestamp; /* of RTCP: the sender's SSRC */
    __be32 ssrc;
};

static __always_inline void count(u32 verdict, u32 cpu)
{
    u32 index = verdict * MAX_CPUS + cpu;
    u64 *counter = counters.lookup(&index);

    if (counter)
        ++*counter;
}

static __always_inline int leave(u32 verdict)
{
    count(verdict, 0);
    return verdict == VERDICT_OTHER_TRAFFIC ? XDP_PASS : XDP_DROP;
}

static __always_inline int steer_to(u32 verdict, u32 cpu)
{
    /* Drop: no such core in the map. Another core's worker would be a wrong delivery. */
    if (cpus.redirect_map(cpu, XDP_DROP) != XDP_REDIRECT)
        return leave(VERDICT_NO_CORE);
    count(verdict, cpu);
    return XDP_REDIRECT;
}

static __always_inline int is_media(u8 first)
{
    return first >= RTP_FIRST && first <= RTP_LAST;
}

static __always_inline int drop_for(u32 verdict, u32 cpu)
{
    count(verdict, cpu < MAX_CPUS ? cpu : 0);
    return XDP_DROP;
}

/* The core cannot do it all, and what it would drop itself costs it as much as what it passes on. */
static __always_inline int is_shed(u32 chance)
{
    return chance && bpf_get_prandom_u32() <= chance;
}

/* Whether this is the port of a transceiver, to which nobody but this program sends. */
static __always_inline int is_express_port(u32 port)
{
    u32 word = port / 64;
    u64 *bits = express_ports.lookup(&word);

    return bits && *bits >> port % 64 & 1;
}

/* What XDP is to do with a packet of the flow's media that goes past the workers now. What does not is the worker's, and
 * 0. The flow is counted where it is `due`, so that somebody can tell whether anything arrives. */
static __always_inline int express_media(struct xdp_md *ctx, const struct flow *flow, const struct datagram *d, void *end,
                                         int due)
{
    u32 transceiver = flow->transceiver;

    if (!flow->express)
        return 0;
    if (flow->ticket)
        return send_on(ctx, flow, d, end);
    if (!d->plain)
        return 0;
    struct express_way *way = express.lookup(&transceiver);
    if (!way || !way->port || !change_port(d->udp, end, way->port))
        return 0;
    if (due) {
        /* Two cores at once may count one, and mix two addresses up: it is asked whether the number grows, and the
         * next address is a client's again. */
        way->seen++;
        __builtin_memcpy(way->client, d->from.address, sizeof(way->client));
        way->client_port = d->from.port;
    }
    return XDP_PASS;
}

/* What a flow says, but for its checks. `due` is once in a while. */
static __always_inline int steer_flow(struct xdp_md *ctx, struct flow *flow, const struct datagram *d, void *end,
                                      int media, int due)
{
    int action;

    /* Drop: no call has a use for so much, and what one caller sends must not cost the others on its core. */
    if (media ? !may_send_media(flow) : !may_say_more(flow))
        return drop_for(VERDICT_FLOW_LIMITED, flow->cpu);
    if (media && (action = express_media(ctx, flow, d, end, due))) {
        count(VERDICT_FLOW_EXPRESSED, 0);
        return action;
    }

    u32 cpu = flow->cpu;
    struct shed *shed = media ? shedding.lookup(&cpu) : 0;
    /* Drop: media only, because a handshake that is lost costs a call, and a frame costs 20 ms of it. */
    if (shed && is_shed(shed->media))
        return drop_for(VERDICT_CORE_OVERLOADED, cpu);
    return steer_to(VERDICT_FLOW_STEERED, cpu);
}

static __always_inline int steer_stranger(u32 verdict, u32 cpu)
{
    struct shed *shed = shedding.lookup(&cpu);

    /* Drop: calls that stand go before who is not in one yet, and who is honest asks again. */
    if (shed && is_shed(shed->strangers))
        return drop_for(VERDICT_STRANGER_SHED, cpu);
    return steer_to(verdict, cpu);
}

/* Returns a verdict, or PARSED where strangers with the prefix of this one, or behind the same relay, may send more. */
static __always_inline int admit_source(const struct flow_key *from, u64 now)
{
#ifdef RELAYS
    struct relay relay = { 128, { from->address[0], from->address[1], from->address[2], from->address[3] } };
    u64 *of_relay = relays.lookup(&relay);
    /* Drop: a relay has many callers, and one of them may be a flood all the same. */
    if (of_relay)
        return take(of_relay, now, RELAY_INTERVAL_NS, RELAY_WINDOW_NS) ? PARSED : VERDICT_RELAY_LIMITED;
#endif
    if (!UNKNOWN_INTERVAL_NS)
        return PARSED;

    struct prefix prefix = prefix_of(from);
    u64 *due = buckets.lookup(&prefix);
    if (!due) {
        u64 first = now + UNKNOWN_INTERVAL_NS;
        buckets.update(&prefix, &first);
        return PARSED;
    }
    /* Drop: a good ufrag may be repeated by whoever has overheard it. */
    return take(due, now, UNKNOWN_INTERVAL_NS, UNKNOWN_WINDOW_NS) ? PARSED : VERDICT_RATE_LIMITED;
}

/* Returns a verdict, or PARSED where a stranger's packet, which names `name`, may be steered now. */
static __always_inline int admit(const struct flow_key *from, u64 name)
{
    u64 now = bpf_ktime_get_ns(), first;
    int verdict = admit_source(from, now);

    if (verdict != PARSED)
        return verdict;
    if (NAMED_INTERVAL_NS) {
        u64 *due = named.lookup(&name);
        /* Drop: and from as many invented addresses as it likes. */
        if (due && !take(due, now, NAMED_INTERVAL_NS, NAMED_WINDOW_NS))
            return VERDICT_NAME_LIMITED;
        if (!due) {
            first = now + NAMED_INTERVAL_NS;
            named.update(&name, &first);
        }
    }
    return PARSED;
}

/* Returns a verdict, or PARSED with the ufrag's tag under the key that made it: this cluster's, or a sister's, whose
 * calls the worker passes on. It reads the packet once: what follows is then the same to the verifier wherever in the
 * packet the ufrag stands, or it would look at every place times every key. */
static __always_inline int open_ufrag(const u8 *ufrag, u64 *tag)
{
    u64 head[2] = { ((const u64 *)ufrag)[0], ((const u64 *)ufrag)[1] };
    u64 end = *(const u64 *)(ufrag + UFRAG_HEAD_BYTES);
    u32 id = ufrag[0] - UFRAG_VERSION_1;
    int verdict = VERDICT_STUN_BAD_UFRAG;

    /* Drop: another version. */
    if (id >= KEY_IDS)
        return verdict;
    for (u32 cluster = 0; cluster < KEYS / KEY_IDS; ++cluster) {
        u32 at = cluster * KEY_IDS + id;
        struct route_key *key = keys.lookup(&at);
        /* Drop, if no cluster has it: a key that this edge does not have (yet, or any more). */
        if (!key || !key->live)
            continue;
        *tag = siphash_16(head, key->k0, key->k1);
        if (ice_digits(*tag >> 16) == end)
            return PARSED;
        /* Drop: nobody who holds the key made this ufrag. */
        verdict = VERDICT_STUN_BAD_TAG;
    }
    return verdict;
}

static __always_inline int steer_by_ufrag(struct cursor c, struct datagram *d)
{
    u32 bytes = d->bytes;
    int verdict = find_username(&c, &bytes);
    if (verdict != PARSED)
        return leave(verdict);

    u8 *ufrag = c.at;
    /* Drop: USERNAME is "ours:theirs" (RFC 8445 section 7.2.2), and ours has one length. */
    if (bytes <= UFRAG_BYTES || (void *)(ufrag + UFRAG_BYTES + 1) > c.end || ufrag[UFRAG_BYTES] != ':')
        return leave(VERDICT_STUN_BAD_UFRAG);

    u64 tag;
    verdict = open_ufrag(ufrag, &tag);
    if (verdict != PARSED)
        return leave(verdict);

    /* A call stays on its core until it ends, whatever core its slot has by now, and strangers with its ufrag do not
     * limit it. */
    struct flow *flow = flows.lookup(&d->from);
    if (flow) {
        /* Drop: many times what any client asks (RFC 8445 section 14, RFC 7675). */
        if (!may_check(flow))
            return drop_for(VERDICT_FLOW_LIMITED, flow->cpu);
        return steer_to(VERDICT_STUN_STEERED, flow->cpu);
    }
    verdict = admit(&d->from, tag);
    if (verdict != PARSED)
        return leave(verdict);

    u32 slot = tag % SLOTS;
    u32 *cpu = slots.lookup(&slot);
    /* Drop: cannot be, but the verifier asks. */
    if (!cpu)
        return leave(VERDICT_NO_CORE);
    return steer_stranger(VERDICT_STUN_STEERED, *cpu);
}

static __always_inline int steer_by_ssrc(struct cursor c, struct datagram *d)
{
    struct rtp_header *rtp = c.at;

    /* Drop: too short to name a source. The shortest RTCP packet, an empty receiver report, has 8 bytes. */
    if (d->bytes < 8 || c.at + 8 > c.end)
        return leave(VERDICT_RTP_UNKNOWN_SSRC);

    __be32 ssrc = rtp->timestamp;
    if (rtp->type < RTCP_FIRST || rtp->type > RTCP_LAST) {
        /* Drop: RTP's header alone has 12. */
        if (d->bytes < sizeof(*rtp) || (void *)(rtp + 1) > c.end)
            return leave(VERDICT_RTP_UNKNOWN_SSRC);
        ssrc = rtp->ssrc;
    }
    u32 *cpu = ssrcs.lookup(&ssrc);
    /* Drop: neither address nor source belongs to a call here. */
    if (!cpu)
        return leave(VERDICT_RTP_UNKNOWN_SSRC);
    /* Whoever overheard an SSRC may guess as often as a caller whose address has changed speaks, and no more. */
    int verdict = admit(&d->from, ssrc);
    if (verdict != PARSED)
        return leave(verdict);
    return steer_stranger(VERDICT_SSRC_STEERED, *cpu);
}

int firsthop_steer(struct xdp_md *ctx)
{
    struct cursor c = { (void *)(long)ctx->data, (void *)(long)ctx->data_end };
    struct datagram d;
    int verdict = parse_frame(&c, &d), action;
    /* Drop: a transceiver hears its flows by this program alone, or by a worker. */
    if (verdict == VERDICT_OTHER_TRAFFIC && d.port && is_express_port(d.port))
        verdict = VERDICT_EXPRESS_PORT_REFUSED;
    if (verdict == VERDICT_OTHER_TRAFFIC) {
        int back = come_back(ctx, &action);
        if (back != PARSED) {
            count(back, 0);
            return action;
        }
    }
    if (verdict != PARSED)
        return leave(verdict);

    u8 *first = c.at;
    /* Drop: cannot be (parse_udp saw at least one byte), but the verifier asks. */
    if ((void *)(first + 1) > c.end)
        return leave(VERDICT_EMPTY);

    if (*first <= STUN_LAST) {
        struct stun_header *stun = c.at;
        /* Drop: nothing but STUN begins so, from a known address either. */
        if ((void *)(stun + 1) > c.end || stun->cookie != __builtin_bswap32(STUN_COOKIE) ||
            swap16(stun->length) + sizeof(*stun) != d.bytes || d.bytes % 4)
            return leave(VERDICT_STUN_MALFORMED);
        if (stun->type == swap16(STUN_BINDING_REQUEST))
            return steer_by_ufrag(c, &d);
    }

    struct flow *flow = flows.lookup(&d.from);
    if (flow) {
        /* Often enough for a time-out of 30 s, and the cache line stays clean between. Jiffies ask, because reading
         * them is one load; even the coarse clock is a call, and took 25 of 105 ns. */
        u64 now = bpf_jiffies64();
        int due = now - flow->last_seen_jiffies >= LAST_SEEN_EVERY_JIFFIES;
        if (due) {
            flow->last_seen_jiffies = now;
            flow->last_seen_ns = bpf_ktime_get_ns();
            if (flow->ticket && d.plain)
                learn(ctx, flow);
        }
        return steer_flow(ctx, flow, &d, c.end, is_media(*first), due);
    }
    if (is_media(*first))
        return steer_by_ssrc(c, &d);
    /* Drop: only an address that passed a STUN check may say anything else. */
    return leave(VERDICT_UNKNOWN_FLOW);
}
