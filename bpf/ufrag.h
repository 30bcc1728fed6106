/* SPDX-License-Identifier: Apache-2.0 */
/* The sealed ufrag: the same arithmetic as wire/ufrag.py, and the same vectors (tests/vectors/ufrag.json). */
#pragma once

#define UFRAG_BYTES 24
#define UFRAG_HEAD_BYTES 16

/* Version 1 with key id 0 is the digit 8: 'I'. The eight key ids are the letters that follow it. */
#define UFRAG_VERSION_1 'I'

#define rotate(x, bits) ((x) << (bits) | (x) >> (64 - (bits)))

#define SIP_ROUND                    \
    do {                             \
        v0 += v1;                    \
        v1 = rotate(v1, 13) ^ v0;    \
        v0 = rotate(v0, 32);         \
        v2 += v3;                    \
        v3 = rotate(v3, 16) ^ v2;    \
        v0 += v3;                    \
        v3 = rotate(v3, 21) ^ v0;    \
        v2 += v1;                    \
        v1 = rotate(v1, 17) ^ v2;    \
        v2 = rotate(v2, 32);         \
    } while (0)

#define SIP_COMPRESS(word) \
    do {                   \
        v3 ^= (word);      \
        SIP_ROUND;         \
        SIP_ROUND;         \
        v0 ^= (word);      \
    } while (0)

/* SipHash-2-4 (Aumasson and Bernstein, 2012) of exactly 16 bytes. */
static __always_inline u64 siphash_16(const u64 message[2], u64 k0, u64 k1)
{
    u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
    u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;

    SIP_COMPRESS(message[0]);
    SIP_COMPRESS(message[1]);
    SIP_COMPRESS(16ULL << 56);
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

#define EACH_BYTE(value) ((value) * 0x0101010101010101ULL)
/* 1 in each byte whose digit is at least `digit`: digits are below 64, so no sum reaches the next byte. */
#define AT_LEAST(digit) ((digits + EACH_BYTE(128 - (digit))) >> 7 & EACH_BYTE(1))

/* 48 bits as the eight characters of the ICE alphabet that write them, as they lie in memory. All eight digits
 * are mapped at once; no loop, no table. */
static __always_inline u64 ice_digits(u64 bits)
{
    u64 digits = bits;

    digits = (digits & 0x000000ffffffULL) | (digits & 0xffffff000000ULL) << 8;
    digits = (digits & 0x00000fff00000fffULL) | (digits & 0x00fff00000fff000ULL) << 4;
    digits = (digits & 0x003f003f003f003fULL) | (digits & 0x0fc00fc00fc00fc0ULL) << 2;

    /* 'A' to 'Z', 'a' to 'z', '0' to '9', '+', '/': the steps between neighbouring runs. */
    return __builtin_bswap64(digits + EACH_BYTE('A') + AT_LEAST(26) * ('a' - 'Z' - 1) -
                             AT_LEAST(52) * ('z' + 1 - '0') - AT_LEAST(62) * ('9' + 1 - '+') +
                             AT_LEAST(63) * ('/' - '+' - 1));
}
