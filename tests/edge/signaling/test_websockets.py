"""WebSockets to sessions, against a transceiver that is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType
from signaling_edge import (
    CALLS,
    DEADLINE_S,
    KEYS,
    TOKEN,
    Edge,
    FakeTransceiver,
    a_fake,
    an_edge,
    until_connected,
)
from waiting import eventually

from edge.links.feed import Ending, Feed
from edge.signaling.cutting import MAX_BYTES
from edge.signaling.pace import Pace
from edge.signaling.sockets import MAX_SIDEBAND_BYTES
from wire import ufrag
from wire.link import MAX_EVENT_BYTES

WS = "/v1/realtime"


@pytest.fixture
async def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Edge, FakeTransceiver]]:
    # A busy machine may stop this process for a second, and the transceiver that is played with it.
    for patience in ("links.transceivers._PATIENCE_S", "signaling.placing._PULSE_S"):
        monkeypatch.setattr(f"edge.{patience}", 30.0)
    async with a_fake(tmp_path) as (edge, fake):
        await until_connected(edge, fake)
        yield edge, fake


def connect(edge: Edge, query: str = "?model=parrot", **options: Any) -> Any:
    return edge.http.ws_connect(edge.url + WS + query, **{"headers": TOKEN, "max_msg_size": 0, **options})


async def ended(socket: Any) -> tuple[int | None, str]:
    """The close code and reason, after whatever comes before."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            message = await socket.receive()
            if message.type == WSMsgType.CLOSE:
                return message.data, message.extra
            if message.type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSING):
                return socket.close_code, ""


# --- the parts ---


async def test_a_feed_gives_what_it_got_in_order_and_then_its_end() -> None:
    feed = Feed()
    for event in "abc":
        feed.put(event)
    feed.end(Ending(1001, "over"))
    feed.put("late")
    feed.end(Ending(1011, "later"))
    assert [await feed.get() for _ in range(5)] == ["a", "b", "c", None, None]
    assert feed.ending == Ending(1001, "over")


@pytest.mark.parametrize("feed", [Feed(most=3), Feed(most_bytes=30)], ids=["events", "bytes"])
async def test_a_feed_that_nobody_reads_is_cut_off(feed: Feed) -> None:
    for _ in range(3):
        feed.put("x" * 10)
    assert not feed.was_cut.is_set()
    feed.put("x" * 10)
    assert feed.was_cut.is_set()
    assert feed.ending is not None
    assert feed.ending.code == 1013
    assert await feed.get() is None


async def test_one_event_may_be_larger_than_all_together() -> None:
    feed = Feed(most_bytes=30)
    feed.put("x" * 100)
    assert await feed.get() == "x" * 100


def test_who_sends_faster_than_allowed_waits_for_as_long_as_it_takes() -> None:
    pace = Pace(rate=100, burst=1000, each=10)
    assert pace.wait_s(490, 0) == 0
    assert pace.wait_s(490, 0) == 0
    assert pace.wait_s(190, 0) == 2
    assert pace.wait_s(0, 2) == pytest.approx(0.1)
    assert pace.wait_s(990, 1000) == 0
    # A clock that goes wild gives no more than the burst.
    assert pace.wait_s(1990, 10**9) == 10


# --- a session ---


async def test_events_go_both_ways_as_they_are_and_the_session_ends_with_its_socket(
    both: tuple[Edge, FakeTransceiver],
) -> None:
    edge, fake = both
    async with connect(edge) as socket:
        assert json.loads(await socket.receive_str())["type"] == "session.created"
        (sealed,) = fake.placed_by
        assert fake.said["session.open"][-1]["agent"] == "parrot"
        sent = ['{"type": "session.update"}', "not json", "", "é\u2028\U0001f600"]
        for text in sent:
            await socket.send_str(text)
        await eventually(lambda: len(fake.events.get(sealed, [])) == len(sent))
        assert fake.events[sealed] == sent
        for text in sent:
            await fake.tell(sealed, "session.event", event=text)
        assert [await socket.receive_str() for _ in sent] == sent
    await eventually(lambda: not fake.placed_by)


@pytest.mark.parametrize("opening", ["session.closed in the same breath", "many events"])
async def test_nothing_that_comes_right_after_the_opening_is_lost(
    both: tuple[Edge, FakeTransceiver], opening: str
) -> None:
    edge, fake = both
    fake.first = [str(i) for i in range(100 if opening == "many events" else 1)]
    async with connect(edge) as socket:
        assert [await socket.receive_str() for _ in fake.first] == fake.first


async def test_browsers_show_their_key_as_a_subprotocol(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    token = (await edge.secret(session={"model": "parrot"}))["value"]
    protocols = ("realtime", f"openai-insecure-api-key.{token}", "openai-beta.realtime-v1")
    async with connect(edge, "", headers={}, protocols=protocols) as socket:
        assert socket.protocol == "realtime"
        await socket.receive_str()


async def test_a_token_carries_its_session_over_a_websocket(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    session = {"type": "realtime", "model": "parrot", "instructions": "sing"}
    token = (await edge.secret(session=session))["value"]
    async with connect(edge, "", headers={"Authorization": f"Bearer {token}"}):
        said = fake.said["session.open"][-1]
        assert (said["agent"], said["session"]) == ("parrot", session)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {}}, 401),
        ({"headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"headers": {}, "protocols": ("realtime",)}, 401),
        ({"headers": {}, "protocols": ("realtime", "openai-insecure-api-key.wrong")}, 401),
        ({"headers": {}, "protocols": ("realtime", "openai-insecure-api-key.")}, 401),
        ({"headers": TOKEN, "protocols": ("chat",)}, 400),
        ({"headers": {**TOKEN, "Origin": "https://evil.example"}}, 403),
    ],
)
async def test_an_upgrade_that_is_not_allowed_opens_nothing(
    tmp_path: Path, options: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_fake(tmp_path, allowed_origins=("https://app.example",)) as (edge, fake):
        assert await edge.refused_socket("?model=parrot", **options) == status
        assert "session.open" not in fake.said
        assert not [r for r in caplog.records if r.name == "aiohttp.websocket"]


async def test_a_plain_get_is_told_to_upgrade(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    status, headers, error = await edge.error("GET", WS + "?model=parrot", headers=TOKEN)
    assert (status, error["code"], headers["Upgrade"]) == (426, "upgrade_required", "websocket")


@pytest.mark.parametrize(("code", "status"), [("model_not_found", 404), ("full", 503), ("invalid_session", 400)])
async def test_what_the_transceiver_refuses_is_an_answer_like_any_other(
    both: tuple[Edge, FakeTransceiver], code: str, status: int
) -> None:
    edge, fake = both
    fake.refusal = (code, "no")
    assert await edge.refused_socket("?model=parrot", headers=TOKEN) == status


async def test_without_a_transceiver_an_upgrade_is_503(tmp_path: Path) -> None:
    async with an_edge(tmp_path, 1) as edge:
        assert await edge.refused_socket("", headers=TOKEN) == 503


async def test_a_binary_frame_is_an_error_event_and_the_socket_stays(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    async with connect(edge) as socket:
        await socket.receive_str()
        await socket.send_bytes(b"\0\1\2")
        event = json.loads(await socket.receive_str())
        assert (event["type"], event["error"]["code"]) == ("error", "invalid_event")
        assert event["event_id"]
        assert set(event["error"]) == {"type", "code", "message", "param", "event_id"}
        await socket.send_str("still here")
        (sealed,) = fake.placed_by
        await eventually(lambda: fake.events.get(sealed) == ["still here"])


async def test_the_largest_event_arrives_and_one_that_no_transceiver_takes_is_an_error(
    both: tuple[Edge, FakeTransceiver],
) -> None:
    edge, fake = both
    async with connect(edge) as socket:
        await socket.receive_str()
        (sealed,) = fake.placed_by
        await socket.send_str("x" * MAX_EVENT_BYTES)
        await eventually(lambda: [len(event) for event in fake.events.get(sealed, [])] == [MAX_EVENT_BYTES])
        await fake.tell(sealed, "session.event", event="y" * MAX_EVENT_BYTES)
        assert len(await socket.receive_str()) == MAX_EVENT_BYTES
        await socket.send_str(json.dumps({"type": "x", "event_id": "mine", "y": "x" * MAX_EVENT_BYTES}))
        error = json.loads(await socket.receive_str())["error"]
        assert (error["code"], error["event_id"]) == ("invalid_event", "mine")
        with suppress(ConnectionError):  # it may be closed before all is sent
            await socket.send_str("x" * (MAX_BYTES + 1))
        assert (await ended(socket))[0] == 1009
    await eventually(lambda: not fake.placed_by)


# --- how a socket ends ---


@pytest.mark.parametrize(("reason", "code"), [("shutdown", 1012), ("hangup", 1001), ("x" * 500 + "é" * 500, 1001)])
async def test_a_session_that_the_transceiver_ends_closes_its_socket_after_the_last_event(
    both: tuple[Edge, FakeTransceiver], reason: str, code: int
) -> None:
    edge, fake = both
    async with connect(edge) as socket:
        await socket.receive_str()
        (sealed,) = fake.placed_by
        await fake.tell(sealed, "session.event", event="last")
        await fake.close_session(sealed, reason)
        assert await socket.receive_str() == "last"
        assert await ended(socket) == (code, reason[:123])


async def test_a_transceiver_that_dies_closes_its_sockets_with_1011(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    async with connect(edge) as socket:
        await socket.receive_str()
        await fake.close()
        error = await socket.receive_json(timeout=DEADLINE_S)
        assert (error["type"], error["error"]["code"]) == ("error", "session_lost")
        code, reason = await ended(socket)
        assert code == 1011
        assert "gone" in reason


async def test_an_edge_that_restarts_closes_its_sockets_with_1012(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    async with connect(edge) as socket:
        await socket.receive_str()
        assert edge.runner is not None
        leaving = asyncio.ensure_future(edge.runner.cleanup())
        assert (await ended(socket))[0] == 1012
        await leaving
    await eventually(lambda: not fake.placed_by)


# --- the sideband ---


async def call(edge: Edge) -> str:
    status, headers, _ = await edge.place("v=0")
    assert status == 201
    return str(headers["Location"]).rpartition("/")[2]


async def test_a_server_joins_a_calls_events_and_leaves_it_standing(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    call_id = await call(edge)
    (sealed,) = fake.placed_by
    async with connect(edge, f"?call_id={call_id}") as one, connect(edge, f"?call_id={call_id}") as two:
        await fake.tell(sealed, "session.event", event="hello")
        assert [await one.receive_str(), await two.receive_str()] == ["hello", "hello"]
        await one.send_str("from one")
        await eventually(lambda: fake.events.get(sealed) == ["from one"])
        await one.close()
        await fake.tell(sealed, "session.event", event="more")
        assert await two.receive_str() == "more"
        assert fake.counts["session.unwatch"] == 0
        await two.send_str("x" * (MAX_SIDEBAND_BYTES + 1))
        assert (await ended(two))[0] == 1009
    await eventually(lambda: fake.counts["session.unwatch"] == 1)
    assert sealed in fake.placed_by
    async with connect(edge, f"?call_id={call_id}") as three:
        await fake.close_session(sealed, "closed_by_peer")
        assert await ended(three) == (1001, "closed_by_peer")


async def test_an_ephemeral_key_sees_no_call_and_an_unknown_one_is_404(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    token = {"Authorization": f"Bearer {(await edge.secret())['value']}"}
    _, headers, _ = await edge.place("v=0", **token)
    call_id = headers["Location"].rpartition("/")[2]
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    never = ufrag.call_id(ufrag.seal(1, 1, KEYS.ufrag[1]))
    for asked, key in ((call_id, token), (never, TOKEN), ("rtc_x", TOKEN), ("", TOKEN), (call_id + "A", TOKEN)):
        status, _, error = await edge.error("GET", f"{WS}?call_id={asked}", headers={**key, **upgrade})
        assert (status, error["code"]) == (404, "call_id_not_found")
    assert [w["ufrag"] for w in fake.said.get("session.watch", [])] == [str(ufrag.ufrag_of_call(never), "ascii")]


async def test_a_call_has_a_bounded_number_of_watchers(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    call_id = await call(edge)
    sockets = [await connect(edge, f"?call_id={call_id}") for _ in range(8)]
    assert await edge.refused_socket(f"?call_id={call_id}", headers=TOKEN) == 503
    await sockets[0].close()
    await eventually(lambda: sockets[0].closed)
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await edge.refused_socket(f"?call_id={call_id}", headers=TOKEN) == 101:
                break
            await asyncio.sleep(0.02)
    for socket in sockets:
        await socket.close()


# --- those who would hurt others ---


async def test_a_slow_reader_is_cut_off_with_1013_and_others_hear_everything(
    both: tuple[Edge, FakeTransceiver],
) -> None:
    edge, fake = both
    async with connect(edge) as slow:
        (theirs,) = fake.placed_by
        async with connect(edge) as quick:
            await quick.receive_str()
            mine = next(u for u in fake.placed_by if u != theirs)
            for i in range(60):
                await fake.tell(theirs, "session.event", event="z" * (1 << 20))
                await fake.tell(mine, "session.event", event=str(i))
            assert [await quick.receive_str() for _ in range(60)] == [str(i) for i in range(60)]
            # Cut off while it reads nothing: the session is over for the transceiver too.
            await eventually(lambda: theirs not in fake.placed_by)
            assert (await ended(slow))[0] in (1013, 1006, None)
            await quick.send_str("still here")
            await eventually(lambda: fake.events.get(mine) == ["still here"])


async def test_a_flood_on_one_socket_holds_up_neither_calls_nor_other_sockets(
    both: tuple[Edge, FakeTransceiver],
) -> None:
    edge, fake = both
    async with connect(edge) as flooding:
        (theirs,) = fake.placed_by
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await flooding.send_str("z" * (1 << 20))
                sent += 1

        flooder = asyncio.create_task(flood())
        try:
            async with connect(edge) as quick:
                await quick.receive_str()
                mine = next(u for u in fake.placed_by if u != theirs)
                for i in range(50):
                    await quick.send_str(str(i))
                    await fake.tell(mine, "session.event", event=str(i))
                    assert await quick.receive_str() == str(i)
                assert (await edge.place("v=0"))[0] == 201
                await eventually(lambda: len(fake.events.get(mine, [])) == 50)
                # Whoever sends faster than the pace is read more slowly; nothing of it is lost or closed.
                await eventually(lambda: len(fake.events.get(theirs, [])) >= 32)
        finally:
            flooder.cancel()
            await asyncio.gather(flooder, return_exceptions=True)
    assert fake.events[theirs] == ["z" * (1 << 20)] * len(fake.events[theirs])


async def test_sockets_that_come_and_go_leave_nothing_behind(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    opened = fake.counts["session.open"]
    for _ in range(5):
        sockets = await asyncio.gather(*(connect(edge) for _ in range(40)))
        for socket in sockets[:20]:
            socket._response.connection.transport.abort()  # without a word
        await asyncio.gather(*(socket.close() for socket in sockets[20:]))
        for socket in sockets[:20]:
            await socket.close()
    assert fake.counts["session.open"] == opened + 200
    await eventually(lambda: not fake.placed_by and len(edge.ledger) == 0)


async def test_a_session_that_opens_after_the_client_was_refused_is_ended(
    both: tuple[Edge, FakeTransceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, fake = both
    monkeypatch.setattr("edge.links.transceivers._PATIENCE_S", 0.2)
    fake.mute = {"session.open"}
    for _ in range(2):
        assert await edge.refused_socket("", headers=TOKEN) == 503
    fake.mute = set()
    ended = fake.counts["session.end"]
    for fields in fake.said["session.open"][-2:]:
        await fake.answer(b"edge/signaling/events", "session.open", fields)
    await eventually(lambda: fake.counts["session.end"] == ended + 2 and not fake.placed_by)
    async with edge.http.post(edge.url + CALLS, data="v=0", headers={**TOKEN, "Content-Type": "application/sdp"}):
        pass
