"""The jitter buffer of one audio stream: it takes packets as they come, and says what to play at each tick of the
call's clock.

A packet is due when its timestamp is as old as the quickest packets make it, and a wait on top of that (``Delay``).
The clock asks every 20 ms, so a packet is held for between that wait and 20 ms more. What is not there in time is
recovered or concealed at once, nothing waits for one packet. A packet that comes after all, with nothing played beyond
it, is still played: the delay grows by what was concealed, and shrinks again where leaving a frame out is not heard.

While packets are lost the wait also covers what may bring them back: the next packet with a copy in it (in-band FEC,
RFC 6716 section 2.1.7), or a retransmission (RFC 4585).

Pure: times are seconds of one monotonic clock, lengths RTP clock units (``ticks``).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from rtc.frame import FRAME_MS, frame_samples
from rtc.jitter.delay import LONGEST_MS, Delay, DelayState
from rtc.rtp.packet import Packet

__all__ = [
    "COMFORT",
    "CONCEAL",
    "EXPAND",
    "NOTHING",
    "PLAY",
    "RECOVER",
    "SHORTEN",
    "Came",
    "JitterBuffer",
    "JitterState",
]

# What ``pop`` asks for.
NOTHING = 0  # no packet has come yet
PLAY = 1  # decode ``payload``
SHORTEN = 2  # decode it, and leave it out if nobody speaks in it or ``urgent``
RECOVER = 3  # decode ``ticks`` from the copy in ``payload``, the packet after the lost one
CONCEAL = 4  # invent ``ticks``
EXPAND = 5  # the same, to make the delay longer while nobody speaks
COMFORT = 6  # ``ticks`` of silence, or of the noise that stands for it

_SLACK_MS = 6.0  # the delay may be off by this much before anything is done about it
_URGENT_MS = 40.0
_BETWEEN_URGENT = 5
_MOST_MS = 240  # of audio held; the oldest goes
_MOST_PACKETS = 64
_CONCEALED = 5  # frames in a row, then it is silence
_LOSS_OF = 64  # packets that the running loss is about
_LOSSY, _CLEAN = 0.02, 0.005
_COPIES_FOR = 32
_LONGEST_RETURN_MS = 60.0
_PAUSE_BYTES = 2  # an Opus packet of no more is the encoder's word that it sends nothing now (RFC 7587 section 3.1.3)


class Came:
    """The way in which a packet came."""

    FRESH, COPY, AGAIN = 0, 1, 2


class JitterState(Struct, frozen=True, array_like=True):
    """A jitter buffer as a value. ``held`` has sequence number, unwrapped timestamp, payload and ``Came``; ``payload``
    is what was played last."""

    payload: bytes
    came: int
    dropped: int
    return_ms: float | None
    delay: DelayState
    held: list[tuple[int, int, bytes, int]]
    empty: list[int]
    next: int | None
    position: int
    newest: int
    step: int
    played: bool
    idle: bool
    missed: int
    spare: int
    loss: float
    lossy: bool
    copies: int
    since_urgent: int
    asked_ms: float


class JitterBuffer:
    """``ticks_of`` says how long a payload is, ``recovers`` whether it carries a copy of the packet before it.

    After ``pop``, ``payload``, ``ticks``, ``came`` and ``urgent`` say more about what it returned. ``return_ms`` is how
    long a packet takes that is asked for again, or None where that is not known.
    """

    def __init__(self, clock_hz: int, ticks_of: Callable[[bytes], int], recovers: Callable[[bytes], bool]) -> None:
        self.payload = b""
        self.ticks = frame_samples(clock_hz)
        self.came = Came.FRESH
        self.urgent = False
        self.dropped = 0
        self.return_ms: float | None = None
        self._per_ms = clock_hz / 1000
        self._frame_ticks = self._step = frame_samples(clock_hz)
        self._most_ticks = _MOST_MS * clock_hz // 1000
        self._ticks_of = ticks_of
        self._recovers = recovers
        self._delay = Delay()
        self._held: dict[int, tuple[int, bytes, int]] = {}  # by sequence: unwrapped timestamp, payload, how it came
        self._empty: set[int] = set()  # numbers that carry nothing
        self._next: int | None = None  # sequence number to be played
        self._position = 0  # its unwrapped timestamp, if the sender left nothing out
        self._newest = 0  # unwrapped timestamp of the packet that came last
        self._played = False
        self._idle = True  # nothing is being played, so the next packet waits until it is due
        self._missed = 0
        self._spare = 0  # ticks concealed without knowing whether anything was lost
        self._loss = 0.0
        self._lossy = False
        self._copies = 0  # how many more packets without a copy it takes to believe that there are none
        self._since_urgent = 0
        self._asked_ms = 0.0

    @property
    def wait_ms(self) -> float:
        """The least time that a packet waits after the quickest ones; it waits at most 20 ms more."""
        wait = self._delay.wait_ms
        if self._lossy:
            # What is lost is missed when the next packet comes, and asked for then.
            again = self.return_ms + FRAME_MS + _SLACK_MS if self.return_ms is not None else _LONGEST_RETURN_MS + 1
            if again <= _LONGEST_RETURN_MS:
                wait += again
            elif self._copies:
                wait += FRAME_MS
        return wait if wait < LONGEST_MS else float(LONGEST_MS)

    @property
    def held(self) -> int:
        """How many packets are held; it is bounded, whatever comes."""
        return len(self._held)

    @property
    def lossy(self) -> bool:
        """Whether packets have been lost lately."""
        return self._lossy

    def restart(self) -> None:
        """Tells that another stream begins with the next packet, so that what is held of the old one is dropped."""
        self._held.clear()
        self._empty.clear()
        self._next = None
        self._delay = Delay()
        self._played = False
        self._idle = True

    def until_due_ms(self, sequence: int, now: float) -> float:
        """About how long until that packet is played; negative where it is too late."""
        if self._next is None:
            return -1.0
        ahead = ((sequence - self._next + 0x8000) & 0xFFFF) - 0x8000
        if ahead < 0:
            return -1.0
        asked_ms = self._asked_ms or now * 1000
        return asked_ms + FRAME_MS + ahead * self._step / self._per_ms - now * 1000

    def push(self, packet: Packet, now: float, came: int = Came.FRESH) -> str:
        """Takes a packet that came at ``now``. Returns "" where it is taken, else "late", "duplicate" or "padding".
        Padding is a packet with nothing in it, which bandwidth estimators send; it has a number and takes no time."""
        sequence, timestamp = packet.sequence, packet.timestamp
        if not packet.payload:
            if len(self._empty) >= _MOST_PACKETS:
                self._empty.clear()
            self._empty.add(sequence)
            return "padding"
        if self._next is None:
            self._next = sequence
            self._position = self._newest = timestamp
        newest = self._newest
        timestamp = newest + (((timestamp - newest + 0x80000000) & 0xFFFFFFFF) - 0x80000000)
        if came == Came.FRESH:
            self._newest = timestamp
            self._delay.add(timestamp / self._per_ms, now * 1000)
        held = self._held
        if sequence in held:
            return "duplicate"
        if ((sequence - self._next) & 0xFFFF) >= 0x8000:
            if self._played or came != Came.FRESH:
                return "late"
            # Nothing is played yet: the stream began earlier than we knew.
            self._next, self._position = sequence, timestamp
        held[sequence] = (timestamp, packet.payload, came)
        if len(held) > _MOST_PACKETS or timestamp - self._position > self._most_ticks:
            self._bound(timestamp)
        return ""

    def _bound(self, newest: int) -> None:
        held = self._held
        while len(held) > 1:
            first = self._first()
            timestamp, payload, _ = held[first]
            if len(held) <= _MOST_PACKETS and newest - timestamp <= self._most_ticks:
                break
            del held[first]
            self.dropped += 1
            self._next = (first + 1) & 0xFFFF
            self._position = timestamp + self._ticks_of(payload)

    def _first(self) -> int:
        start = self._next
        assert start is not None
        return min(self._held, key=lambda sequence: (sequence - start) & 0xFFFF)

    def pop(self, now: float, quiet: bool) -> int:
        """The payload to play next. ``quiet`` says that nobody speaks in what was played last."""
        self._asked_ms = now * 1000
        if self._next is None:
            return NOTHING
        self._since_urgent += 1
        if self._empty:
            self._pass_empty(self._next)
        held = self._held
        if not held:
            return self._nothing_there()
        sequence = self._next
        slot = held.get(sequence)
        if slot is None:
            sequence = self._first()
            slot = held[sequence]
        timestamp, payload, came = slot
        # How long it should still wait; negative where it has waited for longer.
        early = self.wait_ms + self._delay.quickest_ms + timestamp / self._per_ms - self._asked_ms
        if self._idle:
            if early > 0:
                self.ticks = self._frame_ticks
                return COMFORT
        elif sequence != self._next:
            if filling := self._fill(sequence, timestamp, payload, early):
                return filling
        elif timestamp > self._position:
            # The sender left something out on purpose.
            if early > 0:
                return self._nothing_there()
        elif quiet and early > _SLACK_MS:
            self.ticks = self._step
            return EXPAND
        return self._play(sequence, timestamp, payload, came, early)

    def _pass_empty(self, sequence: int) -> None:
        while sequence in self._empty:
            self._held.pop(sequence, None)
            self._empty.remove(sequence)
            sequence = (sequence + 1) & 0xFFFF
        self._next = sequence
        # What was passed in another way must not be met again when the numbers have wrapped.
        self._empty = {number for number in self._empty if (number - sequence) & 0xFFFF < 0x8000}

    def _nothing_there(self) -> int:
        self._missed += 1
        if self._idle or self._missed > _CONCEALED:
            self._idle = True
            self.ticks = self._frame_ticks
            return COMFORT
        self.ticks = self._step
        self._spare += self._step
        return CONCEAL

    def _fill(self, sequence: int, timestamp: int, payload: bytes, early: float) -> int:
        """The substitute for a packet before ``sequence``; NOTHING where the time of all of them has passed."""
        assert self._next is not None
        gap, lost = timestamp - self._position, (sequence - self._next) & 0xFFFF
        lost -= sum((number - self._next) & 0xFFFF < lost for number in self._empty)
        has_copy = self._recovers(payload)
        # There are none of silence, and somebody will speak again.
        self._copies = _COPIES_FOR if has_copy else max(self._copies - 1, 0)
        if gap > 0 and self._spare and not (has_copy and lost == 1 and early > _SLACK_MS):
            # Concealed already, before it was known what for.
            covered = min(self._spare, gap)
            self._spare = 0
            gap -= covered
            self._position += covered
            passed = min(covered // self._step, lost - 1)
            self._next = (self._next + passed) & 0xFFFF
            self._lose(passed)
            lost -= passed
        if gap <= 0 or early < -(FRAME_MS + _SLACK_MS):
            self._lose(lost)
            return NOTHING
        self._lose(1)
        if has_copy and lost == 1:
            self.payload = payload
            self.ticks = min(gap, self._ticks_of(payload))
            self._position = timestamp
            self._next = sequence
            return RECOVER
        self.ticks = min(gap, self._step)
        self._position += self.ticks
        self._next = (self._next + 1) & 0xFFFF
        return CONCEAL

    def _play(self, sequence: int, timestamp: int, payload: bytes, came: int, early: float) -> int:
        del self._held[sequence]
        length = self._ticks_of(payload)
        self._next = (sequence + 1) & 0xFFFF
        self._position = timestamp + length
        self._step = min(length, self._frame_ticks) or self._frame_ticks
        self._missed = self._spare = 0
        self._played = True
        self._idle = len(payload) <= _PAUSE_BYTES
        if came == Came.FRESH:
            self._loss -= self._loss / _LOSS_OF
            if self._loss < _CLEAN:
                self._lossy = False
        else:
            # Brought back: if it had not been waited for, it would be lost.
            self._lose(1)
            if came == Came.COPY:
                self._copies = _COPIES_FOR
        self.payload, self.came = payload, came
        over = -early - max(FRAME_MS, length / self._per_ms)
        if over <= _SLACK_MS:
            return PLAY
        self.urgent = over > _URGENT_MS and self._since_urgent > _BETWEEN_URGENT
        if self.urgent:
            self._since_urgent = 0
        return SHORTEN

    def _lose(self, count: int) -> None:
        self._loss = 1 - (1 - self._loss) * (1 - 1 / _LOSS_OF) ** count
        if self._loss > _LOSSY:
            self._lossy = True

    # --- as a value

    def export(self, now: float) -> JitterState:
        """All of it."""
        return JitterState(
            *(self.payload, self.came, self.dropped, self.return_ms, self._delay.export(now * 1000)),
            [(sequence, *slot) for sequence, slot in self._held.items()],
            sorted(self._empty),
            self._next,
            *(self._position, self._newest, self._step),
            *(self._played, self._idle),
            *(self._missed, self._spare),
            *(self._loss, self._lossy),
            *(self._copies, self._since_urgent),
            now * 1000 - self._asked_ms,
        )

    def take_up(self, state: JitterState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self.payload, self.came, self.dropped, self.return_ms = (
            state.payload,
            state.came,
            state.dropped,
            state.return_ms,
        )
        self._delay.take_up(state.delay, now * 1000)
        held = state.held[: _MOST_PACKETS + 1]
        self._held = {sequence: (timestamp, payload, came) for sequence, timestamp, payload, came in held}
        self._empty = set(state.empty[:_MOST_PACKETS])
        self._next, self._position, self._newest, self._step = state.next, state.position, state.newest, state.step
        self._played, self._idle, self._missed, self._spare = state.played, state.idle, state.missed, state.spare
        self._loss, self._lossy, self._copies = state.loss, state.lossy, state.copies
        self._since_urgent, self._asked_ms = state.since_urgent, now * 1000 - state.asked_ms
