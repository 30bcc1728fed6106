"""Prometheus metrics of one process: one registry and one ``/metrics``.

The packet funnel. Each stage counts each packet exactly once, under the outcome that it had there, so the
difference between two stages is what was lost between them. On the way in::

    firsthop_rx_xdp_packets_total{verdict, core}      -> steered packets go on
    firsthop_rx_socket_datagrams_total{outcome}       -> what does not fit a worker's socket; the rest goes on
    firsthop_rx_worker_datagrams_total{outcome}       -> forwarded_* go on
    firsthop_rx_transceiver_datagrams_total{outcome}  -> audio goes on
    firsthop_rx_agent_frames_total{outcome}           -> heard

and on the way out::

    firsthop_tx_agent_frames_total{outcome}           -> sent
    firsthop_tx_transceiver_datagrams_total{outcome}  -> sent
    firsthop_tx_worker_datagrams_total{outcome}       -> sent

Queues are part of it: what waits too long for a link is ``link_full`` at the worker and ``edge_full`` at the
transceiver, and what the socket to clients does not take in time ``socket_full``. Nothing is counted before it is known
which.

Two histograms say how late media is, by transceiver and per batch (``runtime.histogram``)::

    firsthop_worker_age_seconds          its oldest datagram, from the kernel's receipt until the link took the batch
    firsthop_link_round_trip_seconds     to the transceiver and back, less what it held the batch; with what waits for
                                         the transceiver's event loop and for the worker's next round

A core that is offered more media than it can do has XDP drop some of it (verdict ``core_overloaded``); with what
probability now says the gauge ``firsthop_worker_shedding`` of its worker.

``..._left_out_total`` beside each counts what a clock that was set, or a lie, made of a duration.

Hot paths count in plain integers (``Tally``) that are read when Prometheus asks.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.errors import ConfigError, bind_trouble
from runtime.scrape import Page, Scrapes

__all__ = ["Gauge", "Gauges", "Outside", "Tally", "serve"]

_SWITCH_S = 0.0005


class Tally(Counter[str], Collector):
    """A counter with one label, as cheap as a dictionary.

    Every outcome is named when it is made, so that each stands at 0 before it first happens.
    """

    def __init__(self, name: str, what: str, outcomes: Iterable[str], label: str = "outcome") -> None:
        super().__init__(dict.fromkeys(outcomes, 0))
        self._family = (name, what, label)

    __hash__ = object.__hash__  # type: ignore[assignment]  # the registry keeps collectors in a dictionary

    def collect(self) -> Iterator[Metric]:
        name, what, label = self._family
        family = CounterMetricFamily(name, what, labels=[label])
        for outcome, count in list(self.items()):
            family.add_metric([outcome], count)
        yield family


class Outside(Collector):
    """A counter with one label that somebody else keeps, such as the kernel: ``read`` gives its values by outcome."""

    def __init__(self, name: str, what: str, label: str, read: Callable[[], Mapping[str, int]]) -> None:
        self._family = (name, what, label, read)

    def collect(self) -> Iterator[Metric]:
        name, what, label, read = self._family
        family = CounterMetricFamily(name, what, labels=[label])
        for outcome, count in read().items():
            family.add_metric([outcome], count)
        yield family


class Gauge(Collector):
    """A value that is read when Prometheus asks."""

    def __init__(self, name: str, what: str, read: Callable[[], float]) -> None:
        self._family = (name, what, read)

    def collect(self) -> Iterator[Metric]:
        name, what, read = self._family
        yield GaugeMetricFamily(name, what, value=read())


class Gauges(Collector):
    """Values with ``labels``, read when Prometheus asks: ``read`` gives them by the labels' values."""

    def __init__(
        self, name: str, what: str, labels: Sequence[str], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        self._family = (name, what, labels, read)

    def collect(self) -> Iterator[Metric]:
        name, what, labels, read = self._family
        family = GaugeMetricFamily(name, what, labels=labels)
        for values, value in read().items():
            family.add_metric(values, value)
        yield family


def serve(key: str, host: str, port: int, *collectors: Collector, pages: Mapping[str, Page] | None = None) -> None:
    """Serves ``/metrics``, and ``pages`` by their paths, from a thread of its own. Raises ConfigError, naming the
    configuration ``key``, where that address cannot be had."""
    # Who waits for the interpreter's lock has it this soon, whatever else is at work: media does not wait 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    registry = CollectorRegistry()
    pid = Gauge("firsthop_process_id", "The id of this process, on its host", lambda: float(os.getpid()))
    for collector in (pid, *collectors):
        registry.register(collector)
    try:
        Scrapes(host, port, registry, pages)
    except OSError as e:
        raise ConfigError(f"{key}: {host} port {port}: {bind_trouble(e)}") from None
