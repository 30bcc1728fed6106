"""SRTP of one call as a value, and its protection profiles (RFC 5764 section 4.1.2)."""

from __future__ import annotations

from msgspec import Struct

__all__ = [
    "Profile",
    "SrtpState",
]


class Profile(Struct, frozen=True):
    """A protection profile: libsrtp's number, bytes of the master key and salt, and where in an SRTCP packet, from its
    end, the index begins."""

    number: int
    key: int
    salt: int
    srtcp_index: int


class SrtpState(Struct, frozen=True):
    """One call's SRTP as a value. Keys of the dicts are SSRCs of 4 bytes. ``sent`` has the extended sequence number of
    the last packet (the roll-over counter and 16 bits), ``received`` and ``received_rtcp`` the highest that came and
    the window behind it, as big-endian bytes; ``rtcp_indices`` the next of each SSRC."""

    profile: bytes
    ours: bytes
    theirs: bytes
    sent: dict[bytes, int]
    received: dict[bytes, tuple[int, bytes]]
    received_rtcp: dict[bytes, tuple[int, bytes]]
    rtcp_indices: dict[bytes, int]
