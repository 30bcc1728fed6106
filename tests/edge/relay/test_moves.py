"""Calls that move from one transceiver to another, as a real worker steers them; and the rules, without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from waiting import until
from wiring import raw
from working import KEYS, MINE, OTHER, Bench, a_worker, audio, gained, of

from edge.relay.moves import FORMER_S, IDLE_S, Moves
from wire import address, frames, stun, ufrag

ERRORS = "firsthop_worker_wire_errors_total"
NOBODY_HERE = 99
HOME = address.pack("192.0.2.1", 40000)
NAME = b"A" * 24


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_worker(tmp_path_factory.mktemp("w")) as bench:
        yield bench


def sealed(by: int) -> str:
    return ufrag.seal(by, 1, KEYS.ufrag[1])


def check_of(name: str) -> bytes:
    return stun.binding_request(f"{name}:client".encode(), b"password", tie_breaker=1)


def moved(name: str, to: int, *addresses: bytes) -> bytes:
    return raw("call.moved", ufrags=[name], to=to, addresses=list(addresses))


class Call:
    """A client whose call is at the transceiver ``by``, which the worker knows."""

    def __init__(self, bench: Bench, by: int = MINE, *ssrcs: int) -> None:
        self.bench, self.name, self.client = bench, sealed(by), bench.client()
        self.by = bench.transceivers[by]
        bench.to_worker(self.client, check_of(self.name))
        self.by.send(raw("path.up", address=of(self.client), ufrag=self.name, ssrcs=list(ssrcs)))
        until(self.known)

    def known(self) -> bool:
        return gained(self.bench, self.client, b"\x16known?") == {"forwarded_flow": 1}

    def says(self, to: int, *datagrams: bytes) -> None:
        """What the client sends reaches that transceiver."""
        self.bench.to_worker(self.client, *datagrams)
        until(lambda: self.bench.transceivers[to].has(*datagrams))

    def moves(self, to: int) -> None:
        self.by.send(moved(self.name, to, of(self.client)))
        until(lambda: self.reaches(to))

    def reaches(self, to: int) -> bool:
        self.bench.to_worker(self.client, probe := b"\x16where" + bytes([self.bench.sent & 0xFF, self.bench.sent >> 8]))
        until(lambda: any(t.has(probe) for t in self.bench.transceivers.values()))
        return self.bench.transceivers[to].has(probe)


def test_a_moved_call_s_media_and_checks_go_to_where_it_lives(bench: Bench) -> None:
    call = Call(bench, MINE, 77)
    call.says(MINE, audio(77, 1))
    call.moves(OTHER)
    check = check_of(call.name)
    call.says(OTHER, audio(77, 2), check)
    assert not bench.transceivers[MINE].has(check)


def test_the_new_home_is_told_that_the_path_comes_by_this_worker(bench: Bench) -> None:
    call = Call(bench)
    call.moves(OTHER)
    until(lambda: of(call.client) in bench.transceivers[OTHER].steered())


def test_both_may_send_for_a_while_after_a_call_has_moved(bench: Bench) -> None:
    call = Call(bench)
    call.moves(OTHER)
    for number in (MINE, OTHER):
        bench.transceivers[number].send(frames.pack_batch([(of(call.client), b"from %d" % number)]))
        assert call.client.recv(2048) == b"from %d" % number


def test_a_caller_whose_address_changes_after_the_move_is_found_by_its_ssrc_and_its_ufrag(bench: Bench) -> None:
    call = Call(bench, MINE, 4711)
    call.moves(OTHER)
    elsewhere = bench.client()
    assert gained(bench, elsewhere, audio(4711, 9)) == {"forwarded_ssrc": 1}
    assert gained(bench, elsewhere, check_of(call.name)) == {"forwarded_stun": 1}
    until(lambda: [of(elsewhere)] * 2 == [a for a, _ in bench.transceivers[OTHER].drain() if a == of(elsewhere)])
    # The new home may claim the new path under the ufrag that names the old one.
    bench.transceivers[OTHER].send(raw("path.up", address=of(elsewhere), ufrag=call.name, ssrcs=[4711]))
    until(lambda: gained(bench, elsewhere, b"\x16known?") == {"forwarded_flow": 1})


def test_a_call_may_go_back(bench: Bench) -> None:
    call = Call(bench)
    call.moves(OTHER)
    bench.transceivers[OTHER].send(moved(call.name, MINE, of(call.client)))
    until(lambda: call.reaches(MINE))
    check = check_of(call.name)
    call.says(MINE, check)
    assert not bench.transceivers[OTHER].has(check)


def test_nobody_moves_another_transceiver_s_call(bench: Bench) -> None:
    call, before = Call(bench, MINE), bench.funnel(ERRORS)["refused"]
    bench.transceivers[OTHER].send(moved(call.name, OTHER, of(call.client)))
    until(lambda: bench.funnel(ERRORS)["refused"] == before + 1)
    assert call.reaches(MINE)
    check = check_of(call.name)
    call.says(MINE, check)


def test_one_transceiver_s_call_takes_no_other_s_path_along(bench: Bench) -> None:
    mine, others = Call(bench, MINE), Call(bench, OTHER)
    bench.transceivers[MINE].send(
        moved(mine.name, OTHER, of(mine.client)),
    )
    until(lambda: mine.reaches(OTHER))
    bench.transceivers[OTHER].send(moved(mine.name, MINE, of(mine.client), of(others.client)))
    until(lambda: mine.reaches(MINE))
    third = Call(bench, MINE)
    bench.transceivers[OTHER].send(moved(others.name, MINE, of(third.client), of(others.client)))
    until(lambda: others.reaches(MINE))
    assert third.reaches(MINE)


def test_where_there_is_no_way_to_the_new_home_the_old_one_is_told_and_keeps_the_call(bench: Bench) -> None:
    call = Call(bench)
    call.by.send(moved(call.name, NOBODY_HERE, of(call.client)))
    until(lambda: call.name in bench.transceivers[MINE].not_steered())
    assert call.reaches(MINE)


@pytest.mark.parametrize(
    "fields",
    [
        {"ufrags": [], "to": OTHER},
        {"ufrags": ["x"], "to": OTHER},
        {"ufrags": [NAME.decode()], "to": -1},
        {"ufrags": [NAME.decode()], "to": OTHER, "addresses": [b"short"]},
        {"ufrags": [NAME.decode()] * 9, "to": OTHER},
        {"ufrags": [NAME.decode()], "to": OTHER, "addresses": [HOME] * 9},
        {"ufrags": [NAME.decode()]},
    ],
)
def test_what_is_no_move_is_counted_and_harms_nothing(bench: Bench, fields: dict[str, object]) -> None:
    call, before = Call(bench), bench.funnel(ERRORS)["refused"]
    call.by.send(raw("call.moved", **fields))
    until(lambda: bench.funnel(ERRORS)["refused"] == before + 1)
    assert call.reaches(MINE)


def test_a_former_home_whose_word_comes_late_is_passed_over(bench: Bench) -> None:
    call, errors = Call(bench), bench.funnel(ERRORS)
    call.moves(OTHER)
    bench.transceivers[MINE].send(raw("path.up", address=of(call.client), ufrag=call.name, ssrcs=[]))
    until(lambda: bench.funnel(ERRORS)["not_its_path"] == errors["not_its_path"] + 1)
    assert call.reaches(OTHER)


# --- the rules, without a worker ---


def test_a_call_is_where_its_ufrag_says_until_it_moves() -> None:
    moves = Moves()
    assert moves.home(NAME, 1, 0.0) == 1
    moves.put(NAME, 2, 0.0)
    assert moves.home(NAME, 1, 1.0) == 2


def test_a_move_is_remembered_for_as_long_as_somebody_asks() -> None:
    moves = Moves()
    moves.put(NAME, 2, 0.0)
    for now in range(0, 300, 30):
        assert moves.home(NAME, 1, float(now)) == 2
        moves.expire(float(now))
    moves.expire(270.0 + IDLE_S)
    assert moves.home(NAME, 1, 400.0) == 1
    assert len(moves) == 0


def test_the_oldest_moves_make_room() -> None:
    moves = Moves(most=2)
    for i in range(3):
        moves.put(b"%d" % i, 2, float(i))
    assert [moves.home(b"%d" % i, 1, 3.0) for i in range(3)] == [1, 2, 2]


def test_a_former_home_may_send_for_some_seconds_only() -> None:
    moves = Moves(most=1)
    moves.left(HOME, 1, 0.0)
    assert moves.may_still_send(HOME, 1, FORMER_S - 0.1)
    assert not moves.may_still_send(HOME, 2, 1.0)
    assert not moves.may_still_send(HOME, 1, FORMER_S)
    moves.left(bytes(18), 1, 1.0)
    assert not moves.may_still_send(HOME, 1, 1.0), "the table is bounded"
    moves.expire(1.0 + FORMER_S)
    assert not moves.may_still_send(bytes(18), 1, 1.0)
