"""The view of a host for a person: first what is down, then cores, then what became of packets and calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bpf.verdicts import VERDICTS
from firsthop.other_edges import OtherEdge
from firsthop.past_workers import advice
from firsthop.status import ALARMS, Count, Counts, Signaling, Status, Transceiver, total

__all__ = ["cores", "per_second", "since_start", "view"]

_XDP_OFF = "forged packets reach the workers, and the kernel's hash, not the ufrag, chooses the core"
_FRESH_S = 3.0  # in which a store that is there has been read
_KINDS = {verdict.label: verdict.kind for verdict in VERDICTS}


def per_second(count: Count) -> str:
    """A counter's rate, in at most six characters: 0, 0.3, 50, 12.3k."""
    rate = count.per_s
    for unit in ("", "k", "M"):
        if rate < (1000 if unit else 10_000):
            return f"{rate:.1f}{unit}" if unit or 0 < rate < 10 else f"{rate:.0f}"
        rate /= 1000
    return f"{rate:.1f}G"


def since_start(count: Count) -> str:
    """A counter's total."""
    return f"{count.total:,}"


def view(status: Status) -> RenderableType:
    """The whole view, in at most 80 columns where that is possible."""
    parts: list[RenderableType] = []
    for down in status.down:
        head = Text.assemble((f"{down.process} is down", "bold red"), f": {down.what_is_seen}")
        parts += [head, Padding(Text(down.what_to_do), (0, 0, 1, 2))]
    if status.xdp is not None:
        parts += [_headline(status), *_express(status), *_shedding(status), Text(), cores(status, per_second), Text()]
    sections = []
    if status.xdp is not None:
        for kind in ("steered", "passed", "dropped"):
            packets = {v: n for v, n in status.xdp.packets.items() if _KINDS.get(v, "dropped") == kind}
            sections.append(_section(f"XDP {kind}", packets))
        sections.append(_section("workers, from callers", _merged(*(w.received for w in status.workers))))
        sections.append(_section("workers, to callers", _merged(*(w.sent for w in status.workers))))
        sections.append(_section("flows refused", _merged(*(w.flows_refused for w in status.workers))))
    if status.signaling is not None:
        sections.append(_section("signaling, by status", status.signaling.responses))
    parts += _flowing(sections)
    if status.signaling is not None:
        parts += _directory(status.signaling)
        if status.signaling.edges:
            parts += [Padding(_other_edges(status.signaling.edges), (0, 0, 1, 0))]
    if (times := _times(status)) is not None:
        parts.append(times)
    for transceiver in status.transceivers:
        parts += _transceiver(transceiver)
    if status.alarms:
        parts.append(_alarms(status))
    return Group(*parts)


def cores(status: Status, figure: Callable[[Count], str]) -> Table:
    """A row for each core and its worker; ``figure`` is ``per_second`` or ``since_start``."""
    unit = "/s" if figure is per_second else ""
    steering = status.xdp is not None and status.xdp.mode != "off"
    verdicts = [verdict.label for verdict in VERDICTS if verdict.kind == "steered"] if steering else []
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("core", justify="right", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    headings = ["restarts", "flows", *(f"XDP\n{v.removesuffix('_steered')}{unit}" for v in verdicts)]
    for heading in (*headings, f"in{unit}", f"out{unit}", f"drops{unit}"):
        table.add_column(Text(heading, justify="right"), justify="right", no_wrap=True, vertical="bottom")
    for worker in status.workers:
        restarts = Text(str(worker.restarts), style="yellow" if worker.restarts else "dim")
        flows = Text(str(worker.flows), style="" if worker.flows else "dim")
        steered = [_figure(figure, worker.steered.get(v, Count())) for v in verdicts]
        figures: list[Text] = [Text("-", style="dim")] * 3
        if worker.up:
            received, sent = total(worker.received.values()), worker.sent.get("sent", Count())
            figures = [_figure(figure, received), _figure(figure, sent), _figure(figure, worker.dropped, "yellow")]
        name = Text("up" if worker.up else "down", style="green" if worker.up else "bold red")
        if worker.up and worker.slots == 0:
            name = Text("out", style="yellow")  # firsthop cores
        table.add_row(str(worker.cpu), name, restarts, flows, *steered, *figures)
    return table


def _headline(status: Status) -> Text:
    assert status.xdp is not None
    up = sum(worker.up for worker in status.workers)
    counted = f"{up} of {len(status.workers)} workers up; flows: {status.flows}; rates over {status.interval_s:.1f} s"
    if status.xdp.mode == "off":
        return Text.assemble(("XDP off", "bold yellow"), f"; {counted}\n", (f"  {_XDP_OFF}", "yellow"))
    style = "bold green" if status.xdp.mode == "native" else "bold yellow"
    return Text.assemble((f"XDP {status.xdp.mode}", style), f"; {counted}")


def _express(status: Status) -> list[RenderableType]:
    """A line about the transceivers that take media past the workers, and one for each reason why it goes by them."""
    if status.xdp is None or not status.xdp.express:
        return []
    told, fallbacks = status.xdp.express, {why: n for why, n in status.xdp.fallbacks.items() if n.per_s}
    on = ", ".join(number for number, why in told.items() if not why) or "none"
    off = "".join(f"; not {number} ({why})" for number, why in told.items() if why)
    lines: list[RenderableType] = [Text.assemble(("express", "bold"), f" to transceivers: {on}", (off, "yellow"))]
    for why, what in advice(told.values(), fallbacks):
        rate = f" {per_second(fallbacks[why])}/s" if why in fallbacks else ""
        lines.append(Text.assemble((f"  {why}{rate}", "yellow"), f": {what}"))
    return lines


def _shedding(status: Status) -> list[RenderableType]:
    """A line for each core that sheds now."""
    return [
        Text(f"core {worker.cpu} is overloaded: {worker.shedding:.0%} of the media for it is shed", style="bold red")
        for worker in status.workers
        if worker.shedding > 0
    ]


def _directory(signaling: Signaling) -> list[RenderableType]:
    """A line about the store that hosts share, where they do."""
    age_s = signaling.directory_age_s
    if age_s is None:
        return []
    counted = f"; transceivers found: {signaling.found}\n"
    if age_s <= _FRESH_S:
        return [Text.assemble(("directory", "bold"), f" read {age_s:.1f} s ago{counted}")]
    old = f"directory's store is away: what is known is {age_s:.0f} s old"
    return [Text.assemble((old, "bold yellow"), counted)]


def _other_edges(edges: list[OtherEdge]) -> Table:
    """A row for each other edge of the cluster."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("other edge", min_width=21, no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column(Text("heard of", justify="right"), justify="right", no_wrap=True)
    for edge in edges:
        # Away goes before draining: it said that before it fell silent.
        state = Text("away", style="bold red")
        if edge.well:
            state = Text("well", style="green")
        elif edge.draining and edge.age_s is not None and edge.age_s <= _FRESH_S:
            state = Text("drains", style="yellow")
        table.add_row(edge.name, state, "never" if edge.age_s is None else f"{edge.age_s:.1f} s ago")
    return table


def _section(title: str, counts: Mapping[str, Count]) -> RenderableType | None:
    """The counters of one stage; None where nothing was ever counted there."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column(title, min_width=21, no_wrap=True)
    table.add_column(Text("per s", style="dim"), justify="right", min_width=6, no_wrap=True)
    table.add_column(Text("total", style="dim"), justify="right", min_width=8, no_wrap=True)
    for name, count in counts.items():
        if count.total:
            alarm = name in ALARMS or (len(name) == 3 and name.startswith("5"))
            style = ("bold red" if count.per_s else "yellow") if alarm else ""
            figures = (_figure(per_second, count, style), Text(since_start(count), style=style))
            table.add_row(Text(name, style=style or ("" if count.per_s else "dim")), *figures)
    return Padding(table, (0, 0, 1, 0)) if table.row_count else None


def _transceiver(transceiver: Transceiver) -> list[RenderableType]:
    if not transceiver.up:
        return []
    title = Text.assemble((f"transceiver {transceiver.id}", "bold"), f"; sessions: {transceiver.sessions}")
    if transceiver.room:
        full = not any(transceiver.room.values())
        room = ", ".join(f"{count} {agent}" for agent, count in transceiver.room.items() if count) or "nobody"
        title.append(f"; room for {room}", "yellow" if full else "")
        title.append(f"; {transceiver.used:.0%} of {transceiver.limit:.0%} in use", "dim")
    if transceiver.draining:
        drain = transceiver.drain
        title.append(f"; drains: {drain.get('moved', 0)} of {drain.get('all', 0)} calls handed over", "yellow")
    if transceiver.compiled:
        title.append("; compiled", "dim")
    if waits := ", ".join(f"{part} {count}" for part, count in transceiver.engine.items() if count):
        title.append(f"; waits for small models: {waits}")
    title.append("\n")
    sections = [
        _section("frames to agents", transceiver.frames_in),
        _section("frames from agents", transceiver.frames_out),
        _section("datagrams in", transceiver.received),
        _section("datagrams out", transceiver.sent),
        _section("calls ended", transceiver.ended),
    ]
    return [title, *_flowing(sections)]


def _times(status: Status) -> RenderableType | None:
    """The time that datagrams were in each worker, and on its links; None where nothing passed."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("core", "transceiver", "in worker\np50 ms", "\np99 ms", "link and back\np50 ms", "\np99 ms"):
        table.add_column(Text(heading, justify="right"), justify="right", no_wrap=True, vertical="bottom")
    for worker in status.workers:
        # A transceiver's id is a number, an edge of another cluster has a name.
        for transceiver in sorted(
            {*worker.held, *worker.links}, key=lambda name: (not name.isdigit(), len(name), name)
        ):
            times = [worker.held.get(transceiver), worker.links.get(transceiver)]
            figures = [(f"{t.p50_ms:.2f}", f"{t.p99_ms:.2f}") if t else ("-", "-") for t in times]
            table.add_row(str(worker.cpu), transceiver, *figures[0], *figures[1])
    return Padding(table, (0, 0, 1, 0)) if table.row_count else None


def _alarms(status: Status) -> Table:
    """The alarms: red while the cause goes on, yellow where it once did."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for alarm in status.alarms:
        style = "bold red" if alarm.count.per_s else "yellow"
        counted = f"{alarm.counter}: {since_start(alarm.count)}"
        table.add_row(Text(alarm.process, style=style), Text(counted, style=style), alarm.what)
    return table


def _figure(figure: Callable[[Count], str], count: Count, style: str = "") -> Text:
    shown = figure(count)
    return Text(shown, style="dim" if shown == "0" else style)


def _merged(*families: Counts) -> Counts:
    names = dict.fromkeys(name for counts in families for name in counts)
    return {name: total(counts.get(name, Count()) for counts in families) for name in names}


def _flowing(sections: list[RenderableType | None]) -> list[RenderableType]:
    """Blocks side by side, where the terminal is wide enough."""
    there = [section for section in sections if section is not None]
    return [Columns(there, padding=(0, 2), equal=True)] if there else []
