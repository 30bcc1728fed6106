"""Recordings and transcripts by themselves: what is in the files, and what is left out of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sounds import played, power, rms, tone

from transceiver.records import transcript
from transceiver.records.recording import Recording
from transceiver.records.transcript import Transcript, slim

# --- the recording ---


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_the_caller_is_left_and_the_agent_right_in_the_same_moment(tmp_path: Path, rate_hz: int) -> None:
    file = Recording(tmp_path / "call.ogg", rate_hz)
    left, right = tone(440, 100, rate_hz), tone(1100, 50, rate_hz)
    frames = [(i, left[i], right[i - 25] if 25 <= i < 75 else b"") for i in range(100)]
    for at in range(0, 100, 13):
        file.write(frames[at : at + 13])
    file.close()
    assert file.path.stat().st_mode & 0o777 == 0o600
    heard, said = played(file.path)
    assert abs(len(heard) - 2 * 48000) <= 960
    middle = slice(30 * 960, 70 * 960)
    assert power(heard[middle], 440) > 4000
    assert power(said[middle], 1100) > 4000
    # Neither voice is in the other's channel: 27 dB and more below.
    assert power(heard[middle], 1100) < 180
    assert power(said[middle], 440) < 180
    # The agent begins and ends where it did.
    loud = np.flatnonzero(abs(said) > 4000)
    assert abs(loud[0] - 25 * 960) < 240
    assert abs(loud[-1] - 75 * 960) < 240


def test_ticks_that_are_missing_are_silence_on_both_sides(tmp_path: Path) -> None:
    file = Recording(tmp_path / "call.ogg", 24000)
    sound = tone(440, 10)
    file.write([(i, sound[i], sound[i]) for i in range(10)])
    file.write([(200 + i, sound[i], b"") for i in range(10)])
    file.close()
    heard, said = played(file.path)
    assert abs(len(heard) - 210 * 960) <= 960
    assert rms(heard[15 * 960 : 195 * 960]) < 20
    assert power(heard[202 * 960 : 208 * 960], 440) > 4000
    assert rms(said[205 * 960 :]) < 100


def test_a_file_without_an_end_is_played_up_to_the_last_second(tmp_path: Path) -> None:
    file = Recording(tmp_path / "call.ogg", 24000)
    sound = tone(440, 500)
    for at in range(0, 500, 12):
        file.write([(i, sound[i], b"") for i in range(at, min(at + 12, 500))])
    heard, _ = played(file.path)
    assert 9.2 < len(heard) / 48000 <= 10
    assert power(heard[-4800:], 440) > 4000
    cut = tmp_path / "cut.ogg"
    cut.write_bytes(file.path.read_bytes()[:-100])  # in the middle of a page
    assert 8.9 < len(played(cut)[0]) / 48000 <= 10
    file.close()


def test_a_minute_that_is_missing_needs_no_memory(tmp_path: Path) -> None:
    file = Recording(tmp_path / "call.ogg", 8000)
    sizes: list[int] = []
    encode = file._encode
    file._encode = lambda left, right: (sizes.append(len(left)), encode(left, right))[1]  # type: ignore[assignment, method-assign]
    file.write([(0, b"", b""), (3_000, b"", b"")])
    file.close()
    assert max(sizes) <= 2 * 8000
    assert len(played(file.path)[0]) == 3_001 * 960


# --- the transcript ---


def test_lines_are_events_with_their_times(tmp_path: Path) -> None:
    file = Transcript(tmp_path / "call.jsonl")
    file.write([(1_700_000_000.25, 0, "server", '{"type": "session.created", "n": "ü\\ud800"}')])
    file.write([(1_700_000_001.5, 1250, "client", b'{"type": "x"}'), (1_700_000_002, 1750, "client", "{")])
    file.close()
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert [line["at"] for line in lines] == [
        "2023-11-14T22:13:20.250Z", "2023-11-14T22:13:21.500Z", "2023-11-14T22:13:22.000Z",
    ]  # fmt: skip
    assert [(line["ms"], line["from"]) for line in lines] == [(0, "server"), (1250, "client"), (1750, "client")]
    assert lines[0]["event"]["type"] == "session.created"
    assert lines[0]["event"]["n"][0] == "ü"
    assert lines[2]["event"] == {"bytes": 1}
    assert file.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ['{"a":NaN}', '{"a":1e999}', '{"a":' * 900 + "1" + "}" * 900, "[" * 100_000, "\ufeff{}"]
)
def test_what_is_no_json_makes_no_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = Transcript(tmp_path / "call.jsonl")
    file.write([(1_700_000_000, 0, "client", text), (1_700_000_001, 1, "client", '{"type": "x"}')])
    file.close()
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in file.path.read_text().splitlines())
    assert first["event"] == {"bytes": len(text)}
    assert second["event"] == {"type": "x"}


def test_sound_and_pictures_are_left_out() -> None:
    assert slim({"type": "input_audio_buffer.append", "audio": "AAAA" * 100})["audio"] == {"bytes": 300}
    assert slim({"type": "response.output_audio.delta", "delta": "AAAA"})["delta"] == {"bytes": 3}
    assert slim({"type": "response.output_text.delta", "delta": "AAAA"})["delta"] == "AAAA"
    part = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 4000}
    item = {"type": "message", "content": [part, {"type": "input_audio", "audio": "A" * 8, "transcript": "yes"}]}
    assert slim({"type": "conversation.item.create", "item": item})["item"]["content"] == [
        {"type": "input_image", "image_url": {"bytes": 3000}},
        {"type": "input_audio", "audio": {"bytes": 6}, "transcript": "yes"},
    ]
    # A session's configuration has an "audio" too.
    assert slim({"session": {"audio": {"input": {"format": "pcm"}}}})["session"]["audio"]["input"]["format"] == "pcm"


@pytest.mark.parametrize("text", ["", "[" * 100_000, "null", "3", b"\xff\xfe", '"x"', '{"a": NaN}'])
def test_what_is_no_event_is_a_line_all_the_same(tmp_path: Path, text: str | bytes) -> None:
    file = Transcript(tmp_path / "call.jsonl")
    file.write([(0.0, 0, "client", text)])
    file.close()
    assert "event" in json.loads(file.path.read_text())


def test_a_transcript_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "_MOST_BYTES", 1000)
    file = Transcript(tmp_path / "call.jsonl")
    line = (0.0, 0, "client", '{"type": "x"}')
    file.write([line] * 10)
    with pytest.raises(OSError, match="not have more"):
        file.write([line] * 10)
    assert 500 < file.path.stat().st_size <= 1000
    file.close()
