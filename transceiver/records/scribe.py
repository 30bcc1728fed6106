"""The process that writes transcripts and recordings, one beside each transceiver process.

Encoding Opus takes CPU time and Python's lock between two frames; in the process that sends every caller's media, media
would wait for it (docs/media.md says what it costs). Batches come on standard input and are answered on standard
output. When there are no more, because the transceiver has ended or was killed, every file gets its end, and the
process ends too.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import IO, Any

import msgpack

from runtime.supervision.child import step_down
from transceiver.records.recording import Recording
from transceiver.records.sink import Sink
from transceiver.records.transcript import Transcript

__all__ = ["Scribe", "main", "receive", "send"]

_LENGTH = struct.Struct("<I")
_NICER = 10


def send(stream: IO[bytes], message: Any) -> None:
    """Sends a message. Raises OSError."""
    data = msgpack.packb(message, unicode_errors="surrogatepass")
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError where there is none."""
    head = stream.read(_LENGTH.size)
    data = stream.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    if not data:
        raise EOFError("nobody is at the other end")
    return msgpack.unpackb(data, use_list=False, strict_map_key=False, unicode_errors="surrogatepass")


class Scribe:
    """All files of one transceiver process, by number."""

    def __init__(self) -> None:
        self._sinks: dict[int, Sink] = {}
        self._failed: set[int] = set()

    def take(self, batch: Any) -> tuple[dict[str, int], dict[int, str]]:
        """Writes a batch of (number, path, rate in Hz, pieces, whether it ends): the rate is that of a recording, 0 is
        a transcript. Returns counts as ``counters.RECORDED`` names them, and why files failed just now."""
        counts: Counter[str] = Counter()
        troubles: dict[int, str] = {}
        for number, path, rate_hz, pieces, ends in batch:
            sink = self._sinks.get(number)
            if sink is None:
                sink = self._sinks[number] = Recording(Path(path), rate_hz) if rate_hz else Transcript(Path(path))
            try:
                if pieces and number not in self._failed:
                    sink.write(list(pieces))
            except Exception as e:  # of a disk, a codec or an event: one file is lost, and no other
                self._failed.add(number)
                troubles[number] = _why(e)
            if pieces:
                counts[sink.what + ("_failed" if number in self._failed else "_written")] += len(pieces)
            if ends:
                self._end(number, troubles)
        return counts, troubles

    def close(self) -> None:
        """Gives every file its end."""
        for number in tuple(self._sinks):
            self._end(number, {})

    def _end(self, number: int, troubles: dict[int, str]) -> None:
        try:
            self._sinks.pop(number).close()
        except Exception as e:
            if number not in self._failed:
                troubles[number] = _why(e)
        self._failed.discard(number)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or repr(error)


def main() -> None:
    """Returns when standard input ends."""
    step_down("scribe", os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
    scribe = Scribe()
    try:
        while True:
            send(sys.stdout.buffer, scribe.take(receive(sys.stdin.buffer)))
    except (EOFError, BrokenPipeError):
        scribe.close()


if __name__ == "__main__":
    main()
