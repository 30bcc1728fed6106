"""The controlling side of ICE towards one candidate (RFC 8445), sans-I/O: datagrams in, datagrams out.

Where there is one candidate pair, its first check nominates it; ``rtc/ice/checklist.py`` has several. Each check is a
transaction of its own, so that the response tells exactly which one it answers and the round trip is never guessed.
Time is an argument.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from wire import stun

__all__ = ["CONSENT_EVERY_S", "CONSENT_LOST_S", "Controlling", "Credentials"]

# RFC 8445 allows 50 ms between checks to one candidate; doubling spares a server that is really not there.
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.6
# libwebrtc checks a stable path this often; RFC 7675 ends consent 30 s after the last valid response.
CONSENT_EVERY_S = 2.5
CONSENT_LOST_S = 30.0
_MAX_PENDING = 16


class Credentials(NamedTuple):
    """The ICE credentials of both sides, as they stand in the SDP."""

    local_ufrag: str
    local_password: str
    remote_ufrag: str
    remote_password: str


class Controlling:
    """The controlling side of one pair. ``poll`` and ``receive`` are called with a
    monotonic time in seconds. Checks have USE-CANDIDATE while ``nominate`` says so; once one was answered they are
    ``every_s`` apart, and ``answers`` counts those that were."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        nominate: bool = True,
        tie_breaker: int | None = None,
    ) -> None:
        local_ufrag, local_password, remote_ufrag, remote_password = credentials
        self._local_ufrag = local_ufrag.encode()
        self._local_key = local_password.encode()
        # The receiver's ufrag stands first (RFC 8445 section 7.2.2).
        self._username = f"{remote_ufrag}:{local_ufrag}".encode()
        self._remote_key = remote_password.encode()
        self._tie_breaker = secrets.randbits(64) if tie_breaker is None else tie_breaker
        self.nominate = nominate
        self.every_s = CONSENT_EVERY_S
        self.answers = 0
        self._pending: dict[bytes, float] = {}
        self._due = float("-inf")
        self._wait = _FIRST_WAIT_S
        self._proved = 0.0
        self.sent = 0
        self.connected_at: float | None = None
        self.round_trip_ms: float | None = None

    def poll(self, now: float) -> tuple[bytes | None, float]:
        """The check to send now, if one is due, and the time at which to ask again."""
        if now < self._due:
            return None, self._due
        if self.connected_at is None:
            # The first is due whenever the caller begins; the others at 50, 150, 350 ms and so on.
            self._due = now + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT_S)
        else:
            self._due = now + self.every_s
        transaction = secrets.token_bytes(12)
        if len(self._pending) >= _MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[transaction] = now
        self.sent += 1
        check = stun.binding_request(
            self._username,
            self._remote_key,
            tie_breaker=self._tie_breaker,
            nominate=self.nominate,
            transaction=transaction,
        )
        return check, self._due

    def hurry(self, now: float) -> None:
        """Makes the next check due now."""
        self._due = min(self._due, now)

    def receive(self, datagram: bytes, source: bytes, now: float) -> bytes | None:
        """Takes a STUN message from the 18 byte address ``source``. Returns the response to send, if the message was a
        check.

        What does not carry a valid MESSAGE-INTEGRITY changes nothing and is not answered.
        """
        message = stun.parse(datagram)
        if message is None:
            return None
        if message.kind == stun.BINDING_RESPONSE:
            self._responded(message, now)
        elif (
            message.kind == stun.BINDING_REQUEST
            and stun.server_ufrag(message) == self._local_ufrag
            and stun.integrity_is_valid(message, self._local_key)
        ):
            return stun.binding_response(message, source, self._local_key)
        return None

    def consent_lost(self, now: float) -> bool:
        """Whether the path was good once and no check has been answered for 30 s (RFC 7675)."""
        return self.connected_at is not None and now - self._proved > CONSENT_LOST_S

    def _responded(self, message: stun.Message, now: float) -> None:
        asked = self._pending.get(message.transaction)
        if asked is None or not stun.integrity_is_valid(message, self._remote_key):
            return
        self._pending.clear()
        self._proved = now
        self.answers += 1
        self.round_trip_ms = (now - asked) * 1000
        if self.connected_at is None:
            self.connected_at = now
            self._due = now + self.every_s
