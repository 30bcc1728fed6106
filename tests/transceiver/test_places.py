"""The places for calls: calls that have not connected are few, and give way."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from transceiver.places import GRACE_S, Full, room_for


@dataclass(eq=False)
class Call:
    began: float
    owner: str = "api key"
    holder: str = ""
    half_open: bool = True


def place(calls: list[Call], call: Call, most: int = 200) -> Call | None:
    """Places ``call``. Returns the call that gave way."""
    gone = room_for(call.owner, call.holder, calls, call.began, taken=len(calls), most=most)
    if gone is not None:
        calls.remove(gone)
    calls.append(call)
    return gone


def code_of(calls: list[Call], call: Call, most: int = 200) -> str:
    with pytest.raises(Full) as refused:
        place(calls, call, most)
    return refused.value.code


def test_one_ephemeral_key_takes_a_few_places_until_it_connects() -> None:
    calls: list[Call] = []
    for _ in range(4):
        assert place(calls, Call(0.0, holder="ek")) is None
    assert code_of(calls, Call(10.0, holder="ek")) == "rate_limit_exceeded"
    assert place(calls, Call(10.0, holder="another")) is None
    calls[0].half_open = False
    assert place(calls, Call(10.0, holder="ek")) is None


def test_an_owner_leaves_half_of_the_places_to_others_until_it_connects() -> None:
    calls: list[Call] = []
    for _ in range(100):
        assert place(calls, Call(0.0)) is None
    assert code_of(calls, Call(GRACE_S - 0.1)) == "full"
    assert place(calls, Call(GRACE_S - 0.1, owner="another")) is None
    oldest = calls[0]
    assert place(calls, Call(GRACE_S)) is oldest


def test_half_open_calls_of_many_owners_leave_a_quarter() -> None:
    calls: list[Call] = []
    for i in range(150):
        assert place(calls, Call(0.0, owner=str(i))) is None
    assert code_of(calls, Call(1.0, owner="late")) == "full"


def test_calls_that_have_connected_never_give_way() -> None:
    calls = [Call(float(i), half_open=False) for i in range(200)]
    assert code_of(calls, Call(1000.0)) == "full"
    calls[150].half_open = True
    assert place(calls, Call(1000.0)) is not None
    assert sum(not call.half_open for call in calls) == 199


@pytest.mark.parametrize("most", [1, 2, 8])
def test_a_small_transceiver_is_filled_by_whom_it_has(most: int) -> None:
    calls: list[Call] = []
    for _ in range(most):
        assert place(calls, Call(0.0), most) is None
    assert code_of(calls, Call(1.0), most) == "full"


def test_a_storm_of_half_open_calls_lets_those_that_connect_grow_to_all() -> None:
    calls: list[Call] = []
    now, refused = 0.0, 0
    for i in range(4000):
        now += 0.005
        storm = Call(now, owner="victim's", holder=f"ek {i // 4}")
        try:
            place(calls, storm)
        except Full:
            refused += 1
        if i % 10 == 0:
            honest = Call(now, owner="another")
            try:
                place(calls, honest)
            except Full:
                continue
            honest.half_open = False
    assert refused > 1000
    assert sum(not call.half_open for call in calls) >= 100
