"""An edge that is to leave finds out whether there are others to leave its calls to."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from edge.draining import others_found
from runtime import metrics, ports
from runtime.address import Address
from runtime.config import Edge
from runtime.families import edge as families


def two_ports() -> Address:
    """The first of two ports in a row that are free."""
    for first in range(23000, 32000, 2):
        with ExitStack() as held:
            try:
                for port in (first, first + 1):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return Address.of("127.0.0.1", first)
    raise AssertionError("no ports")


def signaling_says(**well: float) -> Edge:
    """An edge whose signaling says of these others whether they are well."""
    edge = Edge(metrics=two_ports())
    values = {(name,): value for name, value in well.items()}
    metrics.serve(
        "edge.metrics", *ports.signaling(edge.metrics).pair, metrics.Gauges(families.EDGE_WELL, lambda: values)
    )
    return edge


async def test_one_that_is_well_is_enough() -> None:
    assert await others_found(signaling_says(fra=0.0, iad=1.0))


async def test_those_that_are_away_are_nobody() -> None:
    assert not await others_found(signaling_says(fra=0.0))
    assert not await others_found(signaling_says())


async def test_signaling_that_does_not_answer_knows_of_nobody() -> None:
    assert not await others_found(Edge(metrics=two_ports()))
