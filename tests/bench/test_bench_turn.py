"""The benchmark of TURN: its figures, and what each way adds to the direct one. No test looks at what a run took."""

from __future__ import annotations

import pytest

from bench.turn.__main__ import markdown, row


def test_a_way_is_told_by_what_it_adds_to_the_direct_one() -> None:
    direct = row("direct", {"round_trip_ms": [1.0] * 98 + [3.0] * 2, "unanswered": 0})
    tls = row("tls", {"round_trip_ms": [1.5] * 98 + [7.0] * 2, "unanswered": 1})
    assert (direct["answered"], direct["p50_ms"], direct["p99_ms"]) == (100, 1.0, pytest.approx(3.0))
    lines = markdown({"rows": [direct, tls]}).splitlines()
    assert lines[2] == "| directly | 1.00 / 1.00 / 3.00 | 0.00 / 0.00 | 1.00 | 0 |"
    assert lines[3] == "| TURN over TLS, TCP 443 | 1.50 / 1.50 / 7.00 | 0.50 / 4.00 | 1.50 | 1 |"
