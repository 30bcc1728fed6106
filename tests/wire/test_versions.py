"""Versions of the wire: what each side may be, what the release before says, and calls between releases."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from calling import finish, start_call
from paths import TESTS
from signaling_edge import SDP, a_fake
from waiting import DEADLINE_S, eventually, until
from wiring import Said, heard, raw
from working import MINE, WORKER, Bench, a_worker, check, of

from lab.appliance import Appliance, Loopback
from runtime import logs
from runtime.config import ConfigError, load
from transceiver.counters import WIRE_ERRORS
from transceiver.links.link import Link
from wire import frames, link, reference, ufrag
from wire.control import Control
from wire.frames import Data, OtherVersionError
from wire.greeting import Greeting
from wire.handoffs import Warm
from wire.keys import ClusterKeys
from wire.messages import (
    Hello,
    Message,
    Part,
    PathUp,
    Refused,
    Request,
    Reserve,
    Take,
    ToSignaling,
    ToSource,
    ToTransceiver,
    ToWorker,
    reply_type,
)
from wire.versions import GREETING, HELD_TO, OLDEST, VERSION, Versions, spoken

RECORDED = json.loads((TESTS / "fixtures/wire4/messages.json").read_text())
UNIONS: dict[str, Any] = {"transceiver": ToTransceiver, "signaling": ToSignaling, "worker": ToWorker}
BEFORE = VERSION - 1
ONLY_4, BOTH = Versions(4, 4), Versions(4, 5)
KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
CLIENT = bytes(range(18))
VERSIONS_OF_LINKS, WORKER_ERRORS = "firsthop_link_wire_version", "firsthop_worker_wire_errors_total"


# --- which version two ends speak ---


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        ((4, 5), (4, 5), 5),
        ((4, 5), (5, 6), 5),
        ((5, 6), (4, 5), 5),
        ((4, 5), (4, 4), 4),
        ((4, 5), (3, 4), 4),
        ((4, 5), (6, 7), None),
        ((6, 7), (4, 5), None),
        ((4, 5), (5, 4), None),
    ],
)
def test_two_ends_speak_the_highest_version_that_both_know(
    ours: tuple[int, int], theirs: tuple[int, int], common: int | None
) -> None:
    assert Versions(*ours).common(theirs) == common


def test_a_link_begins_in_the_oldest_version_and_begins_again_when_it_was_lost() -> None:
    greeting = Greeting(BOTH)
    assert (greeting.version, greeting.due, greeting.agreed) == (4, True, False)
    hello = heard(greeting.hello(7))
    assert isinstance(hello, Said)
    assert (hello.type, hello.fields["request"], hello.fields["versions"]) == ("hello", 7, [4, 5])
    greeting.due = False
    assert not greeting.take(Control(Hello(versions=(4, 5)), 6)), "the reply to another"
    assert (greeting.version, greeting.agreed) == (4, False)
    assert greeting.take(Control(Hello(versions=(4, 5)), 7))
    assert (greeting.version, greeting.agreed) == (5, True)
    greeting.lost()
    assert (greeting.version, greeting.due, greeting.agreed) == (4, True, False)
    greeting.hello(8)
    assert not greeting.take(Control(Hello(versions=(4, 5)), 7)), "the reply of a process that is gone"
    assert greeting.take(Control(Hello(versions=(3, 4)), 8))
    assert (greeting.version, greeting.agreed) == (4, True), "with the release before"


def test_an_end_that_refuses_the_hello_is_of_a_release_that_is_too_old() -> None:
    greeting = Greeting(BOTH)
    greeting.hello(1)
    with pytest.raises(OtherVersionError, match="an older release speaks wire version 3, this side 4 to 5: upgrade"):
        greeting.take(Control(Refused(code="invalid_request", message="no such message"), 1))
    assert "version 3" in greeting.mute
    assert not greeting.agreed


def test_ends_without_a_version_in_common_say_which_they_have() -> None:
    greeting = Greeting(BOTH)
    greeting.hello(1)
    with pytest.raises(OtherVersionError, match="firsthop 9 speaks wire version 6 to 7, this side 4 to 5"):
        greeting.take(Control(Hello(versions=(6, 7), software="firsthop 9"), 1))
    assert "6 to 7" in greeting.mute
    greeting.lost()
    assert not greeting.mute


def test_a_process_can_be_held_to_an_older_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spoken() == (OLDEST, VERSION)
    monkeypatch.setenv(HELD_TO, "4")
    assert spoken() == (4, 4)
    load(None)
    monkeypatch.setenv(HELD_TO, "3")
    with pytest.raises(ConfigError, match="FIRSTHOP_WIRE_VERSION='3': this release speaks 4 to 5"):
        load(None)


# --- a transceiver and edges of the release before ---


class Ends:
    """A transceiver's link, and a worker's end of it that is played."""

    def __init__(self, directory: Path, versions: Versions | None = None) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        endpoint = f"ipc://{directory}/link"
        self.heard: list[Data | Control[Any]] = []
        router = link.router(self.context, endpoint, KEYS)
        take = lambda _, said: self.heard.append(said)  # noqa: E731
        self.link = Link(router, take, take, versions)
        self.worker = link.media_dealer(self.context, endpoint, WORKER, KEYS)[0]

    async def says(self, message: bytes) -> None:
        await eventually(lambda: self.worker.poll(0, zmq.POLLOUT))
        self.worker.send(message, zmq.NOBLOCK)

    async def is_told(self) -> bytes:
        await eventually(lambda: self.worker.poll(0))
        message: bytes = self.worker.recv()
        return message


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    ends = Ends(tmp_path)
    yield ends
    ends.link.close()
    ends.context.destroy(linger=0)


async def test_a_worker_is_answered_in_the_version_that_it_speaks(ends: Ends) -> None:
    """Also one that is started again with the release before, under the same name, and has not said hello yet."""
    refused = WIRE_ERRORS["refused"], WIRE_ERRORS["other_version"]
    old, new = RECORDED["data"][1], frames.pack_batch([(CLIENT, b"\x16one")])
    comes = [bytes.fromhex(old["bytes"]), new, bytes.fromhex(old["opening"]), bytes.fromhex(old["bytes"])]
    for i, (said, spoken_to) in enumerate(zip(comes, [4, 5, 4, 4], strict=True)):
        await ends.says(said)
        await eventually(lambda i=i: len(ends.heard) > i)
        ends.link.control(WORKER, PathUp(address=CLIENT, ufrag="abc", ssrcs=[7]))
        ends.link.send(WORKER, CLIENT, b"down")
        up, down = await ends.is_told(), await ends.is_told()
        assert up[1] == down[1] == spoken_to
        assert heard(up) == Said("path.up", {"address": CLIENT, "ufrag": "abc", "ssrcs": [7]})
        media = heard(down)
        assert isinstance(media, Data)
        assert media.datagrams() == [(CLIENT, b"down")]
    assert refused == (WIRE_ERRORS["refused"], WIRE_ERRORS["other_version"])


async def test_the_release_before_is_understood_from_its_hello_on(ends: Ends) -> None:
    """It says its first requests in the form of version 3, until it has the reply to its hello."""
    await ends.says(bytes.fromhex(RECORDED["hello"]["bytes"]))
    before = WIRE_ERRORS["other_version"]
    for message in RECORDED["opening"]:
        await ends.says(bytes.fromhex(message["bytes"]))
    await eventually(lambda: len(ends.heard) == len(RECORDED["opening"]))
    assert [said.request for said in ends.heard if isinstance(said, Control)] == [
        message["request"] for message in RECORDED["opening"]
    ]
    reply = heard(await ends.is_told())
    assert isinstance(reply, Said)
    assert (reply.type, reply.fields["request"], reply.fields["versions"]) == ("hello", 7, [4, 5])
    ends.link.control(WORKER, Refused(code="full", message="no room"), 1)
    assert (await ends.is_told())[1] == 4
    assert WIRE_ERRORS["other_version"] == before


async def test_an_edge_of_version_3_is_told_so_in_its_own_words_counted_and_logged_once(
    ends: Ends, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    before = WIRE_ERRORS["other_version"]
    expected = "wire version 3, this side speaks 4 to 5: upgrade the older one"
    for i in range(3):
        await ends.says(raw("health", version=3, request=i))
        told = await ends.is_told()
        assert msgpack.unpackb(told)[:2] == [3, "control"]
        reply = heard(told)
        assert isinstance(reply, Said)
        assert (reply.type, reply.fields["request"], reply.fields["message"]) == ("session.refused", i, expected)
    assert not ends.heard
    assert WIRE_ERRORS["other_version"] == before + 3
    (line,) = capfd.readouterr().err.splitlines()
    assert expected in json.loads(line)["why"]


async def test_a_hello_is_answered_and_nobody_else_hears_of_it(ends: Ends) -> None:
    await ends.says(raw("hello", request=3, versions=[3, 4], software="firsthop"))
    reply = heard(await ends.is_told())
    assert isinstance(reply, Said)
    assert (reply.type, reply.fields["request"], reply.fields["versions"]) == ("hello", 3, [OLDEST, VERSION])
    assert not ends.heard


async def test_an_edge_without_a_version_in_common_is_told_counted_and_logged_once(
    ends: Ends, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    before = WIRE_ERRORS["other_version"]
    for i in range(3):
        await ends.says(raw("hello", request=i, versions=[VERSION + 1, VERSION + 2], software="firsthop 9"))
        reply = heard(await ends.is_told())
        assert isinstance(reply, Said)
        assert reply.fields["versions"] == [OLDEST, VERSION]
    assert WIRE_ERRORS["other_version"] == before + 3
    (line,) = capfd.readouterr().err.splitlines()
    expected = f"firsthop 9 speaks wire version {VERSION + 1} to {VERSION + 2}, this side {OLDEST} to {VERSION}"
    assert expected in json.loads(line)["why"]


# --- a worker and transceivers of the release before ---


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_worker(tmp_path_factory.mktemp("w")) as bench:
        yield bench


def speaks(bench: Bench) -> int:
    return bench.funnel(VERSIONS_OF_LINKS)[str(MINE)]


def test_a_worker_speaks_the_newest_version_with_who_says_hello_back(bench: Bench) -> None:
    until(lambda: bench.transceivers[MINE].drain() and speaks(bench) == VERSION)
    bench.transceivers[MINE].heard_in.clear()
    client = bench.client()
    bench.proven(client)
    until(lambda: bench.transceivers[MINE].has(b"\x16known?"))
    assert set(bench.transceivers[MINE].heard_in) == {VERSION}


def test_media_and_control_go_both_ways_between_a_worker_and_a_transceiver_of_version_4(tmp_path: Path) -> None:
    """And the worker takes notice when one of the newest release is started in its place."""
    with a_worker(tmp_path, speaks=4) as bench:
        mine, client = bench.transceivers[MINE], bench.client()
        bench.to_worker(client, check(MINE))
        up = {"address": of(client), "ufrag": ufrag.seal(MINE, 1, bytes(range(16))), "ssrcs": [1]}
        mine.send(raw("path.up", version=4, **up))

        def known() -> bool:
            bench.to_worker(client, b"\x16up")
            return mine.has(b"\x16up")

        until(known)
        mine.send(frames.pack_batch([(of(client), b"down")], version=4))
        assert client.recv(100) == b"down"
        assert set(mine.heard_in) <= {GREETING, 4}
        assert speaks(bench) == 4
        assert not bench.funnel(WORKER_ERRORS)
        mine.start_again(speaks=VERSION)
        until(lambda: mine.drain() is not None and speaks(bench) == VERSION)
        mine.start_again(speaks=4)
        until(lambda: mine.drain() is not None and speaks(bench) == 4)


def test_a_worker_says_once_that_a_transceiver_is_of_version_3(tmp_path: Path) -> None:
    with a_worker(tmp_path, speaks=3) as bench:
        mine = bench.transceivers[MINE]

        def complaints() -> list[dict[str, Any]]:
            mine.drain()
            lines = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
            return [line for line in lines if line["level"] == "error" and line["transceiver"] == MINE]

        until(complaints)
        until(lambda: bench.funnel(WORKER_ERRORS).keys() == {"other_version"})
        (line,) = complaints()
        assert "an older release speaks wire version 3, this side 4 to 5: upgrade the older one" in line["why"]


# --- signaling and transceivers of the release before ---


@pytest.mark.parametrize("most", [4, 5])
async def test_calls_are_placed_at_transceivers_of_either_release(tmp_path: Path, most: int) -> None:
    async with a_fake(tmp_path, versions=(most - 1, most)) as (edge, fake):
        await edge.ready(1)
        fake.heard_in.clear()
        status, headers, _ = await edge.place("v=0\r\n", **SDP)
        assert status == 201
        async with edge.http.delete(edge.url + headers["Location"], headers=SDP) as response:
            assert response.status == 200
        assert set(fake.heard_in) == {most}


@pytest.mark.parametrize(
    ("versions", "who"), [((VERSION + 1, VERSION + 2), "speaks wire version 6 to 7"), ((3, 3), "speaks wire version 3")]
)
async def test_a_transceiver_without_a_version_in_common_gets_no_calls(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], versions: tuple[int, int], who: str
) -> None:
    logs.configure("info", "json")
    async with a_fake(tmp_path) as (edge, fake):
        fake.versions = versions
        await fake.start_again()
        said: list[str] = []

        def complaints() -> list[str]:
            said.append(capfd.readouterr().err)
            return [line for line in "".join(said).splitlines() if "messages cannot be used" in line]

        async with asyncio.timeout(DEADLINE_S):
            while not complaints():
                await edge.ready()
        for _ in range(3):
            await edge.ready()
        status, _, body = await edge.place("v=0\r\n")
        assert (status, json.loads(body)["error"]["code"]) == (503, "transceiver_away")
        (line,) = complaints()
        assert f"{who}, this side {OLDEST} to {VERSION}" in line


# --- a whole call ---


def again(appliance: Appliance, host: str, *, older: bool) -> None:
    """Starts the edge or the transceiver once more, of the release before or of this one."""
    appliance.processes[host].terminate()
    assert appliance.processes[host].wait(60) == 0
    appliance.environment[host] = {HELD_TO: str(BEFORE)} if older else {}
    appliance.start(host)
    appliance.wait_ready()


def misunderstood(appliance: Appliance) -> float:
    """Messages to the transceiver that it could not read, because they were of a version that it does not speak."""
    return sum(n for key, n in appliance.metrics("transceiver").items() if "other_version" in key)


def has_media(appliance: Appliance, version: int) -> None:
    """Checks that calls have their media, over links that speak this version."""
    workers = [name for name in appliance.children() if name.startswith("worker-") and "spare" not in name]
    assert workers
    for name in workers:
        until(lambda name=name: appliance.metrics(name).get((VERSIONS_OF_LINKS, "1")) == version)
    before = misunderstood(appliance)  # while its links came up anew
    said = finish(start_call(Loopback(), appliance, "-n", "2", "--model", "echo", "--duration", "1"))
    assert said["calls"]["ok"] == 2
    assert said["audio"]["packets"]["lost"] == 0
    assert misunderstood(appliance) == before


def test_calls_have_their_media_whichever_host_has_the_release_before(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path, http_port=18080, media_port=13478, agent="echo")
    appliance.environment["edge"] = {HELD_TO: str(BEFORE)}
    with appliance:
        has_media(appliance, BEFORE)
        again(appliance, "edge", older=False)
        has_media(appliance, VERSION)
        again(appliance, "transceiver", older=True)
        has_media(appliance, BEFORE)


# --- the reference ---


def every_message() -> list[type[Message]]:
    return sorted(
        {each for union in UNIONS.values() for each in typing.get_args(union)}, key=lambda each: each.__name__
    )


@pytest.mark.parametrize("message", every_message(), ids=lambda each: each.__name__)
def test_each_message_and_field_says_what_it_means(message: type[Message]) -> None:
    assert inspect.getdoc(message) not in (None, inspect.getdoc(Message))
    assert all(meaning.endswith((".", "...")) for _, _, _, meaning in reference.fields(message))


def test_each_request_names_a_reply_that_whoever_asks_may_be_told() -> None:
    requests = [each for each in typing.get_args(ToTransceiver) if issubclass(each, Request)]
    handing_over = [Reserve, Part, Warm, Take]
    assert len(requests) == 13
    assert {reply_type(each) for each in requests if each not in handing_over} <= set(typing.get_args(ToSignaling))
    assert {reply_type(each) for each in handing_over} <= set(typing.get_args(ToSource))


def test_the_reference_is_printed() -> None:
    command = [sys.executable, "-m", "wire.reference"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for message in every_message():
        assert f"### `{message.__struct_config__.tag}`" in printed
    assert "| `dcid` | integer, 0 to 65534 or nil | nil |" in printed
