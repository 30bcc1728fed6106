"""The files that a call leaves where the configuration asks for them: a transcript, a recording, or both."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from rtc.frame import FRAMES_PER_S
from runtime import logs
from transceiver.records.writer import File, Writer

__all__ = ["Record", "Records"]

_OVERHEAD_BYTES = 200  # of a piece in the queue
_MOST_EVENT_BYTES = 1 << 20  # a few longer ones would leave no room in the queue for what others say
_TYPE = re.compile(r'"type"\s*:\s*"([a-z_.]{1,100})"')
_SKIPPED = 10  # ticks: what a pacer makes up for is not skipped


class Records:
    """The transcripts and recordings of one process."""

    def __init__(self, transcripts: Path | None, recordings: Path | None) -> None:
        self._transcripts, self._recordings = transcripts, recordings
        self._writer = Writer()

    def open(self, call: str, rate_hz: int | None) -> Record | None:
        """Begins the record of one call; its sound is PCM of ``rate_hz``, or none that could be recorded."""
        words = File(self._transcripts / f"{call}.jsonl") if self._transcripts else None
        sound = File(self._recordings / f"{call}.ogg", rate_hz) if self._recordings and rate_hz else None
        return Record(call, self._writer, words, sound) if words or sound else None

    def close(self) -> None:
        """Writes what waits, if that does not take long."""
        self._writer.close()


class Record:
    """The record of one call. Nothing here waits for a disk."""

    def __init__(self, call: str, writer: Writer, words: File | None, sound: File | None) -> None:
        self._call = call
        self._writer = writer
        self._words: File | None = words
        self._sound: File | None = sound
        self._began = time.monotonic()
        self._tick = -1
        self._late: set[File] = set()

    def event(self, who: str, text: str | bytes) -> None:
        """Takes an event as "server" or "client" said it."""
        if self._words is not None:
            if len(text) > _MOST_EVENT_BYTES:
                text = _named(text)
            ms = round(1000 * (time.monotonic() - self._began))
            self._put(self._words, (time.time(), ms, who, text), len(text))

    def frame(self, heard: bytes, said: bytes, now: float) -> None:
        """Takes 20 ms of either side, or nothing where there was silence; it is called in every tick, at ``now``."""
        if self._sound is None:
            return
        self._tick += 1
        # Ticks that never were are silence, or all that follows would be too early.
        behind = int((now - self._began) * FRAMES_PER_S) - self._tick
        if behind > _SKIPPED:
            self._tick += behind
        self._put(self._sound, (self._tick, heard, said), len(heard) + len(said))

    def close(self) -> None:
        """Ends the record: the call is over."""
        for file in (self._words, self._sound):
            if file is not None:
                self._writer.finish(file)
        self._words = self._sound = None

    def _put(self, file: File, piece: object, size: int) -> None:
        if not self._writer.put(file, piece, size + _OVERHEAD_BYTES) and file not in self._late:
            self._late.add(file)
            logs.get().error("the disk is too slow for all that is to be written", call=self._call, path=str(file.path))


def _named(text: str | bytes) -> str:
    """An event in place of one that is too long: it has the length, and the type where that stands at the beginning."""
    head = text[:1000] if isinstance(text, str) else text[:1000].decode(errors="replace")
    found = _TYPE.search(head)
    return json.dumps({"type": found[1] if found else None, "bytes": len(text)})
