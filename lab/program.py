"""A program of Debian's on a host of the lab, or on this machine: it is started, waited for and ended."""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from lab.appliance import Place, end

__all__ = ["Program", "ProgramError"]

_READY_S = 60.0
_GOODBYE_S = 10.0


class ProgramError(RuntimeError):
    """The error that a program does not come up, or refuses what it is asked."""


class Program(ABC):
    """The program ``command`` at ``place``, with the configuration ``config`` in the file ``name`` of ``folder``, which
    is its own. A context manager."""

    command: ClassVar[str]
    error: ClassVar[type[ProgramError]] = ProgramError

    def __init__(self, place: Place, folder: Path, name: str, config: str) -> None:
        self._place, self._folder = place, folder
        self._process: subprocess.Popen[Any] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / name
        self._config.touch(0o600)
        self._config.write_text(config)

    @abstractmethod
    def _argv(self, program: str) -> list[str]:
        """What starts ``program``, the path of the command."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it is ready; called at its place. May raise OSError where it is not."""

    @property
    def config(self) -> str:
        """The text of its configuration."""
        return self._config.read_text()

    @property
    def log(self) -> str:
        """The text that it has logged."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.command}.log"

    def __enter__(self) -> Self:
        program = shutil.which(self.command)
        if program is None:
            raise self.error(f"there is no {self.command} on this machine: scripts/setup dev installs Debian's")
        with self._log.open("wb") as log:
            argv = self._argv(program)
            self._process = self._place.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + _READY_S
        while not self._place.inside(self._ready):
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise self.error(f"{self.command} did not come up: {self.log[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, and waits for it."""
        process, self._process = self._process, None
        if process is not None:
            end(process, _GOODBYE_S)

    def _ready(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False
