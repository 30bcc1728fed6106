"""A real coturn (Debian's) on a host of the lab, or on this machine, as the Ansible role ``turn`` has it: credentials
that end by themselves, UDP, TCP and TLS, and no peers but those that it is told. Its files are in a folder of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from lab.appliance import Place
from lab.program import Program, ProgramError

__all__ = ["REALM", "Coturn", "CoturnError"]

REALM = "firsthop"


class CoturnError(ProgramError):
    """The error that coturn does not come up."""


class Coturn(Program):
    """coturn at ``place``: it relays to the addresses ``peers`` for who has credentials that were made with ``secret``.
    ``tls`` are the PEM files of a certificate and its key; ``cpu`` is the one core that it runs on. A context
    manager."""

    command = "turnserver"
    error = CoturnError

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
        self.address, self.port, self.tls_port = place.address, port, tls_port
        self._pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
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
        super().__init__(place, folder, "turnserver.conf", "\n".join(lines) + "\n")

    @property
    def udp_url(self) -> str:
        """The URL of the relay over UDP."""
        return f"turn:{self.address}:{self.port}?transport=udp"

    @property
    def tls_url(self) -> str:
        """The URL of the relay over TLS."""
        return f"turns:{self.address}:{self.tls_port}?transport=tcp"

    def _argv(self, program: str) -> list[str]:
        return [*self._pinned, program, "-c", str(self._config), "--pidfile", str(self._folder / "coturn.pid")]

    def _answers(self) -> bool:
        for port in (self.port, self.tls_port):
            socket.create_connection((self.address, port), 5).close()
        return True
