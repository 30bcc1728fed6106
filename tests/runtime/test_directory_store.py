"""The directory's store: one suite over the one in memory and the one in Redis, and what Redis may do to the latter."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import DEADLINE_S, eventually

from lab.redis_server import RedisServer
from runtime.config import Directory
from runtime.directory.entries import pack
from runtime.directory.opened import open_store
from runtime.directory.publishing import publish
from runtime.directory.redis_store import RedisStore
from runtime.directory.store import MAX_ENTRY_BYTES, MemoryStore, Store, StoreError
from wire.report import EdgeReport, Model, Report

TTL_S = 60.0  # longer than any test: where an entry is to vanish, its time is cut short
ONE = Report(1, "tcp://192.0.2.1:7400", generation=11, number=1, models=(Model("parrot", room=3),), region="eu")
EDGE = EdgeReport("edge-a", "203.0.113.1:3478", generation=5, number=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may take as long as a busy machine needs."""
    monkeypatch.setattr("runtime.directory.redis_store._PATIENCE_S", 30.0)
    monkeypatch.setattr("runtime.directory.redis_store._IN_ALL_S", 60.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def redis_store(server: RedisServer) -> RedisStore:
    return RedisStore(server.url, prefix="test", ttl_s=TTL_S)


class Kind:
    """A store, and how its time passes. Redis's clock cannot be set: there an entry's time to live is cut short."""

    def __init__(self, store: Store, expire: Callable[[str, str], None]) -> None:
        self.store = store
        self.expire = expire


@pytest.fixture(params=["memory", "redis"])
async def kind(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[Kind]:
    if request.param == "memory":
        now = [100.0]

        def pass_by(*_: str) -> None:
            now[0] += TTL_S

        yield Kind(MemoryStore(TTL_S, lambda: now[0]), pass_by)
        return
    with server.client() as client:
        client.flushall()
        store = redis_store(server)
        yield Kind(store, lambda kind, name: client.pexpire(f"test:{kind}:{name}", 0))
        await store.close()


async def test_what_was_put_is_in_the_snapshot_until_nobody_repeats_it(kind: Kind) -> None:
    assert (await kind.store.snapshot()).transceivers == {}
    assert await kind.store.put(ONE) is None
    assert await kind.store.put(EDGE) is None
    snapshot = await kind.store.snapshot()
    assert (snapshot.transceivers, snapshot.edges, snapshot.refused) == ({1: ONE}, {"edge-a": EDGE}, {})
    newer = Report(1, ONE.endpoint, generation=11, number=2, sessions=4)
    await kind.store.put(newer)
    assert (await kind.store.snapshot()).transceivers == {1: newer}
    kind.expire("transceiver", "1")
    kind.expire("edge", "edge-a")
    snapshot = await kind.store.snapshot()
    assert (snapshot.transceivers, snapshot.edges) == ({}, {})


async def test_who_was_there_first_stays_until_it_is_gone(kind: Kind) -> None:
    await kind.store.put(ONE)
    other = Report(1, "tcp://192.0.2.2:7400", generation=22)
    assert await kind.store.put(other) == ONE
    assert (await kind.store.snapshot()).transceivers == {1: ONE}
    await kind.store.remove(other)
    assert (await kind.store.snapshot()).transceivers == {1: ONE}, "which is not the other's to remove"
    kind.expire("transceiver", "1")
    assert await kind.store.put(other) is None
    assert (await kind.store.snapshot()).transceivers == {1: other}


async def test_a_process_that_starts_again_takes_the_place_that_it_had(kind: Kind) -> None:
    await kind.store.put(ONE)
    again = Report(1, ONE.endpoint, generation=33)
    assert await kind.store.put(again) is None
    assert (await kind.store.snapshot()).transceivers == {1: again}


async def test_who_says_goodbye_is_gone_at_once(kind: Kind) -> None:
    await kind.store.put(ONE)
    await kind.store.put(EDGE)
    await kind.store.remove(ONE)
    await kind.store.remove(ONE)
    snapshot = await kind.store.snapshot()
    assert (snapshot.transceivers, snapshot.edges) == ({}, {"edge-a": EDGE})


async def test_a_hint_tells_who_waits_that_somebody_came_drains_or_went(kind: Kind) -> None:
    draining = Report(1, ONE.endpoint, generation=11, number=3, draining=True)
    for number, act in enumerate([kind.store.put(ONE), kind.store.put(draining), kind.store.remove(ONE)]):
        told = asyncio.create_task(kind.store.changed())
        if number == 0:
            await _listened(kind.store)
        await asyncio.sleep(0)
        await act
        await asyncio.wait_for(told, DEADLINE_S)


async def _listened(store: Store) -> None:
    """Waits until the store can hear of changes."""
    if isinstance(store, RedisStore):
        await eventually(lambda: store.listens)


async def test_owners_repeat_themselves_and_say_goodbye(kind: Kind) -> None:
    number = 0

    def make() -> Report:
        nonlocal number
        number += 1
        return Report(1, ONE.endpoint, generation=11, number=number)

    owner = asyncio.create_task(publish(kind.store, make, Lines(), every_s=0.02))
    snapshot = await kind.store.snapshot()
    while 1 not in snapshot.transceivers or snapshot.transceivers[1].number < 3:
        await asyncio.sleep(0.01)
        snapshot = await kind.store.snapshot()
    owner.cancel()
    await asyncio.gather(owner, return_exceptions=True)
    assert (await kind.store.snapshot()).transceivers == {}


class Lines:
    """A log, by line and why."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, event: str, **facts: Any) -> None:
        self.lines.append((event, facts.get("why", "")))

    warning = error = info


async def test_the_second_of_one_id_says_so_once_and_takes_the_place_when_it_is_free(kind: Kind) -> None:
    await kind.store.put(ONE)
    log = Lines()
    second = Report(1, "tcp://192.0.2.2:7400", generation=22)
    owner = asyncio.create_task(publish(kind.store, lambda: second, log, every_s=0.02))
    await eventually(lambda: log.lines)
    ((_, why),) = log.lines
    assert (
        why == "transceiver.id 1 is another process's, at tcp://192.0.2.1:7400: give each a transceiver.id of its own"
    )
    await kind.store.remove(ONE)
    await eventually(lambda: len(log.lines) > 1)
    assert [line for line, _ in log.lines][1:] == ["the directory has this process again"]
    assert (await kind.store.snapshot()).transceivers == {1: second}
    owner.cancel()
    await asyncio.gather(owner, return_exceptions=True)


# --- Redis


async def test_garbage_is_counted_and_passed_over(server: RedisServer) -> None:
    store = redis_store(server)
    with server.client() as client:
        client.flushall()
        await store.put(ONE)
        good = pack(Report(2, "tcp://192.0.2.2:7400"))
        entries: dict[str, Any] = {
            "3": b"not msgpack",
            "4": good,  # of another name
            "5": good[:33] + b"\x81\xa2id\xa1x",  # a field of another type
            "6": pack(Report(6, "tcp://192.0.2.2:7400"))[:-3],
            "7": pack(Report(7, "http://192.0.2.2/")),
            "8": pack(Report(8, "tcp://0.0.0.0:7400")),
            "9": pack(Report(9, "")),
            "10": b"\xc1" * 33 + b"\xdd\xff\xff\xff\xff",
            "-1": good,
            "x": good,
            "n" * 1000: good,
            "11": b"x" * (2 * MAX_ENTRY_BYTES),
        }
        for name, value in entries.items():
            client.set(f"test:transceiver:{name}", value)
        client.rpush("test:transceiver:12", "a list")
        seconds, micros = client.time()  # type: ignore[misc]
        client.zadd("test:transceivers", dict.fromkeys([*entries, "12", "nobody's"], seconds * 1000000 + micros))
        for name, edge in {
            "a": EdgeReport("a", "nowhere"),
            "b": EdgeReport("b", EDGE.media, "tcp://0.0.0.0:7300"),
        }.items():
            client.set(f"test:edge:{name}", pack(edge))
            client.zadd("test:edges", {name: seconds * 1000000 + micros})
        assert (await store.snapshot()).refused == {"malformed": len(entries) + 2, "too_large": 1}
        client.delete("test:edges")
        client.set("test:transceiver:99", good)  # in no index
        client.rpush("test:edges", "no sorted set")
        client.set("somebody else's", "x")
        snapshot = await store.snapshot()
        assert snapshot.transceivers == {1: ONE}
        assert snapshot.refused == {"malformed": len(entries), "too_large": 1}
        assert snapshot.edges == {}
        # An owner puts right what is in its own place.
        await store.put(EDGE)
        for number in (12, 3):
            assert await store.put(Report(number, "tcp://192.0.2.3:7400", generation=9)) is None
        snapshot = await store.snapshot()
        assert set(snapshot.transceivers) == {1, 3, 12}
        assert snapshot.edges == {"edge-a": EDGE}
    await store.close()


async def test_a_snapshot_is_bounded_and_takes_all_pages(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RedisStore.MOST, "transceiver", 1200)
    store = redis_store(server)
    with server.client() as client:
        client.flushall()
        good = {f"test:transceiver:{i}": pack(Report(i, "tcp://192.0.2.1:7400")) for i in range(3000)}
        client.mset(good)
        seconds, micros = client.time()  # type: ignore[misc]
        client.zadd("test:transceivers", {str(i): seconds * 1000000 + micros - i for i in range(100_000)})
        snapshot = await store.snapshot()
        assert len(snapshot.transceivers) == 0, "the oldest are nobody's, and there are too many"
        client.zremrangebyrank("test:transceivers", 0, -3001)
        snapshot = await store.snapshot()
        assert len(snapshot.transceivers) == 1200
        assert snapshot.refused["too_many"] >= 1200
        client.zremrangebyrank("test:transceivers", 0, -1201)
        assert set((await store.snapshot()).transceivers) == set(range(1200))
    await store.close()


async def test_readers_share_a_snapshot_while_it_is_new(server: RedisServer) -> None:
    first, second = redis_store(server), redis_store(server)
    with server.client() as client:
        client.flushall()
        await first.put(ONE)
        await first.put(EDGE)
        assert (await first.snapshot(20.0)).transceivers == {1: ONE}
        client.delete("test:transceiver:1")
        shared = await second.snapshot(20.0)
        assert (shared.transceivers, shared.edges) == ({1: ONE}, {"edge-a": EDGE})
        assert (await second.snapshot()).transceivers == {}, "which nobody else has read"
        # One that has got old is made anew by one reader.
        client.pexpire("test:snapshot", 30_000)
        client.delete("test:snapshot-made")
        assert (await second.snapshot(20.0)).transceivers == {}
        # Garbage in its place is read by nobody and replaced.
        for garbage in (
            b"x",
            zlib.compress(b""),
            zlib.compress(b"\xff" * 9),
            zlib.compress(b"\0\0\0\7\0\1\0\0\0\xffa"),
        ):
            await first.put(ONE)
            client.set("test:snapshot", garbage, px=60_000)
            assert (await second.snapshot(20.0)).transceivers in ({}, {1: ONE})
            client.delete("test:snapshot", "test:snapshot-made")
            assert (await second.snapshot(20.0)).transceivers == {1: ONE}
        client.delete("test:snapshot", "test:snapshot-made")
        client.rpush("test:snapshot", "a list")
        assert (await second.snapshot(20.0)).transceivers == {1: ONE}
        assert client.type("test:snapshot") == b"string"
    await first.close()
    await second.close()


async def test_an_entry_that_is_too_large_is_refused_before_it_is_put(server: RedisServer) -> None:
    store, log = redis_store(server), Lines()
    vast = Report(1, models=tuple(Model(f"{'m' * 100}-{i}") for i in range(1000)))
    with pytest.raises(ValueError, match="at most 16384"):
        await store.put(vast)
    owner = asyncio.create_task(publish(store, lambda: vast, log, every_s=0.02))
    await eventually(lambda: log.lines)
    assert not owner.done()
    owner.cancel()
    await asyncio.gather(owner, return_exceptions=True)
    await store.close()


async def test_with_redis_away_every_method_says_so_and_an_empty_one_refills(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        store, log = redis_store(server), Lines()
        owner = asyncio.create_task(publish(store, lambda: ONE, log, every_s=0.05))
        await _until_there(store)
        server.kill()
        for act in (store.put, store.remove):
            with pytest.raises(StoreError):
                await act(ONE)
        with pytest.raises(StoreError):
            await store.snapshot()
        await eventually(lambda: log.lines)
        server.start()
        await _until_there(store)
        await eventually(lambda: len(log.lines) > 1)
        assert [line for line, _ in log.lines][1:] == ["the directory has this process again"]
        with server.client() as client:
            client.flushall()
            client.script_flush()
        await _until_there(store)
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)
        await store.close()


async def _until_there(store: Store) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                if (await store.snapshot()).transceivers == {1: ONE}:
                    return
            except StoreError:
                pass
            await asyncio.sleep(0.02)


async def test_hints_come_again_after_redis_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.directory.redis_store._AGAIN_S", 0.02)
    with RedisServer(tmp_path) as server:
        store = redis_store(server)
        told = asyncio.create_task(store.changed())
        await eventually(lambda: store.listens)
        server.kill()
        await eventually(lambda: not store.listens)
        server.start()
        await eventually(lambda: store.listens)
        await store.put(ONE)
        await asyncio.wait_for(told, DEADLINE_S)
        await store.close()


async def test_a_password_comes_from_its_file_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n")
    with RedisServer(tmp_path, "--requirepass", "right") as server:
        store = open_store(Directory(redis=server.url, password_file=file))
        with pytest.raises(StoreError):
            await store.put(ONE)
        file.write_text("right\n")
        assert await store.put(ONE) is None
        assert (await store.snapshot()).transceivers == {1: ONE}
        file.unlink()
        await store.close()
        other = open_store(Directory(redis=server.url, password_file=file))
        with pytest.raises(StoreError, match="password"):
            await other.put(ONE)
        await other.close()


def test_a_host_without_redis_has_its_own_memory() -> None:
    assert isinstance(open_store(Directory()), MemoryStore)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://192.0.2.1", "is no URL with redis://"),
        ("redis://", "is no URL with redis://"),
        ("redis://192.0.2.1:x", "is no URL with redis://"),
        ("redis://:secret@192.0.2.1", "belongs into directory.password_file"),
    ],
)
def test_a_url_that_is_none_is_refused_and_a_password_is_not_shown(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Directory(redis=url)
