"""The SDP answer to an offer, and the fragment that answers an ICE restart.

The answer is written from a template, because it is always the same: one candidate for each edge (its shared port),
ICE-lite (RFC 8445 section 2.5), one codec, and one data channel section. Sections that we do not serve are refused with
port 0 and keep their place (RFC 3264 section 6), and no group is answered that was not offered. What makes loss and
delay bearable is answered where it is offered: RED (RFC 2198), NACK (RFC 4585), reduced-size RTCP (RFC 5506) and
transport-wide feedback; and so are pressed keys (RFC 4733).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rtc.sctp import MAX_MESSAGE_BYTES
from rtc.sdp.offer import DATA_CHANNEL, TRANSPORT_CC, Offer, OfferError, parse

__all__ = ["TRANSPORT_CC", "Offer", "OfferError", "answer", "fragment", "parse"]

_HIGHEST_PRIORITY = 126 << 24 | 0xFFFF << 8 | 255


def answer(
    offer: Offer,
    *,
    ufrag: str,
    password: str,
    fingerprint: str,
    host: str,
    port: int,
    ssrc: int,
    more: Sequence[tuple[str, int]] = (),
) -> str:
    """The SDP answer. ``host`` and ``port`` are the edge's, ``more`` those of other edges, the preferred first;
    ``ssrc`` is the one that we send with."""
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=firsthop",
        "t=0 0",
        "a=msid-semantic: WMS firsthop",
        "a=ice-lite",
    ]
    if offer.bundle:
        lines.append("a=group:BUNDLE " + " ".join(offer.bundle))
    family = "IP6" if ":" in host else "IP4"
    secured = [
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{password}",
        f"a=fingerprint:sha-256 {fingerprint}",
        f"a=setup:{'active' if offer.dtls_client else 'passive'}",
    ]
    transport = [f"c=IN {family} {host}", *secured, *_candidates((host, port), *more)]
    for section in offer.sections:
        if section.accepted == "audio":
            lines += [f"m=audio {port} {section.profile} {_formats(offer)}", *transport]
            lines += [f"a={offer.direction}", "a=rtcp-mux", *_codec_lines(offer)]
            if offer.sends:
                lines += ["a=msid:firsthop agent", f"a=ssrc:{ssrc} cname:firsthop"]
        elif section.accepted == "application":
            lines += [f"m=application {port} {section.profile} {section.formats}", *transport]
            # As it was drafted, where it is offered so (draft-ietf-mmusic-sctp-sdp-05).
            legacy = section.formats != DATA_CHANNEL
            lines.append(f"a=sctpmap:{section.formats} {DATA_CHANNEL} 65535" if legacy else "a=sctp-port:5000")
            lines.append(f"a=max-message-size:{MAX_MESSAGE_BYTES}")
        else:
            # What is said of a refused section means nothing (RFC 3264 section 6), but webrtcbin and aiortc take no
            # answer where one of them has not got this.
            lines += [f"m={section.kind} 0 {section.profile} {section.formats}", "c=IN IP4 0.0.0.0", *secured]
            lines += ["a=rtcp-mux", "a=inactive"]
        if section.mid:
            lines.append(f"a=mid:{section.mid}")
    return "\r\n".join(lines) + "\r\n"


def fragment(
    offer: Offer, *, ufrag: str, password: str, host: str, port: int, more: Sequence[tuple[str, int]] = ()
) -> str:
    """The SDP fragment that answers an ICE restart: the credentials, and candidates as in an answer (RFC 8840 section
    9)."""
    audio = next(section for section in offer.sections if section.accepted == "audio")
    lines = ["a=ice-lite", f"m=audio 9 {audio.profile} {_formats(offer)}", f"a=mid:{audio.mid or 0}"]
    lines += [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", *_candidates((host, port), *more)]
    return "\r\n".join(lines) + "\r\n"


def _candidates(*addresses: tuple[str, int]) -> Iterator[str]:
    """Host candidates of falling priority (RFC 8445 section 5.1.2.1), each with a foundation of its own, because each
    is another host's."""
    for i, (host, port) in enumerate(addresses):
        yield f"a=candidate:{i + 1} 1 udp {_HIGHEST_PRIORITY - (i << 8)} {host} {port} typ host"
    yield "a=end-of-candidates"


def _formats(offer: Offer) -> str:
    red = () if offer.red_payload_type is None else (offer.red_payload_type,)
    return " ".join(map(str, (offer.payload_type, *red, *(number for number, _ in offer.keys))))


def _codec_lines(offer: Offer) -> Iterator[str]:
    if offer.reduced_size:
        yield "a=rtcp-rsize"
    if offer.transport_cc_id is not None:
        one_way = "/recvonly" if offer.transport_cc_one_way else ""
        yield f"a=extmap:{offer.transport_cc_id}{one_way} {TRANSPORT_CC}"
    number, red = offer.payload_type, offer.red_payload_type
    yield f"a=rtpmap:{number} {offer.codec}"
    if offer.codec.startswith("opus"):
        yield f"a=fmtp:{number} minptime=10;useinbandfec=1"
    if offer.nack:
        yield f"a=rtcp-fb:{number} nack"
    if offer.transport_cc_id is not None:
        yield f"a=rtcp-fb:{number} transport-cc"
    if red is not None:
        # After the codec itself, so that a client may send it and need not.
        yield f"a=rtpmap:{red} red/48000/2"
        yield f"a=fmtp:{red} {number}/{number}"
    for key, rate_hz in offer.keys:
        yield f"a=rtpmap:{key} telephone-event/{rate_hz}"
        yield f"a=fmtp:{key} 0-15"
