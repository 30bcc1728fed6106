"""A process that speaks on a link and does not keep to the wire: nobody dies of it, nobody waits, and nothing of
another's is taken."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq
import zmq.asyncio
from signaling_run import Signaling
from waiting import DEADLINE_S, eventually, until
from wiring import Said, heard, hello_back, raw
from working import KEYS, MINE, OTHER, Bench, a_worker, audio, check, gained, of, path_up

from edge.directory import Directory, Transceiver
from edge.links.transceivers import Transceivers, Unavailable
from edge.relay.claims import Claims
from runtime import logs
from transceiver.counters import WIRE_ERRORS
from wire import link, messages, ufrag
from wire.messages import Message, Request

REFUSED = "firsthop_worker_wire_errors_total"
NUMBERS = [math.inf, -math.inf, math.nan, -1, 1e300, 2**64 - 1, True, None, "1", b"1", [], {}]


# --- a worker and its transceivers


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_worker(tmp_path_factory.mktemp("w")) as bench:
        yield bench


def refused(bench: Bench, *said: bytes, by: int = MINE, as_: str = "refused") -> None:
    """Checks that each of these is refused, and that the worker goes on."""
    before = bench.funnel(REFUSED)
    for message in said:
        bench.transceivers[by].send(message)
    until(lambda: bench.funnel(REFUSED)[as_] - before[as_] == len(said))
    bench.proven(bench.client(), by=by)


def up(**changed: Any) -> bytes:
    fields = {"address": bytes(18), "ufrag": ufrag.seal(MINE, 1, KEYS.ufrag[1]), "ssrcs": [], "spare_ms": 0}
    return raw("path.up", **{**fields, **changed})


def test_fields_of_another_type_or_size_are_refused(bench: Bench) -> None:
    refused(bench, *(up(spare_ms=number) for number in NUMBERS))
    refused(bench, *(up(ssrcs=[number]) for number in NUMBERS if number is not None), up(ssrcs=[2**32]))
    refused(bench, up(ssrcs=list(range(messages.MAX_SSRCS + 1))), up(ssrcs={}), up(ssrcs="12"), up(ssrcs=7))
    addresses = [b"", bytes(17), bytes(19), "x" * 18, 10**12, None, [0] * 18]
    refused(bench, *(up(address=address) for address in addresses))
    refused(bench, *(raw("path.down", address=address) for address in addresses))
    refused(bench, *(up(ufrag=name) for name in ["", "x" * 24, 5, None, b"x" * 24, "\N{SNOWMAN}" * 24, "x" * 100_000]))


def test_a_path_is_of_the_transceiver_that_its_ufrag_names(bench: Bench) -> None:
    client = bench.client()
    bench.to_worker(client, check(MINE))
    for name in (ufrag.seal(OTHER, 1, KEYS.ufrag[1]), ufrag.seal(MINE, 1, bytes(16))):
        refused(bench, up(address=of(client), ufrag=name))
    assert gained(bench, client, b"\x16not known") == {"unknown_flow": 1}


def test_a_flow_of_another_is_not_taken(bench: Bench) -> None:
    client = bench.client()
    bench.proven(client, by=OTHER)
    refused(bench, path_up(of(client), by=MINE), as_="not_its_path")
    bench.to_worker(client, b"\x16still the other's")
    until(lambda: bench.transceivers[OTHER].has(b"\x16still the other's"))
    assert not bench.transceivers[MINE].has(b"\x16still the other's")


def test_a_client_that_nobody_was_told_of_is_nobody_s(bench: Bench) -> None:
    """Or a transceiver could have the edge send to anybody."""
    stranger = bench.client()
    refused(bench, path_up(of(stranger)), as_="not_its_path")
    assert gained(bench, stranger, b"\x16hello") == {"unknown_flow": 1}


def test_a_client_that_uses_its_port_for_another_call_moves(bench: Bench) -> None:
    client = bench.client()
    bench.proven(client, by=MINE)
    bench.to_worker(client, check(OTHER))
    bench.transceivers[OTHER].path_up(of(client))

    def moved() -> bool:
        bench.to_worker(client, b"\x16to the other")
        return bench.transceivers[OTHER].has(b"\x16to the other")

    until(moved)


def test_an_ssrc_of_another_s_caller_is_not_taken(bench: Bench) -> None:
    theirs, mine, moved = bench.client(), bench.client(), bench.client()
    bench.proven(theirs, 0x1234, by=OTHER)
    bench.proven(mine, 0x1234, by=MINE)
    assert gained(bench, moved, audio(0x1234)) == {"forwarded_ssrc": 1}
    until(lambda: bench.transceivers[OTHER].has(audio(0x1234)))
    assert not bench.transceivers[MINE].has(audio(0x1234))


def test_claims_are_bounded_and_made_once() -> None:
    claims = Claims(most=2)
    for name in (b"a", b"b", b"c"):
        claims.passed(name, 1)
    assert not claims.taken(b"a", 1)
    assert not claims.taken(b"b", 2)
    assert claims.taken(b"b", 1)
    assert not claims.taken(b"b", 1)
    claims.passed(b"c", 2)
    assert not claims.taken(b"c", 1)


# --- signaling and its transceivers


Reply = TypeVar("Reply", bound=Message)


class Rogues:
    """Two transceivers that are played, and signaling's links to them."""

    def __init__(self, directory: Path) -> None:
        self.context = zmq.asyncio.Context()
        peers = [(number, f"ipc://{directory}/{number}") for number in (1, 2)]
        self.routers = {number: link.router(self.context, endpoint, KEYS) for number, endpoint in peers}
        self.heard: list[tuple[int, Message]] = []
        self.links = Transceivers(
            Directory(Transceiver(*peer) for peer in peers),
            b"edge/signaling",
            KEYS,
            unasked=lambda *told: self.heard.append(told),
            late=self._late,
        )
        self.late: list[Message] = []

    def _late(self, _: int, reply: Message) -> None:
        self.late.append(reply)
        if isinstance(reply, messages.Ended):
            raise RuntimeError("a fault of our own")

    async def asked(self, asking: Request[Reply]) -> tuple[asyncio.Task[Reply], bytes, int]:
        """Puts a question to the first transceiver. Returns who asks, and its number."""

        async def ask() -> Reply:
            while True:  # until the link is there
                try:
                    return await self.links.ask(1, asking)
                except Unavailable as e:
                    if "usable" in str(e):
                        raise

        task = asyncio.create_task(ask())
        while True:
            peer, message = await self.routers[1].recv_multipart()
            decoded = heard(message)
            assert isinstance(decoded, Said)
            if decoded.type != "hello":
                return task, peer, decoded.fields["request"]
            await self.routers[1].send_multipart([peer, hello_back(decoded)])

    async def says(self, number: int, peer: bytes, type_: str, **fields: Any) -> None:
        await self.routers[number].send_multipart([peer, raw(type_, **fields)])


@pytest.fixture
async def rogues(tmp_path: Path) -> AsyncIterator[Rogues]:
    rogues = Rogues(tmp_path)
    yield rogues
    await rogues.links.close()
    rogues.context.destroy(linger=0)


OFFER = messages.Offer(offer="v=0", agent="", media=("192.0.2.1", 3478))
OURS, THEIRS = (ufrag.seal(number, 1, KEYS.ufrag[1]) for number in (1, 2))


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("session.answer", {}),
        ("session.answer", {"ufrag": OURS}),
        ("session.answer", {"ufrag": OURS, "sdp": None}),
        ("session.answer", {"ufrag": OURS, "sdp": "v" * 200_000}),
        ("session.answer", {"ufrag": [OURS], "sdp": "v=0"}),
        ("session.refused", {}),
        ("session.refused", {"code": 5, "message": "x"}),
        ("session.refused", {"code": "full", "message": "x", "param": {}}),
        ("health", {"sessions": 1, "agents": []}),
        ("no.such.reply", {}),
    ],
)
async def test_an_answer_that_cannot_be_used_is_an_answer_all_the_same(
    rogues: Rogues, type_: str, fields: dict[str, Any]
) -> None:
    task, peer, request = await rogues.asked(OFFER)
    await rogues.says(1, peer, type_, request=request, **fields)
    with pytest.raises(Unavailable, match="usable"):
        await task
    # And the next is heard.
    task, peer, request = await rogues.asked(messages.Health())
    await rogues.says(1, peer, "health", request=request, sessions=3, agents=["parrot"])
    assert (await task).sessions == 3


@pytest.mark.parametrize("sessions", [number for number in NUMBERS if number not in (2**64,)])
async def test_numbers_of_sessions_that_cannot_be_are_refused(rogues: Rogues, sessions: Any) -> None:
    task, peer, request = await rogues.asked(messages.Health())
    await rogues.says(1, peer, "health", request=request, sessions=sessions, agents=[])
    with pytest.raises(Unavailable, match="usable"):
        await task


async def test_one_transceiver_answers_for_no_other(rogues: Rogues) -> None:
    task, peer, request = await rogues.asked(OFFER)
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await rogues.says(2, peer, "session.refused", request=request, code="full", message="no")
                break
            except zmq.ZMQError:  # the link is not there yet
                await asyncio.sleep(0.02)
    await eventually(lambda: rogues.late)
    assert not task.done()
    await rogues.says(1, peer, "session.answer", request=request, ufrag=OURS, sdp="v=0")
    assert (await task).ufrag == OURS


async def test_unasked_it_speaks_of_its_own_sessions_and_in_known_words(rogues: Rogues) -> None:
    task, peer, request = await rogues.asked(messages.Health())
    for told in (
        {"type_": "session.closed", "ufrag": THEIRS, "reason": "x"},
        {"type_": "session.closed", "ufrag": 5, "reason": "x"},
        {"type_": "session.closed", "ufrag": OURS},
        {"type_": "session.event", "ufrag": OURS, "event": {}},
        {"type_": "x" * 100_000},
        {"type_": "session.ended", "request": 10**9},  # its handling fails
        {"type_": "session.ended", "request": {}},
        {"type_": "session.closed", "ufrag": OURS, "reason": "yes"},
    ):
        await rogues.routers[1].send_multipart([peer, raw(**told)])
    await rogues.says(1, peer, "health", request=request, sessions=0, agents=[])
    await task
    assert [message for _, message in rogues.heard] == [messages.Closed(ufrag=OURS, reason="yes")]


# --- a transceiver and its edges


@pytest.fixture
async def signaling(tmp_path: Path) -> AsyncIterator[Signaling]:
    ends = Signaling(tmp_path)
    yield ends
    await ends.close()


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("session.offer", {}),
        ("session.offer", {"offer": "v=0", "agent": "parrot", "media": ["192.0.2.1"]}),
        ("session.offer", {"offer": "v=0", "agent": "parrot", "media": ["192.0.2.1", "3478"]}),
        ("session.offer", {"offer": "v=0", "agent": ["parrot"], "media": ["192.0.2.1", 3478]}),
        ("session.offer", {"offer": b"v=0", "agent": "parrot", "media": ["192.0.2.1", 3478]}),
        ("session.open", {"agent": {}}),
        ("session.watch", {"ufrag": 7}),
        ("session.end", {}),
        ("session.ice", {"ufrag": OURS, "match": "*", "remote": ["a"], "media": ["192.0.2.1", 3478]}),
        ("session.ice", {"ufrag": OURS, "match": "*", "remote": None, "media": None}),
        ("no.such.request", {}),
    ],
)
async def test_a_request_with_wrong_fields_is_refused(signaling: Signaling, type_: str, fields: dict[str, Any]) -> None:
    before = WIRE_ERRORS["refused"]
    await signaling.send(type_, request=1, **fields)
    reply = await signaling.hears("session.refused")
    assert (reply["request"], reply["code"]) == (1, "invalid_request")
    assert type_ in reply["message"]
    assert WIRE_ERRORS["refused"] == before + 1
    await signaling.send("health", request=2)
    assert (await signaling.hears("health"))["request"] == 2


@pytest.mark.parametrize(
    ("type_", "fields", "reply"),
    [
        ("session.open", {"agent": "none", "no_such_field": 1}, "session.refused"),
        ("session.end", {"ufrag": OURS, "more": {"of": ["it"]}}, "session.refused"),
        ("health", {"what": 1}, "health"),
    ],
)
async def test_a_field_of_a_later_release_is_ignored(
    signaling: Signaling, type_: str, fields: dict[str, Any], reply: str
) -> None:
    before = WIRE_ERRORS["refused"]
    await signaling.send(type_, request=1, **fields)
    assert (await signaling.hears(reply)).get("code") != "invalid_request"
    assert WIRE_ERRORS["refused"] == before


@pytest.mark.parametrize("raised", [TypeError("ours"), KeyError("ours"), RuntimeError("ours"), RecursionError()])
async def test_a_fault_of_ours_is_answered_and_logged_with_its_trace(
    signaling: Signaling, raised: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")

    def fail() -> None:
        raise raised

    monkeypatch.setattr("transceiver.server.agents.names", fail)
    await signaling.send("health", request=6)
    reply = await signaling.hears("session.refused")
    assert (reply["request"], reply["code"]) == (6, "internal_error")
    said = "".join(capfd.readouterr())
    assert "a control message failed" in said
    assert "in fail" in said
