"""The counters of a worker: each datagram is counted once, by what became of it, and durations are in histograms."""

from __future__ import annotations

from prometheus_client.registry import Collector

from runtime.histogram import Histogram
from runtime.metrics import Tally

__all__ = ["OUTCOMES", "Counted"]

# What can become of a datagram from a client; a batch's outcomes are an array of places in this list.
OUTCOMES = (
    "forwarded_flow",
    "forwarded_stun",
    "forwarded_ssrc",
    "forwarded_sister",
    "empty",
    "oversized",
    "unknown_flow",
    "stun_bad_ufrag",
    "strangers_limited",
    "name_limited",
    "flow_limited",
    "unknown_transceiver",
    "link_down",
    "link_full",
)


class Counted:
    """All counters of a worker; ``all`` is for Prometheus."""

    def __init__(self) -> None:
        self.rx = Tally("firsthop_rx_worker_datagrams", "Datagrams from clients, by what became of them", OUTCOMES)
        self.tx = Tally(
            "firsthop_tx_worker_datagrams",
            "Datagrams to clients, by what became of them",
            ("sent", "not_its_flow", "socket_full", "unsendable"),
        )
        self.wire_errors = Tally(
            "firsthop_worker_wire_errors",
            "Messages from transceivers that could not be used",
            ("refused", "not_its_path", "other_version"),
        )
        self.lost_flows = Tally(
            "firsthop_worker_flows_refused",
            "Flows that found no room, or are another transceiver's",
            ("table_full", "kernel_map_full", "held"),
        )
        self.age = Histogram(
            "firsthop_worker_age",
            "Age of the oldest datagram of a batch when the link took it, since the kernel received it",
            "transceiver",
        )
        self.round_trip = Histogram(
            "firsthop_link_round_trip", "Time to a transceiver and back, less what it held a batch", "transceiver"
        )
        self.all: tuple[Collector, ...] = (
            self.rx,
            self.tx,
            self.wire_errors,
            self.lost_flows,
            self.age,
            self.round_trip,
        )
