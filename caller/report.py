"""The report of calls for a person: a live table while they last, a waterfall of one setup, the figures at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from caller.figures import Spread, Summary, summarise
from caller.result import PHASES, Result
from rtc.frame import FRAME_MS, FRAMES_PER_S

__all__ = ["live", "summary_table", "waterfall"]

LABELS = {
    "waiting": "waiting",
    "signaling": "signaling",
    "ice": "ICE",
    "dtls": "DTLS",
    "first_audio": "first audio",
    "talk": "talking",
    "hangup": "hanging up",
    "ok": "done",
    "failed": "failed",
    "interrupted": "interrupted",
}
_COLOURS = ("cyan", "blue", "magenta", "green", "yellow", "white")
_BAR_WIDTH = 48
_SHOWN_ERRORS = 8
# Past one frame's time the caller, not the server, is what the figures show.
_LATE_MS = float(FRAME_MS)


def waterfall(phases: Sequence[tuple[str, float, float]]) -> RenderableType:
    """A bar for each (name, start_ms, end_ms), drawn from where it starts to where it ends, with its length."""
    grid = Table.grid(padding=(0, 1))
    total = max((end for _, _, end in phases), default=0.0) or 1.0
    for (name, start, end), colour in zip(phases, cycle(_COLOURS), strict=False):
        grid.add_row(
            Text(LABELS.get(name, name), style=colour),
            Bar(total, start, end, width=_BAR_WIDTH, color=colour),
            Text(f"{end - start:.1f} ms", justify="right"),
            Text(f"at {end:.1f}", style="dim", justify="right"),
        )
    return grid


def live(results: Sequence[Result], states: Sequence[str], talk_s: float) -> RenderableType:
    """The table that is shown while calls last: how many are in which phase, what they measured, and the bar."""
    summary = summarise(results, recent=100)
    counts = Counter(states)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "calls now", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for state, label in LABELS.items():
        if state in PHASES or counts[state]:
            row = summary.setup.get(state)
            number = Text(str(counts[state] or ""), style="red" if state == "failed" else "")
            table.add_row(label, number, *_figures(row)[:2])
    for label, row in (
        ("audio round trip", summary.round_trip),
        ("response time", summary.response),
        ("barge-in", summary.barge_in),
    ):
        if row is not None:
            table.add_row(label, "", *_figures(row)[:2])
    frames = max(1.0, talk_s * FRAMES_PER_S)
    over = ("ok", "failed", "interrupted")
    done = sum(
        1.0 if state in over else min(1.0, result.frames_sent / frames)
        for result, state in zip(results, states, strict=True)
    )
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=len(results), completed=done, width=_BAR_WIDTH), f"{100 * done / len(results):.0f} %")
    return Group(table, Text(_audio(summary, over=False)), bar)


def summary_table(summary: Summary, results: Sequence[Result]) -> RenderableType:
    """The table that is printed at the end."""
    parts: list[RenderableType] = []
    if len(results) == 1 and results[0].phases:
        only = results[0]
        channel = [
            (name, only.phases[-1].start_ms, at)
            for name, at in (("channel open", only.channel_open_ms), ("session.created", only.session_created_ms))
            if at is not None
        ]
        parts += [waterfall([*only.phases, *channel]), Text()]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "p50 ms", "p99 ms", "max ms", "of"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = [
        *((LABELS[name], summary.setup[name]) for name in PHASES),
        ("setup in all", summary.setup["total"]),
        ("session.created", summary.setup["session_created"]),
        ("audio round trip", summary.round_trip),
        ("response time", summary.response),
        ("barge-in", summary.barge_in),
        ("jitter", summary.jitter),
        ("longest gap", summary.longest_gap),
    ]
    for label, row in rows:
        if row is not None:
            table.add_row(label, *_figures(row), str(row.samples))
    if table.row_count:
        parts += [table, Text()]
    if summary.frames_sent:
        parts.append(Text(_audio(summary, over=True)))
    if any(result.keys_told for result in results):
        parts.append(Text("keys that the server told of: " + " ".join(result.keys_told or "-" for result in results)))
    if len(results) == 1:
        parts += [Text(f"{who}: {text}") for who, text in results[0].words if text]
    if summary.server_heard:
        parts.append(Text(_server(summary)))
    verdict = f"{summary.ok} of {summary.calls} calls good"
    if summary.failed:
        verdict += f", {summary.failed} failed"
    if summary.interrupted:
        verdict += f", {summary.interrupted} interrupted"
    parts.append(Text(verdict, style="bold red" if summary.failed else "bold green"))
    parts += _errors(results)
    if summary.caller_late_ms > _LATE_MS:
        late = f"The caller itself was up to {summary.caller_late_ms:.0f} ms late: place fewer calls from here."
        parts.append(Text(late, style="yellow"))
    return Group(*parts)


def _errors(results: Sequence[Result]) -> list[RenderableType]:
    said = Counter((r.failed_phase or "", r.error or "") for r in results if r.outcome == "failed")
    lines: list[RenderableType] = [
        Text(f"{f'{count} x ' if count > 1 else ''}{LABELS.get(phase, phase)}: {error}", style="red")
        for (phase, error), count in said.most_common(_SHOWN_ERRORS)
    ]
    if len(said) > _SHOWN_ERRORS:
        lines.append(Text(f"and {len(said) - _SHOWN_ERRORS} other reasons (--json has them all)", style="red"))
    return lines


def _audio(summary: Summary, *, over: bool) -> str:
    if summary.loss_percent is None:
        return f"audio: {summary.frames_sent} frames sent, none received"
    text = f"audio: {summary.packets_received} packets received, {summary.loss_percent:.2f} % lost"
    if summary.round_trip is not None:
        text += f"; {summary.frames_returned} of our {summary.frames_sent} frames came back"
        # While calls last, what is missing is on its way.
        text += f", {summary.frames_lost} were lost" if over else ""
    if summary.packets_rejected:
        text += f"; {summary.packets_rejected} did not authenticate or were replays"
    return text


def _server(summary: Summary) -> str:
    heard = ", ".join(f"{count} {outcome}" for outcome, count in summary.server_heard.most_common())
    return f"server: of our voice {heard}; of its own {summary.server_made['late']} frames late"


def _figures(row: Spread | None) -> tuple[str, str, str]:
    return ("", "", "") if row is None else (f"{row.p50:.1f}", f"{row.p99:.1f}", f"{row.max:.1f}")
