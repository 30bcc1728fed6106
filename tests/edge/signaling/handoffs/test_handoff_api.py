"""Hand-offs over HTTP: a session of a real transceiver gets another model, and who may not have that is told why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from edge_run import RealEdge, a_real_edge, offer
from signaling_edge import CALLS, DEADLINE_S, OTHER_TOKEN, TOKEN, a_fake, two_fakes
from waiting import eventually

from wire import ufrag

MODELS = ("echo", "parrot", "pipeline", "nobody")


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[RealEdge]:
    async with a_real_edge(tmp_path, 1, models=MODELS) as edge:
        transceiver = edge.start(1)
        await edge.ready(1)
        async with asyncio.timeout(DEADLINE_S):
            # The link of events too, which /readyz does not ask.
            while await edge.refused_socket("?model=parrot", headers=TOKEN) != 101:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.02)
        await eventually(lambda: transceiver.sessions == 0 and len(edge.ledger) == 0)
        yield edge


@asynccontextmanager
async def a_session(edge: RealEdge) -> AsyncIterator[tuple[str, Any]]:
    """A session of the parrot's over a WebSocket: its id and the socket."""
    async with edge.http.ws_connect(f"{edge.url}/v1/realtime?model=parrot", headers=TOKEN) as socket:
        created = await event(socket, "session.created")
        yield created["session"]["id"], socket


async def event(socket: Any, type_: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found: dict[str, Any] = json.loads(await socket.receive_str())
            if found["type"] == type_:
                return found


async def hand_off(edge: Any, call: str, body: Any, headers: dict[str, str] = TOKEN) -> tuple[int, Any]:
    async with edge.http.post(f"{edge.url}{CALLS}/{call}/handoff", json=body, headers=headers) as response:
        return response.status, await response.json()


async def calls_of(edge: Any, query: str = "", headers: dict[str, str] = TOKEN) -> dict[str, Any]:
    async with edge.http.get(f"{edge.url}{CALLS}{query}", headers=headers) as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def test_a_session_gets_another_model_and_is_listed_as_its_call(edge: RealEdge) -> None:
    async with a_session(edge) as (call, socket):
        assert (await calls_of(edge, "?model=parrot"))["data"] == [
            {"object": "realtime.call", "id": call, "model": "parrot"}
        ]
        told = await hand_off(edge, call, {"model": "pipeline"})
        assert told == (200, {"object": "realtime.call", "id": call, "model": "pipeline"})
        updated = await event(socket, "session.updated")
        assert (updated["session"]["id"], updated["session"]["model"]) == (call, "pipeline")
        assert (await calls_of(edge, "?model=parrot"))["data"] == []
        whole = {"object": "realtime.call", "id": call, "model": "pipeline"}
        assert await calls_of(edge) == {"object": "list", "data": [whole], "has_more": False}
        assert (await calls_of(edge, headers=OTHER_TOKEN))["data"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"model": "offline"}, 404, "model_not_found"),
        ({"model": "echo"}, 409, "model_unfit"),
        ({"model": 7}, 400, "invalid_value"),
        ({}, 400, "missing_required_parameter"),
    ],
    ids=["unknown", "not for this key", "unfit", "no name", "none"],
)
async def test_a_model_that_cannot_be_had_is_refused_and_the_session_goes_on(
    edge: RealEdge, body: dict[str, Any], status: int, code: str
) -> None:
    async with a_session(edge) as (call, socket):
        answer = await hand_off(edge, call, body)
        assert (answer[0], answer[1]["error"]["code"]) == (status, code)
        if code == "model_not_found":
            assert "parrot" in answer[1]["error"]["message"]
        await socket.send_str(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
        assert (await event(socket, "session.updated"))["session"]["model"] == "parrot"


async def test_a_call_that_is_not_there_or_another_s_is_not_found(edge: RealEdge) -> None:
    async with a_session(edge) as (call, _):
        for id_, headers in ((call, OTHER_TOKEN), ("rtc_nonsense", TOKEN)):
            status, answer = await hand_off(edge, id_, {"model": "pipeline"}, headers)
            assert (status, answer["error"]["code"]) == (404, "call_id_not_found")


async def test_a_call_that_has_not_connected_has_no_model_to_hand_off(edge: RealEdge) -> None:
    status, headers, _ = await edge.place(offer(), query="?model=parrot")
    assert status == 201
    call = str(headers["Location"]).rpartition("/")[2]
    status, answer = await hand_off(edge, call, {"model": "pipeline"})
    assert (status, answer["error"]["code"]) == (409, "not_connected")


async def test_an_ephemeral_key_hands_nothing_off_and_lists_nothing(edge: RealEdge) -> None:
    token = {"Authorization": f"Bearer {(await edge.secret())['value']}"}
    async with a_session(edge) as (call, _):
        assert (await hand_off(edge, call, {"model": "pipeline"}, token))[0] == 401
        async with edge.http.get(f"{edge.url}{CALLS}", headers=token) as response:
            assert response.status == 401


async def test_a_call_that_moved_is_handed_off_where_it_is(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, two):
        status, headers, _ = await edge.place("v=0")
        assert status == 201
        home, other = (one, two) if one.placed_by else (two, one)
        (sealed,) = home.placed_by
        home.give(sealed, other)
        call = str(headers["Location"]).rpartition("/")[2]
        assert await hand_off(edge, call, {"model": "parrot"}) == (
            200,
            {"object": "realtime.call", "id": call, "model": "parrot"},
        )
        assert (home.counts["session.handoff"], other.counts["session.handoff"]) == (1, 1)


async def test_a_transceiver_of_an_older_release_is_not_asked(tmp_path: Path) -> None:
    async with a_fake(tmp_path, versions=(4, 4)) as (edge, fake):
        status, headers, _ = await edge.place("v=0")
        assert status == 201
        call = str(headers["Location"]).rpartition("/")[2]
        assert ufrag.ufrag_of_call(call) is not None
        status, answer = await hand_off(edge, call, {"model": "parrot"})
        assert status == 503
        assert "older release" in answer["error"]["message"]
        assert fake.counts["session.handoff"] == 0
        assert await calls_of(edge) == {"object": "list", "data": [], "has_more": True}
