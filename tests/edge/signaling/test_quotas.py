"""Limits of an API key: calls at once, new calls a minute, and the truth after a process was killed."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
from signaling_edge import CALLS, DEADLINE_S, KEYS, OTHER_TOKEN, SDP, TOKEN, a_fake, until_connected
from waiting import eventually

from edge.directory import Directory, Transceiver
from edge.links.transceivers import Transceivers
from edge.signaling.health import keep_true
from edge.signaling.journal import Journal
from edge.signaling.ledger import Held, Ledger, Limits, Wait, limits
from runtime import logs
from runtime.config import Edge
from wire.ufrag import ufrag_of_call

A = Held("a", "", 1)


def placed(ledger: Ledger, ufrag: str, held: Held = A) -> Wait | None:
    wait = ledger.admit(held.key, 0.0, held.token)
    if wait is None:
        ledger.settle(held.key, held.token, ufrag, held)
    return wait


# --- the ledger ---


def test_without_limits_everything_is_admitted() -> None:
    ledger = Ledger()
    assert {placed(ledger, str(i)) for i in range(1000)} == {None}
    assert len(ledger) == 1000


def test_calls_at_once_are_limited_by_key_and_free_their_place() -> None:
    ledger = Ledger(Limits(at_once=2))
    assert [placed(ledger, u) for u in "xy"] == [None, None]
    assert placed(ledger, "z") is not None
    assert placed(ledger, "w", Held("b", "", 1)) is None
    ledger.ended("x")
    ledger.ended("x")
    ledger.ended("unknown")
    assert placed(ledger, "z") is None
    assert placed(ledger, "q") is not None


def test_a_call_counts_while_it_is_placed_and_no_longer_when_it_fails() -> None:
    ledger = Ledger(Limits(at_once=1))
    assert ledger.admit("a", 0) is None
    assert ledger.admit("a", 0) is not None
    ledger.settle("a")
    assert ledger.admit("a", 0) is None


def test_new_calls_are_limited_in_any_minute_and_the_wait_is_told() -> None:
    ledger = Ledger(Limits(per_minute=2))
    assert ledger.admit("a", 0) is None
    assert ledger.admit("a", 30) is None
    assert ledger.admit("a", 45) == Wait(15, "this API key")
    assert ledger.admit("b", 45) is None
    assert ledger.admit("a", 59.9) is not None
    assert ledger.admit("a", 60) is None
    assert ledger.admit("a", 89) == Wait(1, "this API key")


def test_a_try_that_found_no_room_is_no_call_of_its_minute() -> None:
    ledger = Ledger(Limits(per_minute=2), Limits(per_minute=1))
    for at in (0, 1):
        assert ledger.admit("a", at, "t") is None
        ledger.no_room("a", at, "t")
        ledger.settle("a", "t")
    assert ledger.admit("a", 2, "t") == Wait(59, "this ephemeral key")  # one was taken back, and the second counts
    assert [ledger.admit("a", 3), ledger.admit("a", 4)] == [None, None]
    assert ledger.admit("a", 5) == Wait(58, "this API key")


def test_tries_that_found_no_room_have_a_bound_as_well() -> None:
    ledger = Ledger(Limits(per_minute=3))
    tries = 0
    while ledger.admit("a", tries) is None:
        ledger.no_room("a", tries)
        ledger.settle("a")
        tries += 1
    assert tries == 6
    assert ledger.admit("b", 6) is None
    assert ledger.admit("a", 63) is None  # a minute after the first that counted


def test_a_key_that_is_refused_after_a_quiet_minute_is_no_hindrance_to_others() -> None:
    ledger = Ledger(Limits(at_once=1, per_minute=3))
    assert placed(ledger, "x") is None
    assert ledger.admit("a", 61) == Wait(5, "this API key")
    assert ledger.admit("b", 62) is None


def test_a_key_that_begins_and_ends_calls_in_haste_is_bounded_where_nothing_is_configured() -> None:
    ledger = Ledger(*limits(Edge()))  # type: ignore[call-arg]
    begun = 0
    while (wait := placed(ledger, str(begun))) is None:
        ledger.ended(str(begun))
        begun += 1
    assert begun == 6000
    assert wait == Wait(60, "this API key")
    assert placed(ledger, "other", Held("b", "", 1)) is None
    unlimited = Ledger(*limits(Edge(calls_per_minute=0)))  # type: ignore[call-arg]
    assert {placed(unlimited, str(i)) for i in range(begun + 1)} == {None}


def test_an_ephemeral_key_uses_up_its_own_places_and_not_those_of_its_api_key() -> None:
    ledger = Ledger(Limits(at_once=4), Limits(at_once=2, per_minute=3))
    browser, other = Held("a", "t", 1), Held("a", "u", 1)
    assert [placed(ledger, u, browser) for u in "xy"] == [None, None]
    assert placed(ledger, "z", browser) == Wait(5, "this ephemeral key")
    assert [placed(ledger, u, other) for u in "vw"] == [None, None]
    assert ledger.admit("a", 0) == Wait(5, "this API key")
    ledger.ended("x")
    assert placed(ledger, "z", browser) is None
    ledger.ended("z")
    assert placed(ledger, "z", browser) == Wait(60, "this ephemeral key")
    assert ledger.calls("a") == 3
    # One that is refused on its own account takes nothing of its key's.
    assert ledger.admit("a", 0) is None


def test_ephemeral_keys_that_came_once_are_forgotten_after_their_minute() -> None:
    ledger = Ledger(Limits(), Limits(at_once=2, per_minute=3))

    def held_after(calls: int, start: float) -> int:
        for i in range(calls):
            assert ledger.admit("a", start + i, f"{start}-{i}") is None
            ledger.settle("a", f"{start}-{i}")
        return len(pickle.dumps(ledger._tokens._asked))

    assert held_after(1000, 0) <= 1.1 * held_after(100, 10_000)


def test_what_a_transceiver_no_longer_has_is_over_the_oldest_first() -> None:
    ledger = Ledger()
    for ufrag in "abcd":
        placed(ledger, ufrag)
    placed(ledger, "other", Held("a", "", 2))
    stood = ledger.of(1)
    placed(ledger, "new")
    ledger.ended("b")
    ledger.reconcile(stood, 2)
    assert ledger.of(1) == ["c", "d", "new"]
    ledger.reconcile(ledger.of(1), 5)
    assert len(ledger) == 4
    ledger.reconcile(ledger.of(1), 0)
    assert ledger.of(1) == []
    assert ledger.of(2) == ["other"]
    assert ledger.calls("a") == 1


# --- the journal ---


def test_the_next_process_knows_what_stands(tmp_path: Path) -> None:
    first = Journal(tmp_path / "calls", logs.get())
    ledger = Ledger(Limits(2), Limits(), first.note)
    placed(ledger, "x", Held("a", "t", 3, socket=True))
    placed(ledger, "y")
    ledger.ended("y")
    second = Journal(tmp_path / "calls", logs.get())  # the first was killed
    assert second.held == {"x": Held("a", "t", 3, socket=True)}
    assert (tmp_path / "calls").stat().st_mode & 0o777 == 0o600
    after = Ledger(Limits(2), Limits(), second.note, second.held)
    assert after.calls("a") == 1
    assert placed(after, "z") is None
    assert placed(after, "w") is not None
    first.close()
    second.close()


def test_the_next_process_knows_whose_ephemeral_keys_are_used_up(tmp_path: Path) -> None:
    first = Journal(tmp_path / "calls", logs.get())
    browser = Held("a", "t", 1)
    assert placed(Ledger(Limits(), Limits(at_once=1), first.note), "x", browser) is None
    first.close()
    second = Journal(tmp_path / "calls", logs.get())
    after = Ledger(Limits(), Limits(at_once=1), second.note, second.held)
    assert placed(after, "y", browser) == Wait(5, "this ephemeral key")
    after.ended("x")
    assert placed(after, "y", browser) is None
    second.close()


def test_half_a_line_and_nonsense_are_passed_over(tmp_path: Path) -> None:
    good = b'["x", ["a", "", 1, false]]\n'
    (tmp_path / "calls").write_bytes(good + b'\xff\n[]\n5\n["y", 7]\n["z", ["a"')
    journal = Journal(tmp_path / "calls", logs.get())
    assert journal.held == {"x": A}
    journal.close()


def test_a_long_history_is_written_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "calls", logs.get())
    journal.note("kept", A)
    for i in range(12_000):
        journal.note(str(i), A)
        journal.note(str(i), None)
    assert len((tmp_path / "calls").read_bytes().splitlines()) < 12_000
    journal.close()
    again = Journal(tmp_path / "calls", logs.get())
    assert again.held == {"kept": A}
    again.close()


def test_where_nothing_can_be_written_limits_work_all_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "nowhere" / "calls", logs.get())
    ledger = Ledger(Limits(1), Limits(), journal.note)
    assert placed(ledger, "x") is None
    assert placed(ledger, "y") is not None


# --- over HTTP ---


async def test_too_many_calls_at_once_are_429_until_one_ends(tmp_path: Path) -> None:
    async with a_fake(tmp_path, calls_per_key=2) as (edge, fake):
        locations = [(await edge.place("v=0"))[1]["Location"] for _ in range(2)]
        status, headers, error = await edge.error("POST", CALLS, data="v=0", headers=SDP)
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["Retry-After"]) > 0
        assert await edge.refused_socket("?model=parrot", headers=TOKEN) == 429
        # Also with an ephemeral key, which is on the same account.
        value = (await edge.secret())["value"]
        assert (await edge.place("v=0", Authorization=f"Bearer {value}"))[0] == 429
        assert (await edge.place("v=0", **OTHER_TOKEN))[0] == 201
        # One is hung up, the other ends by itself.
        async with edge.http.delete(edge.url + locations[0], headers=TOKEN) as response:
            assert response.status == 200
        assert (await edge.place("v=0"))[0] == 201
        assert (await edge.place("v=0"))[0] == 429
        sealed = ufrag_of_call(locations[1].rpartition("/")[2])
        assert sealed is not None
        await fake.close_session(sealed.decode(), "consent_expired")
        await eventually(lambda: edge.ledger.get(sealed.decode()) is None)
        assert (await edge.place("v=0"))[0] == 201


async def test_a_browser_does_not_use_up_the_quota_of_its_api_key(tmp_path: Path) -> None:
    async with a_fake(tmp_path, calls_per_key=3, calls_per_ephemeral_key=2) as (edge, fake):
        await until_connected(edge, fake)
        value = (await edge.secret())["value"]
        as_browser = {"Authorization": f"Bearer {value}"}
        assert [(await edge.place("v=0", **as_browser))[0] for _ in range(3)] == [201, 201, 429]
        status, headers, error = await edge.error("POST", CALLS, data="v=0", headers={**SDP, **as_browser})
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        assert "this ephemeral key" in error["message"]
        assert int(headers["Retry-After"]) > 0
        assert await edge.refused_socket("?model=parrot", headers=as_browser) == 429
        assert fake.said["session.offer"][-1]["holder"] == fake.said["session.offer"][-2]["holder"]
        assert (await edge.place("v=0"))[0] == 201
        assert "holder" not in fake.said["session.offer"][-1]


async def test_too_many_new_calls_a_minute_are_429_whatever_became_of_them(tmp_path: Path) -> None:
    async with a_fake(tmp_path, calls_per_minute=2) as (edge, fake):
        fake.refusal = ("invalid_offer", "no")
        assert (await edge.place("v=0"))[0] == 400
        fake.refusal = None
        assert (await edge.place("v=0"))[0] == 201
        status, headers, _ = await edge.error("POST", CALLS, data="v=0", headers=SDP)
        assert status == 429
        assert 1 <= int(headers["Retry-After"]) <= 60


async def test_refusals_for_want_of_room_are_503_however_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.placement.fullness.FRESH_S", 3600.0)
    async with a_fake(tmp_path, calls_per_minute=2, ephemeral_calls_per_minute=2) as (edge, fake):
        assert (await edge.place("v=0", **OTHER_TOKEN))[0] == 201
        fake.refusal = ("full", "it holds its calls")
        value = (await edge.secret())["value"]
        as_browser = {"Authorization": f"Bearer {value}"}
        assert [(await edge.place("v=0"))[0] for _ in range(10)] == [503] * 10
        assert [(await edge.place("v=0", **as_browser))[0] for _ in range(10)] == [503] * 10
        assert fake.counts["session.offer"] <= 1 + 2, "nobody is asked again"
        fake.refusal = None
        edge.ledger.ended(next(iter(edge.ledger.whereabouts)))
        assert [(await edge.place("v=0", **as_browser))[0] for _ in range(3)] == [201, 201, 429]


async def test_a_refused_call_takes_no_place(tmp_path: Path) -> None:
    async with a_fake(tmp_path, calls_per_key=1) as (edge, fake):
        await until_connected(edge, fake)
        for code in ("full", "model_not_found", "surprise"):
            fake.refusal = (code, "no")
            await edge.place("v=0")
            await edge.refused_socket("", headers=TOKEN)
        fake.refusal = None
        async with asyncio.timeout(DEADLINE_S):
            # For a moment nobody is asked again.
            while (status := (await edge.place("v=0"))[0]) == 503:  # noqa: ASYNC110  # nothing else tells
                await asyncio.sleep(0.05)
        assert status == 201
        assert (await edge.place("v=0"))[0] == 429


async def test_a_websocket_counts_while_it_is_open(tmp_path: Path) -> None:
    async with a_fake(tmp_path, calls_per_key=1) as (edge, fake):
        await until_connected(edge, fake)
        async with edge.http.ws_connect(edge.url + "/v1/realtime", headers=TOKEN):
            assert (await edge.place("v=0"))[0] == 429
        await eventually(lambda: fake.sessions == 0 and len(edge.ledger) == 0)
        assert (await edge.place("v=0"))[0] == 201


@pytest.mark.parametrize("lost", [True, False], ids=["its word was lost", "it still stands"])
async def test_an_audit_finds_what_ended_unheard_and_ends_what_lost_its_socket(tmp_path: Path, lost: bool) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        for _ in range(2):
            await edge.place("v=0")
        call, orphan = fake.placed_by
        ledger = Ledger(held={call: Held("a", "", 1), orphan: Held("a", "", 1, socket=True)})
        if lost:
            del fake.placed_by[call]
        links = Transceivers(Directory([Transceiver(1, f"ipc://{tmp_path}/1")]), b"edge/signaling/next", KEYS)
        assert edge.events is not None
        audit = asyncio.create_task(keep_true(ledger, links, edge.events, every_s=0.02))
        try:
            await eventually(lambda: len(ledger) == (0 if lost else 1))
            assert orphan not in fake.placed_by
            assert (ledger.get(call) is None) is lost
        finally:
            audit.cancel()
            await links.close()


async def test_who_listens_to_a_transceiver_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        await until_connected(edge, fake)
        links = Transceivers(Directory([Transceiver(1, f"ipc://{tmp_path}/1")]), b"edge/signaling/audit", KEYS)
        assert edge.events is not None
        audit = asyncio.create_task(keep_true(edge.ledger, links, edge.events, every_s=0.02))
        try:
            async with edge.http.ws_connect(edge.url + "/v1/realtime?model=parrot", headers=TOKEN) as socket:
                assert (await socket.receive_json())["type"] == "session.created"
                fake.reading.clear()
                monkeypatch.setattr("edge.links.transceivers._PATIENCE_S", 0.1)
                async with asyncio.timeout(DEADLINE_S):
                    assert (await socket.receive_json())["error"]["code"] == "session_lost"
                    assert (await socket.receive()).data == 1011
        finally:
            fake.reading.set()
            audit.cancel()
            await links.close()
