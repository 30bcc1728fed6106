"""The clocks of other hosts beside this one's, for ``firsthop doctor``: ephemeral keys, certificates and rotations end
by what a host takes for the time."""

from __future__ import annotations

import http.client
import time
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from firsthop.examining import PATIENCE_S, Finding, open_redis
from runtime.address import Address
from runtime.config import Config, Directory

__all__ = ["Reading", "asked", "finding", "others", "store_time"]

_WELL_S = 1.0
_BEARABLE_S = 30.0
_TODO = "synchronise both: apt-get install chrony"


@dataclass(frozen=True, slots=True)
class Reading:
    """Another host's clock: it said ``from_s`` to ``to_s`` (Unix time) at some moment between ``asked_s`` and
    ``heard_s`` of this host's clock."""

    from_s: float
    to_s: float
    asked_s: float
    heard_s: float

    @property
    def apart_s(self) -> float:
        """The least that the clocks can be apart; positive where the other is ahead."""
        behind, ahead = self.from_s - self.heard_s, self.to_s - self.asked_s
        return behind if behind > 0 else ahead if ahead < 0 else 0.0


def finding(who: str, reading: Reading) -> Finding:
    """The finding on the clock of ``who``."""
    apart_s = reading.apart_s
    if abs(apart_s) <= _WELL_S:
        return Finding(f"clock of {who}", "ok", "as ours, within a second or two")
    seen = f"{abs(apart_s):.0f} s {'ahead of' if apart_s > 0 else 'behind'} ours"
    return Finding(f"clock of {who}", "wrong" if abs(apart_s) > _BEARABLE_S else "warning", seen, _TODO)


def others(config: Config) -> dict[str, Address]:
    """The other hosts that the configuration names, each with the address where its metrics are if it has the ports
    that this host has: host to address. None is asked of hosts that have this one's addresses."""
    edge = config.edge
    found: dict[str, Address] = {}
    for row in edge.other_edges:
        if row.endpoint.address is not None:
            found[row.endpoint.address.host] = Address.of(row.endpoint.address.host, edge.metrics.port)
    for peer in edge.transceivers:
        if peer.endpoint.address is not None:
            host = peer.endpoint.address.host
            found.setdefault(host, Address.of(host, config.transceiver.metrics.port))
    ours = {edge.media.host, edge.http.host, edge.metrics.host, config.transceiver.metrics.host, "127.0.0.1", "::1"}
    return {host: address for host, address in found.items() if host not in ours}


def asked(address: Address) -> Finding:
    """The finding on the clock of the host whose metrics are at ``address``: their answer has its time, in whole
    seconds (RFC 9110 section 6.6.1)."""
    began = time.time()
    try:
        with closing(http.client.HTTPConnection(*address.pair, timeout=PATIENCE_S)) as connection:
            connection.request("HEAD", "/metrics")
            said = connection.getresponse().getheader("Date")
        at = parsedate_to_datetime(said or "").timestamp()
    except (OSError, ValueError, http.client.HTTPException):
        todo = "run doctor there, and compare `date -u` of both hosts"
        return Finding(f"clock of {address.host}", "warning", f"nobody says the time at http://{address}/metrics", todo)
    return finding(address.host, Reading(at, at + 1, began, time.time()))


def store_time(directory: Directory) -> Finding | None:
    """The finding on the clock of the directory's Redis, which all hosts can be compared with; None where it does not
    answer."""
    from redis.exceptions import RedisError

    try:
        with open_redis(directory) as store:
            began = time.time()
            seconds, micros = store.time()
    except (RedisError, OSError, ValueError):
        return None
    at = seconds + micros / 1e6
    return finding("the directory's Redis", Reading(at, at, began, time.time()))
