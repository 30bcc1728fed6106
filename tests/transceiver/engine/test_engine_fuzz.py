"""Mutated frames to the engine, and mutated WAV files: refused, and never a fault of ours."""

from __future__ import annotations

import random
import time

import pytest
from fuzzing import fresh_seed, grown, mutated, wav

from transceiver.engine import frames
from transceiver.engine.bodies import BadRequest, sound_of

FRAMES = [
    frames.packed(frame)[frames.HEAD_BYTES :]
    for frame in (
        frames.Transcribe(1, b"pcm.", 16000, True),
        frames.Answer(2, 3, (frames.Turn("system", "a"), frames.Turn("user", "b")), 64),
        frames.Speak(3, "good day"),
        frames.Ended(4, b"pcm.", 8000),
        frames.Cancel(1),
        frames.Forget(3),
        frames.Ping(0),
        frames.Hello(1, ("ears",)),
        frames.Piece(2, "so"),
        frames.Done(1, "so", 0.5),
        frames.Refused(1, "no", busy=True),
        frames.Pong(0, {"ears": 1}),
    )
]


def tried(seconds: float) -> int:
    """Mutated frames and WAV files; returns how many."""
    rng, until, count = random.Random(fresh_seed()), time.monotonic() + seconds, 0
    files = [wav(), wav(2), wav(1, 48000)]
    while count < 1000 or time.monotonic() < until:
        count += 1
        frame, file = (mutated(rng, rng.choice(seeds)) for seeds in (FRAMES, files))
        for read in (frames.client_frame, frames.engine_frame):
            try:
                read(frame)
            except frames.FrameError:
                pass
            except Exception as e:
                e.add_note(f"frame {frame!r}")
                raise
        try:
            sound = sound_of(file if rng.random() < 0.99 else grown(rng, file))
            assert len(sound.pcm) <= len(file) or len(sound.pcm) <= 64 << 10
        except BadRequest:
            pass
        except Exception as e:
            e.add_note(f"file {file!r}")
            raise
    return count


def test_mutated_frames_and_files_are_refused() -> None:
    assert tried(0.5)


@pytest.mark.trials
@pytest.mark.timeout(1200)
def test_five_minutes_of_mutated_frames_and_files_are() -> None:
    print(tried(300))


_CANCEL = b"\x83\xa4type\xa6cancel\xa2id\x01\xa1x"


@pytest.mark.parametrize("bomb", [b"\x91", b"\x81\xa1x", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff"], ids=repr)
def test_a_frame_of_arrays_in_arrays_is_none(bomb: bytes) -> None:
    for read in (frames.client_frame, frames.engine_frame):
        for head in (b"", _CANCEL):
            with pytest.raises(frames.FrameError):
                read(head + (bomb * (64 << 10))[: 64 << 10])
