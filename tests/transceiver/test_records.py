"""Those who write transcripts and recordings: no disk holds anybody up, and each trouble is said once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog
from session_run import gained
from sounds import played, tone
from structlog.testing import capture_logs
from waiting import until as until_now

from runtime.config import Transceiver
from runtime.errors import ConfigError
from transceiver.counters import RECORDED
from transceiver.records import folders, recording, sink, transcript, writer
from transceiver.records.files import Records
from transceiver.records.scribe import Scribe
from transceiver.records.writer import File, Writer

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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is written at the end, however long a busy machine takes."""
    monkeypatch.setattr(writer, "_GOODBYE_S", 60.0)


@pytest.fixture
def running() -> Iterator[Writer]:
    one = Writer()
    yield one
    one.process.send_signal(signal.SIGCONT)  # of a test that failed, perhaps
    one.close()
    until_now(lambda: one.process.poll() is not None)
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
    running.put(file, words(-1), 0)  # nothing of the bound, whenever it is known to be written
    until_now(lambda: numbers(file.path) == [-1])
    running.process.send_signal(signal.SIGSTOP)  # as one whose disk does not answer
    until_now(lambda: psutil.Process(running.process.pid).status() == psutil.STATUS_STOPPED)
    taken = [running.put(file, words(i), 100) for i in range(50)]
    assert taken == [True] * 11 + [False] * 39
    running.process.send_signal(signal.SIGCONT)
    until_now(lambda: numbers(file.path) == [-1, *range(11)])
    until_now(lambda: running.put(file, words(50), 100))
    until_now(lambda: numbers(file.path) == [-1, *range(11), 50])
    until_now(lambda: gained(before, RECORDED)["event_written"] == 13)
    assert gained(before, RECORDED)["event_late"] >= 39


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
    sound, before = tone(440, 300), Counter(RECORDED)
    for i in range(200):
        running.put(old, (i, sound[i], b""), 1000)
    until_now(lambda: gained(before, RECORDED).get("frame_written") == 200)  # but for a page that is not full
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
    folders.check(Transceiver(recordings=tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("key", ["transcripts", "recordings"])
@pytest.mark.parametrize("folder", ["/proc/firsthop", "/dev/null", "/missing/folder"])
def test_a_folder_that_takes_no_files_is_refused(key: str, folder: str) -> None:
    with pytest.raises(ConfigError, match=f"transceiver.{key} {folder}: no files can be made there: "):
        folders.check(Transceiver.model_validate({key: folder}))


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
