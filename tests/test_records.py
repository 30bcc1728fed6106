"""Transcripts and recordings: what is in them, and that no disk harms a call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest
import structlog
from calling import finish, start_call
from session_run import OpusRecorder, Recorder, a_call, gained, of_type, until
from structlog.testing import capture_logs
from waiting import until as until_now

from caller.voice import generated
from lab.appliance import Appliance
from lab.network import Lab
from rtc.codecs.opus import Encoder
from runtime.config import Transceiver
from runtime.errors import ConfigError
from transceiver.counters import RECORDED
from transceiver.records import files as under_test
from transceiver.records import recording, sink, transcript, writer
from transceiver.records.files import Records
from transceiver.records.recording import Recording
from transceiver.records.scribe import Scribe
from transceiver.records.transcript import Transcript, slim
from transceiver.records.writer import File, Writer
from wire.ufrag import call_id

Sound = npt.NDArray[np.float64]


def tone(hz: float, frames: int, rate_hz: int = 24000, loud: float = 8000) -> list[bytes]:
    """So many frames of 20 ms of a tone."""
    t = np.arange(frames * rate_hz // 50) / rate_hz
    pcm = (loud * np.sin(2 * np.pi * hz * t)).astype(np.int16)
    return [frame.tobytes() for frame in pcm.reshape(frames, -1)]


def played(path: Path) -> tuple[Sound, Sound]:
    """The left and the right channel, at 48,000 Hz, as any player has them."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=48000)
        parts = [out.to_ndarray() for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    both = np.concatenate(parts, axis=1).astype(np.float64)
    return both[0], both[1]


def power(sound: Sound, hz: float) -> float:
    """The power of that tone, as a root mean square."""
    t = np.arange(len(sound)) / 48000
    return float(abs(np.mean(sound * np.exp(-2j * np.pi * hz * t))) * 2**0.5)


def rms(sound: Sound) -> float:
    return float(np.sqrt(np.mean(sound**2)))


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


def test_an_hour_that_is_missing_needs_no_memory(tmp_path: Path) -> None:
    file = Recording(tmp_path / "call.ogg", 8000)
    sizes: list[int] = []
    encode = file._encode
    file._encode = lambda left, right: (sizes.append(len(left)), encode(left, right))[1]  # type: ignore[assignment, method-assign]
    file.write([(0, b"", b""), (20_000, b"", b"")])
    file.close()
    assert max(sizes) <= 2 * 8000
    assert len(played(file.path)[0]) == 20_001 * 960


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


# --- who writes them ---


def test_a_full_disk_costs_one_file_and_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(path: Path) -> int:
        return os.open("/dev/full", os.O_WRONLY) if "full" in path.name else sink.create(path)

    monkeypatch.setattr(recording, "create", create)
    monkeypatch.setattr(transcript, "create", create)
    scribe = Scribe()
    sound = [(i, frame, b"") for i, frame in enumerate(tone(440, 50))]
    words = [(0.0, 0, "client", "{}")]
    files = [(1, "full.ogg", 24000, sound), (2, "good.ogg", 24000, sound), (3, "full.jsonl", 0, words)]
    first = scribe.take([(n, str(tmp_path / name), rate, pieces, False) for n, name, rate, pieces in files])
    later = [(i + 50, each, b"") for i, (_, each, _) in enumerate(sound)]
    counts, troubles = scribe.take([(n, str(tmp_path / name), rate, later, True) for n, name, rate, _ in files[:2]])
    assert first[1] | troubles == {1: "No space left on device", 3: "No space left on device"}
    assert counts == {"frame_failed": 50, "frame_written": 50}
    assert len(played(tmp_path / "good.ogg")[0]) == 100 * 960
    assert scribe.take([(3, str(tmp_path / "full.jsonl"), 0, words, True)]) == ({"event_failed": 1}, {})
    assert not scribe._sinks
    assert not scribe._failed


def test_a_file_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "there.jsonl").write_text("kept")
    words = [(0.0, 0, "client", "{}")]
    for name in ("link.jsonl", "there.jsonl"):
        counts, troubles = Scribe().take([(1, str(tmp_path / name), 0, words, True)])
        assert counts == {"event_failed": 1}
        assert troubles == {1: "File exists"}
    assert (tmp_path / "there.jsonl").read_text() == "kept"
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def running() -> Iterator[Writer]:
    one = Writer()
    yield one
    one.close()
    assert one.process.poll() == 0


def words(n: int) -> tuple[float, int, str, str]:
    return 0.0, n, "server", f'{{"n": {n}}}'


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["ms"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_slow_disk_loses_pieces_and_holds_up_nobody(
    running: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_MOST_BYTES", 1000)
    file, before = File(tmp_path / "a.jsonl"), Counter(RECORDED)
    running.put(file, words(-1), 1)
    until_now(lambda: numbers(file.path) == [-1])
    running.process.send_signal(signal.SIGSTOP)  # as one whose disk does not answer
    taken = [running.put(file, words(i), 100) for i in range(50)]
    assert taken == [True] * 11 + [False] * 39
    running.process.send_signal(signal.SIGCONT)
    until_now(lambda: numbers(file.path) == [-1, *range(11)])
    until_now(lambda: running.put(file, words(50), 100))
    until_now(lambda: numbers(file.path) == [-1, *range(11), 50])
    got = gained(before, RECORDED)
    assert (got["event_written"], got["event_late"] >= 39) == (13, True)


def test_a_file_that_fails_is_said_once_and_harms_no_other(running: Writer, tmp_path: Path) -> None:
    broken, good, before = File(tmp_path / "no" / "a.jsonl"), File(tmp_path / "b.jsonl"), Counter(RECORDED)
    with capture_logs() as logs:
        running._log = structlog.get_logger()
        for i in range(10):
            running.put(broken, words(i), 1)
            running.put(good, words(i), 1)
            if i % 5 == 0:
                until_now(lambda n=i: n in numbers(good.path))
        until_now(lambda: 9 in numbers(good.path))
        running.finish(broken)
        running.finish(good)
        until_now(lambda: gained(before, RECORDED) == {"event_written": 10, "event_failed": 10})
    assert numbers(good.path) == list(range(10))
    assert [(log["path"], log["why"]) for log in logs] == [(str(broken.path), "No such file or directory")]


def test_when_its_process_dies_what_was_written_stays_and_later_calls_are_written(
    running: Writer, tmp_path: Path
) -> None:
    old, new = File(tmp_path / "old.ogg", 24000), File(tmp_path / "new.jsonl")
    sound = tone(440, 300)
    for i in range(200):
        running.put(old, (i, sound[i], b""), 1000)
    until_now(lambda: old.path.exists() and old.path.stat().st_size > 10_000)
    before = Counter(RECORDED)
    running.process.kill()
    running.process.wait()  # until then its pipe takes what nobody will read
    for i in range(200, 300):
        running.put(old, (i, sound[i], b""), 1000)
    until_now(lambda: gained(before, RECORDED).get("frame_failed", 0) >= 100)
    running.put(new, words(1), 1)
    running.finish(old)
    until_now(lambda: numbers(new.path) == [1])
    assert 3 < len(played(old.path)[0]) / 48000 <= 4


def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    all_of_them = Records(tmp_path, tmp_path)
    record = all_of_them.open("rtc_1", 24000)
    assert record is not None
    now = time.monotonic()
    for i, frame in enumerate(tone(440, 30)):
        record.frame(frame, b"", now + 0.02 * i)
    record.event("server", '{"type": "x"}')
    record.close()
    record.event("server", '{"type": "after the end"}')
    all_of_them.close()
    assert len(played(tmp_path / "rtc_1.ogg")[0]) == 30 * 960
    assert len((tmp_path / "rtc_1.jsonl").read_text().splitlines()) == 1


def test_what_is_very_long_is_named_and_not_kept(tmp_path: Path) -> None:
    all_of_them = Records(tmp_path, None)
    record = all_of_them.open("rtc_1", None)
    assert record is not None
    long = json.dumps({"event_id": "1", "type": "input_audio_buffer.append", "audio": "A" * (2 << 20)})
    for text in (long, long.encode(), "A" * (2 << 20)):
        record.event("client", text)
    record.close()
    all_of_them.close()
    events = [json.loads(line)["event"] for line in (tmp_path / "rtc_1.jsonl").read_text().splitlines()]
    assert events[:2] == [{"type": "input_audio_buffer.append", "bytes": len(long)}] * 2
    assert events[2] == {"type": None, "bytes": 2 << 20}


def test_a_clock_that_skips_leaves_silence(tmp_path: Path) -> None:
    all_of_them = Records(None, tmp_path)
    record = all_of_them.open("rtc_1", 24000)
    assert record is not None
    now = time.monotonic()
    sound = tone(440, 10)
    for i in range(5):
        record.frame(sound[i], b"", now + 0.02 * i)
    for i in range(5):
        record.frame(sound[i], b"", now + 2 + 0.02 * i)
    record.close()
    all_of_them.close()
    assert abs(len(played(tmp_path / "rtc_1.ogg")[0]) / 48000 - 2.1) < 0.05


def test_an_agent_that_hears_packets_has_no_recording(tmp_path: Path) -> None:
    all_of_them = Records(None, tmp_path)
    assert all_of_them.open("rtc_1", None) is None
    all_of_them.close()


# --- configuration ---


def test_a_folder_that_is_missing_is_made_for_its_owner(tmp_path: Path) -> None:
    under_test.check(Transceiver(recordings=tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("key", ["transcripts", "recordings"])
@pytest.mark.parametrize("folder", ["/proc/firsthop", "/dev/null", "/missing/folder"])
def test_a_folder_that_takes_no_files_is_refused(key: str, folder: str) -> None:
    with pytest.raises(ConfigError, match=f"transceiver.{key} {folder}: no files can be made there: "):
        under_test.check(Transceiver.model_validate({key: folder}))


def test_a_transceiver_that_could_not_record_does_not_start(tmp_path: Path) -> None:
    from wire.keys import new_file_text

    keys = tmp_path / "cluster.toml"
    keys.write_text(new_file_text())
    keys.chmod(0o600)
    file = tmp_path / "firsthop.toml"
    file.write_text(
        f'[cluster]\nkeys = "{keys}"\n[transceiver]\nrecordings = "/proc/x"\nendpoint = "ipc://{tmp_path}/1.sock"\n'
    )
    argv = [sys.executable, "-m", "firsthop", "transceiver", "--config", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "transceiver.recordings /proc/x: no files can be made there" in line


# --- calls in memory ---


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


# --- calls in the lab ---


@pytest.fixture
def house(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Appliance]:
    """An appliance that keeps everything, in the folders ``words`` and ``sound``; with a transceiver on a core."""
    monkeypatch.setenv("FIRSTHOP_TRANSCEIVER__TRANSCRIPTS", str(tmp_path / "words"))
    monkeypatch.setenv("FIRSTHOP_TRANSCEIVER__RECORDINGS", str(tmp_path / "sound"))
    with Appliance(tmp_path, lab=lab, transceiver_cores=sorted(os.sched_getaffinity(0))[:1]) as appliance:
        yield appliance


def alike(sound: Sound, other: Sound) -> float:
    """The likeness of a quarter of a second of ``other`` to some of ``sound``, at the place where it is greatest: 1 is
    the same. Late packets may have stretched others."""
    return max(_alike(sound, other[at : at + 12000]) for at in range(0, len(other) - 12000, 12000))


def _alike(sound: Sound, part: Sound) -> float:
    size = len(sound) + len(part)
    product = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(part, size)))[: len(sound) - len(part)]
    energy = np.concatenate([[0], np.cumsum(sound**2)])
    there = energy[len(part) : len(sound)] - energy[: len(sound) - len(part)]
    return float(np.max(product / np.sqrt(np.maximum(there, 1e6) * np.sum(part**2))))


def test_a_call_in_the_lab_is_recorded(lab: Lab, house: Appliance, tmp_path: Path) -> None:
    said = finish(start_call(lab.client, house, "--model", "parrot", "--duration", "9", "--dtmf", "7"))
    name = said["per_call"][0]["call_id"]
    path = tmp_path / "sound" / f"{name}.ogg"
    until_now(path.exists)
    until_now(lambda: len(played(path)[0]) > 9 * 48000)
    left, right = played(path)
    voice = np.frombuffer(generated().pcm(48000), np.int16).astype(np.float64)
    first, answer = (int(np.flatnonzero(abs(side) > 1000)[0]) for side in (left, right))
    # Left is what our caller says; right is that again, by the parrot, after the turn.
    assert alike(left, voice[: 2 * 48000]) > 0.9
    assert alike(left, right[answer : answer + 48000]) > 0.9
    assert answer - first > 2 * 48000
    lines = [json.loads(line) for line in (tmp_path / "words" / f"{name}.jsonl").read_text().splitlines()]
    types = [line["event"]["type"] for line in lines]
    wanted = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "response.created",
              "output_audio_buffer.started"]  # fmt: skip
    assert [type_ for type_ in types if type_ in wanted][:4] == wanted
    assert types.count("input_audio_buffer.dtmf_event_received") == 1
    started = next(line["ms"] for line in lines if line["event"]["type"] == wanted[3])
    # The transcript's clock is the recording's.
    assert abs(started / 1000 - answer / 48000) < 0.5
    counted = house.metrics("media-1")
    assert counted[("firsthop_transceiver_recorded_total", "frame_written")] > 400
    assert counted[("firsthop_transceiver_recorded_total", "frame_late")] == 0


def test_a_killed_transceiver_leaves_what_was_said(lab: Lab, house: Appliance, tmp_path: Path) -> None:
    call = start_call(lab.client, house, "--model", "parrot", "--duration", "60")

    sound = tmp_path / "sound"
    until_now(lambda: any(path.stat().st_size > 20_000 for path in sound.iterdir()))
    media = house.children()["media-1"]
    [scribe] = media.children()
    written_at = time.time()
    media.send_signal(signal.SIGKILL)
    psutil.wait_procs([scribe], timeout=60)
    assert not scribe.is_running()
    [path] = sound.iterdir()
    left, _ = played(path)
    lines = [json.loads(line) for line in (tmp_path / "words" / f"{path.stem}.jsonl").read_text().splitlines()]
    began = datetime.fromisoformat(lines[0]["at"]).timestamp() - lines[0]["ms"] / 1000
    assert len(left) / 48000 > written_at - began - 1.5
    assert rms(left) > 300
    call.terminate()
    call.communicate(timeout=60)
    # The one in its place records too.
    house.wait_ready()
    finish(start_call(lab.client, house, "--model", "parrot", "--duration", "2"))
    until_now(lambda: len(list(sound.iterdir())) == 2)


def test_a_disk_that_fills_up_harms_no_call_in_the_lab(lab: Lab, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "firsthop-test", str(small)], check=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FIRSTHOP_TRANSCEIVER__RECORDINGS", str(small))
            with Appliance(tmp_path, lab=lab) as appliance:
                said = finish(start_call(lab.client, appliance, "-n", "4", "--model", "loopback", "--duration", "8"))
                counted = appliance.metrics("transceiver")
                log = appliance.log_file("transceiver").read_text()
        assert said["calls"]["ok"] == 4
        assert said["audio"]["packets"]["lost"] == 0
        assert counted[("firsthop_transceiver_recorded_total", "frame_failed")] > 50
        assert 1 <= log.count("a file is not written any further") <= 4
        assert "No space left on device" in log
    finally:
        subprocess.run(["umount", str(small)], check=True)
