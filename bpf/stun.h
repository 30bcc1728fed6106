/* SPDX-License-Identifier: Apache-2.0 */
/* Just enough STUN (RFC 8489) to find USERNAME in a binding request. */
#pragma once

#include "parse.h"

#define STUN_BINDING_REQUEST 0x0001
#define STUN_COOKIE 0x2112a442
#define STUN_USERNAME 0x0006
#define STUN_MESSAGE_INTEGRITY 0x0008

/* Chromium, Firefox, Safari and aioice send USERNAME first or second of at most ten attributes. */
#define STUN_MAX_ATTRIBUTES 16
/* The verifier wants a constant bound; no check comes near it. */
#define STUN_MAX_BYTES 2048

struct stun_header {
    __be16 type;
    __be16 length;
    __be32 cookie;
    u8 transaction[12];
};

struct stun_attribute {
    __be16 type;
    __be16 length;
    u8 value[];
};

/* Returns a verdict, or PARSED with the cursor at the value of USERNAME and its length in *bytes. */
static __always_inline int find_username(struct cursor *c, u32 *bytes)
{
    void *message = c->at;
    u32 at = sizeof(struct stun_header), size = *bytes;

    for (int i = 0; i < STUN_MAX_ATTRIBUTES; i++) {
        /* Drop: without USERNAME there is no route. */
        if (at >= size)
            return VERDICT_STUN_NO_USERNAME;
        /* Drop: longer than any check (see STUN_MAX_BYTES). */
        if (at > STUN_MAX_BYTES)
            return VERDICT_STUN_MALFORMED;

        struct stun_attribute *attribute = message + at;
        /* Drop: an attribute's header is cut short. Lengths are multiples of 4, so at < size is at + 4 <= size. */
        if ((void *)(attribute + 1) > c->end)
            return VERDICT_STUN_MALFORMED;
        u32 length = swap16(attribute->length);
        u32 next = at + sizeof(*attribute) + ((length + 3) & ~3);
        /* Drop: an attribute reaches past the end of the message. */
        if (next > size)
            return VERDICT_STUN_MALFORMED;
        if (attribute->type == swap16(STUN_USERNAME)) {
            c->at = attribute->value;
            *bytes = length;
            return PARSED;
        }
        /* Drop: what follows MESSAGE-INTEGRITY does not count (RFC 8489 section 14.5). */
        if (attribute->type == swap16(STUN_MESSAGE_INTEGRITY))
            return VERDICT_STUN_NO_USERNAME;
        at = next;
    }
    /* Drop: a search without end would be a gift to a flood. */
    return VERDICT_STUN_NO_USERNAME;
}
