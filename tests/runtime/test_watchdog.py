"""The watchdog: what systemd is told, and that it is told nothing where a unit has none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.supervision import watchdog


class Systemd:
    """The receiving end of a service's messages."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    @property
    def told(self) -> list[str]:
        """What it was told since it was last asked."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096, socket.MSG_DONTWAIT).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def test_with_a_watchdog_it_is_fed_and_waits_while_a_program_is_replaced(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "6000000")
    watchdog.ready()
    watchdog.alive()
    watchdog.MainBeat()()
    watchdog.ahead()
    watchdog.ready()
    assert systemd.told == [
        "READY=1\nWATCHDOG_USEC=6000000",
        "WATCHDOG=1",
        "WATCHDOG=1",
        "WATCHDOG_USEC=60000000",
        "READY=1\nWATCHDOG_USEC=6000000",
    ]


def test_without_a_watchdog_it_is_told_only_that_the_service_is_ready(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    watchdog.ready()
    watchdog.alive()
    watchdog.MainBeat()()
    watchdog.ahead()
    assert systemd.told == ["READY=1"]
