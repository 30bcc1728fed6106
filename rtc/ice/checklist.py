"""The controlling side of ICE towards several candidates (RFC 8445 section 6.1.2), sans-I/O: a candidate pair for each.

All pairs are checked, the preferred first. The first that answers is selected and nominated, and the others are kept
warm. Where nothing comes over the selected pair any more, all are checked, and the first that answers takes its place.
libwebrtc does the same in about the same time. Time is an argument.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from rtc.ice.controlling import CONSENT_EVERY_S, Controlling, Credentials

__all__ = ["WEAK_AFTER_S", "Checklist"]

# Since anything came over the selected pair: where no media comes, that is the answer to a check of ours. libwebrtc
# takes 2.5 s for silence, and another second until it moves.
WEAK_AFTER_S = CONSENT_EVERY_S + 0.5
_KEEP_WARM_S = 15.0  # RFC 8445 section 11
_PACE_S = 0.05  # between the first checks of two pairs (RFC 8445 section 14.2)
_WEAK_EVERY_S = 0.1


class Checklist:
    """The pairs towards ``remotes``, 18 byte addresses, the preferred first. ``poll`` and ``receive`` are called with a
    monotonic time in seconds."""

    def __init__(self, credentials: Credentials, remotes: Sequence[bytes]) -> None:
        tie_breaker, alone = secrets.randbits(64), len(remotes) == 1
        self._pairs = {remote: Controlling(credentials, nominate=alone, tie_breaker=tie_breaker) for remote in remotes}
        self._begins: dict[bytes, float] = {}
        self._heard = 0.0
        self._weak = False
        self.selected = remotes[0]
        self.connected_at: float | None = None
        self.moves = 0

    @property
    def sent(self) -> int:
        """The number of checks that were sent, over all pairs."""
        return sum(pair.sent for pair in self._pairs.values())

    @property
    def round_trip_ms(self) -> float | None:
        """The round trip of the selected pair, in milliseconds."""
        return self._pairs[self.selected].round_trip_ms

    def poll(self, now: float) -> tuple[list[tuple[bytes, bytes]], float]:
        """The checks to send now, as address and datagram, and the time at which to ask again."""
        if not self._begins:
            self._begins = {remote: now + i * _PACE_S for i, remote in enumerate(self._pairs)}
        self._look(now)
        checks, due = [], float("inf")
        for remote, pair in self._pairs.items():
            if now < self._begins[remote]:
                due = min(due, self._begins[remote])
                continue
            check, next_due = pair.poll(now)
            due = min(due, next_due)
            if check is not None:
                checks.append((remote, check))
        if self.connected_at is not None and not self._weak and len(self._pairs) > 1:
            due = min(due, self._heard + WEAK_AFTER_S)
        return checks, max(due, now)

    def came(self, source: bytes, now: float) -> None:
        """Takes note that something authentic, such as media, came from ``source``."""
        if source == self.selected:
            self._heard = now

    def receive(self, datagram: bytes, source: bytes, now: float) -> bytes | None:
        """Takes a STUN message from ``source``. Returns the response to send there, if the message was a check. What
        comes from elsewhere than the candidates, or is not authentic, changes nothing and is not answered."""
        pair = self._pairs.get(source)
        if pair is None:
            return None
        answers = pair.answers
        response = pair.receive(datagram, source, now)
        if pair.answers != answers:
            self._answered(source, now)
        return response

    def consent_lost(self, now: float) -> bool:
        """Whether a pair was good once and none has been answered for 30 s (RFC 7675)."""
        return self.connected_at is not None and all(
            pair.connected_at is None or pair.consent_lost(now) for pair in self._pairs.values()
        )

    def _answered(self, source: bytes, now: float) -> None:
        if self.connected_at is None:
            self.connected_at = now
            self._select(source, now)
        elif source == self.selected:
            self._heard = now
        elif self._is_weak(now):
            self.moves += 1
            self._select(source, now)

    def _select(self, remote: bytes, now: float) -> None:
        self.selected, self._heard = remote, now
        self._look(now)
        for each, pair in self._pairs.items():
            pair.nominate = each == remote
        if len(self._pairs) > 1:
            self._pairs[remote].hurry(now)  # with USE-CANDIDATE, which its first check had not

    def _is_weak(self, now: float) -> bool:
        return self.connected_at is not None and len(self._pairs) > 1 and now >= self._heard + WEAK_AFTER_S

    def _look(self, now: float) -> None:
        """Sets how often each pair is checked."""
        weak = self._is_weak(now)
        if weak and not self._weak:
            for pair in self._pairs.values():
                pair.hurry(now)
        self._weak = weak
        for remote, pair in self._pairs.items():
            if weak:
                pair.every_s = _WEAK_EVERY_S
            else:
                pair.every_s = CONSENT_EVERY_S if remote == self.selected else _KEEP_WARM_S
