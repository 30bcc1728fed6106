"""The ICE servers as a client is told of them: for pages as RTCIceServer dictionaries, for WHIP clients as links.

Credentials of those with a secret are made for who asks. The files of secrets are followed: a new one is used at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import turnsecrets
from edge.signaling.turn.credentials import Credentials, mint
from runtime.config import IceServer
from runtime.followed import Followed
from runtime.logs import Log

__all__ = ["IceServers"]


@dataclass(frozen=True, slots=True)
class _Told:
    """Servers that take the same credentials."""

    urls: list[str]
    credentials: Credentials | None


class IceServers:
    """The servers of the configuration. The files of their secrets must be good at first (ConfigError)."""

    def __init__(self, servers: Sequence[IceServer], ttl_s: int, log: Log) -> None:
        self._servers = servers
        self._ttl_s = ttl_s
        paths = dict.fromkeys(server.secret_file for server in servers if server.secret_file is not None)
        self._secrets: dict[Path, Followed[str]] = {
            path: Followed("TURN secret", turnsecrets.load, path, log=log, secret=True) for path in paths
        }
        self._log = log

    @property
    def value(self) -> dict[Path, str]:
        """The secrets in force, by their files."""
        return {path: secret.value for path, secret in self._secrets.items()}

    def refresh(self) -> bool:
        """See Follows. One file that is broken keeps no other from being taken."""
        changed = [path for path, secret in self._secrets.items() if secret.refresh()]
        for path in changed:
            self._log.info("TURN secret changed", file=str(path))
        return bool(changed)

    def configuration(self, label: str, now: float) -> dict[str, Any]:
        """What a page gives to RTCPeerConnection (W3C webrtc section 4.2.1), with ``ttl``, the seconds for which its
        credentials are good, where they are good for a time."""
        told: list[dict[str, Any]] = []
        for each in self._told(label, now):
            server: dict[str, Any] = {"urls": each.urls}
            if each.credentials is not None:
                server |= {"username": each.credentials.username, "credential": each.credentials.password}
            told.append(server)
        return {"iceServers": told, **({"ttl": self._ttl_s} if self._secrets else {})}

    def links(self, label: str, now: float) -> list[str]:
        """Values of the header Link (RFC 9725 section 4.6), one for each server."""
        return [_link(url, each.credentials) for each in self._told(label, now) for url in each.urls]

    def _told(self, label: str, now: float) -> Iterator[_Told]:
        """The servers in order; neighbours that take the same credentials together."""
        before: _Told | None = None
        for server in self._servers:
            credentials = self._credentials(server, label, now)
            if before is not None and before.credentials == credentials:
                before.urls.append(server.url)
                continue
            if before is not None:
                yield before
            before = _Told([server.url], credentials)
        if before is not None:
            yield before

    def _credentials(self, server: IceServer, label: str, now: float) -> Credentials | None:
        if server.secret_file is not None:
            return mint(self._secrets[server.secret_file].value, label, now, self._ttl_s)
        return Credentials(server.username, server.credential) if server.username else None


def _link(url: str, credentials: Credentials | None) -> str:
    link = f'<{url}>; rel="ice-server"'
    if credentials is not None:
        link += f'; username="{credentials.username}"; credential="{credentials.password}"'
        link += '; credential-type="password"'
    return link
