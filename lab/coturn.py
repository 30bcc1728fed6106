"""A real coturn (Debian's) on a host of the lab, or on this machine, as the Ansible role ``turn`` has it: credentials
that end by themselves, UDP, TCP and TLS, and no peers but those that it is told. Its files are in a folder of its own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from lab.appliance import Place, end

__all__ = ["REALM", "Coturn", "CoturnError"]

REALM = "firsthop"
_READY_S = 60.0
_GOODBYE_S = 10.0


class CoturnError(RuntimeError):
    """The error that coturn does not come up."""


class Coturn:
    """coturn at ``place``: it relays to the addresses ``peers`` for who has credentials that were made with ``secret``.
    ``tls`` are the PEM files of a certificate and its key; ``cpu`` is the one core that it runs on. A context
    manager."""

    def __init__(
        self,
        place: Place,
        folder: Path,
        *,
        secret: str,
        peers: Sequence[str],
        tls: tuple[Path, Path],
        port: int = 3478,
        tls_port: int = 443,
        cpu: int | None = None,
    ) -> None:
        self._place, self._folder = place, folder
        self.address, self.port, self.tls_port = place.address, port, tls_port
        self._pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
        self._process: subprocess.Popen[Any] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "turnserver.conf"
        lines = [
            f"listening-ip={place.address}",
            f"relay-ip={place.address}",
            f"listening-port={port}",
            "min-port=49152",
            "max-port=65535",
            f"tls-listening-port={tls_port}",
            f"cert={tls[0]}",
            f"pkey={tls[1]}",
            "no-tlsv1",
            "no-tlsv1_1",
            "no-dtls",
            "use-auth-secret",
            f"static-auth-secret={secret}",
            f"realm={REALM}",
            "stale-nonce=600",
            "fingerprint",
            "total-quota=12000",
            "user-quota=64",
            "max-bps=250000",
            "no-multicast-peers",
            "no-tcp-relay",
            "denied-peer-ip=0.0.0.0-255.255.255.255",
            "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            *(f"allowed-peer-ip={peer}" for peer in peers),
            "no-cli",
            "no-rfc5780",
            "no-stun-backward-compatibility",
            "no-software-attribute",
            "log-file=stdout",
            "simple-log",
            f"userdb={folder / 'turndb'}",
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._config.chmod(0o600)

    @property
    def config(self) -> str:
        """The text of its configuration."""
        return self._config.read_text()

    @property
    def log(self) -> str:
        """The text that it has logged."""
        return (self._folder / "coturn.log").read_text()

    @property
    def udp_url(self) -> str:
        """The URL of the relay over UDP."""
        return f"turn:{self.address}:{self.port}?transport=udp"

    @property
    def tls_url(self) -> str:
        """The URL of the relay over TLS."""
        return f"turns:{self.address}:{self.tls_port}?transport=tcp"

    def __enter__(self) -> Self:
        program = shutil.which("turnserver")
        if program is None:
            raise CoturnError("there is no turnserver on this machine: scripts/setup dev installs Debian's coturn")
        with (self._folder / "coturn.log").open("wb") as log:
            argv = [*self._pinned, program, "-c", str(self._config), "--pidfile", str(self._folder / "coturn.pid")]
            self._process = self._place.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + _READY_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise CoturnError(f"coturn did not come up: {self.log[-2000:]}")
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
        def asked() -> bool:
            try:
                for port in (self.port, self.tls_port):
                    socket.create_connection((self.address, port), 5).close()
            except OSError:
                return False
            return True

        return self._place.inside(asked)
