"""The other edges of the cluster, and which of them are well: the addresses that an answer names. Pure.

Any edge passes on the checks and the media of any of the cluster's calls. So an answer has one candidate for each edge
that is well, and a client whose edge dies goes on over another by ICE alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["MAX_CANDIDATES", "WELL_FOR_S", "Media", "Peer", "Peers"]

MAX_CANDIDATES = 4  # a client checks each of them from each of its own addresses
WELL_FOR_S = 1.5  # since its last heartbeat; six may be lost

Media = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Peer:
    """An edge: the ``media`` host and port that clients are told, and the ZeroMQ ``endpoint`` of its announcements."""

    name: str
    media: Media
    endpoint: str
    region: str = ""


@dataclass(slots=True)
class _Heard:
    at: float
    draining: bool


class Peers:
    """The edges that the edge ``name`` knows of. Whatever source has them calls ``know``; heartbeats say which are
    well. Times are monotonic, in seconds."""

    def __init__(self, name: str, media: Media, region: str = "") -> None:
        self.name = name
        self.draining = False  # this edge itself: others are named in its place
        self.own_media = media
        self._region = region
        self._known: Mapping[str, Peer] = {}
        self._heard: dict[str, _Heard] = {}
        self._turn = 0

    @property
    def known(self) -> tuple[Peer, ...]:
        """All other edges, well or not."""
        return tuple(self._known.values())

    def know(self, edges: Iterable[Peer]) -> None:
        """Makes these the edges that there are; this one may be among them."""
        listed = {edge.name: edge for edge in edges if edge.name != self.name}
        self._known = listed
        self._heard = {name: heard for name, heard in self._heard.items() if name in listed}

    def heard(self, name: str, now: float, *, draining: bool = False) -> bool:
        """Takes an edge's heartbeat. Returns False for one that is not known."""
        if name not in self._known:
            return False
        self._heard[name] = _Heard(now, draining)
        return True

    def heard_of(self, now: float) -> list[tuple[str, float, bool]]:
        """Each edge that was ever heard of: its name, how many seconds ago that was, and whether it drained then."""
        return [(name, now - heard.at, heard.draining) for name, heard in list(self._heard.items())]

    def is_well(self, name: str, now: float) -> bool:
        """Whether that edge was heard of just now, and takes calls."""
        heard = self._heard.get(name)
        return heard is not None and not heard.draining and now - heard.at <= WELL_FOR_S

    def media(self, now: float) -> list[Media]:
        """The addresses that an answer names, the preferred one first: this edge's own, then those of the others that
        are well, its own region's before the rest, which take turns. While this edge drains, its own is named only
        where there is no other."""
        well = [peer for peer in self._known.values() if self.is_well(peer.name, now)]
        if well:
            self._turn = (self._turn + 1) % len(well)
        well = sorted(well[self._turn :] + well[: self._turn], key=lambda peer: peer.region != self._region)
        others = [peer.media for peer in well]
        named = others if self.draining and others else [self.own_media, *others]
        return list(dict.fromkeys(named))[:MAX_CANDIDATES]  # edges behind one address are one candidate
