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
    """The gate of one caller: it says whether a datagram is worth decrypting, and whether an authentic one is worth the
    rest. ``ssrcs`` are those that were authentic before, where the call has been taken up."""

    def __init__(self, ssrcs: Iterable[bytes] = ()) -> None:
        self._packets = Bucket(_PACKETS_PER_S, _PACKETS_AT_ONCE)
        self._rtcp_bytes = Bucket(_RTCP_BYTES_PER_S, _RTCP_BYTES_AT_ONCE)
        self._dtls = Bucket(_DTLS_PER_S, _DTLS_AT_ONCE)
        self._forged = Bucket(_FORGED_PER_S, _FORGED_PER_S)
        self._new_ssrcs = Bucket(_SSRCS_PER_S, _SSRCS_AT_ONCE)
        self._ssrcs = set(ssrcs)
        self._last = bytes(12)  # the head of the last packet that was admitted

    @property
    def ssrcs(self) -> tuple[bytes, ...]:
        """Those that something authentic came of, each of 4 bytes."""
        return tuple(self._ssrcs)

    def opened(self, datagram: bytes, cipher: Cipher, now: float) -> bytes | str:
        """RTP or RTCP from SRTP or SRTCP of 8 bytes and more, or the reason why it is none, as
        ``counters.RX_DATAGRAMS`` names it."""
        control = is_rtcp(datagram)
        ssrc = datagram[4:8] if control else datagram[8:12]
        known = ssrc in self._ssrcs
        if not known:
            if len(self._ssrcs) >= _MOST_SSRCS or not self._new_ssrcs.has(now) or not self._forged.has(now):
                return "overflow"
        elif not self._forged.has(now) and not self._may_be_next(datagram, control, now):
            return "overflow"
        plain = cipher.unprotect_rtcp(datagram) if control else cipher.unprotect(datagram)
        if plain is None:
            self._forged.take(now)
            return "srtp_not_authentic"
        if not known:
            self._ssrcs.add(ssrc)
            self._new_ssrcs.take(now)
        if control:
            return plain if self._rtcp_bytes.take(now, len(datagram)) else "overflow"
        self._last = datagram
        return plain if self._packets.take(now) else "overflow"

    def _may_be_next(self, datagram: bytes, control: bool, now: float) -> bool:
        """Whether one with an SSRC of the caller's is still tried while there is nothing left for forged ones."""
        if control:
            return self._rtcp_bytes.has(now, len(datagram))
        last = self._last
        ahead = sequence_distance(int.from_bytes(last[2:4], "big"), int.from_bytes(datagram[2:4], "big"))
        return last[8:12] == datagram[8:12] and -_BEHIND < ahead < _AHEAD

    def admits_dtls(self, now: float) -> bool:
        """Whether a DTLS datagram is within what a caller may send; its content is not known yet."""
        return self._dtls.take(now)
