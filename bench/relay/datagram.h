// The load's datagram: what an RTP packet of Opus looks like from outside, with its own story inside.
#ifndef DATAGRAM_H
#define DATAGRAM_H

#include <stdint.h>
#include <time.h>

enum { DATAGRAM_BYTES = 172 };

struct datagram {
    uint8_t rtp[12];      // version 2, so that nobody takes it for STUN or ChannelData
    uint32_t run;         // tells it from those of another run
    uint64_t sent_ns;     // CLOCK_MONOTONIC, when it left the client
    uint64_t echoed_ns;   // when the backend had it in hand
    uint64_t sequence;    // counts over all flows
    uint64_t arrived;     // how many of this run's the backend had by then, this one included
    uint8_t rest[DATAGRAM_BYTES - 48];
} __attribute__((packed));

_Static_assert(sizeof(struct datagram) == DATAGRAM_BYTES, "no padding");

static inline uint64_t monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
