"""Transcripts and recordings of calls in memory."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from session_moves import a_moving_call
from session_run import OpusRecorder, Recorder, a_call, gained, of_type, until
from sounds import played, power, rms, tone
from structlog.testing import capture_logs

from rtc.codecs.opus import Encoder
from transceiver.counters import RECORDED
from transceiver.records.files import Records
from wire.ufrag import call_id


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is written at the end, however long a busy machine takes."""
    monkeypatch.setattr("transceiver.records.writer._GOODBYE_S", 60.0)


class Hummer(Recorder):
    """An agent that hums at 1100 Hz when it is told to."""

    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 16000

    def event(self, event: dict[str, Any]) -> None:
        self.line.say(b"".join(tone(1100, 50, 16000)))
        self.line.emit({"type": "its.own", "heard": event["type"]})


async def test_a_call_leaves_both_voices_and_its_events(tmp_path: Path) -> None:
    all_of_them = Records(tmp_path, tmp_path)
    async with a_call(Hummer, records=all_of_them) as call:
        channel = await call.open_channel()
        channel.send('{"type": "hum", "audio": "AAAA"}')
        encoder = Encoder(24000)
        for frame in tone(440, 60):
            call.speak(encoder.encode(frame))
            count = len(call.rtp)
            await until(lambda count=count: len(call.rtp) > count)
        await until(lambda: of_type(call, "its.own"))
        await until(lambda: call.session.stream.voice.said == b"" and call.session.stream.voice.packets > 60)
        name = call_id(call.session.ufrag)
    all_of_them.close()
    heard, said = played(tmp_path / f"{name}.ogg")
    assert power(heard, 440) > 10 * power(heard, 1100)
    assert power(said, 1100) > 10 * power(said, 440)
    assert rms(said) > 500
    lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    order = [(line["from"], line["event"]["type"]) for line in lines]
    assert [each for each in order if not each[1].startswith("input_audio_buffer")] == [
        ("server", "session.created"),
        ("client", "hum"),
        ("server", "its.own"),
        ("server", "error"),  # it shuts down
    ]
    hum = next(line for line in lines if line["from"] == "client")
    assert hum["event"]["audio"] == {"bytes": 3}
    assert [line["ms"] for line in lines] == sorted(line["ms"] for line in lines)
    assert all(datetime.fromisoformat(line["at"]).tzinfo is not None for line in lines)


async def test_a_folder_that_is_gone_harms_no_call(tmp_path: Path) -> None:
    before = Counter(RECORDED)
    with capture_logs() as logs:
        all_of_them = Records(tmp_path / "gone", tmp_path / "gone")
        async with a_call(Hummer, records=all_of_them) as call:
            channel = await call.open_channel()
            channel.send('{"type": "hum"}')
            await until(lambda: of_type(call, "its.own"))
            await until(lambda: gained(before, RECORDED).get("frame_failed", 0) > 50)
            count = len(call.rtp)
            await until(lambda: len(call.rtp) > count + 25)
            assert not call.session.ended
        all_of_them.close()
    said = [log for log in logs if log["event"] == "a file is not written any further"]
    assert len(said) == 2
    assert {log["why"] for log in said} == {"No such file or directory"}
    assert "frame_written" not in gained(before, RECORDED)


async def test_packets_are_not_recorded_and_events_are(tmp_path: Path) -> None:
    all_of_them = Records(tmp_path, tmp_path)
    async with a_call(OpusRecorder, records=all_of_them) as call:
        await call.open_channel()
        await until(lambda: call.events)
        call.speak(b"packet")
        name = call_id(call.session.ufrag)
    all_of_them.close()
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.jsonl"]


async def test_a_call_that_goes_on_elsewhere_leaves_the_next_part_there(tmp_path: Path) -> None:
    records = Records(tmp_path, None)
    async with a_moving_call(Hummer, records) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        other = call.taken_up(await call.left())
        other.forsake()
        await other.closed()
        call.session.stay()
        channel.send('{"type": "before"}')
        await until(lambda: of_type(call, "its.own"))
        await call.move()
        channel.send('{"type": "after"}')
        await until(lambda: len(of_type(call, "its.own")) == 2)
    records.close()
    name = call_id(call.session.ufrag)
    parts = [tmp_path / f"{name}.jsonl", tmp_path / f"{name}.2.jsonl"]
    assert sorted(tmp_path.iterdir()) == sorted(parts)
    said = [[json.loads(line)["event"]["type"] for line in part.read_text().splitlines()] for part in parts]
    assert "before" in said[0]
    assert "after" not in said[0]
    assert said[1][:2] == ["after", "its.own"]
