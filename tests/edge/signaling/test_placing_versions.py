"""The placing of calls that ask for a version of a model."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fleets import a_report
from signaling_edge import CALLS, SDP, TOKEN, Edge, a_fake, two_fakes

from edge.directory import Transceiver
from edge.signaling import placing

_COUNT = itertools.count(1)


def report(edge: Edge, number: int, **said: Any) -> None:
    """Has the edge hear a new report."""
    nth = next(_COUNT)
    made = msgspec.structs.replace(a_report(number, **said), number=nth)
    assert edge.transceivers.report(made, time.monotonic() + nth * 1e-9, 0.001)


async def placed(edge: Edge, calls: int, model: str, **headers: str) -> list[int]:
    return [(await edge.place("v=0", query=f"?model={model}", **headers))[0] for _ in range(calls)]


async def test_a_version_is_placed_only_where_it_is_and_a_model_without_one_anywhere(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, old, new):
        report(edge, 1, version="1.1", latency_ms=100)
        report(edge, 2, version="1.2", latency_ms=1000)
        assert await placed(edge, 4, "parrot@1.2") == [201] * 4
        assert (old.sessions, new.sessions) == (0, 4)
        assert {offer["agent"] for offer in new.said["session.offer"]} == {"parrot@1.2"}
        assert await placed(edge, 4, "parrot@1.1") == [201] * 4
        assert (old.sessions, new.sessions) == (4, 4)
        assert await placed(edge, 4, "parrot") == [201] * 4
        assert (old.sessions, new.sessions) == (8, 4)


async def test_a_full_version_is_not_replaced_by_another(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, old, new):
        report(edge, 1, version="1.1")
        report(edge, 2, version="1.2")
        new.refusal = ("full", "no")
        assert await placed(edge, 2, "parrot@1.2") == [503] * 2
        assert old.sessions == 0


async def test_a_version_that_nobody_has_is_not_found_and_those_there_are_are_named(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, two):
        report(edge, 1, version="1.1", models=("parrot", "echo"))
        report(edge, 2, version="1.2")
        for model, there in [
            ("parrot@1.3", "no transceiver has version '1.3' of 'parrot': there is parrot@1.1, parrot@1.2"),
            ("echo@1.2", "no transceiver has version '1.2' of 'echo': there is echo@1.1"),
        ]:
            status, _, error = await edge.error("POST", CALLS + f"?model={model}", data="v=0", headers=SDP)
            assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
            assert error["message"] == there
        report(edge, 2, version="")
        report(edge, 1, version="")
        _, _, error = await edge.error("POST", CALLS + "?model=parrot@1.2", data="v=0", headers=SDP)
        assert error["message"].endswith("none says its version")
        assert one.sessions + two.sessions == 0


async def test_who_may_use_a_model_may_use_its_versions_and_no_others(tmp_path: Path) -> None:
    keys = "correct horse models=parrot\nbattery staple models=parrot@1.2\n"
    async with a_fake(tmp_path, api_keys_text=keys) as (edge, _):
        report(edge, 1, version="1.2", models=("parrot", "echo"))
        assert await placed(edge, 1, "parrot@1.2") == [201]
        assert await placed(edge, 1, "echo@1.2") == [404]
        narrow = "Bearer battery staple"
        assert await placed(edge, 1, "parrot@1.2", Authorization=narrow) == [201]
        for other in ("parrot", "parrot@1.1"):
            assert await placed(edge, 1, other, Authorization=narrow) == [404]


@pytest.mark.parametrize(
    ("made_for", "statuses"),
    [
        ("parrot", {"": 201, "parrot": 201, "parrot@1.2": 201, "echo": 403}),
        ("parrot@1.2", {"": 201, "parrot": 403, "parrot@1.2": 201, "parrot@1.1": 403}),
    ],
)
async def test_an_ephemeral_key_is_for_a_model_or_for_one_version(
    tmp_path: Path, made_for: str, statuses: dict[str, int]
) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        report(edge, 1, version="1.2", models=("parrot", "echo"))
        secret = await edge.secret(session={"type": "realtime", "model": made_for})
        for model, status in statuses.items():
            query = f"?model={model}" if model else ""
            assert (await edge.place("v=0", query=query, Authorization=f"Bearer {secret['value']}"))[0] == status
        assert fake.said["session.offer"][0]["agent"] == made_for


async def test_one_that_has_not_said_its_version_is_asked_and_passed_over(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, other):
        one.refusal = ("model_not_found", "no version '1.2' of 'parrot': there is parrot@1.1")
        assert await placed(edge, 6, "parrot@1.2") == [201] * 6
        assert (one.sessions, other.sessions) == (0, 6)
        other.refusal = one.refusal
        status, _, error = await edge.error("POST", CALLS + "?model=parrot@1.2", data="v=0", headers=SDP)
        assert (status, error["code"]) == (404, "model_not_found")


async def test_a_session_without_media_may_ask_for_a_version_too(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, old, new):
        report(edge, 1, version="1.1", latency_ms=100)
        report(edge, 2, version="1.2", latency_ms=1000)
        for _ in range(3):
            async with edge.http.ws_connect(edge.url + "/v1/realtime?model=parrot@1.2", headers=TOKEN) as socket:
                await socket.receive(timeout=30)
        assert (old.counts["session.open"], new.counts["session.open"]) == (0, 3)


async def test_the_explanation_takes_the_version_either_way(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, _, _other):
        report(edge, 1, version="1.1")
        report(edge, 2, version="1.2")
        for found in (edge.placing.explain("parrot@1.2"), edge.placing.explain("parrot", "1.2")):
            assert (found.model, found.version) == ("parrot", "1.2")
            assert {each.id: each.verdict for each in found.candidates} == {1: "other version", 2: "good"}


async def test_a_call_looks_at_one_of_many_that_make_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    class Counted(placing._Turn):
        def __init__(self, number: int) -> None:
            super().__init__(number)
            looked_at.append(number)

    monkeypatch.setattr("edge.signaling.placing._Turn", Counted)
    async with a_fake(tmp_path) as (edge, fake):
        for number in range(2, 300):
            edge.transceivers.put(Transceiver(number, f"ipc://{tmp_path}/{number}"))
        assert await placed(edge, 1, "parrot") == [201]
        assert looked_at == [1]
        assert fake.sessions == 1
