"""The ways from this edge to transceivers, by the hosts that they are on: what one link has measured serves for all.

A measured round trip is the way and whatever waited at both ends, so the way is the shortest that any link to the host
has measured. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Ways", "host_of"]


def host_of(endpoint: str) -> str:
    """The host of a ZeroMQ endpoint; for ``ipc://`` it is this one, and has no name."""
    scheme, _, rest = endpoint.partition("://")
    return rest.rpartition(":")[0] if scheme == "tcp" else ""


class Ways:
    """The shortest round trip to each host, in seconds, for as long as a transceiver is known to be there."""

    def __init__(self) -> None:
        self._host: dict[int, str] = {}
        self._there: dict[str, set[int]] = {}
        self._shortest: dict[str, float] = {}

    def measured(self, number: int, host: str, round_trip_s: float | None) -> Iterable[int]:
        """Enters what the link to transceiver ``number`` on ``host`` has measured. Returns the others whose way has
        become shorter by it."""
        if self._host.get(number) != host:
            self.remove(number)
            self._host[number] = host
            self._there.setdefault(host, set()).add(number)
        if round_trip_s is None or round_trip_s >= self._shortest.get(host, float("inf")):
            return ()
        self._shortest[host] = round_trip_s
        return self._there[host] - {number}

    def way_s(self, number: int) -> float | None:
        """The way to a transceiver; None where no link to its host has measured it."""
        host = self._host.get(number)
        return None if host is None else self._shortest.get(host)

    def remove(self, number: int) -> None:
        """Forgets a transceiver, and its host with the last one there."""
        host = self._host.pop(number, None)
        if host is None:
            return
        self._there[host].discard(number)
        if not self._there[host]:
            del self._there[host]
            self._shortest.pop(host, None)
