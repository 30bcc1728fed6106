"""The result of one call, and the error that ends one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

__all__ = ["PHASES", "CallError", "Outcome", "Phase", "Result"]

# In their order; each begins where the one before it ends, the first with the POST.
PHASES = ("signaling", "ice", "dtls", "first_audio")

Outcome = Literal["ok", "failed", "interrupted"]


class CallError(Exception):
    """The error that ended a call: the ``phase`` that it was in (one of PHASES, ``talk`` or ``hangup``) and one plain
    sentence."""

    def __init__(self, phase: str, sentence: str) -> None:
        super().__init__(sentence)
        self.phase = phase


class Phase(NamedTuple):
    """A stretch of a call's setup, in milliseconds since the POST began."""

    name: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a call. Times are in milliseconds; ``channel_open_ms`` and ``session_created_ms`` count from the
    beginning of the POST, None where it did not happen; ``keys_told`` are the pressed keys that the server told of.
    ``words`` are what it wrote down of the conversation: who said it, "caller" or "agent", and the text. Samples of
    ``round_trip_ms`` are frames that came back, of ``response_ms`` turns answered, of ``barge_in_ms`` turns in which
    the agent was spoken over and fell silent. ``told`` is how the server saw its media, as its event ``firsthop.media``
    has it."""

    number: int
    outcome: Outcome
    failed_phase: str | None = None
    error: str | None = None
    call_id: str | None = None
    phases: tuple[Phase, ...] = ()
    channel_open_ms: float | None = None
    session_created_ms: float | None = None
    ice_round_trip_ms: float | None = None
    frames_sent: int = 0
    frames_returned: int = 0
    frames_lost: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    packets_duplicate: int = 0
    packets_reordered: int = 0
    packets_rejected: int = 0
    jitter_ms: float | None = None
    longest_gap_ms: float | None = None
    told: dict[str, Any] | None = None
    keys_told: str = ""
    words: tuple[tuple[str, str], ...] = ()
    round_trip_ms: Sequence[float] = field(default=(), repr=False)
    response_ms: Sequence[float] = field(default=(), repr=False)
    barge_in_ms: Sequence[float] = field(default=(), repr=False)

    @property
    def setup_ms(self) -> float | None:
        """The time from the POST to the first audio, or None for a call that never got so far."""
        return next((p.end_ms for p in self.phases if p.name == PHASES[-1]), None)
