"""The offer as far as it concerns us, and the answer to it.

The offer is parsed by aiortc; the answer is written from a template, because it is always the same: one candidate
(the edge's shared port), ICE-lite (RFC 8445 section 2.5), one codec, and one data channel section. Sections that we do
not serve are refused with port 0 and keep their place (RFC 3264 section 6). What makes loss and delay bearable is
answered where it is offered: RED (RFC 2198), NACK (RFC 4585), reduced-size RTCP (RFC 5506) and transport-wide feedback;
and so are pressed keys (RFC 4733).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiortc import RTCRtpCodecParameters
from aiortc.sdp import MediaDescription, SessionDescription

__all__ = ["MAX_MESSAGE_BYTES", "Offer", "OfferError", "answer", "fragment", "parse"]

MAX_MESSAGE_BYTES = 4 << 20  # an event with a camera's picture as a data URL
_UNSAID_MESSAGE_BYTES = 65536  # RFC 8841 section 6
_LARGEST_MESSAGE_BYTES = 1 << 20
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
# What can be served, and what rtpmap says of it in the answer (RFC 7587, RFC 3551).
_CODECS = {("opus", 48000, 2): "opus/48000/2", ("pcmu", 8000, 1): "PCMU/8000", ("pcma", 8000, 1): "PCMA/8000"}
_MOST_KEYS = 4
_RED = ("red", 48000, 2)
_KEYS = {("telephone-event", 48000, 1): 48000, ("telephone-event", 8000, 1): 8000}
_ANSWERED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class OfferError(ValueError):
    """An offer that cannot be answered; the text is for the client's author."""


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line as the answer repeats it. ``accepted`` is "audio", "application" or empty."""

    kind: str
    profile: str
    formats: str
    mid: str
    accepted: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a session needs of the client's SDP. ``fingerprints`` are (algorithm, value); ``codec`` is as in rtpmap,
    ``copies`` says whether the client uses in-band FEC; ``red_payload_type`` and ``transport_cc_id`` (of the header
    extension) are None where not offered; ``keys`` are payload types of telephone-events with their clock rates in
    Hz."""

    sections: tuple[Section, ...]
    ice_ufrag: str
    ice_password: str
    fingerprints: tuple[tuple[str, str], ...]
    dtls_client: bool
    codec: str
    payload_type: int
    red_payload_type: int | None
    keys: tuple[tuple[int, int], ...]
    copies: bool
    nack: bool
    reduced_size: bool
    transport_cc_id: int | None
    direction: str
    ssrcs: tuple[int, ...]
    sctp_port: int | None
    max_message_bytes: int


def parse(text: str) -> Offer:
    """The offer in ``text``. Raises OfferError saying which part is missing or malformed."""
    if not text.startswith("v=0"):
        raise OfferError("the body is not SDP: it does not begin with v=0")
    try:
        description = SessionDescription.parse(text)
    except Exception as e:  # the parser raises whatever its conversions raise
        raise OfferError(f"malformed SDP: {type(e).__name__} {e}".strip()) from None
    audio = next((m for m in description.media if m.kind == "audio" and m.port and _codec(m)), None)
    if audio is None:
        heard = any(m.kind == "audio" for m in description.media)
        offers = "the audio section offers none of " + ", ".join(_CODECS.values())
        raise OfferError(offers if heard else "there is no audio section (m=audio)")
    data = next((m for m in description.media if m.kind == "application" and m.port and m.sctp_port), None)
    if audio.ice is None or not audio.ice.usernameFragment or not audio.ice.password:
        raise OfferError("the audio section has no a=ice-ufrag and a=ice-pwd")
    if audio.dtls is None or not audio.dtls.fingerprints:
        raise OfferError("the audio section has no a=fingerprint, or no a=setup")
    if data is not None and not (audio.rtp.muxId and data.rtp.muxId):
        data = None  # it cannot be bundled with the audio, and there is one transport
    if not audio.rtcp_mux:
        raise OfferError("the audio section has no a=rtcp-mux, and there is one port for everything")
    codec = _codec(audio)
    assert codec is not None
    feedback = {(f.type, f.parameter or "") for f in codec.rtcpFeedback}
    sctp_port = data.sctp_port if data else None
    if sctp_port is not None and not 0 < sctp_port < 1 << 16:
        raise OfferError(f"a=sctp-port:{sctp_port} is not a port")
    message_bytes = data.sctpCapabilities.maxMessageSize if data and data.sctpCapabilities else _UNSAID_MESSAGE_BYTES
    if not 0 <= message_bytes < 1 << 32:
        raise OfferError(f"a=max-message-size:{message_bytes} is no size")
    return Offer(
        sections=tuple(_section(m, audio, data) for m in description.media),
        ice_ufrag=audio.ice.usernameFragment,
        ice_password=audio.ice.password,
        fingerprints=tuple((f.algorithm, f.value) for f in audio.dtls.fingerprints),
        # setup:active in the offer leaves us the passive side; otherwise being the client saves a round trip.
        dtls_client=audio.dtls.role != "client",
        codec=_CODECS[_kind(codec)],
        payload_type=codec.payloadType or 0,
        red_payload_type=_red(audio, codec),
        keys=tuple((c.payloadType or 0, _KEYS[_kind(c)]) for c in _listed(audio) if _kind(c) in _KEYS)[:_MOST_KEYS],
        copies=str(codec.parameters.get("useinbandfec")) == "1",
        nack=("nack", "") in feedback,
        reduced_size=_reduced_size(text, description.media.index(audio)),
        transport_cc_id=_transport_cc(audio) if ("transport-cc", "") in feedback else None,
        direction=_ANSWERED[audio.direction or "sendrecv"],
        ssrcs=tuple(s.ssrc for s in audio.ssrc[:4] if 0 <= s.ssrc < 1 << 32),
        sctp_port=sctp_port,
        # 0 says that any size is fine (RFC 8841 section 6.1); more than a megabyte at once serves nobody here.
        max_message_bytes=min(message_bytes or _LARGEST_MESSAGE_BYTES, _LARGEST_MESSAGE_BYTES),
    )


def answer(offer: Offer, *, ufrag: str, password: str, fingerprint: str, host: str, port: int, ssrc: int) -> str:
    """The SDP answer. ``host`` and ``port`` are the edge's, ``ssrc`` the one that we send with."""
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=firsthop",
        "t=0 0",
        "a=msid-semantic: WMS firsthop",
        "a=ice-lite",
    ]
    if bundled := [s.mid for s in offer.sections if s.accepted and s.mid]:
        lines.append("a=group:BUNDLE " + " ".join(bundled))
    family = "IP6" if ":" in host else "IP4"
    transport = [
        f"c=IN {family} {host}",
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{password}",
        f"a=fingerprint:sha-256 {fingerprint}",
        f"a=setup:{'active' if offer.dtls_client else 'passive'}",
        *_candidate(host, port),
    ]
    for section in offer.sections:
        if section.accepted == "audio":
            lines += [f"m=audio {port} {section.profile} {_formats(offer)}", *transport]
            lines += [f"a={offer.direction}", "a=rtcp-mux", "a=msid:firsthop agent", *_codec_lines(offer)]
            lines.append(f"a=ssrc:{ssrc} cname:firsthop")
        elif section.accepted == "application":
            lines += [f"m=application {port} {section.profile} {section.formats}", *transport]
            lines += ["a=sctp-port:5000", f"a=max-message-size:{MAX_MESSAGE_BYTES}"]
        else:
            lines += [f"m={section.kind} 0 {section.profile} {section.formats}", "c=IN IP4 0.0.0.0", "a=inactive"]
        if section.mid:
            lines.append(f"a=mid:{section.mid}")
    return "\r\n".join(lines) + "\r\n"


def fragment(offer: Offer, *, ufrag: str, password: str, host: str, port: int) -> str:
    """What answers an ICE restart: the credentials, and the same candidate (RFC 8840 section 9)."""
    audio = next(section for section in offer.sections if section.accepted == "audio")
    lines = ["a=ice-lite", f"m=audio 9 {audio.profile} {_formats(offer)}", f"a=mid:{audio.mid or 0}"]
    lines += [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", *_candidate(host, port)]
    return "\r\n".join(lines) + "\r\n"


def _candidate(host: str, port: int) -> tuple[str, str]:
    return f"a=candidate:1 1 udp 2130706431 {host} {port} typ host", "a=end-of-candidates"


def _formats(offer: Offer) -> str:
    red = () if offer.red_payload_type is None else (offer.red_payload_type,)
    return " ".join(map(str, (offer.payload_type, *red, *(number for number, _ in offer.keys))))


def _codec_lines(offer: Offer) -> Iterator[str]:
    if offer.reduced_size:
        yield "a=rtcp-rsize"
    if offer.transport_cc_id is not None:
        yield f"a=extmap:{offer.transport_cc_id} {TRANSPORT_CC}"
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


def _kind(codec: RTCRtpCodecParameters) -> tuple[str, int, int]:
    return codec.name.lower(), codec.clockRate, codec.channels or 1


def _listed(media: MediaDescription) -> Iterator[RTCRtpCodecParameters]:
    """The section's codecs as its m-line prefers them."""
    by_number = {codec.payloadType: codec for codec in reversed(media.rtp.codecs)}
    for number in media.fmt:
        # 64 to 95 would look like RTCP on a shared port (RFC 5761 section 4).
        if number in by_number and 0 <= number <= 127 and not 64 <= number <= 95:
            yield by_number[number]


def _codec(media: MediaDescription) -> RTCRtpCodecParameters | None:
    return next((codec for codec in _listed(media) if _kind(codec) in _CODECS), None)


def _red(media: MediaDescription, codec: RTCRtpCodecParameters) -> int | None:
    """RED that carries ``codec``, which only Opus is worth."""
    carries = f"{codec.payloadType}/{codec.payloadType}"
    red = (c.payloadType for c in _listed(media) if _kind(c) == _RED and carries in c.parameters)
    return next(red, None)


def _reduced_size(text: str, section: int) -> bool:
    """What aiortc does not read."""
    at = -1
    for line in text.splitlines():
        at += line.startswith("m=")
        if at == section and line.strip() == "a=rtcp-rsize":
            return True
    return False


def _transport_cc(media: MediaDescription) -> int | None:
    # 15 and more need the two-byte form (RFC 8285 section 4.3).
    return next((e.id for e in media.rtp.headerExtensions if e.uri == TRANSPORT_CC and 0 < e.id < 15), None)


def _section(media: MediaDescription, audio: MediaDescription, data: MediaDescription | None) -> Section:
    accepted = media.kind if media is audio or media is data else ""
    formats = " ".join(str(f) for f in media.fmt)
    return Section(media.kind, media.profile, formats, media.rtp.muxId, accepted)
