"""W3C Trace Context: what is a parent, and what is passed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.tracing.context import MOST_STATE, Context, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_parent_is_read_and_written() -> None:
    found = parse([GOOD])
    assert found == Context(int(TRACE, 16), int(SPAN, 16), True)
    assert found.traceparent == GOOD
    assert found.headers == {"traceparent": GOOD}


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_the_lowest_flag_says_whether_it_is_sampled(flags: str, sampled: bool) -> None:
    found = parse([f"00-{TRACE}-{SPAN}-{flags}"])
    assert found is not None
    assert found.sampled is sampled


@pytest.mark.parametrize("parent", [f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what.the.future.will.be"])
def test_a_later_version_is_read_as_far_as_it_is_known(parent: str) -> None:
    assert parse([parent]) == Context(int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        GOOD[:-1],
        GOOD + "-more",
        GOOD + "0",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.x",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00_{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 300}",
        "٠٠" + GOOD[2:],
    ],
)
def test_what_is_no_parent_is_none(parent: str) -> None:
    assert parse([parent]) is None


def test_two_parents_are_none() -> None:
    assert parse([GOOD, GOOD]) is None
    assert parse([]) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (["rojo=1", "congo=2"], "rojo=1,congo=2"),
        (["rojo=1 ,\tcongo=2,,"], "rojo=1,congo=2"),
        (["tenant@system=a b"], "tenant@system=a b"),
        (["1tenant@sys=1"], "1tenant@sys=1"),
        (["rojo=1,rojo=2"], ""),
        (["rojo"], ""),
        (["rojo="], ""),
        (["Rojo=1"], ""),
        (["rojo=1=2"], ""),
        (["rojo=é"], ""),
        ([",".join(f"a{i}=1" for i in range(33))], ""),
        (["a=" + "x" * 256, "b=" + "x" * 256], ""),
    ],
)
def test_a_state_is_kept_whole_or_dropped(states: list[str], kept: str) -> None:
    found = parse([GOOD], states)
    assert found is not None
    assert found.state == kept
    assert found.headers == {"traceparent": GOOD, **({"tracestate": kept} if kept else {})}


@given(st.lists(st.text(max_size=80), max_size=3), st.lists(st.text(max_size=600), max_size=4))
def test_whatever_headers_say_nothing_is_raised_and_the_state_is_bounded(parents: list[str], states: list[str]) -> None:
    assert parse(parents, states) is None or parents
    found = parse([GOOD], states)
    assert found is not None
    assert len(found.state) <= MOST_STATE
    assert found.state.isascii()
