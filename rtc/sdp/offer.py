"""A client's offer, as far as it concerns a call: one audio section, and a data channel on the same transport.

There is one transport: the edge's shared port, and RTP, RTCP and SCTP on it. So of several audio sections one is
served, and data channels are where the client bundles them with it (RFC 9143). The transport's own attributes are those
of the section that the group is tagged with, or else the session's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rtc.dtls.fingerprints import DIGEST_BYTES, well_formed
from rtc.sdp import description, payload_formats
from rtc.sdp.description import Attributes, Description, Malformed, Media, number, quoted
from rtc.sdp.payload_formats import Format

__all__ = ["DATA_CHANNEL", "TRANSPORT_CC", "Offer", "OfferError", "Section", "parse"]

DATA_CHANNEL = "webrtc-datachannel"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
_UNSAID_MESSAGE_BYTES = 65536  # RFC 8841 section 6
_LARGEST_MESSAGE_BYTES = 1 << 20
_UNSAID_SCTP_PORT = 5000
# What can be served, and what rtpmap says of it in the answer (RFC 7587, RFC 3551). Opus has two channels by its RFC,
# whatever it carries, and who leaves them out means it all the same.
_CODECS = {
    ("opus", 48000, 2): "opus/48000/2",
    ("opus", 48000, 1): "opus/48000/2",
    ("pcmu", 8000, 1): "PCMU/8000",
    ("pcma", 8000, 1): "PCMA/8000",
}
_RED = ("red", 48000, 2)
_KEYS = {("telephone-event", 48000, 1): 48000, ("telephone-event", 8000, 1): 8000}
_MOST_KEYS = 4
_MOST_SSRCS = 4
_MOST_FINGERPRINTS = 16
_ANSWERED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
# The profiles that RFC 8829 section 5.1.2 has treated alike; what protects the media is the fingerprint.
_AUDIO = re.compile(r"(?:[!-~]+/)?RTP/S?AVPF?", re.IGNORECASE)
_DATA = re.compile(r"(?:(?:UDP|TCP)/)?DTLS/SCTP", re.IGNORECASE)
# RFC 8839 section 5.4, and what libwebrtc takes besides from those who encode their secrets for URLs.
_ICE_CHARACTERS = re.compile(r"[A-Za-z0-9+/=_#-]+")


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
    """The parts of the client's SDP that a session needs. ``fingerprints`` are (algorithm, value); ``codec`` is as in
    rtpmap; ``copies`` says whether the client uses in-band FEC; ``red_payload_type`` and ``transport_cc_id`` (of the
    header extension, which the client only sends where it is ``one_way``) are None where not offered; ``keys`` are
    payload types of telephone-events with their clock rates in Hz. ``direction`` is the answer's, ``bundle`` the mids
    of its group."""

    sections: tuple[Section, ...]
    bundle: tuple[str, ...]
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
    transport_cc_one_way: bool
    direction: str
    ssrcs: tuple[int, ...]
    sctp_port: int | None
    max_message_bytes: int

    @property
    def sends(self) -> bool:
        """Whether the answer says that we send RTP."""
        return self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Whether the answer says that we take RTP."""
        return self.direction in ("sendrecv", "recvonly")


def parse(text: str) -> Offer:
    """The offer in ``text``. Raises OfferError saying which line is missing or malformed, and why."""
    try:
        offered = description.parse(text)
    except Malformed as e:
        raise OfferError(str(e)) from None
    bundle = _Bundle(offered)
    audio, codecs = _audio(offered, bundle)
    group = bundle.group_of(audio)
    data = next((media for media in group if _is_data(media)), None)
    transport = _Transport(offered, audio, data, group)
    if not transport.has("rtcp-mux", "rtcp-mux-only"):
        raise OfferError(f"{_named(audio)} has no a=rtcp-mux, and there is one port for everything")
    if transport.has("ice-lite"):
        raise OfferError("a=ice-lite: the server is lite as well, and nobody would check (RFC 8445 section 6.1.1)")
    codec = next(each for each in codecs if each.encoding in _CODECS)
    fmtp = payload_formats.said_of(audio, "fmtp")
    feedback = payload_formats.feedback(payload_formats.said_of(audio, "rtcp-fb"), codec.payload_type)
    transport_cc = _transport_cc(offered, audio) if "transport-cc" in feedback else None
    accepted = [media for media in group if media in (audio, data)]
    return Offer(
        sections=tuple(_section(media, audio, data) for media in offered.media),
        bundle=tuple(_mid(media) for media in accepted),
        ice_ufrag=transport.credential("ice-ufrag", 4),
        ice_password=transport.credential("ice-pwd", 22),
        fingerprints=transport.fingerprints(),
        dtls_client=transport.we_are_dtls_client(),
        codec=_CODECS[codec.encoding],
        payload_type=codec.payload_type,
        red_payload_type=_red(codecs, codec, fmtp),
        keys=tuple((each.payload_type, _KEYS[each.encoding]) for each in codecs if each.encoding in _KEYS)[:_MOST_KEYS],
        copies=payload_formats.parameters(fmtp.get(codec.payload_type, ())).get("useinbandfec") == "1",
        nack="nack" in feedback,
        reduced_size="rtcp-rsize" in audio,
        transport_cc_id=transport_cc[0] if transport_cc else None,
        transport_cc_one_way=transport_cc is not None and transport_cc[1] == "sendonly",
        direction=_ANSWERED[_direction(offered, audio)],
        ssrcs=tuple(_ssrcs(audio)),
        sctp_port=_sctp_port(data) if data else None,
        max_message_bytes=_message_bytes(data) if data else _UNSAID_MESSAGE_BYTES,
    )


# --- which sections


class _Bundle:
    """The BUNDLE groups of an offer and their members (RFC 9143 section 7.1)."""

    def __init__(self, offered: Description) -> None:
        by_mid: dict[str, Media] = {}
        for media in offered.media:
            mid = _mid(media)
            if mid and by_mid.setdefault(mid, media) is not media:
                raise OfferError(f"a=mid:{quoted(mid)} is the name of two sections (RFC 5888 section 4)")
        self._groups: list[list[Media]] = []
        self._of: dict[Media, int] = {}
        for line in offered.session.every("group"):
            semantics, *mids = line.split() or [""]
            if semantics != "BUNDLE":
                continue
            # Who is in two groups belongs to the first.
            named = (by_mid[mid] for mid in dict.fromkeys(mids) if mid in by_mid)
            group = [media for media in named if media not in self._of]
            self._of.update(dict.fromkeys(group, len(self._groups)))
            self._groups.append(group)

    def group_of(self, media: Media) -> Sequence[Media]:
        """The sections of the group that ``media`` is in, without those that the client gave up, the tagged one first;
        empty where it is in none."""
        index = self._of.get(media)
        return () if index is None else [each for each in self._groups[index] if self.is_open(each)]

    def is_open(self, media: Media) -> bool:
        """Whether a section may be accepted: port 0 gives it up, unless it stands for the port of its group (RFC 9143
        section 6)."""
        return media.port != 0 or ("bundle-only" in media and media in self._of)


def _audio(offered: Description, bundle: _Bundle) -> tuple[Media, tuple[Format, ...]]:
    """The audio section to serve, and its formats. One that sends and receives is preferred to one that only sends, and
    that to one that only receives; among equals the first is taken. Raises OfferError."""
    sections = [media for media in offered.media if media.kind == "audio"]
    if not sections:
        raise OfferError("there is no audio section (m=audio)")
    is_open = [media for media in sections if bundle.is_open(media)]
    if not is_open:
        raise OfferError(f"m={quoted(sections[0].line)}: the audio section has port 0, so there is nothing to answer")
    order = list(_ANSWERED)
    served: list[tuple[int, int, Media, tuple[Format, ...]]] = []
    for media in is_open:
        codecs = payload_formats.formats(media) if _AUDIO.fullmatch(media.protocol) else ()
        if any(each.encoding in _CODECS for each in codecs):
            served.append((order.index(_direction(offered, media)), len(served), media, codecs))
    if not served:
        names = ", ".join(dict.fromkeys(_CODECS.values()))
        raise OfferError(f"m={quoted(is_open[0].line)}: the audio section offers none of {names}")
    _, _, media, codecs = min(served)
    return media, codecs


def _direction(offered: Description, media: Media) -> str:
    return media.last("direction") or offered.session.last("direction") or "sendrecv"


def _is_data(media: Media) -> bool:
    """Whether a section is of data channels: by RFC 8841, or by its drafts, with a port for a format."""
    if media.kind != "application" or not _DATA.fullmatch(media.protocol):
        return False
    return _sctp_port(media) != 0 if DATA_CHANNEL in media.formats else _legacy_port(media) is not None


def _legacy_port(media: Media) -> int | None:
    """The port of ``m=application 9 DTLS/SCTP 5000`` with ``a=sctpmap:5000 webrtc-datachannel 1024``
    (draft-ietf-mmusic-sctp-sdp-05)."""
    port = number(media.formats[0], 1 << 16)
    maps = [words for line in media.every("sctpmap") if len(words := line.split()) > 1]
    said = not maps or [media.formats[0], DATA_CHANNEL] in [words[:2] for words in maps]
    return port if port and said else None


def _section(media: Media, audio: Media, data: Media | None) -> Section:
    formats = " ".join(media.formats)
    if media is data:
        formats = DATA_CHANNEL if DATA_CHANNEL in media.formats else str(_UNSAID_SCTP_PORT)
    accepted = media.kind if media is audio or media is data else ""
    return Section(media.kind, media.protocol, formats, _mid(media), accepted)


def _mid(media: Media) -> str:
    """The section's name, where the answer can repeat it and a group can name it."""
    mid = media.first("mid") or ""
    return mid if mid.isprintable() and " " not in mid else ""


def _named(media: Media) -> str:
    mid = _mid(media)
    return f"the audio section (a=mid:{quoted(mid)})" if mid else "the audio section"


# --- the transport


class _Transport:
    """The attributes of the one transport. They are those of the first section of the group that is accepted and has a
    port of its own (RFC 9143 section 7.3.1); then of any other in the group, since sections that are bundle-only have
    no port; then of the session."""

    def __init__(self, offered: Description, audio: Media, data: Media | None, group: Sequence[Media]) -> None:
        accepted = [media for media in group or [audio] if media is audio or media is data]
        tagged = next((media for media in (*accepted, *group) if media.port), audio)
        self._audio = audio
        self._levels: tuple[Attributes, ...] = (tagged, audio, offered.session)

    def has(self, *names: str) -> bool:
        """Whether one of the flags is set."""
        return any(name in level for level in self._levels for name in names)

    def _first(self, name: str) -> str:
        value = next((value for level in self._levels if (value := level.first(name)) is not None), None)
        if value is None:
            raise OfferError(f"{_named(self._audio)} has no a={name}")
        return value

    def credential(self, name: str, shortest: int) -> str:
        """The ICE ufrag or password (RFC 8839 section 5.4)."""
        value = self._first(name)
        if not shortest <= len(value) <= 256:
            raise OfferError(f"a={name} has {len(value)} characters: {shortest} to 256 (RFC 8839 section 5.4)")
        if not _ICE_CHARACTERS.fullmatch(value):
            raise OfferError(f"a={name} has other characters than letters, digits, + and / (RFC 8839 section 5.4)")
        return value

    def we_are_dtls_client(self) -> bool:
        """Whether we begin the handshake: setup:active in the offer leaves us the passive side; otherwise being the
        client saves a round trip."""
        setup = self._first("setup")
        if setup.lower() not in ("active", "passive", "actpass"):
            raise OfferError(f"a=setup:{quoted(setup)} is not active, passive or actpass (RFC 8842 section 5.1)")
        return setup.lower() != "active"

    def fingerprints(self) -> tuple[tuple[str, str], ...]:
        """(algorithm, value) of those that can be checked. A section's fingerprints replace the session's (RFC 8122
        section 5)."""
        level = next((level for level in self._levels if level.first("fingerprint")), None)
        if level is None:
            raise OfferError(f"{_named(self._audio)} has no a=fingerprint")
        lines = level.every("fingerprint")
        found = dict.fromkeys(print_ for line in lines[:_MOST_FINGERPRINTS] if (print_ := well_formed(line)))
        if not found:
            algorithms = ", ".join(DIGEST_BYTES)
            raise OfferError(f"a=fingerprint:{quoted(lines[0])} is no fingerprint by any of {algorithms}")
        return tuple(found)


# --- audio


def _red(codecs: Sequence[Format], codec: Format, fmtp: dict[int | None, list[str]]) -> int | None:
    """The payload type of RED that carries ``codec``; only Opus is worth it."""
    for red in codecs:
        if red.encoding == _RED:
            carried = [part.strip() for value in fmtp.get(red.payload_type, ())[:1] for part in value.split("/")]
            if len(carried) > 1 and set(carried) == {str(codec.payload_type)}:
                return red.payload_type
    return None


def _transport_cc(offered: Description, audio: Media) -> tuple[int, str] | None:
    for level in (audio, offered.session):
        found = payload_formats.header_extension(level, TRANSPORT_CC)
        if found is not None:
            return found if found[1] in ("sendrecv", "sendonly") else None
    return None


def _ssrcs(audio: Media) -> Iterator[int]:
    found: dict[int, None] = {}
    for line in audio.every("ssrc"):
        ssrc = number(line.partition(" ")[0], 1 << 32)
        if ssrc is not None and ssrc not in found and len(found) < _MOST_SSRCS:
            found[ssrc] = None
            yield ssrc


# --- data


def _sctp_port(data: Media) -> int:
    if DATA_CHANNEL not in data.formats:
        return _legacy_port(data) or 0
    said = data.first("sctp-port") or str(_UNSAID_SCTP_PORT)
    port = number(said, 1 << 16)
    if port is None:
        raise OfferError(f"a=sctp-port:{quoted(said)} is not a port")
    return port


def _message_bytes(data: Media) -> int:
    said = data.first("max-message-size") or str(_UNSAID_MESSAGE_BYTES)
    size = number(said, 1 << 64)
    if size is None:
        raise OfferError(f"a=max-message-size:{quoted(said)} is no size")
    # 0 says that any size is fine (RFC 8841 section 6.1); more than a megabyte at once serves nobody here.
    return min(size or _LARGEST_MESSAGE_BYTES, _LARGEST_MESSAGE_BYTES)
