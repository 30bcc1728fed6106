"""The figures of a run of calls, as values and as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from caller.result import PHASES, Result

__all__ = ["Spread", "Summary", "as_json", "spread", "summarise"]


class Spread(NamedTuple):
    """Nearest-rank percentiles of so many ``samples``, in the samples' own unit (here milliseconds)."""

    samples: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Summary:
    """All calls together. ``setup`` maps each phase, and ``total``, ``channel_open`` and ``session_created``, to
    the spread over the calls that got there; a Spread is None where nothing was measured. ``server_heard`` and
    ``server_made`` are frames as the server counts them."""

    calls: int
    ok: int
    failed: int
    interrupted: int
    setup: dict[str, Spread | None]
    round_trip: Spread | None
    response: Spread | None
    barge_in: Spread | None
    jitter: Spread | None
    longest_gap: Spread | None
    frames_sent: int
    frames_returned: int
    frames_lost: int
    packets_received: int
    packets_lost: int
    packets_duplicate: int
    packets_reordered: int
    packets_rejected: int
    caller_late_ms: float
    server_heard: Counter[str]
    server_made: Counter[str]

    @property
    def loss_percent(self) -> float | None:
        """The share of the packets that the server sent and that never came."""
        expected = self.packets_received + self.packets_lost
        return 100 * self.packets_lost / expected if expected else None


def spread(samples: Iterable[float]) -> Spread | None:
    """The percentiles of ``samples``; None where there are none."""
    values = np.fromiter(samples, np.float64)
    if not len(values):
        return None
    p50, p99 = np.quantile(values, [0.5, 0.99], method="inverted_cdf").tolist()
    return Spread(len(values), p50, p99, float(values.max()))


def summarise(results: Sequence[Result], caller_late_ms: float = 0.0, *, recent: int = 0) -> Summary:
    """The figures of all calls. With ``recent``, only the last so many audio samples of each call count."""
    outcomes = Counter(result.outcome for result in results)
    lasting = {name: [p.end_ms - p.start_ms for r in results for p in r.phases if p.name == name] for name in PHASES}
    return Summary(
        calls=len(results),
        ok=outcomes["ok"],
        failed=outcomes["failed"],
        interrupted=outcomes["interrupted"],
        setup={
            **{name: spread(values) for name, values in lasting.items()},
            "total": spread(_known(r.setup_ms for r in results)),
            "channel_open": spread(_known(r.channel_open_ms for r in results)),
            "session_created": spread(_known(r.session_created_ms for r in results)),
        },
        round_trip=spread(sample for r in results for sample in r.round_trip_ms[-recent:]),
        response=spread(sample for r in results for sample in r.response_ms[-recent:]),
        barge_in=spread(sample for r in results for sample in r.barge_in_ms[-recent:]),
        jitter=spread(_known(r.jitter_ms for r in results)),
        longest_gap=spread(_known(r.longest_gap_ms for r in results)),
        frames_sent=sum(r.frames_sent for r in results),
        frames_returned=sum(r.frames_returned for r in results),
        frames_lost=sum(r.frames_lost for r in results),
        packets_received=sum(r.packets_received for r in results),
        packets_lost=sum(r.packets_lost for r in results),
        packets_duplicate=sum(r.packets_duplicate for r in results),
        packets_reordered=sum(r.packets_reordered for r in results),
        packets_rejected=sum(r.packets_rejected for r in results),
        caller_late_ms=caller_late_ms,
        server_heard=_counted(results, "heard"),
        server_made=_counted(results, "made"),
    )


def as_json(url: str, summary: Summary, results: Sequence[Result]) -> dict[str, Any]:
    """The JSON that ``--json`` prints: milliseconds rounded to microseconds, null where nothing was measured."""
    return {
        "url": url,
        "calls": {
            "placed": summary.calls,
            "ok": summary.ok,
            "failed": summary.failed,
            "interrupted": summary.interrupted,
        },
        "setup_ms": {name: _spread_json(value) for name, value in summary.setup.items()},
        "audio": {
            "round_trip_ms": _spread_json(summary.round_trip),
            "response_ms": _spread_json(summary.response),
            "barge_in_ms": _spread_json(summary.barge_in),
            "jitter_ms": _spread_json(summary.jitter),
            "longest_gap_ms": _spread_json(summary.longest_gap),
            "loss_percent": _rounded(summary.loss_percent),
            "packets": {
                "received": summary.packets_received,
                "lost": summary.packets_lost,
                "duplicate": summary.packets_duplicate,
                "reordered": summary.packets_reordered,
                "rejected": summary.packets_rejected,
            },
            "frames": {
                "sent": summary.frames_sent,
                "returned": summary.frames_returned,
                "lost": summary.frames_lost,
            },
        },
        "caller_late_ms": _rounded(summary.caller_late_ms),
        "server": {"heard": dict(summary.server_heard), "made": dict(summary.server_made)},
        "per_call": [_call_json(result) for result in results],
    }


def _call_json(result: Result) -> dict[str, Any]:
    return {
        "call": result.number,
        "call_id": result.call_id,
        "outcome": result.outcome,
        "failed_phase": result.failed_phase,
        "error": result.error,
        "phases_ms": {p.name: [_rounded(p.start_ms), _rounded(p.end_ms)] for p in result.phases},
        "channel_open_ms": _rounded(result.channel_open_ms),
        "session_created_ms": _rounded(result.session_created_ms),
        "ice_round_trip_ms": _rounded(result.ice_round_trip_ms),
        "round_trip_ms": _spread_json(spread(result.round_trip_ms)),
        "response_ms": _spread_json(spread(result.response_ms)),
        "barge_in_ms": _spread_json(spread(result.barge_in_ms)),
        "server": result.told,
        "jitter_ms": _rounded(result.jitter_ms),
        "longest_gap_ms": _rounded(result.longest_gap_ms),
        "keys_told": result.keys_told,
        "words": [{"by": who, "text": text} for who, text in result.words],
        "packets": {
            "received": result.packets_received,
            "lost": result.packets_lost,
            "duplicate": result.packets_duplicate,
            "reordered": result.packets_reordered,
            "rejected": result.packets_rejected,
        },
        "frames": {
            "sent": result.frames_sent,
            "returned": result.frames_returned,
            "lost": result.frames_lost,
        },
    }


def _counted(results: Sequence[Result], what: str) -> Counter[str]:
    total = Counter[str]()
    for result in results:
        told = (result.told or {}).get(what)
        total.update({str(k): n for k, n in told.items() if isinstance(n, int)} if isinstance(told, dict) else {})
    return total


def _spread_json(value: Spread | None) -> dict[str, float | None] | None:
    return None if value is None else {name: _rounded(figure) for name, figure in value._asdict().items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _known(values: Iterable[float | None]) -> Iterable[float]:
    return (value for value in values if value is not None)
