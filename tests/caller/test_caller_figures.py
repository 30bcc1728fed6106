"""The figures of a caller, and how they are told: round trips, responses, percentiles and tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from caller import figures, report
from caller.conversation import Conversation
from caller.result import Phase, Result
from caller.voice import Voice
from rtc.codecs.opus import SILENCE

# --- what is measured ---


def test_echoed_frames_give_round_trips_and_missing_ones_are_lost(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(100):
        now = i * 0.02
        talk.sent_frame(i, now)
        # Echoes begin with frame 10, three of them never come home, one comes twice.
        back = i - 2
        if back >= 10 and back not in (20, 21, 50):
            talk.received_payload(voice.frames[back], now + 0.003)
        if back == 30:
            talk.received_payload(voice.frames[back], now + 0.004)
    for back in (98, 99):
        talk.received_payload(voice.frames[back], back * 0.02 + 0.043)
    assert (talk.sent, talk.returned, talk.expected) == (100, 87, 90)
    assert list(talk.round_trip_ms) == pytest.approx([43.0] * 87)
    assert not talk.response_ms


def test_very_late_echo_is_no_response(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(min(voice.turn_ends) + 60):
        talk.sent_frame(i, i * 0.02)
    talk.received_payload(voice.frames[i], i * 0.02 + 0.01)
    talk.received_payload(voice.frames[5], i * 0.02 + 0.02)
    assert talk.returned == 1
    assert not talk.response_ms


def test_own_words_said_again_seconds_later_are_a_response_and_no_echo(voice: Voice) -> None:
    talk = Conversation(voice)
    end = min(voice.turn_ends)
    for i in range(end + 60):
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(voice.frames[i - end - 40] if i > end + 40 else SILENCE, i * 0.02)
    assert not talk.round_trip_ms
    assert list(talk.response_ms) == pytest.approx([41 * 20.0])


def test_who_still_speaks_at_the_end_of_our_turn_has_not_answered_it(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(min(voice.turn_ends) + 20):
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(b"speech of an agent that never stops", i * 0.02)
    assert not talk.response_ms


def test_an_agent_that_is_spoken_over_is_measured_until_its_last_sound(voice: Voice) -> None:
    talk = Conversation(voice)
    start = min(voice.turn_starts - {0})
    for i in range(start + 40):
        # It answers before we go on, stops a while after that, and breathes once in between.
        sounds = start - 10 < i <= start + 5 and i != start + 2
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(b"speech of an agent" if sounds else SILENCE, i * 0.02 + 0.001)
    assert list(talk.barge_in_ms) == pytest.approx([5 * 20.0 + 1])


def test_an_agent_that_is_silent_is_not_spoken_over(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(min(voice.turn_starts - {0}) + 40):
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(SILENCE, i * 0.02)
    assert not talk.barge_in_ms


def _result(number: int, first_audio_ms: float = 100.0, **changes: Any) -> Result:
    phases = (
        Phase("signaling", 0, 20),
        Phase("ice", 20, 30),
        Phase("dtls", 30, 60),
        Phase("first_audio", 60, first_audio_ms),
    )
    values: dict[str, Any] = {
        "phases": phases,
        "packets_received": 90,
        "packets_lost": 10,
        "frames_sent": 100,
        "jitter_ms": 1.5,
        "round_trip_ms": [40.0] * 99 + [80.0],
    }
    return Result(number, **({"outcome": "ok"} | values | changes))


def _drawn(renderable: RenderableType) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


# --- the report ---


def test_percentiles_are_nearest_rank() -> None:
    assert figures.spread([]) is None
    assert figures.spread([7.0]) == (1, 7.0, 7.0, 7.0)
    assert figures.spread(float(n) for n in range(1, 201)) == (200, 100.0, 198.0, 200.0)


def test_summary_adds_up() -> None:
    failed = Result(3, "failed", failed_phase="ice", error="no answer", phases=(Phase("signaling", 0, 50),))
    summary = figures.summarise([_result(1), _result(2, 200.0), failed], 1.25)
    assert (summary.calls, summary.ok, summary.failed, summary.interrupted) == (3, 2, 1, 0)
    assert summary.setup["signaling"] == (3, 20.0, 50.0, 50.0)
    assert summary.setup["total"] == (2, 100.0, 200.0, 200.0)
    assert summary.setup["session_created"] is None
    assert summary.round_trip == (200, 40.0, 40.0, 80.0)
    assert summary.loss_percent == pytest.approx(10.0)
    assert figures.summarise([failed]).loss_percent is None


def test_json_says_why_each_call_failed() -> None:
    results = [_result(1), Result(2, "failed", failed_phase="ice", error="no answer")]
    told = {"heard": {"heard": 500, "fec": 2}, "made": {"on_time": 501, "late": 1}, "lost": 2}
    results[0] = replace(results[0], told=told, words=(("caller", "Hello?"), ("agent", "Hello.")))
    shown = json.loads(json.dumps(figures.as_json("http://h", figures.summarise(results), results)))
    assert shown["server"] == {"heard": told["heard"], "made": told["made"]}
    assert shown["per_call"][0]["server"] == told
    assert shown["per_call"][0]["words"] == [{"by": "caller", "text": "Hello?"}, {"by": "agent", "text": "Hello."}]
    assert shown["calls"] == {"placed": 2, "ok": 1, "failed": 1, "interrupted": 0}
    assert shown["setup_ms"]["dtls"] == {"samples": 1, "p50": 30, "p99": 30, "max": 30}
    assert shown["per_call"][0]["phases_ms"]["dtls"] == [30, 60]
    assert (shown["per_call"][1]["failed_phase"], shown["per_call"][1]["error"]) == ("ice", "no answer")


def test_waterfall_draws_each_phase_where_it_happened() -> None:
    lines = _drawn(report.waterfall([("signaling", 0, 50), ("ice", 50, 100)])).splitlines()
    assert "50.0 ms" in lines[0]
    assert lines[0].index("█") < lines[1].index("█")
    assert lines[0].count("█") == lines[1].count("█") == 24
    assert _drawn(report.waterfall([])).strip() == ""


def test_what_is_printed_tells_figures_and_reasons() -> None:
    results = [_result(1), *(Result(n, "failed", failed_phase="ice", error="no answer") for n in (2, 3))]
    text = _drawn(report.summary_table(figures.summarise(results, 33.0), results))
    assert "1 of 3 calls good, 2 failed" in text
    assert "2 x ICE: no answer" in text
    assert "up to 33 ms late" in text
    assert "0 were lost" in text
    one = _result(1, words=(("caller", "Hello?"), ("agent", "Hello.")))
    assert "caller: Hello?\nagent: Hello.\n" in _drawn(report.summary_table(figures.summarise([one]), [one]))
    text = _drawn(report.live([_result(1), Result(2, "interrupted")], ["talk", "dtls"], 4.0))
    assert "talking" in text
    assert "25 %" in text
