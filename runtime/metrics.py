"""Prometheus metrics of one process: one registry and one ``/metrics``.

The packet funnel. Each stage counts each packet exactly once, under the outcome that it had there, so the
difference between two stages is what was lost between them. On the way in::

    firsthop_rx_xdp_packets_total{verdict, core}      -> steered packets go on
    firsthop_rx_socket_datagrams_total{outcome}       -> what does not fit a worker's socket; the rest goes on
    firsthop_rx_worker_datagrams_total{outcome}       -> forwarded_* go on
    firsthop_rx_express_socket_datagrams_total        -> or flow_expressed: what does not fit a transceiver's own socket
    firsthop_rx_express_datagrams_total{outcome}      -> taken goes on, past the workers
    firsthop_rx_transceiver_datagrams_total{outcome}  -> audio goes on
    firsthop_rx_agent_frames_total{outcome}           -> heard

and on the way out::

    firsthop_tx_agent_frames_total{outcome}           -> sent
    firsthop_tx_transceiver_datagrams_total{outcome}  -> sent, or expressed, past the workers
    firsthop_tx_worker_datagrams_total{outcome}       -> sent

Queues are part of it: what waits too long for a link is ``link_full`` at the worker and ``edge_full`` at the
transceiver, and what the socket to clients does not take in time ``socket_full``. Nothing is counted before it is known
which.

Two histograms say how late media is, by transceiver and per batch (``runtime.histogram``)::

    firsthop_worker_age_seconds          its oldest datagram, from the kernel's receipt until the link took the batch
    firsthop_link_round_trip_seconds     to the transceiver and back, less what it held the batch; with what waits for
                                         the transceiver's event loop and for the worker's next round

A core that is offered more media than it can do has XDP drop some of it (verdict ``core_overloaded``); with what
probability now says the gauge ``firsthop_worker_shedding_ratio`` of its worker.

``..._left_out_total`` beside each counts what a clock that was set, or a lie, made of a duration.

Hot paths count in plain integers (``Tally``) that are read when Prometheus asks. Each collector is made of a definition
in the register (``runtime/families/``), of which ``docs/metrics.md`` is made as well.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.errors import ConfigError, bind_trouble
from runtime.families import shared
from runtime.families.family import Family
from runtime.scrape import Page, Scrapes
from wire.versions import VERSION, software

__all__ = ["Gauge", "Gauges", "Levels", "Outside", "Requests", "Tally", "Total", "serve"]

_SWITCH_S = 0.0005


class Tally(Counter[str], Collector):
    """A counter with one label, as cheap as a dictionary.

    Every outcome is named when it is made, by the register or in ``outcomes``, so that each stands at 0 before it first
    happens.
    """

    def __init__(self, family: Family, outcomes: Iterable[str] | None = None) -> None:
        super().__init__(dict.fromkeys(family.values if outcomes is None else outcomes, 0))
        self._family = family

    __hash__ = object.__hash__  # type: ignore[assignment]  # the registry keeps collectors in a dictionary

    def collect(self) -> Iterator[Metric]:
        family = self._family
        counts = CounterMetricFamily(family.name, family.means, labels=tuple(family.labels))
        for outcome, count in list(self.items()):
            counts.add_metric([outcome], count)
        yield counts


class Requests(Collector):
    """A counter with several labels, which any thread may add to. Where all of their values are known, each combination
    stands at 0 before it first happens."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._lock = threading.Lock()
        known = [values for values in family.labels.values() if isinstance(values, tuple)]
        whole = len(known) == len(family.labels)
        self._counts: dict[tuple[str, ...], int] = dict.fromkeys(product(*known), 0) if whole else {}

    def add(self, *values: str, times: int = 1) -> None:
        """Counts one, or so many ``times`` one, under the values of all labels."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + times

    def collect(self) -> Iterator[Metric]:
        family = self._family
        counts = CounterMetricFamily(family.name, family.means, labels=tuple(family.labels))
        with self._lock:
            found = list(self._counts.items())
        for values, count in found:
            counts.add_metric(values, count)
        yield counts


class Levels(Collector):
    """A gauge with one label, each of whose values is 0 at first, and which any thread may raise and lower."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._lock = threading.Lock()
        self._now: dict[str, int] = dict.fromkeys(family.values, 0)

    def add(self, value: str, more: int) -> None:
        """Adds ``more``, or takes it away where it is negative, under the label's ``value``."""
        with self._lock:
            self._now[value] += more

    def total(self) -> int:
        """The sum of all of them."""
        return sum(self._now.values())

    def collect(self) -> Iterator[Metric]:
        family = self._family
        gauges = GaugeMetricFamily(family.name, family.means, labels=tuple(family.labels))
        for value, level in list(self._now.items()):
            gauges.add_metric([value], level)
        yield gauges


class Outside(Collector):
    """A counter with one label that somebody else keeps, such as the kernel: ``read`` gives its values by outcome."""

    def __init__(self, family: Family, read: Callable[[], Mapping[str, int]]) -> None:
        self._family, self._read = family, read

    def collect(self) -> Iterator[Metric]:
        family = self._family
        counts = CounterMetricFamily(family.name, family.means, labels=tuple(family.labels))
        for outcome, count in self._read().items():
            counts.add_metric([outcome], count)
        yield counts


class Total(Collector):
    """A counter without labels that somebody else keeps."""

    def __init__(self, family: Family, read: Callable[[], float]) -> None:
        self._family, self._read = family, read

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._family.name, self._family.means, value=self._read())


class Gauge(Collector):
    """A value that is read when Prometheus asks."""

    def __init__(self, family: Family, read: Callable[[], float]) -> None:
        self._family, self._read = family, read

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(self._family.name, self._family.means, value=self._read())


class Gauges(Collector):
    """Values with labels, read when Prometheus asks: ``read`` gives them by the labels' values."""

    def __init__(self, family: Family, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        self._family, self._read = family, read

    def collect(self) -> Iterator[Metric]:
        family = self._family
        gauges = GaugeMetricFamily(family.name, family.means, labels=tuple(family.labels))
        for values, value in self._read().items():
            gauges.add_metric(values, value)
        yield gauges


def serve(key: str, host: str, port: int, *collectors: Collector, pages: Mapping[str, Page] | None = None) -> None:
    """Serves ``/metrics``, and ``pages`` by their paths, from a thread of its own. Raises ConfigError, naming the
    configuration ``key``, where that address cannot be had."""
    # Who waits for the interpreter's lock has it this soon, whatever else is at work: media does not wait 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    registry = CollectorRegistry()
    build = (software().removeprefix("firsthop").strip() or "unknown", str(VERSION))
    every = (
        Gauge(shared.PROCESS_ID, lambda: float(os.getpid())),
        Gauges(shared.BUILD, lambda: {build: 1.0}),
        Total(shared.SCRAPE_TIME, lambda: sum(each.spent_s for each in serving)),
    )
    serving: list[Scrapes] = []
    for collector in (*every, *collectors):
        registry.register(collector)
    try:
        serving.append(Scrapes(host, port, registry, pages))
    except OSError as e:
        raise ConfigError(f"{key}: {host} port {port}: {bind_trouble(e)}") from None
