"""Versions of the wire: what each side may be, what version 3 said and says, and calls between releases."""

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
from wire.control import Control, Reader, encode
from wire.frames import Data, OtherVersionError
from wire.greeting import Greeting
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
from wire.versions import HELD_TO, OLDEST, VERSION, Versions, spoken

RECORDED = json.loads((TESTS / "fixtures/wire3/messages.json").read_text())
UNIONS: dict[str, Any] = {"transceiver": ToTransceiver, "signaling": ToSignaling, "worker": ToWorker}
# What its readers took for fields that they were not told.
DEFAULTS_OF_3: dict[str, Any] = {"session": None, "owner": "", "holder": "", "locked": None, "dcid": None}
DEFAULTS_OF_3 |= {"param": None, "agents": [], "spare_ms": 0.0, "proved": True}
ONLY_3, BOTH = Versions(3, 3), Versions(3, 4)
KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
CLIENT = bytes(range(18))
VERSIONS_OF_LINKS = "firsthop_link_wire_version"


def recorded(to: str, type_: str) -> bytes:
    return bytes.fromhex(next(m["bytes"] for m in RECORDED["control"] if (m["to"], m["type"]) == (to, type_)))


def recorded_fields(message: dict[str, Any]) -> dict[str, Any]:
    return {
        name: bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value
        for name, value in message["fields"].items()
    }


# --- which version two ends speak ---


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        ((3, 4), (3, 4), 4),
        ((3, 4), (4, 5), 4),
        ((4, 5), (3, 4), 4),
        ((3, 4), (3, 3), 3),
        ((3, 4), (5, 6), None),
        ((5, 6), (3, 4), None),
        ((3, 4), (4, 3), None),
    ],
)
def test_two_ends_speak_the_highest_version_that_both_know(
    ours: tuple[int, int], theirs: tuple[int, int], common: int | None
) -> None:
    assert Versions(*ours).common(theirs) == common


def test_a_link_begins_in_the_oldest_version_and_begins_again_when_it_was_lost() -> None:
    greeting = Greeting(BOTH)
    assert (greeting.version, greeting.due) == (3, True)
    hello = heard(greeting.hello(7))
    assert isinstance(hello, Said)
    assert (hello.type, hello.fields["request"], hello.fields["versions"]) == ("hello", 7, [3, 4])
    greeting.due = False
    assert not greeting.take(Control(Hello(versions=(3, 4)), 6)), "the reply to another"
    assert greeting.version == 3
    assert greeting.take(Control(Hello(versions=(3, 4)), 7))
    assert greeting.version == 4
    greeting.lost()
    assert (greeting.version, greeting.due) == (3, True)
    greeting.hello(8)
    assert not greeting.take(Control(Hello(versions=(3, 4)), 7)), "the reply of a process that is gone"
    assert greeting.take(Control(Refused(code="invalid_request", message="no such message"), 8))
    assert greeting.version == 3


def test_ends_without_a_version_in_common_say_which_they_have() -> None:
    greeting = Greeting(BOTH)
    greeting.hello(1)
    with pytest.raises(OtherVersionError, match="firsthop 9 speaks wire version 5 to 6, this side 3 to 4"):
        greeting.take(Control(Hello(versions=(5, 6), software="firsthop 9"), 1))
    assert "5 to 6" in greeting.mute
    greeting.lost()
    assert not greeting.mute


def test_a_process_can_be_held_to_an_older_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spoken() == (OLDEST, VERSION)
    monkeypatch.setenv(HELD_TO, "3")
    assert spoken() == (3, 3)
    assert not Greeting().due
    load(None)
    monkeypatch.setenv(HELD_TO, "2")
    with pytest.raises(ConfigError, match="FIRSTHOP_WIRE_VERSION='2': this release speaks 3 to 5"):
        load(None)


# --- what version 3 said, byte for byte ---


@pytest.mark.parametrize("message", RECORDED["control"], ids=lambda m: f"{m['type']} to {m['to']}")
@pytest.mark.parametrize("versions", [ONLY_3, BOTH], ids=str)
def test_what_version_3_said_is_understood(message: dict[str, Any], versions: Versions) -> None:
    reader: Reader[Message] = Reader(UNIONS[message["to"]], versions=versions)
    read = reader.read(bytes.fromhex(message["bytes"]))
    assert isinstance(read, Control)
    fields = recorded_fields(message)
    assert read.request == fields.pop("request", None)
    assert read.message.__struct_config__.tag == message["type"]
    for name, value in fields.items():
        said = getattr(read.message, name)
        assert (list(said) if isinstance(said, tuple) else said) == value


@pytest.mark.parametrize("message", RECORDED["control"], ids=lambda m: f"{m['type']} to {m['to']}")
def test_version_3_understands_what_is_said_to_it(message: dict[str, Any]) -> None:
    """It refuses fields that it does not know, and takes the defaults of today for those that it is not told."""
    read = Reader[Message](UNIONS[message["to"]]).read(bytes.fromhex(message["bytes"]))
    assert isinstance(read, Control)
    version, kind, fields = msgpack.unpackb(encode(read.message, read.request, 3))
    assert (version, kind, fields.pop("type")) == (3, "control", message["type"])
    once = recorded_fields(message)
    assert fields.items() <= once.items()
    assert all(once[name] == DEFAULTS_OF_3[name] for name in once.keys() - fields.keys())


@pytest.mark.parametrize("message", RECORDED["data"], ids=lambda m: f"{len(m['datagrams'])} datagrams")
def test_media_of_version_3_is_the_same_byte_for_byte(message: dict[str, Any]) -> None:
    batch = [(bytes.fromhex(address), bytes.fromhex(datagram)) for address, datagram in message["datagrams"]]
    said = bytes.fromhex(message["bytes"])
    assert frames.pack_batch(batch, message["stamp_ns"], message["held_ns"], version=3) == said
    for versions in (ONLY_3, BOTH):
        read = Reader[Message](ToWorker, versions=versions).read(said)
        assert isinstance(read, Data)
        assert read.datagrams() == batch
        assert (read.stamp_ns, read.held_ns) == (message["stamp_ns"], message["held_ns"])


def test_one_that_is_held_to_version_3_knows_nothing_newer() -> None:
    reader = Reader[Message](ToTransceiver, versions=ONLY_3)
    for newer in (frames.pack_batch([]), raw("health", request=1)):
        with pytest.raises(OtherVersionError, match=f"wire version {VERSION}, this side speaks 3: upgrade"):
            reader.read(newer)
    with pytest.raises(frames.WireError, match="unknown control message 'hello'"):
        reader.read(raw("hello", request=1, versions=[3, 4]))


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
    """Also one that is started again with the release before, under the same name."""
    refused = WIRE_ERRORS["refused"], WIRE_ERRORS["other_version"]
    old, new = bytes.fromhex(RECORDED["data"][1]["bytes"]), frames.pack_batch([(CLIENT, b"\x16one")])
    for i, said in enumerate([old, new, old]):
        await ends.says(said)
        await eventually(lambda i=i: len(ends.heard) > i)
        ends.link.control(WORKER, PathUp(address=CLIENT, ufrag="abc", ssrcs=[7]))
        ends.link.send(WORKER, CLIENT, b"down")
        up, down = await ends.is_told(), await ends.is_told()
        assert up[1] == down[1] == said[1]
        assert heard(up) == Said("path.up", {"address": CLIENT, "ufrag": "abc", "ssrcs": [7]})
        media = heard(down)
        assert isinstance(media, Data)
        assert media.datagrams() == [(CLIENT, b"down")]
    assert refused == (WIRE_ERRORS["refused"], WIRE_ERRORS["other_version"])


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


async def test_a_transceiver_that_is_held_to_version_3_is_as_one_of_that_release(tmp_path: Path) -> None:
    ends = Ends(tmp_path, ONLY_3)
    try:
        await ends.says(raw("hello", request=3, versions=[3, 4]))
        reply = heard(await ends.is_told())
        assert isinstance(reply, Said)
        assert (reply.type, reply.fields["code"]) == ("session.refused", "invalid_request")
        await ends.says(bytes.fromhex(RECORDED["data"][1]["bytes"]))
        await eventually(lambda: ends.heard)
    finally:
        ends.link.close()
        ends.context.destroy(linger=0)


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


def test_media_and_control_go_both_ways_between_a_worker_and_a_transceiver_of_version_3(tmp_path: Path) -> None:
    """And the worker takes notice when one of the newest release is started in its place."""
    with a_worker(tmp_path, speaks=3) as bench:
        mine, client = bench.transceivers[MINE], bench.client()
        bench.to_worker(client, check(MINE))
        up = {"address": of(client), "ufrag": ufrag.seal(MINE, 1, bytes(range(16))), "ssrcs": [1], "spare_ms": 0}
        mine.send(raw("path.up", version=3, **up, proved=True))

        def known() -> bool:
            bench.to_worker(client, b"\x16up")
            return mine.has(b"\x16up")

        until(known)
        mine.send(frames.pack_batch([(of(client), b"down")], version=3))
        assert client.recv(100) == b"down"
        assert set(mine.heard_in) == {3}
        assert speaks(bench) == 3
        assert not bench.funnel("firsthop_worker_wire_errors_total")
        mine.start_again(speaks=VERSION)
        until(lambda: mine.drain() is not None and speaks(bench) == VERSION)
        mine.start_again(speaks=3)
        until(lambda: mine.drain() is not None and speaks(bench) == 3)


# --- signaling and transceivers of the release before ---


@pytest.mark.parametrize("most", [3, 4])
async def test_calls_are_placed_at_transceivers_of_either_release(tmp_path: Path, most: int) -> None:
    async with a_fake(tmp_path, versions=(3, most)) as (edge, fake):
        await edge.ready(1)
        fake.heard_in.clear()
        status, headers, _ = await edge.place("v=0\r\n", **SDP)
        assert status == 201
        async with edge.http.delete(edge.url + headers["Location"], headers=SDP) as response:
            assert response.status == 200
        assert set(fake.heard_in) == {most}


async def test_a_transceiver_without_a_version_in_common_gets_no_calls(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    async with a_fake(tmp_path) as (edge, fake):
        fake.versions = (VERSION + 1, VERSION + 2)
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
        assert f"speaks wire version {VERSION + 1} to {VERSION + 2}, this side {OLDEST} to {VERSION}" in line


# --- a whole call ---


def again(appliance: Appliance, host: str, *, older: bool) -> None:
    """Starts the edge or the transceiver once more, of the release before or of this one."""
    appliance.processes[host].terminate()
    assert appliance.processes[host].wait(60) == 0
    appliance.environment[host] = {HELD_TO: "3"} if older else {}
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
    appliance.environment["edge"] = {HELD_TO: "3"}
    with appliance:
        has_media(appliance, 3)
        again(appliance, "edge", older=False)
        has_media(appliance, VERSION)
        again(appliance, "transceiver", older=True)
        has_media(appliance, 3)


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
    handing_over = [Reserve, Part, Take]
    assert len(requests) == 10
    assert {reply_type(each) for each in requests if each not in handing_over} <= set(typing.get_args(ToSignaling))
    assert {reply_type(each) for each in handing_over} <= set(typing.get_args(ToSource))


def test_the_reference_is_printed() -> None:
    command = [sys.executable, "-m", "wire.reference"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for message in every_message():
        assert f"### `{message.__struct_config__.tag}`" in printed
    assert "| `dcid` | integer, 0 to 65534 or nil | nil |" in printed
