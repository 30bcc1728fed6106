"""Edges by name at a transceiver: of two with one name the second is refused in words, and one that died comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from signaling_run import Signaling
from waiting import eventually
from wiring import Said, heard, raw

from edge.directory import Directory, Transceiver
from edge.links.transceivers import RequestRefused, Transceivers
from runtime import logs
from runtime.process import instance
from transceiver.counters import RX_DATAGRAMS
from transceiver.links.edges import Edges
from wire import frames, link
from wire.keys import ClusterKeys
from wire.messages import Health
from wire.naming import edge_of, identity, instance_of

KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))


def test_names_say_edge_and_instance() -> None:
    assert identity("berlin", "", "worker-0") == b"berlin/worker-0"
    name = identity("berlin", "c0ffee", "signaling/events")
    assert name == b"berlin~c0ffee/signaling/events"
    assert (edge_of(name), instance_of(name)) == (b"berlin", b"c0ffee")
    assert (edge_of(b"berlin/worker-0"), instance_of(b"berlin/worker-0")) == (b"berlin", b"")
    assert len(identity("x" * 64, "c0ffeec0ffee", "signaling/events")) < 256  # ZeroMQ's limit


def test_an_instance_is_a_place(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    here.mkdir()
    there.mkdir()
    assert instance(here) == instance(here) != instance(there)
    assert instance(here / "not made yet")


def test_the_first_keeps_its_name_while_any_of_its_processes_is_connected() -> None:
    connected = {b"e~1/worker-0"}
    edges = Edges(connected.__contains__)
    assert edges.admits(b"e~1/worker-0", 0)
    assert edges.admits(b"e~1/signaling", 0)
    assert not edges.admits(b"e~2/worker-0", 0)
    assert edges.admits(b"other~2/worker-0", 0)
    assert edges.admits(b"e~1/worker-1", 0)
    connected.clear()
    assert not edges.admits(b"e~2/worker-0", 0.5)  # asked just now
    assert edges.admits(b"e~2/worker-0", 1.5)
    connected.add(b"e~2/worker-0")
    assert not edges.admits(b"e~1/worker-0", 3)


class House(Signaling):
    """A real transceiver, and edges by name and instance."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.edges: list[Any] = []  # who holds them closes them

    def an_edge(self, directory: Path, instance: str) -> Any:
        name = identity("berlin", instance, "signaling")
        self.edges.append(link.dealer(self.context, f"ipc://{directory}/1", name, KEYS))
        return self.edges[-1]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


async def asked(edge: Any) -> Said:
    """The answer when it asks how the transceiver does."""
    await eventually(lambda: edge.poll(0, zmq.POLLOUT))
    edge.send(raw("health", request=1))
    while True:
        await eventually(lambda: edge.poll(0))
        message = heard(edge.recv())
        if isinstance(message, Said):
            return message


async def test_of_two_edges_with_one_name_the_second_is_refused_in_a_line(
    house: House, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    first, second = house.an_edge(tmp_path, "1"), house.an_edge(tmp_path, "2")
    assert (await asked(first)).type == "health"
    media = frames.pack_batch([(bytes(18), b"\x16no one's")])
    heard = RX_DATAGRAMS["unknown_path"]
    for _ in range(5):
        second.send(media)
        refused = await asked(second)
        assert (refused.type, refused.fields["code"]) == ("session.refused", "name_taken")
        assert (await asked(first)).type == "health"
    assert RX_DATAGRAMS["unknown_path"] == heard
    said = "".join(capfd.readouterr())
    assert said.count("two edges have one name") == 1
    assert "berlin~2" in said
    # When the first is gone, the second has the name.
    first.close()

    answers = [await asked(second)]
    while answers[-1].type != "health":
        answers.append(await asked(second))


async def test_an_edge_that_was_killed_has_its_name_back_at_once(house: House, tmp_path: Path) -> None:
    before = house.an_edge(tmp_path, "1")
    assert (await asked(before)).type == "health"
    again = house.an_edge(tmp_path, "1")  # while the transceiver has not noticed that the first is gone
    assert (await asked(again)).type == "health"


async def test_the_refused_edge_says_so_and_counts_it(
    house: House, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    first = house.an_edge(tmp_path, "1")
    assert (await asked(first)).type == "health"
    second = Transceivers(
        Directory([Transceiver(1, f"ipc://{tmp_path}/1")]), identity("berlin", "2", "signaling"), KEYS
    )
    try:
        for _ in range(2):
            while True:
                try:
                    await second.ask(1, Health())
                except RequestRefused as e:
                    assert e.code == "name_taken"  # noqa: PT017
                    break
                except Exception:  # the link is not there yet
                    continue
        assert second.refusals["name_taken"] == 2
        assert "".join(capfd.readouterr()).count("another edge has this edge's name") == 1
    finally:
        await second.close()
