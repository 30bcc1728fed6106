"""Bounds on how much of one caller's media is looked at, so that a flood costs little to those who share the loop.
Pure.

Packets with the caller's address need not come from the caller. So packets that do not authenticate have a budget of
their own and take nothing from those that do; where that budget is spent, only what could be the next packet is still
tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rtc.bucket import Bucket
from rtc.rtp.packet import is_rtcp, sequence_distance

__all__ = ["Cipher", "Gate"]

# An honest caller sends 20 to 100 packets a second, and after an outage those of a second or two at once.
_PACKETS_PER_S, _PACKETS_AT_ONCE = 400.0, 128.0
# RTCP costs by its length, up to 0.35 us a byte: reports are 100 bytes a second, one that asks for packets 16 to 60.
_RTCP_BYTES_PER_S, _RTCP_BYTES_AT_ONCE = 4000.0, 4000.0
# Data channels: a picture of 2 MB is 1,700 datagrams.
_DTLS_PER_S, _DTLS_AT_ONCE = 1000.0, 2000.0
_FORGED_PER_S = 500.0
# libsrtp keeps a stream of each SSRC that ever authenticated, and looks for them one by one.
_SSRCS_PER_S, _SSRCS_AT_ONCE, _MOST_SSRCS = 0.1, 32.0, 256
_BEHIND, _AHEAD = 64, 512  # sequence numbers around the last


class Cipher(Protocol):
    """SRTP. Both methods return None where a datagram is not authentic or a replay."""

    def unprotect(self, srtp: bytes) -> bytes | None:
        """RTP."""

    def unprotect_rtcp(self, srtcp: bytes) -> bytes | None:
        """RTCP."""


class Gate:
    """The gate of one caller. ``tries`` says whether a datagram is worth decrypting, ``admits`` whether an authentic
    one is worth the rest; ``forged`` is told of those that were not authentic. Datagrams are SRTP or SRTCP as they
    came, of 8 bytes and more. ``ssrcs`` are those that were authentic before, where the call has been taken up."""

    def __init__(self, ssrcs: Iterable[bytes] = ()) -> None:
        self._packets = Bucket(_PACKETS_PER_S, _PACKETS_AT_ONCE)
        self._rtcp_bytes = Bucket(_RTCP_BYTES_PER_S, _RTCP_BYTES_AT_ONCE)
        self._dtls = Bucket(_DTLS_PER_S, _DTLS_AT_ONCE)
        self._forged = Bucket(_FORGED_PER_S, _FORGED_PER_S)
        self._new_ssrcs = Bucket(_SSRCS_PER_S, _SSRCS_AT_ONCE)
        self._ssrcs = set(ssrcs)
        self._last = (b"", 0)  # SSRC and sequence number of the last packet that was admitted

    @property
    def ssrcs(self) -> tuple[bytes, ...]:
        """Those that something authentic came of, each of 4 bytes."""
        return tuple(self._ssrcs)

    def opened(self, datagram: bytes, cipher: Cipher, now: float) -> bytes | str:
        """RTP or RTCP, or the reason why it is none, as ``counters.RX_DATAGRAMS`` names it."""
        if not self.tries(datagram, now):
            return "overflow"
        plain = cipher.unprotect_rtcp(datagram) if is_rtcp(datagram) else cipher.unprotect(datagram)
        if plain is None:
            self.forged(now)
            return "srtp_not_authentic"
        return plain if self.admits(datagram, now) else "overflow"

    def tries(self, datagram: bytes, now: float) -> bool:
        """Whether to try to authenticate it."""
        control = is_rtcp(datagram)
        ssrc = datagram[4:8] if control else datagram[8:12]
        if ssrc not in self._ssrcs:
            return len(self._ssrcs) < _MOST_SSRCS and self._new_ssrcs.has(now) and self._forged.has(now)
        if self._forged.has(now):
            return True
        if control:
            return self._rtcp_bytes.has(now, len(datagram))
        known, sequence = self._last
        return ssrc == known and -_BEHIND < sequence_distance(sequence, int.from_bytes(datagram[2:4], "big")) < _AHEAD

    def forged(self, now: float) -> None:
        """Tells that one that was tried was not authentic."""
        self._forged.take(now)

    def admits(self, datagram: bytes, now: float) -> bool:
        """Whether an authentic one is within what a caller may send."""
        control = is_rtcp(datagram)
        ssrc = datagram[4:8] if control else datagram[8:12]
        if ssrc not in self._ssrcs:
            self._ssrcs.add(ssrc)
            self._new_ssrcs.take(now)
        if control:
            return self._rtcp_bytes.take(now, len(datagram))
        self._last = ssrc, int.from_bytes(datagram[2:4], "big")
        return self._packets.take(now)

    def admits_dtls(self, now: float) -> bool:
        """Whether a DTLS datagram is within what a caller may send; its content is not known yet."""
        return self._dtls.take(now)
