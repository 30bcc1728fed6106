"""The counters of a worker: each datagram is counted once, by what became of it, and durations are in histograms."""

from __future__ import annotations

from prometheus_client.registry import Collector

from runtime.families import edge as families
from runtime.histogram import Histogram
from runtime.metrics import Tally

__all__ = ["OUTCOMES", "Counted"]

OUTCOMES = families.RX_WORKER.values
"""What can become of a datagram from a client; a batch's outcomes are an array of places in this list."""


class Counted:
    """All counters of a worker; ``all`` is for Prometheus."""

    def __init__(self) -> None:
        self.rx, self.tx = Tally(families.RX_WORKER), Tally(families.TX_WORKER)
        self.wire_errors = Tally(families.WORKER_WIRE_ERRORS)
        self.lost_flows = Tally(families.WORKER_FLOWS_REFUSED)
        self.age, self.round_trip = Histogram(families.WORKER_AGE), Histogram(families.LINK_ROUND_TRIP)
        self.all: tuple[Collector, ...] = (
            self.rx,
            self.tx,
            self.wire_errors,
            self.lost_flows,
            self.age,
            self.round_trip,
        )
