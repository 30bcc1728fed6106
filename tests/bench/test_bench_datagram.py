"""The benchmark of a datagram: its calls talk, in a time that it makes, and it puts the clock back."""

from __future__ import annotations

import time

import pytest

from bench.datagram.__main__ import AGENTS, markdown, measure
from bench.datagram.bytecodes import Bytecodes
from transceiver.counters import RX_DATAGRAMS, TX_DATAGRAMS


@pytest.mark.parametrize("kind", AGENTS)
def test_frames_come_back_and_have_a_cost(kind: str) -> None:
    clock = time.monotonic
    before = RX_DATAGRAMS["audio"], TX_DATAGRAMS["sent"]
    row = measure(kind, calls=3, rounds=4, batch=2)
    assert time.monotonic is clock
    heard, sent = RX_DATAGRAMS["audio"] - before[0], TX_DATAGRAMS["sent"] - before[1]
    assert heard >= 3 * 2 * 4
    assert sent >= 0.9 * heard
    assert 0 < row["peer_us"] < row["us"]
    assert f"| {kind} |" in markdown({kind: row})


@pytest.mark.parametrize(("kind", "most"), [("passed on", 3000), ("transcoded", 5700)])
def test_a_frame_takes_no_more_bytecodes_than_it_has_to(kind: str, most: int) -> None:
    """About a fifth over what ``--count`` says today: whoever puts another layer under every packet hears of it."""
    counted = Bytecodes()
    measure(kind, calls=4, rounds=10, batch=4, counted=counted)
    frames = 4 * 2 * 10
    assert most / 2 < counted.run.total() / frames < most
    assert f"{counted.calls.total() / frames:.2f}  all" in counted.table(frames, 3)
