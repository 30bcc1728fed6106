"""The SDP offer of a caller, written as a browser writes it, and what a caller reads in the answer (RFC 8829, RFC
8839).

The offer has no candidates: the server learns where the caller is from its first check.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from aiortc.sdp import MediaDescription, SessionDescription

from wire import address as flow

__all__ = ["KEYS_PAYLOAD_TYPE", "OPUS_PAYLOAD_TYPE", "Answer", "AnswerError", "Offer", "parse_answer"]

OPUS_PAYLOAD_TYPE = 111
KEYS_PAYLOAD_TYPE = 110

_MOST_CANDIDATES = 8

_SECURITY = """\
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
"""
_OFFER = (
    """\
v=0
o=- {session} 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic: WMS {stream}
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
"""
    + _SECURITY
    + """\
a=mid:0
a=sendrecv
a=msid:{stream} audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=ssrc:{ssrc} cname:{stream}
a=ssrc:{ssrc} msid:{stream} audio
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
"""
    + _SECURITY
    + """\
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
)


class AnswerError(ValueError):
    """An answer that no call can be made from; the text says what it lacks."""


def _secret(random_bytes: int) -> str:
    # The alphabet of RFC 8839 section 5.4 is the one of base64; multiples of three bytes need no padding.
    return base64.b64encode(secrets.token_bytes(random_bytes)).decode()


@dataclass(frozen=True, slots=True)
class Offer:
    """One call's side: ``fingerprint`` is the SHA-256 of its certificate; ufrag and password have 48 and 144 random
    bits. ``keys`` says that some may be pressed."""

    fingerprint: str
    ufrag: str = field(default_factory=lambda: _secret(6))
    password: str = field(default_factory=lambda: _secret(18))
    ssrc: int = field(default_factory=lambda: secrets.randbelow((1 << 32) - 1) + 1)
    keys: bool = False

    def sdp(self) -> str:
        """The offer, with CRLF as RFC 8866 wants."""
        return (
            self._template()
            .format(
                session=secrets.randbits(62),
                stream=secrets.token_hex(8),
                ufrag=self.ufrag,
                password=self.password,
                fingerprint=self.fingerprint,
                ssrc=self.ssrc,
            )
            .replace("\n", "\r\n")
        )

    def _template(self) -> str:
        if not self.keys:
            return _OFFER
        key, opus = KEYS_PAYLOAD_TYPE, f"a=rtpmap:{OPUS_PAYLOAD_TYPE}"
        more = f"a=rtpmap:{key} telephone-event/48000\na=fmtp:{key} 0-15\n"
        return _OFFER.replace("SAVPF 111\n", f"SAVPF 111 {key}\n").replace(opus, more + opus)


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's side. ``server_is_dtls_client`` is ``setup:active``; ``sctp_port`` is None where the server
    takes no data channel, ``keys_payload_type`` where it takes no keys; ``fingerprints`` are (algorithm, value)
    pairs. ``addresses`` are its candidates, the preferred first, all of one family."""

    ufrag: str
    password: str
    addresses: tuple[tuple[str, int], ...]
    fingerprints: tuple[tuple[str, str], ...]
    server_is_dtls_client: bool
    payload_type: int
    keys_payload_type: int | None
    sctp_port: int | None
    max_message_bytes: int

    @property
    def address(self) -> tuple[str, int]:
        """The preferred candidate."""
        return self.addresses[0]


def parse_answer(sdp: str, *, ipv6: bool | None = None) -> Answer:
    """The content of the answer ``sdp``; with ``ipv6`` only candidates of that family count. Raises AnswerError."""
    try:
        media = SessionDescription.parse(sdp).media
    except Exception as e:  # aiortc asserts and indexes its way through bad SDP: half a dozen types
        raise AnswerError(f"is not SDP ({type(e).__name__}: {e})") from None
    audio = next((m for m in media if m.kind == "audio" and m.port), None)
    if audio is None:
        raise AnswerError("has no audio")
    keys = (c.payloadType for c in audio.rtp.codecs if (c.name.lower(), c.clockRate) == ("telephone-event", 48000))
    opus = next((c.payloadType for c in audio.rtp.codecs if c.mimeType.lower() == "audio/opus"), None)
    if opus is None:
        raise AnswerError("has no Opus")
    if audio.ice is None or not audio.ice.usernameFragment or not audio.ice.password:
        raise AnswerError("has no ice-ufrag or no ice-pwd")
    if audio.dtls is None or not audio.dtls.fingerprints:
        raise AnswerError("has no fingerprint or no setup attribute")
    if audio.dtls.role not in ("client", "server"):
        raise AnswerError("must say setup:active or setup:passive")
    channel = next((m for m in media if m.kind == "application" and m.port and m.sctp_port), None)
    limit = channel.sctpCapabilities.maxMessageSize if channel and channel.sctpCapabilities else 65536
    return Answer(
        ufrag=audio.ice.usernameFragment,
        password=audio.ice.password,
        addresses=_addresses(media, ipv6),
        fingerprints=tuple((f.algorithm, f.value) for f in audio.dtls.fingerprints),
        server_is_dtls_client=audio.dtls.role == "client",
        payload_type=opus,
        keys_payload_type=next(keys, None),
        sctp_port=channel.sctp_port if channel else None,
        max_message_bytes=limit,
    )


def _addresses(media: list[MediaDescription], ipv6: bool | None) -> tuple[tuple[str, int], ...]:
    found = [c for m in media for c in m.ice_candidates if c.protocol.lower() == "udp" and c.component == 1]
    usable: dict[tuple[str, int], None] = {}  # under BUNDLE each section lists them
    for candidate in sorted(found, key=lambda c: -c.priority):
        try:
            flow.pack(candidate.ip, candidate.port)
        except OSError:
            continue  # a host name (mDNS): a server has none
        if ipv6 is None:
            ipv6 = ":" in candidate.ip
        if (":" in candidate.ip) == ipv6:
            usable[candidate.ip, candidate.port] = None
    if usable:
        return tuple(usable)[:_MOST_CANDIDATES]
    family = {None: "", True: "IPv6 ", False: "IPv4 "}[ipv6]
    raise AnswerError(f"has no {family}UDP candidate among its {len(found)}: nowhere to send to")
