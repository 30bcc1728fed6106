"""The reader of pressed keys: telephone-events (RFC 4733) become one digit a press. Pure.

A press is a series of packets that all carry the timestamp at which it began. Their duration grows, and the last is
sent three times. Any one of them tells of the press, and the first that comes is taken, whether the others are lost,
late or repeated. Two presses differ by their timestamps. Some gateways give one timestamp to all that is dialled: those
presses differ by their keys, and presses of one key by a beginning that was sent after an end.
"""

from __future__ import annotations

from collections.abc import Iterator

from rtc.rtp.packet import Packet
from rtc.rtp.state import KeypadState

__all__ = ["DIGITS", "Keypad", "events"]

DIGITS = "0123456789*#ABCD"  # by their codes (RFC 4733 section 3.2); what comes after are no keys

_EVENT_BYTES = 4
_MOST_EVENTS = 4  # in one packet
_KNOWN = 16  # presses, that what comes late is compared with
_LONGEST = 0xFFFF  # of what one timestamp can tell
# A longer press goes on under another timestamp. RFC 4733 (section 2.5.1.3) wants it right behind the first; libwebrtc
# takes that of the packet in which it notices, and may say of both parts that they have ended.
_SLACK = 0x1000
_PER_S, _AT_ONCE = 20.0, 16.0  # presses: a key and the pause after it take 80 ms and more (ITU-T Q.24)


def events(payload: bytes) -> list[tuple[int, bool, int]] | None:
    """(code, whether it has ended, duration in RTP clock units) of each event in a payload, or None where the payload
    is malformed. There may be several, one right after the other (RFC 4733 section 2.5.1.5)."""
    count, rest = divmod(len(payload), _EVENT_BYTES)
    if rest or not 1 <= count <= _MOST_EVENTS:
        return None
    fields = (payload[at : at + _EVENT_BYTES] for at in range(0, len(payload), _EVENT_BYTES))
    return [(field[0], field[1] > 127, int.from_bytes(field[2:], "big")) for field in fields]


class Keypad:
    """The keys of one caller. ``refused`` counts presses that came faster than anybody can press."""

    def __init__(self) -> None:
        self.refused = 0
        # By timestamp and code: whether it has ended, and its newest sequence number. The newest press is the last.
        self._presses: dict[tuple[int, int], tuple[bool, int]] = {}
        self._allowed = _AT_ONCE
        self._at = 0.0

    def take(self, packet: Packet, now: float) -> Iterator[str]:
        """The digits that ``packet``, which came at ``now`` in seconds, is the first to report; none where it is
        malformed."""
        timestamp, marker = packet.timestamp, packet.marker
        for code, ended, duration in events(packet.payload) or ():
            over = ended and duration < _LONGEST
            if (
                self._begins(timestamp, code, over, marker, packet.sequence)
                and code < len(DIGITS)
                and self._allows(now)
            ):
                yield DIGITS[code]
            timestamp, marker = (timestamp + duration) & 0xFFFFFFFF, True

    def _begins(self, timestamp: int, code: int, over: bool, marker: bool, sequence: int) -> bool:
        presses = self._presses
        known = presses.get((timestamp, code))
        if known is not None:
            ended, newest = known
            newer = 0 < (sequence - newest) & 0xFFFF < 0x8000
            again = newer and not over and ended
            presses[timestamp, code] = over or (ended and not again), sequence if newer else newest
            return again
        goes_on = not marker and any(
            code == other and not ended and _LONGEST <= (timestamp - began) & 0xFFFFFFFF <= _LONGEST + _SLACK
            for (began, other), (ended, _) in presses.items()
        )
        presses[timestamp, code] = over, sequence
        if len(presses) > _KNOWN:
            del presses[next(iter(presses))]
        return not goes_on

    def _allows(self, now: float) -> bool:
        self._allowed = min(self._allowed + (now - self._at) * _PER_S, _AT_ONCE)
        self._at = now
        if self._allowed < 1:
            self.refused += 1
            return False
        self._allowed -= 1
        return True

    # --- as a value

    def export(self, now: float) -> KeypadState:
        """All of it."""
        presses = [(*which, *what) for which, what in self._presses.items()]
        return KeypadState(presses, self._allowed, now - self._at)

    def take_up(self, state: KeypadState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self._presses = {
            (timestamp, code): (ended, newest) for timestamp, code, ended, newest in state.presses[-_KNOWN:]
        }
        self._allowed, self._at = min(state.allowed, _AT_ONCE), now - state.age_s
