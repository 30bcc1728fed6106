"""The payload types of an RTP section: rtpmap and fmtp (RFC 8866 sections 6.6 and 6.15), rtcp-fb (RFC 4585 section 4.2)
and header extensions (RFC 8285 section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rtc.sdp.description import Attributes, Media, number

__all__ = ["Format", "feedback", "formats", "header_extension", "parameters", "said_of"]


class Format(NamedTuple):
    """A payload type and its encoding: the name in lower case, ``clock_hz``, and the number of channels, one by
    default."""

    payload_type: int
    name: str
    clock_hz: int
    channels: int

    @property
    def encoding(self) -> tuple[str, int, int]:
        """The name, clock rate in Hz and channels of the encoding."""
        return self[1:]


# Those of RFC 3551 section 6 that can be served: they need no rtpmap.
_STATIC = {"0": Format(0, "pcmu", 8000, 1), "8": Format(8, "pcma", 8000, 1)}


def formats(media: Media) -> tuple[Format, ...]:
    """The section's formats in the order of preference of its m= line, each payload type once."""
    mapped = {**_STATIC, **_mapped(media)}
    return tuple(mapped[text] for text in dict.fromkeys(media.formats) if text in mapped)


def _mapped(media: Media) -> dict[str, Format]:
    """The encoding of each payload type, by its first good line."""
    mapped: dict[str, Format] = {}
    for line in media.every("rtpmap"):
        words = line.split(None, 1)
        if len(words) < 2 or words[0] in mapped:
            continue
        payload_type = number(words[0], 128)
        name, *rest = words[1].split("/")
        # 64 to 95 would look like RTCP on a shared port (RFC 5761 section 4).
        if payload_type is None or 64 <= payload_type <= 95 or words[0] != str(payload_type):
            continue
        if not 1 <= len(rest) <= 2:
            continue
        clock_hz = number(rest[0].strip(), 1 << 32)
        channels = number(rest[1].strip(), 256) if len(rest) == 2 else 1
        if clock_hz and channels:
            mapped[words[0]] = Format(payload_type, name.strip().lower(), clock_hz, channels)
    return mapped


def said_of(media: Media, attribute: str) -> dict[int | None, list[str]]:
    """The values that the lines of ``attribute`` give for each payload type; those for all of them (``*``) are under
    None."""
    said: dict[int | None, list[str]] = {}
    for line in media.every(attribute):
        words = line.split(None, 1)
        if len(words) == 2:
            payload_type = number(words[0], 128)
            if payload_type is not None or words[0] == "*":
                said.setdefault(payload_type, []).append(words[1])
    return said


def parameters(said: Iterable[str]) -> dict[str, str]:
    """The parameters in values of fmtp, by their names in lower case (RFC 4855 section 3)."""
    found: dict[str, str] = {}
    for value in said:
        for parameter in value.split(";"):
            name, _, meant = parameter.partition("=")
            found[name.strip().lower()] = meant.strip()
    return found


def feedback(said: Mapping[int | None, Sequence[str]], payload_type: int) -> set[str]:
    """The RTCP feedback that may be sent about a payload type, such as "nack" or "nack pli", out of all rtcp-fb
    lines."""
    values = (*said.get(payload_type, ()), *said.get(None, ()))
    return {" ".join(value.lower().split()) for value in values}


def header_extension(level: Attributes, uri: str) -> tuple[int, str] | None:
    """The identifier of a header extension and its direction for the offerer, or None where it is not there or needs
    the two-byte form (RFC 8285 section 4.3)."""
    for line in level.every("extmap"):
        words = line.split()
        if len(words) < 2 or words[1] != uri:
            continue
        text, _, direction = words[0].partition("/")
        identifier = number(text, 15)
        if identifier:
            return identifier, direction or "sendrecv"
    return None
