"""Transcripts and recordings of whole calls in the lab: no kill and no disk harms a call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from calling import finish, start_call, whole
from sounds import Sound, played, rms
from waiting import until as until_now

from caller.voice import generated
from lab.appliance import Appliance
from lab.network import Lab


@pytest.fixture(scope="module")
def keeper(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that keeps everything, in the folders ``words`` and ``sound``; with a transceiver on a core."""
    folder = tmp_path_factory.mktemp("keeper")
    appliance = Appliance(folder, lab=lab, transceiver_cores=sorted(os.sched_getaffinity(0))[:1])
    appliance.environment["transceiver"] = {
        "FIRSTHOP_TRANSCEIVER__TRANSCRIPTS": str(folder / "words"),
        "FIRSTHOP_TRANSCEIVER__RECORDINGS": str(folder / "sound"),
    }
    with appliance:
        yield appliance


@pytest.fixture
def house(keeper: Appliance) -> Appliance:
    return whole(keeper, 1)


@pytest.fixture
def words(house: Appliance) -> Path:
    return house.config_file.parent / "words"


@pytest.fixture
def sound(house: Appliance) -> Path:
    return house.config_file.parent / "sound"


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


def test_a_call_in_the_lab_is_recorded(lab: Lab, house: Appliance, words: Path, sound: Path) -> None:
    def counted(what: str) -> float:
        return house.metrics("media-1").get(("firsthop_transceiver_recorded_total", what), 0)

    before = {what: counted(what) for what in ("frame_written", "frame_late")}
    said = finish(start_call(lab.client, house, "--model", "parrot", "--duration", "9", "--dtmf", "7"))
    name = said["per_call"][0]["call_id"]
    path = sound / f"{name}.ogg"
    until_now(path.exists)
    until_now(lambda: len(played(path)[0]) > 9 * 48000)
    left, right = played(path)
    voice = np.frombuffer(generated().pcm(48000), np.int16).astype(np.float64)
    first, answer = (int(np.flatnonzero(abs(side) > 1000)[0]) for side in (left, right))
    # Left is what our caller says; right is that again, by the parrot, after the turn.
    assert alike(left, voice[: 2 * 48000]) > 0.9
    assert alike(left, right[answer : answer + 48000]) > 0.9
    assert answer - first > 2 * 48000

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (words / f"{name}.jsonl").read_text().splitlines()]

    def types() -> list[str]:
        return [line["event"]["type"] for line in lines()]

    wanted = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "response.created",
              "output_audio_buffer.started"]  # fmt: skip
    until_now(lambda: {*wanted, "input_audio_buffer.dtmf_event_received"} <= set(types()))
    assert [type_ for type_ in types() if type_ in wanted][:4] == wanted
    assert types().count("input_audio_buffer.dtmf_event_received") == 1
    started = next(line["ms"] for line in lines() if line["event"]["type"] == wanted[3])
    # The transcript's clock is the recording's.
    assert abs(started / 1000 - answer / 48000) < 0.5
    until_now(lambda: counted("frame_written") > before["frame_written"] + 400)
    assert counted("frame_late") == before["frame_late"]


def test_a_killed_transceiver_leaves_what_was_said(lab: Lab, house: Appliance, words: Path, sound: Path) -> None:
    earlier = set(sound.iterdir()) if sound.exists() else set()
    call = start_call(lab.client, house, "--model", "parrot", "--duration", "600")
    until_now(sound.exists)
    until_now(lambda: any(path.stat().st_size > 20_000 for path in set(sound.iterdir()) - earlier))
    [path] = set(sound.iterdir()) - earlier
    media = house.children()["media-1"]
    [scribe] = media.children()
    written_at = time.time()
    media.send_signal(signal.SIGKILL)
    psutil.wait_procs([scribe], timeout=60)
    assert not scribe.is_running()
    left, _ = played(path)
    lines = [json.loads(line) for line in (words / f"{path.stem}.jsonl").read_text().splitlines()]
    began = datetime.fromisoformat(lines[0]["at"]).timestamp() - lines[0]["ms"] / 1000
    assert len(left) / 48000 > written_at - began - 1.5
    assert rms(left) > 300
    call.terminate()
    call.communicate(timeout=60)
    # The one in its place records too.
    house.wait_ready()
    earlier = set(sound.iterdir())
    finish(start_call(lab.client, house, "--model", "parrot", "--duration", "2"))
    until_now(lambda: len(set(sound.iterdir()) - earlier) == 1)


@pytest.mark.needs_root
def test_a_disk_that_fills_up_harms_no_call_in_the_lab(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "firsthop-test", str(small)], check=True)
    try:
        with Lab() as lab:
            appliance = Appliance(tmp_path, lab=lab)
            appliance.environment["transceiver"] = {"FIRSTHOP_TRANSCEIVER__RECORDINGS": str(small)}
            with appliance:
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
