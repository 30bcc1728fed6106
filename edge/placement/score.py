"""The score of a transceiver for a call: the milliseconds until its caller hears the first sound, as far as the
transceiver decides about them, and what a policy adds. Everything here works on numbers and on columns of them.

What the figures are made of:

- Round trips between edge and transceiver. Setup takes 3.5 from the offer to the first sound (186 ms at 50 ms, of which
  some 11 ms are work), one more asks whether the transceiver lives, and one carries the first words and their answer.
- The agent. The report's median from the end of a turn to the first sound, longer by what waits there already.
- The loop. Setup alone takes 7.3 ms; beside 50 calls, which take 0.43 of a core, it takes 12.6 ms: as much as a queue
  with one server makes of it, ``7.3 / (1 - busy)``. At its capacity a transceiver's core is busy to 0.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["FRAME_MS", "POLICIES", "ROUND_TRIPS", "Policy", "agent_ms", "load_ms", "network_ms"]

ROUND_TRIPS = 5.5
FRAME_MS = 20.0
_WORK_MS = 7.3
_BUSY_WHEN_FULL = 0.9
_TURNS_AT_ONCE = 8.0  # a queue as long as this doubles an agent's time: reports do not say how many it serves at once

Value = TypeVar("Value", float, npt.NDArray[np.float32])


@dataclass(frozen=True, slots=True)
class Policy:
    """A way of placing. Transceivers that are within ``alike_ms`` of the best, their load left aside, are alike: so
    many ``draws`` are made among them, and the best of these is taken. There an empty transceiver is worth
    ``spread_ms`` more than a full one, or less where it is negative."""

    name: str
    alike_ms: float
    spread_ms: float = 0.0
    draws: int = 2


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("latency", FRAME_MS),  # nobody hears the difference of one frame
        Policy("spread", 5 * FRAME_MS, 1000.0),
        Policy("pack", 5 * FRAME_MS, -1000.0, draws=6),
    )
}


def network_ms(round_trip_ms: Value) -> Value:
    """The time that the way between edge and transceiver takes until the first sound."""
    return round_trip_ms * ROUND_TRIPS


def agent_ms(latency_ms: Value, queue: Value) -> Value:
    """The time that the agent takes, where ``queue`` turns wait already."""
    return latency_ms * (1 + queue / _TURNS_AT_ONCE)


def load_ms(used: Value, policy: Policy) -> Value:
    """The time that a transceiver takes of which ``used`` (0 to 1) of its capacity is taken, with what the policy adds
    for that."""
    return _WORK_MS / (1 - _BUSY_WHEN_FULL * used) + policy.spread_ms * used
