"""Models without weights, which do what the words that they are given say. As a program it is an engine that has them:
``models.py RUN HANGS_S LOCK``, or, with ``broken`` for HANGS_S, one that cannot load."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from transceiver.engine import Message, starting
from transceiver.engine.server import Server

__all__ = ["Models"]


class Models:
    """ "hang" hangs, "wait" waits for ``gate``, "die" ends the process, "fail" raises; all else is said back. ``gate``
    holds ears back while it is not set, and ``heard`` is what they were given. ``read_ahead`` is what was read, and how
    many answers were made meanwhile."""

    cuda: tuple[str, ...] = ()
    calls = 2

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.heard: list[str] = []
        self.stopped = threading.Event()
        self.forgotten: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int]] = []
        self.read_ahead: list[tuple[list[str], int]] = []
        self._answering = 0

    def transcribe(self, pcm: bytes, rate: int) -> str:
        text = pcm.decode().rstrip()
        self.heard.append(text)
        self.gate.wait(60)
        return self._done(text)

    def answer(
        self, call: tuple[int, int], messages: list[Message], most_tokens: int, piece: Callable[[str], bool]
    ) -> None:
        self.asked.append(call)
        words = messages[-1]["content"].split()
        self._answering += 1
        try:
            for place in range(most_tokens):
                if piece(self._done(words[place % len(words)]) + " "):
                    self.stopped.set()
                    return
        finally:
            self._answering -= 1

    def read(self, call: tuple[int, int], messages: list[Message]) -> None:
        self.read_ahead.append(([message["content"] for message in messages], self._answering))

    def speak(self, text: str, piece: Callable[[bytes], bool]) -> None:
        for word in text.split():
            if piece(self._done(word).encode()):
                self.stopped.set()
                return

    def ended(self, pcm: bytes, rate: int) -> float:
        return len(pcm) / rate

    def forget(self, call: tuple[int, int]) -> None:
        self.forgotten.append(call)

    def _done(self, word: str) -> str:
        match word:
            case "hang":
                time.sleep(3600)
            case "wait":
                self.gate.wait(60)
            case "die":
                os._exit(1)
            case "fail":
                raise RuntimeError("as asked")
        return word


def main(run: Path, hangs: str, lock: int) -> None:
    """The engine."""
    if hangs == "broken":
        starting.failed(lock, "the weights are gone")
        return
    (run / "parent").write_text(str(os.getppid()))
    asyncio.run(Server(Models(), idle_s=60, hangs_s=float(hangs)).serve(starting.socket_of(run)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    os._exit(0)
