"""A child process as its supervisor holds it: by pidfd, whether it was started here or by a supervisor before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Process"]

_GOODBYE_S = 5.0
# Of systemd's environment (sd_notify(3), sd_watchdog_enabled(3)).
_FOR_THE_MAIN_PROCESS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Process:
    """The process behind ``pidfd``. ``gone`` is set when it has ended; ``code`` is then its exit code, negative for a
    signal, and None for one that is not our child."""

    def __init__(self, pidfd: int, started: subprocess.Popen[bytes] | None = None) -> None:
        self.pidfd = pidfd
        self.code: int | None = None
        self.gone = asyncio.Event()
        self._started = started
        asyncio.get_running_loop().add_reader(pidfd, self._reap)

    @classmethod
    def start(cls, module: str, fds: tuple[int, ...]) -> Process:
        """Starts ``module``, which inherits ``fds`` and waits for its spec. Raises OSError."""
        # systemd hears the main process alone, and would log what others say.
        ours = {name: value for name, value in os.environ.items() if name not in _FOR_THE_MAIN_PROCESS}
        argv = [sys.executable, "-m", module]
        started = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=fds, env=ours)  # noqa: S603
        return cls(os.pidfd_open(started.pid), started)

    @property
    def name(self) -> str:
        """The name that it gave itself, once it has imported everything; empty where it has ended."""
        return self._read("comm").strip()

    @property
    def memory_bytes(self) -> int:
        """The memory that it holds for itself, swapped out or not: neither files that it has mapped nor what it shares.
        0 where it has ended."""
        fields = dict(line.partition(":")[::2] for line in self._read("status").splitlines())
        return sum(int(fields.get(name, "0").split()[0]) << 10 for name in ("RssAnon", "VmSwap"))

    def tell(self, spec: bytes) -> None:
        """Writes the spec to its standard input, where it waits for it."""
        assert self._started is not None
        assert self._started.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which will show
            self._started.stdin.write(spec)
            self._started.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it still lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def end(self, patience_s: float = 0.0, hurry: asyncio.Event | None = None) -> None:
        """Ends it in order, or by force where it does not end within 5 s. With ``patience_s`` it has so much longer to
        bring to an end what it does; at ``hurry`` it is told by SIGINT not to wait for that."""
        self.signal(signal.SIGTERM)
        if patience_s:
            await self._gone_or(hurry or asyncio.Event(), patience_s)
            if not self.gone.is_set():
                self.signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self.gone.wait(), _GOODBYE_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.gone.wait()

    async def _gone_or(self, hurry: asyncio.Event, patience_s: float) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self.gone, hurry)]
        try:
            await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def close(self) -> None:
        """Closes the pidfd; not before the store has let go of it."""
        if self._started is not None and self._started.stdin is not None:
            self._started.stdin.close()
        os.close(self.pidfd)

    def _read(self, file: str) -> str:
        """One of its files in /proc, empty where it has ended."""
        with contextlib.suppress(OSError):
            about = Path(f"/proc/self/fdinfo/{self.pidfd}").read_text()
            pid = next((line.split()[1] for line in about.splitlines() if line.startswith("Pid:")), "")
            return Path(f"/proc/{pid}/{file}").read_text()
        return ""

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        if self._started is not None:
            self.code = self._started.wait()
        else:
            # Ours after all, where the supervisor only changed its program.
            with contextlib.suppress(ChildProcessError):
                if (ended := os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)) is not None:
                    self.code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        self.gone.set()
