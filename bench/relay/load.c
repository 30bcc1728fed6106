// The clients: many flows from one address, paced, and every echo accounted for.
//
//   load --interface I --from ADDRESS --from-mac MAC --to ADDRESS --port N --mac MAC --flows N --rate N
//        --warm-up S --seconds S [--head HEX] [--greetings FILE]
//
// Frames are written to the interface and read from it (AF_PACKET): the stack of this host, which is not what is
// measured, has no part in it. ADDRESS and MAC of --from belong to no host, so nobody else answers, and what comes is
// for somebody else to this host's stack, wherever the sender has the MAC from: it drops that at once. A flow is a source
// port. On standard output: "ready" just before the measured time, "done" after it, then one line of JSON.
//
// Datagrams leave when they are due, looked for about every 50 us at moments that are drawn anew (0 to 100 us apart),
// so that the kernel's ticks, by which CPU time is sampled, are not in step with them. At 20 kpps that is one at a time.
//
// GREETINGS are what each flow says first: a 32 bit count of rounds, and in each round 16 bits that the answer must
// begin with, then for each flow a 16 bit length and the datagram, all in network order.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datagram.h"

enum {
    FIRST_PORT = 10000,
    MAX_FLOWS = 50000,
    BURST = 64,
    WAKE_NS = 50000,
    HEADERS = sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr),
    MAX_HEAD = 64,
    CHECK_ONE_IN = 64,  // so often are the checksums of what comes looked at
    MAX_GREETING = 512,
    RING_FRAME = 1024,
    RING_BLOCK = 1 << 20,
    RING_BLOCKS = 64,
    RING_FRAMES = RING_BLOCKS * (RING_BLOCK / RING_FRAME),
};
static const double NOTICE_S = 0.05;
static const uint64_t SECOND = 1000000000, GREETING_NS = 20 * SECOND, QUIET_NS = SECOND / 5, DRAIN_NS = 2 * SECOND;

struct frame {
    struct ethhdr eth;
    struct iphdr ip;
    struct udphdr udp;
    uint8_t payload[MAX_GREETING];
} __attribute__((packed));

static struct {
    int fd, ring_fd;
    uint8_t *ring;
    unsigned ring_at;
    struct ethhdr eth;
    in_addr_t from, to;
    uint16_t port;
} net;

static struct {
    unsigned flows, head_bytes, run;
    uint64_t rate;
    double warm_up, seconds;
    uint8_t head[MAX_HEAD];
} load;

// ---- latencies: 64 buckets an octave, so a percentile is right to 1.6 %

enum { OCTAVE = 64, BUCKETS = 40 * OCTAVE };
struct histogram {
    uint64_t count, max, buckets[BUCKETS];
};

static void note(struct histogram *h, int64_t signed_ns) {
    uint64_t ns = signed_ns < 1 ? 1 : (uint64_t)signed_ns;
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns);
    unsigned index = octave < 6 ? (unsigned)ns : (octave - 5) * OCTAVE + (unsigned)((ns >> (octave - 6)) & (OCTAVE - 1));
    h->buckets[index < BUCKETS ? index : BUCKETS - 1]++;
    h->count++;
    if (ns > h->max) h->max = ns;
}

static double quantile_us(const struct histogram *h, double q) {
    uint64_t left = (uint64_t)((double)h->count * (1 - q));  // how many are above it
    for (unsigned i = BUCKETS; i-- > 0;) {
        if (h->buckets[i] > left) {
            if (i < OCTAVE) return i / 1e3;
            return (double)((uint64_t)(OCTAVE + i % OCTAVE) << (i / OCTAVE - 1)) / 1e3;
        }
        left -= h->buckets[i];
    }
    return 0;
}

static void print_histogram(const char *name, const struct histogram *h) {
    printf("\"%s_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}, ", name, quantile_us(h, 0.5),
           quantile_us(h, 0.99), quantile_us(h, 0.999), (double)h->max / 1e3);
}

// ---- frames out

static uint16_t checksum(const void *data, size_t bytes, uint64_t sum) {
    const uint8_t *at = data;
    for (; bytes >= 4; at += 4, bytes -= 4) {
        uint32_t word;
        memcpy(&word, at, 4);
        sum += word;
    }
    uint32_t tail = 0;
    memcpy(&tail, at, bytes);
    sum += tail;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

// Headers around the payload that is already there; returns the frame's length.
static size_t seal(struct frame *frame, unsigned flow, size_t payload_bytes) {
    uint16_t udp_bytes = (uint16_t)(sizeof frame->udp + payload_bytes);
    frame->eth = net.eth;
    frame->ip = (struct iphdr){.version = 4, .ihl = 5, .tot_len = htons((uint16_t)(sizeof frame->ip + udp_bytes)),
                               .frag_off = htons(IP_DF), .ttl = 64, .protocol = IPPROTO_UDP, .saddr = net.from,
                               .daddr = net.to};
    frame->ip.check = checksum(&frame->ip, sizeof frame->ip, 0);
    frame->udp = (struct udphdr){.source = htons((uint16_t)(FIRST_PORT + flow)), .dest = htons(net.port),
                                 .len = htons(udp_bytes)};
    uint64_t pseudo = (uint64_t)net.from + net.to + htons(IPPROTO_UDP) + htons(udp_bytes);
    frame->udp.check = checksum(&frame->udp, udp_bytes, pseudo);
    if (frame->udp.check == 0) frame->udp.check = 0xffff;
    return HEADERS + payload_bytes;
}

// ---- frames in

struct arrival {
    uint64_t at_ns;
    unsigned flow;
    const uint8_t *payload;
    size_t bytes;
    bool summed;  // there is a checksum: one that the sender's kernel left to a card is none
};

// The next datagram that the relay sent to one of our flows, valid until the next call; false when none waits.
static bool next_arrival(struct arrival *arrival, int64_t realtime_to_monotonic) {
    static struct tpacket2_hdr *held;
    for (;;) {
        if (held) {
            __atomic_store_n(&held->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
            net.ring_at = (net.ring_at + 1) % RING_FRAMES;
            held = NULL;
        }
        struct tpacket2_hdr *slot = (struct tpacket2_hdr *)(net.ring + (size_t)net.ring_at * RING_FRAME);
        if (!(__atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) return false;
        held = slot;
        const struct frame *frame = (const struct frame *)((uint8_t *)slot + slot->tp_mac);
        if (slot->tp_snaplen < HEADERS || frame->ip.protocol != IPPROTO_UDP || frame->ip.ihl != 5) continue;
        unsigned flow = (unsigned)ntohs(frame->udp.dest) - FIRST_PORT;
        if (frame->ip.saddr != net.to || frame->ip.daddr != net.from || flow >= load.flows) continue;
        *arrival = (struct arrival){
            .at_ns = (uint64_t)((int64_t)(slot->tp_sec * SECOND + slot->tp_nsec) + realtime_to_monotonic),
            .flow = flow, .payload = frame->payload, .bytes = slot->tp_snaplen - HEADERS,
            .summed = !(slot->tp_status & TP_STATUS_CSUMNOTREADY) && frame->udp.check};
        return true;
    }
}

// The kernel stamps what arrives by CLOCK_REALTIME.
static int64_t realtime_to_monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)(monotonic_ns() - ((uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec));
}

static void read_mac(const char *text, uint8_t mac[ETH_ALEN]) {
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != ETH_ALEN)
        errx(2, "%s: no MAC address", text);
}

static void open_network(const char *interface) {
    net.eth.h_proto = htons(ETH_P_IP);
    net.fd = socket(AF_PACKET, SOCK_RAW, 0);
    net.ring_fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (net.fd < 0 || net.ring_fd < 0) err(1, "packet socket");

    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
    int on = 1, version = TPACKET_V2;
    if (setsockopt(net.fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on)) err(1, "PACKET_QDISC_BYPASS");
    if (bind(net.fd, (struct sockaddr *)&link, sizeof link)) err(1, "bind to %s", interface);

    struct tpacket_req ring = {.tp_block_size = RING_BLOCK, .tp_block_nr = RING_BLOCKS, .tp_frame_size = RING_FRAME,
                               .tp_frame_nr = RING_FRAMES};
    if (setsockopt(net.ring_fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) ||
        setsockopt(net.ring_fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring))
        err(1, "packet ring");
    net.ring = mmap(NULL, (size_t)RING_BLOCK * RING_BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                    net.ring_fd, 0);
    if (net.ring == MAP_FAILED) err(1, "packet ring");
    link.sll_protocol = htons(ETH_P_IP);
    if (bind(net.ring_fd, (struct sockaddr *)&link, sizeof link)) err(1, "bind to %s", interface);
}

// ---- what each flow says first

static uint8_t *file;
static size_t file_bytes, file_at;

static const uint8_t *take(size_t bytes) {
    if (file_bytes - file_at < bytes) errx(2, "greetings end too early");
    file_at += bytes;
    return file + file_at - bytes;
}

static uint16_t take_u16(void) {
    const uint8_t *at = take(2);
    return (uint16_t)(at[0] << 8 | at[1]);
}

static unsigned hear_answers(uint16_t expected, bool *answered) {
    struct arrival arrival;
    unsigned count = 0;
    while (next_arrival(&arrival, 0)) {
        if (arrival.bytes < 2 || answered[arrival.flow]) continue;
        uint16_t begins = (uint16_t)(arrival.payload[0] << 8 | arrival.payload[1]);
        if (begins != expected) continue;
        answered[arrival.flow] = true;
        count++;
    }
    return count;
}

static void greet_round(void) {
    uint16_t expected = take_u16();
    const uint8_t **greeting = calloc(load.flows, sizeof *greeting);
    uint16_t *length = calloc(load.flows, sizeof *length);
    bool *answered = calloc(load.flows, sizeof *answered);
    for (unsigned flow = 0; flow < load.flows; flow++) {
        length[flow] = take_u16();
        if (length[flow] > MAX_GREETING) errx(2, "a greeting of %u bytes", length[flow]);
        greeting[flow] = take(length[flow]);
    }
    uint64_t deadline = monotonic_ns() + GREETING_NS;
    unsigned missing = load.flows;
    while (missing) {
        unsigned said = 0;
        for (unsigned flow = 0; flow < load.flows; flow++) {
            if (answered[flow]) continue;
            struct frame frame;
            memcpy(frame.payload, greeting[flow], length[flow]);
            size_t bytes = seal(&frame, flow, length[flow]);
            if (send(net.fd, &frame, bytes, 0) < 0 && errno != ENOBUFS) err(1, "send");
            if (++said % 16 == 0) {
                usleep(1000);
                missing -= hear_answers(expected, answered);
            }
        }
        for (int i = 0; missing && i < 20; i++) {
            usleep(10000);
            missing -= hear_answers(expected, answered);
        }
        if (missing && monotonic_ns() > deadline)
            errx(1, "%u of %u flows had no answer that begins with %04x", missing, load.flows, expected);
    }
    free(greeting);
    free(length);
    free(answered);
}

static void greet(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status)) err(1, "%s", path);
    file_bytes = (size_t)status.st_size;
    file = malloc(file_bytes);
    if (read(fd, file, file_bytes) != (ssize_t)file_bytes) err(1, "%s", path);
    close(fd);
    unsigned rounds = take_u16();
    rounds = rounds << 16 | take_u16();
    while (rounds--) greet_round();
}

// ---- the load

static struct {
    uint64_t sent, refused, received, duplicates, arrived, largest_burst, checked, wrong;
    struct histogram up, down, late;
    uint64_t *seen, bits;
} tally;

// Whether the UDP checksum is right: with it, everything adds up to what has no bit unset.
static bool sums_up(const struct arrival *arrival) {
    const struct udphdr *udp = (const struct udphdr *)(arrival->payload - sizeof *udp);
    uint64_t pseudo = (uint64_t)net.from + net.to + htons(IPPROTO_UDP) + udp->len;
    return checksum(udp, ntohs(udp->len), pseudo) == 0;
}

static void hear(void) {
    int64_t offset = realtime_to_monotonic();
    struct arrival arrival;
    while (next_arrival(&arrival, offset)) {
        if (arrival.bytes != load.head_bytes + DATAGRAM_BYTES) continue;
        const struct datagram *datagram = (const struct datagram *)(arrival.payload + load.head_bytes);
        if (datagram->run != load.run || datagram->sequence >= tally.bits) continue;
        uint64_t bit = 1ull << datagram->sequence % 64, *word = &tally.seen[datagram->sequence / 64];
        if (*word & bit) {
            tally.duplicates++;
            continue;
        }
        *word |= bit;
        tally.received++;
        if (arrival.summed && datagram->sequence % CHECK_ONE_IN == 0) {
            tally.checked++;
            tally.wrong += !sums_up(&arrival);
        }
        if (datagram->arrived > tally.arrived) tally.arrived = datagram->arrived;
        note(&tally.up, (int64_t)(datagram->echoed_ns - datagram->sent_ns));
        note(&tally.down, (int64_t)(arrival.at_ns - datagram->echoed_ns));
    }
}

static struct frame frames[BURST];
static struct iovec vectors[BURST];
static struct mmsghdr messages[BURST];

static void say(unsigned count, uint32_t run, uint64_t first, unsigned *flow) {
    uint64_t now = monotonic_ns();
    for (unsigned i = 0; i < count; i++) {
        struct datagram *datagram = (struct datagram *)(frames[i].payload + load.head_bytes);
        datagram->run = run;
        datagram->sent_ns = now;
        datagram->sequence = first + i;
        vectors[i].iov_len = seal(&frames[i], *flow, load.head_bytes + DATAGRAM_BYTES);
        if (++*flow == load.flows) *flow = 0;
    }
    for (unsigned done = 0; done < count;) {
        int sent = sendmmsg(net.fd, messages + done, count - done, 0);
        if (sent <= 0) {
            if (errno != ENOBUFS && errno != EAGAIN) err(1, "send");
            sent = 1;  // the link had no room for this one: offered, and lost
            tally.refused += run != 0;
        }
        done += (unsigned)sent;
    }
}

static uint64_t at_random(uint64_t below) {
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

// Sends at the rate for `seconds`, as `run`; run 0 is nobody's: the warm-up.
static uint64_t pace(uint32_t run, double seconds) {
    static unsigned flow;
    uint64_t start = monotonic_ns(), now = start, end = start + (uint64_t)(seconds * 1e9), wake = start, sent = 0;
    while (now < end) {
        uint64_t due = (uint64_t)((double)(now - start) * (double)load.rate / 1e9);
        if (due > sent) {
            unsigned burst = due - sent < BURST ? (unsigned)(due - sent) : BURST;
            say(burst, run, sent, &flow);
            if (run) {
                note(&tally.late, (int64_t)(now - start) - (int64_t)((double)sent * 1e9 / (double)load.rate));
                if (burst > tally.largest_burst) tally.largest_burst = burst;
            }
            sent += burst;
        }
        hear();
        now = monotonic_ns();
        wake += at_random(2 * WAKE_NS);
        uint64_t next = start + (uint64_t)((double)(sent + 1) * 1e9 / (double)load.rate);
        if (wake < next) wake = next + at_random(WAKE_NS);
        if (wake < now) {
            wake = now;
            continue;
        }
        struct timespec until = {(time_t)(wake / SECOND), (long)(wake % SECOND)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        now = monotonic_ns();
    }
    return sent;
}

static void drain(void) {
    uint64_t began = monotonic_ns(), last = began, received = tally.received;
    while (tally.received < tally.sent && monotonic_ns() - last < QUIET_NS && monotonic_ns() - began < DRAIN_NS) {
        usleep(1000);
        hear();
        if (tally.received != received) {
            received = tally.received;
            last = monotonic_ns();
        }
    }
}

static unsigned from_hex(const char *hex, uint8_t *bytes) {
    unsigned count = (unsigned)strlen(hex) / 2;
    if (count > MAX_HEAD) errx(2, "a head of %u bytes", count);
    for (unsigned i = 0; i < count; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &bytes[i]) != 1) errx(2, "%s: not hex", hex);
    return count;
}

static void parse(int argc, char **argv) {
    enum { INTERFACE, FROM, FROM_MAC, TO, PORT, MAC, FLOWS, RATE, WARM_UP, SECONDS, HEAD, GREETINGS, OPTIONS };
    static const char *names[OPTIONS] = {"interface", "from", "from-mac", "to", "port", "mac", "flows", "rate",
                                         "warm-up", "seconds", "head", "greetings"};
    struct option options[OPTIONS + 1] = {0};
    for (int i = 0; i < OPTIONS; i++) options[i] = (struct option){names[i], required_argument, NULL, i};
    const char *given[OPTIONS] = {0};
    for (int i; (i = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (i == '?') exit(2);
        given[i] = optarg;
    }
    for (int i = 0; i < HEAD; i++)
        if (!given[i]) errx(2, "--%s is missing", names[i]);

    if (inet_pton(AF_INET, given[FROM], &net.from) != 1 || inet_pton(AF_INET, given[TO], &net.to) != 1)
        errx(2, "--from and --to are IPv4 addresses");
    net.port = (uint16_t)atoi(given[PORT]);
    load.flows = (unsigned)atoi(given[FLOWS]);
    load.rate = strtoull(given[RATE], NULL, 10);
    load.warm_up = atof(given[WARM_UP]);
    load.seconds = atof(given[SECONDS]);
    if (load.flows < 1 || load.flows > MAX_FLOWS) errx(2, "--flows is 1 to %d", MAX_FLOWS);
    if (load.rate < 1 || load.rate > 10000000 || load.seconds < 0.1 || load.seconds > 60)
        errx(2, "--rate is 1 to 10,000,000 a second, --seconds 0.1 to 60");
    if (given[HEAD]) load.head_bytes = from_hex(given[HEAD], load.head);
    load.run = (uint32_t)getpid();
    read_mac(given[FROM_MAC], net.eth.h_source);
    read_mac(given[MAC], net.eth.h_dest);
    open_network(given[INTERFACE]);
    if (given[GREETINGS]) greet(given[GREETINGS]);
}

int main(int argc, char **argv) {
    prctl(PR_SET_TIMERSLACK, 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(argc, argv);
    for (int i = 0; i < BURST; i++) {
        struct datagram *datagram = (struct datagram *)(frames[i].payload + load.head_bytes);
        memcpy(frames[i].payload, load.head, load.head_bytes);
        memset(datagram, 0x55, sizeof *datagram);
        memcpy(datagram->rtp, "\x80\x6f\0\1\0\0\3\xc0\1\2\3\4", sizeof datagram->rtp);
        vectors[i].iov_base = &frames[i];
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    tally.bits = (uint64_t)((double)load.rate * load.seconds) + BURST;
    tally.seen = calloc(tally.bits / 64 + 1, sizeof *tally.seen);

    pace(0, load.warm_up);
    puts("ready");  // whoever takes note of it may disturb us a little: that is not measured
    pace(0, NOTICE_S);
    uint64_t began = monotonic_ns();
    tally.sent = pace(load.run, load.seconds);
    double took = (double)(monotonic_ns() - began) / 1e9;
    puts("done");
    drain();

    struct tpacket_stats ring = {0};
    socklen_t size = sizeof ring;
    getsockopt(net.ring_fd, SOL_PACKET, PACKET_STATISTICS, &ring, &size);
    printf("{\"seconds\": %.4f, \"sent\": %lu, \"received\": %lu, \"lost\": %lu, \"arrived\": %lu, \"duplicates\": %lu, ",
           took, tally.sent, tally.received, tally.sent - tally.received, tally.arrived, tally.duplicates);
    print_histogram("up", &tally.up);
    print_histogram("down", &tally.down);
    print_histogram("late", &tally.late);
    printf("\"largest_burst\": %lu, \"refused\": %lu, \"ring_drops\": %u, \"checked\": %lu, \"wrong\": %lu}\n",
           tally.largest_burst, tally.refused, ring.tp_drops, tally.checked, tally.wrong);
}
