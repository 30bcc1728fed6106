"""The state of a host, worked out of two scrapes of its processes: what is up, totals, and rates between the two.

Pure: ``status_cli`` fetches the scrapes, ``status_view`` draws the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from firsthop.other_edges import OtherEdge, other_edges
from runtime.percentiles import Latency, between

__all__ = [
    "ALARMS",
    "Alarm",
    "Count",
    "Counts",
    "Down",
    "Scrape",
    "Signaling",
    "Status",
    "Transceiver",
    "Worker",
    "Xdp",
    "compare",
    "read",
    "total",
    "worker_cpus",
]

# Counters that stand still on a healthy host, and what it means when they do not. Refused strangers are not here:
# on a public port they are weather.
ALARMS = {
    "link_down": "a transceiver is away, and what its callers sent was dropped",
    "link_full": "a transceiver is too slow or stands still, and the oldest of what its callers sent was dropped",
    "buffer_full": "a worker does not keep up with its socket: take calls off its core with firsthop cores",
    "socket_full": "a core or its network cannot keep up with what it should send to callers",
    "table_full": "a worker knows as many flows as it can: new calls lose their audio",
    "kernel_map_full": "the kernel knows as many flows as it can: raise edge.flow_entries",
    "no_core": "XDP chose a core that has no worker: start the edge again",
    "core_overloaded": "a core had more media than it could do, some was shed: take calls off it with firsthop cores",
    "stranger_shed": "a core had more to do than it could, new calls wait for it: take it out with firsthop cores",
    "flow_limited": "a caller sent more than any call has a use for (edge.flow_rate), and lost what was over it",
    "express_full": "a transceiver does not keep up with what XDP brings it past the workers: give it another core",
    "queue_full": "a core does not keep up with what XDP sends it: take calls off it with firsthop cores",
    "edge_gone": "a transceiver had audio for a worker that is no longer linked",
    "edge_full": "a worker does not keep up with what a transceiver sends it",
    "other_version": "an edge and a transceiver speak other versions of the wire: upgrade the older one",
    "name_taken": "two edges have one name, and the second is refused: give each edge.name of its own",
    "failed": "a transceiver failed at what an edge asked: the traceback is in the transceiver's log",
    "overflow": "a session could not take what it was given, audio was dropped",
    "agent_failed": "an agent raised an exception: its traceback is in the transceiver's log",
    "session_failed": "a session raised an exception: its traceback is in the transceiver's log",
    "overloaded": "a transceiver could not serve all of its calls in time, and ended the newest: give it another core",
    "dtls_failed": "a caller's DTLS handshake failed: the reason is in the transceiver's log",
}


_EXPRESS = "firsthop_edge_express"


@dataclass(frozen=True, slots=True)
class Scrape:
    """The content of one ``/metrics``, read at ``at_s`` of a monotonic clock: (name, label values in the order of the
    labels' names) to value."""

    at_s: float
    samples: Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Count:
    """A counter: ``total`` since its process started, and its rate over the interval."""

    total: int = 0
    per_s: float = 0.0


Counts = dict[str, Count]
"""Counters of one family by outcome, verdict, status or reason."""


@dataclass(frozen=True, slots=True)
class Down:
    """A process that should answer at ``address`` and does not, or XDP, which should be on that interface;
    ``what_is_seen`` is half a sentence."""

    process: str
    address: str
    what_to_do: str
    what_is_seen: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """A counter of ``ALARMS``, or ``restarts``, that has moved; ``what`` is for the person who must act."""

    process: str
    counter: str
    count: Count
    what: str


@dataclass(frozen=True, slots=True)
class Xdp:
    """The state of XDP. ``mode`` is native, generic or off; ``flows`` are those in the kernel's table; ``packets`` are
    by verdict. ``express`` has the transceivers by id: those that take media themselves with an empty text, others with
    the reason, in a word, why they do not. ``fallbacks`` are packets that went by a worker all the same, by why."""

    mode: str
    flows: int
    packets: Counts
    express: dict[str, str] = field(default_factory=dict)
    fallbacks: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Worker:
    """The state of a worker. ``steered`` is what XDP sent to its core, by verdict; ``received`` and ``sent`` are by
    outcome; ``slots`` is its core's share of new calls in 1/256: 0 where it is out, None without XDP. ``shedding`` is
    the share of its media that XDP drops now because it is behind. ``dropped`` is what of both was lost, what XDP shed,
    and what its socket had no room for. By transceiver, ``held`` is how long datagrams were in the worker and ``links``
    the round trips of its links, both of the interval, and only where there were any."""

    worker: int
    cpu: int
    up: bool
    slots: int | None
    shedding: float
    restarts: int
    flows: int
    steered: Counts
    received: Counts
    sent: Counts
    flows_refused: Counts
    dropped: Count
    held: dict[str, Latency]
    links: dict[str, Latency]


@dataclass(frozen=True, slots=True)
class Signaling:
    """The state of signaling. ``responses`` are by HTTP status, ``edges`` the others of the cluster by name. Where the
    hosts share a store, ``found`` is how many transceivers were found there, and ``directory_age_s`` is how long ago it
    could be read."""

    up: bool
    restarts: int
    responses: Counts
    found: int = 0
    directory_age_s: float | None = None
    edges: list[OtherEdge] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Transceiver:
    """The state of a transceiver. Datagrams and frames are by outcome, ``ended`` by reason, ``room`` for more calls by
    agent. Calls are let in up to ``limit`` of what its process can do; ``used`` was in use in the last second. One that
    is ``draining`` takes no new calls; ``drain`` has how many were ``moved``, and ``all`` of them. ``engine`` is what
    it waits for of the small models, by part. ``compiled`` where packets go through the compiled form of the code."""

    id: int
    up: bool
    sessions: int
    room: dict[str, int]
    used: float
    limit: float
    draining: bool
    drain: dict[str, int]
    compiled: bool
    engine: dict[str, int]
    received: Counts
    sent: Counts
    frames_in: Counts
    frames_out: Counts
    ended: Counts


@dataclass(frozen=True, slots=True)
class Status:
    """One look at a host. ``xdp`` is None where no supervisor answers, ``signaling`` where no edge belongs here."""

    interval_s: float
    flows: int
    xdp: Xdp | None
    workers: list[Worker]
    signaling: Signaling | None
    transceivers: list[Transceiver]
    down: list[Down]
    alarms: list[Alarm]
    nothing: bool = field(default=False)

    @property
    def exit_code(self) -> int:
        """0 where all is well, 1 where nothing runs at all, 3 where something is down."""
        return 1 if self.nothing else 3 if self.down else 0

    def as_json(self) -> dict[str, Any]:
        """The status for ``--json``; rates are per second."""
        fields = asdict(self)
        del fields["nothing"]
        return {"ok": self.exit_code == 0, **fields}


def read(text: str) -> dict[tuple[str, ...], float]:
    """The samples of one ``/metrics`` page. Raises ValueError where it is not one of firsthop's processes."""
    samples = {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    if not any(name.startswith("firsthop_") for name, *_ in samples):
        raise ValueError("somebody else answers here")
    return samples


def worker_cpus(supervisor: Scrape | None) -> dict[int, int]:
    """The CPU of each worker, as the supervisor tells; empty where it does not answer."""
    if supervisor is None:
        return {}
    name = "firsthop_edge_worker_cpu"
    return {int(key[1]): int(cpu) for key, cpu in sorted(supervisor.samples.items()) if key[0] == name}


def total(counts: Iterable[Count]) -> Count:
    """The sum of counters."""
    counts = list(counts)
    return Count(sum(count.total for count in counts), sum(count.per_s for count in counts))


def compare(before: Mapping[str, Scrape], after: Mapping[str, Scrape], expected: Mapping[str, str]) -> Status:
    """The status between two looks at the processes (``supervisor``, ``signaling``, ``worker-<n>`` and
    ``transceiver-<id>``), each of which is there if it answered. ``expected`` are the addresses of those that must
    answer."""
    look = _Look(before, after)
    down = [
        Down(name, address, _what_to_do(name), f"nothing answers on {address}")
        for name, address in expected.items()
        if name not in after
    ]
    down += _xdp_down(look)
    workers = [_worker(look, index, cpu) for index, cpu in sorted(worker_cpus(after.get("supervisor")).items())]
    xdp = None
    if "supervisor" in after:
        mode = next((key[1] for key in after["supervisor"].samples if key[0] == "firsthop_xdp_attached"), "off")
        packets: dict[str, list[Count]] = {}
        for (_, verdict), count in look.family("supervisor", "firsthop_rx_xdp_packets_total").items():
            packets.setdefault(verdict, []).append(count)
        flows = look.gauge("supervisor", "firsthop_xdp_flows")
        # The one that reads goes last: another of its id may have been refused.
        told = sorted((value, key) for key, value in after["supervisor"].samples.items() if key[0] == _EXPRESS)
        express = {key[1]: key[2] for _, key in told}
        verdicts = {verdict: total(counts) for verdict, counts in packets.items()}
        xdp = Xdp(mode, flows, verdicts, express, look.counts("supervisor", "firsthop_xdp_fallback_packets_total"))
    signaling = None
    if "signaling" in {*after, *expected}:
        responses = look.counts("signaling", "firsthop_signaling_responses_total")
        signaling = Signaling(
            "signaling" in after,
            look.restarts("signaling").total,
            responses,
            look.gauge("signaling", "firsthop_directory_transceivers"),
            look.known("signaling", "firsthop_directory_age_seconds"),
            other_edges(after["signaling"].samples) if "signaling" in after else [],
        )
    names = sorted({name for name in (*after, *expected) if name.startswith("transceiver-")}, key=_number)
    transceivers = [_transceiver(look, name) for name in names]
    return Status(
        interval_s=look.interval_s,
        flows=sum(worker.flows for worker in workers),
        xdp=xdp,
        workers=workers,
        signaling=signaling,
        transceivers=transceivers,
        down=down,
        alarms=list(_alarms(look)),
        nothing=not after,
    )


class _Look:
    """Two scrapes of every process, read together."""

    def __init__(self, before: Mapping[str, Scrape], after: Mapping[str, Scrape]) -> None:
        self._before = before
        self.after = after
        self.interval_s = max((self._elapsed_s(name) for name in after), default=0.0)

    def _elapsed_s(self, process: str) -> float:
        earlier = self._before.get(process)
        return self.after[process].at_s - earlier.at_s if earlier else 0.0

    def family(self, process: str, name: str) -> dict[tuple[str, ...], Count]:
        """The counters ``name`` by label values; empty where the process does not answer."""
        if process not in self.after:
            return {}
        earlier = self._before[process].samples if process in self._before else {}
        elapsed_s = self._elapsed_s(process)
        counts = {}
        for key, value in self.after[process].samples.items():
            if key[0] == name:
                was = earlier.get(key, 0.0)
                # Less than before: it was started again meanwhile, and has counted from nothing since.
                moved = value - was if value >= was else value
                counts[key[1:]] = Count(int(value), moved / elapsed_s if elapsed_s > 0 else 0.0)
        return counts

    def counts(self, process: str, name: str) -> Counts:
        """The counters ``name`` by their one label."""
        return {key[0]: count for key, count in self.family(process, name).items()}

    def gauge(self, process: str, name: str) -> int:
        """The value of a gauge without labels; 0 where it is not known."""
        return int(self.fraction(process, name))

    def fraction(self, process: str, name: str) -> float:
        """The same for a value that is no whole number."""
        return self.after[process].samples.get((name,), 0.0) if process in self.after else 0.0

    def known(self, process: str, name: str) -> float | None:
        """The same; None where it is not known."""
        return self.after[process].samples.get((name,)) if process in self.after else None

    def labelled(self, process: str, name: str) -> dict[str, int]:
        """A gauge's values by its one label."""
        if process not in self.after:
            return {}
        return {key[1]: int(value) for key, value in self.after[process].samples.items() if key[0] == name}

    def latencies(self, process: str, name: str) -> dict[str, Latency]:
        """The percentiles of the time between the scrapes, from a histogram with one label that sorts after ``le``."""
        sides: list[dict[str, dict[str, float]]] = [{}, {}]
        for side, scrapes in zip(sides, (self._before, self.after), strict=True):
            for key, value in scrapes[process].samples.items() if process in scrapes else ():
                if key[0] == f"{name}_bucket":
                    side.setdefault(key[2], {})[key[1]] = value
        before, after = sides
        found = {label: between(before.get(label, {}), buckets) for label, buckets in after.items()}
        return {label: latency for label, latency in found.items() if latency is not None}

    def restarts(self, child: str) -> Count:
        """The number of times that the supervisor had to start a process again."""
        return self.counts("supervisor", "firsthop_edge_restarts_total").get(child, Count())


def _worker(look: _Look, index: int, cpu: int) -> Worker:
    name = f"worker-{index}"
    received = look.counts(name, "firsthop_rx_worker_datagrams_total")
    sent = look.counts(name, "firsthop_tx_worker_datagrams_total")
    lost = [count for outcome, count in received.items() if not outcome.startswith("forwarded_")]
    lost += [count for outcome, count in sent.items() if outcome != "sent"]
    lost += look.counts(name, "firsthop_rx_socket_datagrams_total").values()
    steered = look.family("supervisor", "firsthop_rx_xdp_packets_total")
    lost += [count for key, count in steered.items() if key == (str(cpu), "core_overloaded")]
    return Worker(
        worker=index,
        cpu=cpu,
        up=name in look.after,
        slots=look.labelled("supervisor", "firsthop_edge_core_slots").get(str(cpu)),
        shedding=look.fraction(name, "firsthop_worker_shedding_ratio"),
        restarts=look.restarts(name).total,
        flows=look.gauge(name, "firsthop_worker_flows"),
        # What XDP steers nowhere is counted under core 0, and belongs to no worker.
        steered={v: n for (core, v), n in steered.items() if core == str(cpu) and v.endswith("_steered")},
        received=received,
        sent=sent,
        flows_refused=look.counts(name, "firsthop_worker_flows_refused_total"),
        dropped=total(lost),
        held=look.latencies(name, "firsthop_worker_age_seconds"),
        links=look.latencies(name, "firsthop_link_round_trip_seconds"),
    )


def _transceiver(look: _Look, name: str) -> Transceiver:
    return Transceiver(
        id=_number(name),
        up=name in look.after,
        sessions=look.gauge(name, "firsthop_transceiver_sessions"),
        room=look.labelled(name, "firsthop_transceiver_room"),
        used=look.fraction(name, "firsthop_transceiver_used_ratio"),
        limit=look.fraction(name, "firsthop_transceiver_used_limit_ratio"),
        draining=bool(look.gauge(name, "firsthop_transceiver_draining")),
        drain=look.labelled(name, "firsthop_transceiver_drain_calls"),
        compiled=bool(look.gauge(name, "firsthop_transceiver_compiled")),
        engine=look.labelled(name, "firsthop_engine_waiting"),
        received=look.counts(name, "firsthop_rx_transceiver_datagrams_total"),
        sent=look.counts(name, "firsthop_tx_transceiver_datagrams_total"),
        frames_in=look.counts(name, "firsthop_rx_agent_frames_total"),
        frames_out=look.counts(name, "firsthop_tx_agent_frames_total"),
        ended=look.counts(name, "firsthop_transceiver_sessions_ended_total"),
    )


# Why XDP is not on its interface, as the supervisor says it, and what to do about it.
_XDP_MISSING = {
    "no_interface": (
        "there is no such interface",
        "it is attached again within a second when there is: ip -brief link",
    ),
    "other_program": (
        "another XDP program is there, and left alone",
        "stop whoever owns it (bpftool net), then it is attached within a second",
    ),
    "refused": ("the interface does not take it", "why: journalctl -u firsthop-edge; it is tried each second"),
    "not_loaded": ("it cannot be loaded", "what is missing: journalctl -u firsthop-edge; then systemctl reload it"),
}


def _xdp_down(look: _Look) -> Iterable[Down]:
    for key in look.after["supervisor"].samples if "supervisor" in look.after else ():
        if key[0] == "firsthop_xdp_missing":
            _, interface, why = key
            seen, what_to_do = _XDP_MISSING.get(why, (why, "journalctl -u firsthop-edge"))
            yield Down("XDP", interface, what_to_do, f"{seen}: {interface}")


def _alarms(look: _Look) -> Iterable[Alarm]:
    for child, count in look.counts("supervisor", "firsthop_edge_restarts_total").items():
        if count.total:
            yield Alarm(child, "restarts", count, "it died and was started again: journalctl -u firsthop-edge")
    for process, scrape in look.after.items():
        found: dict[str, list[Count]] = {}
        for family in dict.fromkeys(key[0] for key in scrape.samples if key[0].endswith("_total")):
            for labels, count in look.family(process, family).items():
                found.setdefault(labels[-1] if labels else "", []).append(count)
        for counter, what in ALARMS.items():
            count = total(found.get(counter, ()))
            if count.total:
                yield Alarm(process, counter, count, what)


def _what_to_do(process: str) -> str:
    if process.startswith("transceiver-"):
        unit = f"firsthop-transceiver@{_number(process)}"
        return f"systemctl start {unit}; why it went: journalctl -u {unit}"
    if process == "supervisor":
        return "calls go on without it; systemctl start firsthop-edge; why it went: journalctl -u firsthop-edge"
    return f"if it died it is started again at once: journalctl -u firsthop-edge; if it hangs: pkill -KILL -x {process}"


def _number(process: str) -> int:
    return int(process.rpartition("-")[2])
