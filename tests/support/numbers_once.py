"""A record of every datagram that a session sent, and the proof that no number was used twice with one key."""

from __future__ import annotations

from rtc.dtls import records
from rtc.dtls.srtp import PROFILES
from rtc.rtp import packet as rtp

_ROLL_OVER = 1 << 16


class Sent:
    """The datagrams of one session. SRTP by SSRC and extended sequence number, SRTCP by SSRC and index, DTLS records
    of epoch 1 by sequence number, and by the explicit nonce of AES-GCM: each is one datagram, or the same again."""

    def __init__(self, profile: bytes) -> None:
        self._index_at = PROFILES[profile].srtcp_index
        self.known: dict[tuple[object, ...], bytes] = {}
        self._highest: dict[bytes, int] = {}

    def add(self, datagram: bytes) -> None:
        """Takes a datagram. Raises AssertionError where it has a number of another one's."""
        for number, sealed in self._numbers(datagram):
            assert self.known.setdefault(number, sealed) == sealed, f"{number} is used twice"

    def _numbers(self, datagram: bytes) -> list[tuple[tuple[object, ...], bytes]]:
        if 20 <= datagram[0] <= 63:
            found: list[tuple[tuple[object, ...], bytes]] = []
            for header in records.headers(datagram):
                if header.epoch:
                    sealed = datagram[header.start : header.end]
                    at = records.HEADER_BYTES
                    found.append((("dtls", header.sequence), sealed))
                    found.append((("nonce", sealed[at : at + 8]), sealed))
            return found
        if not rtp.is_rtp_or_rtcp(datagram):
            return []
        if rtp.is_rtcp(datagram):
            at = len(datagram) + self._index_at
            index = int.from_bytes(datagram[at : at + 4], "big") & 0x7FFF_FFFF
            return [(("srtcp", datagram[4:8], index), datagram)]
        ssrc, sequence = datagram[8:12], int.from_bytes(datagram[2:4], "big")
        highest = self._highest.get(ssrc, sequence)
        extended = highest + (sequence - highest + _ROLL_OVER // 2) % _ROLL_OVER - _ROLL_OVER // 2
        self._highest[ssrc] = max(extended, highest)
        return [(("srtp", ssrc, extended), datagram)]

    def count(self, kind: str) -> int:
        """How many numbers of that kind were used."""
        return sum(number[0] == kind for number in self.known)
