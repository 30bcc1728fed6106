"""The ports of a host's processes: each has its own, counted up from the first, which the configuration names.

An edge's supervisor has its metrics at ``edge.metrics``, signaling one port up, workers from two ports up, and its
gateway behind them. A supervisor of transceivers has its own at ``transceiver.metrics``, and each of its processes is a
port further up.
"""

from __future__ import annotations

from runtime.address import Address
from runtime.errors import ConfigError

__all__ = [
    "INSTANCES",
    "of_edge",
    "of_endpoints",
    "of_instance",
    "of_transceiver",
    "process",
    "signaling",
    "worker",
]

# Of systemd/firsthop-transceiver@.service.
INSTANCES = range(10)


def signaling(edge_metrics: Address) -> Address:
    """The address of signaling's metrics. Raises ConfigError past the last port."""
    return _of_edge(edge_metrics, 1)


def worker(edge_metrics: Address, index: int) -> Address:
    """The address of a worker's metrics. Raises ConfigError past the last port."""
    return _of_edge(edge_metrics, 2 + index)


def process(transceiver_metrics: Address, index: int) -> Address:
    """The address of the metrics of a process that has a supervisor. Raises ConfigError past the last port."""
    try:
        return transceiver_metrics.up(1 + index)
    except ValueError:
        why = "every process needs a port above this one"
        raise ConfigError(f"transceiver.metrics {transceiver_metrics}: {why}") from None


def of_instance(number: int) -> Address:
    """The address of the metrics of one of ``INSTANCES``, as its unit says."""
    return Address(f"127.0.0.1:950{number}")


def of_edge(edge_metrics: Address, workers: int) -> range:
    """The ports of an edge's metrics; they may go past the last that there is."""
    return range(edge_metrics.port, edge_metrics.port + 2 + workers)


def of_transceiver(transceiver_metrics: Address, processes: int) -> range:
    """The ports of a transceiver's metrics, with so many processes under a supervisor, or with 0 for one alone; they
    may go past the last that there is."""
    return range(transceiver_metrics.port, transceiver_metrics.port + 1 + processes)


def of_endpoints(first: Address, processes: int) -> range:
    """The ports to which edges connect, with so many processes under a supervisor, or with 0 for one alone."""
    return range(first.port, first.port + max(1, processes))


def _of_edge(metrics: Address, ports: int) -> Address:
    try:
        return metrics.up(ports)
    except ValueError:
        why = "signaling and every worker need a port above this one"
        raise ConfigError(f"edge.metrics {metrics}: {why}") from None
