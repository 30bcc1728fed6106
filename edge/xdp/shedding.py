"""The controller of early drop: it sets how much XDP drops before an overloaded core, so that what the core handles is
in time.

A core that is offered more than its worker can read does worse than it could: the kernel goes on bringing datagrams,
3 to 5 us each, into a socket that is full, and takes that time from the worker (Mogul and Ramakrishnan, "Eliminating
receive livelock in an interrupt-driven kernel", 1997). Dropped in XDP, a datagram costs a tenth of a microsecond, and
not on that core.

Who is not in a call yet goes first (``StrangersController``): their checks come again, and a call's frames do not. They
are shed from half the delay on that media is, at once and by far, and come back over a second. So while live calls
alone fit the core, however much strangers send, the delay stays where media's controller finds nothing to do.

That ``Controller``, of media, is PIE (RFC 8033): a probability that follows the queueing delay (section 4.2), here the
age of the oldest datagram that is read (section 4.3), and that leaves bursts alone (section 4.4). Three things are not
as there, because those who send media do not slow down as TCP does, and because a caller hears a second of it:

- PIE takes smaller steps while the probability is small, as TCP's answer asks. Media does not answer: the queue grows
  with the share that is kept, and at balance that is one over the load. So a step is a part of what is kept, which
  moves the queue alike at any load, and needs no table.
- ``ALPHA`` and ``BETA`` are ten times RFC 8033's (section 4.2: 0.125 and 1.25 Hz every 15 ms, so 8.3 a second squared
  and 1.25 a second). With s for frequency the loop is (BETA s + ALPHA) / s^2 behind a dead time of about 25 ms, the
  delay itself and an interval: damped by BETA / (2 sqrt(ALPHA)) = 0.84, with a phase margin of about 50 degrees. From
  the first datagram too many, balance is reached in half a second.
- A burst is forgiven as a leaky bucket forgives: time over the target is taken from ``BURST_S``, time below it is given
  back. Section 4.4 gives all back at once when the queue is short, and a core whose worker and kernel take turns has a
  short queue again and again.

``TARGET_S`` is 12 ms where RFC 8033 has 15: less than the 40 ms that the socket holds, more than the 8 ms that a
worker's own round takes when it is busy.
"""

from __future__ import annotations

import math

__all__ = ["ABSURD_S", "BURST_S", "INTERVAL_S", "TARGET_S", "Controller", "StrangersController"]

TARGET_S = 0.012  # QDELAY_REF
INTERVAL_S = 0.01  # T_UPDATE; so often the kernel's map is written, at most
ALPHA, BETA = 80.0, 15.0  # 1/s^2 and 1/s
# MAX_BURST, as RFC 8033 has it. What a core at 70 % that stood still for 50 ms has to catch up is done after 120.
BURST_S = 0.15
# Under an overload the socket's buffer holds a tenth of a second at most. This is a clock that was set, or what lay
# there while nobody read.
ABSURD_S = 1.0
# What a pause between two updates counts for, at most: a worker that stood still learned nothing meanwhile.
_LONGEST_S = 2 * INTERVAL_S
# Some always comes through: without it there would be no delay to see.
_LEAST_KEPT = 0.01
_ALL_KEPT = 0.999  # from here on the rest is not worth a random number


class Controller:
    """The controller of media. ``probability`` is the share of its media that the core should not get now."""

    def __init__(self) -> None:
        self.probability = 0.0
        self._kept = 1.0
        self._delay_s = 0.0
        self._patience_s = BURST_S
        self._updated = -math.inf

    def due(self, now: float) -> bool:
        """Whether it is time for an update; ``now`` is in seconds of a clock that never jumps."""
        return now - self._updated >= INTERVAL_S

    def update(self, delay_s: float, now: float) -> float:
        """Takes in the queueing delay, 0 where nothing waited, and returns the probability.

        A delay that is negative or longer than ``ABSURD_S`` says nothing, and changes nothing.
        """
        if not 0.0 <= delay_s < ABSURD_S:
            return self.probability
        elapsed_s = min(now - self._updated, _LONGEST_S)
        before_s = self._delay_s
        self._updated, self._delay_s = now, delay_s
        if self._kept == 1.0:
            if delay_s < TARGET_S:
                self._patience_s = min(BURST_S, self._patience_s + elapsed_s)
                return self.probability
            self._patience_s -= elapsed_s
            if self._patience_s > 0:
                return self.probability
            before_s = TARGET_S  # what came of it while nothing was done about it is to be made up for
        step = ALPHA * elapsed_s * (delay_s - TARGET_S) + BETA * (delay_s - before_s)
        kept = max(_LEAST_KEPT, self._kept * math.exp(-step))
        self._kept = kept if kept < _ALL_KEPT else 1.0
        self.probability = 1.0 - self._kept
        return self.probability


# Beyond this delay strangers are shed: where media does not feel it yet.
_STRANGERS_TARGET_S = TARGET_S / 2
# What is forgiven: a round or two of a worker that had to wait for its core.
_STRANGERS_BURST_S = 0.03
# At the target their share falls by e in 20 ms, and faster with more delay; without delay it grows by e in 300 ms.
_STRANGERS_FALL_HZ, _STRANGERS_RISE_HZ = 50.0, 1 / 0.3


class StrangersController:
    """The controller of strangers. ``probability`` is the share of their packets that the core should not get now."""

    def __init__(self) -> None:
        self._kept = 1.0
        self._patience_s = _STRANGERS_BURST_S
        self._updated = -math.inf

    @property
    def probability(self) -> float:
        return 1.0 - self._kept

    def update(self, delay_s: float, now: float) -> float:
        """Works as ``Controller.update``; call it together with that."""
        if not 0.0 <= delay_s < ABSURD_S:
            return self.probability
        pause_s = min(now - self._updated, ABSURD_S)
        elapsed_s = min(pause_s, _LONGEST_S)
        self._updated = now
        if delay_s < _STRANGERS_TARGET_S:
            # All of the pause: a worker that nobody sends anything looks once a second.
            self._patience_s = min(_STRANGERS_BURST_S, self._patience_s + pause_s)
            self._kept = min(1.0, self._kept * math.exp(pause_s * _STRANGERS_RISE_HZ))
        elif self._kept == 1.0 and self._patience_s > 0:
            self._patience_s -= elapsed_s
        else:
            falls = elapsed_s * _STRANGERS_FALL_HZ * delay_s / _STRANGERS_TARGET_S
            self._kept = max(_LEAST_KEPT, self._kept * math.exp(-falls))
        return self.probability
