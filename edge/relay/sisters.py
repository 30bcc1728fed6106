"""The sister clusters of a worker's edge: whose a ufrag is that this cluster's keys do not open, and which link leads
there.

A ufrag's tag has 48 bits, so a ufrag that another cluster's key opens by chance is one in 2^48 for each key that is
tried: no cluster id is needed in it. Only a check that this cluster's keys do not open is tried under others', and as a
stranger's it has been limited before. What opens goes to an edge of that cluster, which knows the call's transceiver
(``edge/relay/backbone.py``); that edge is spoken to like a transceiver, by a number that no transceiver has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge.relay.spec import Sister
from edge.relay.uplink import Uplink
from runtime import logs
from runtime.keyfile import KeyFile
from wire import ufrag
from wire.keys import ClusterKeys
from wire.ufrag import MAX_SISTER_EDGES, MAX_TRANSCEIVER

__all__ = ["OURS", "Sisters", "cluster_of", "number_of"]

OURS = -1

MakeLink = Callable[[int, str, ClusterKeys, str], Uplink]
"""Makes the link of that number to an endpoint, with a cluster's keys; the text is its label."""


def number_of(cluster: int, edge: int) -> int:
    """The number of the link to the edge at that place of the cluster at that place."""
    return MAX_TRANSCEIVER + 1 + cluster * MAX_SISTER_EDGES + edge


def cluster_of(number: int) -> int:
    """The place of the cluster to which the link of that number leads; OURS where it leads to a transceiver."""
    return OURS if number <= MAX_TRANSCEIVER else (number - MAX_TRANSCEIVER - 1) // MAX_SISTER_EDGES


class Sisters:
    """The clusters, with a link to each of their edges, which ``make`` makes."""

    def __init__(self, sisters: Sequence[Sister], make: MakeLink) -> None:
        self._files = [KeyFile(Path(sister.key_file), logs.get(), sister.keys) for sister in sisters]
        self._links = [
            [
                make(
                    number_of(cluster, at), endpoint, sister.keys, sister.name if at == 0 else f"{sister.name}.{at + 1}"
                )
                for at, endpoint in enumerate(sister.edges)
            ]
            for cluster, sister in enumerate(sisters)
        ]

    def __iter__(self) -> Iterator[Uplink]:
        return (link for links in self._links for link in links)

    def refresh(self) -> None:
        """Looks at the key files. To be called about once a second."""
        for file in self._files:
            file.refresh()

    def keys_of(self, number: int) -> dict[int, bytes]:
        """The keys that open the ufrags of the cluster to which the link of that number leads, by id."""
        return self._files[cluster_of(number)].keys.ufrag

    def way(self, sealed: bytes, owner: int) -> int | None:
        """The number of the link for a ufrag: that of ``owner`` where it leads to the right cluster, or else of the
        first whose other end is there. None where the ufrag is of none of these clusters."""
        for cluster, (file, links) in enumerate(zip(self._files, self._links, strict=True)):
            if ufrag.open_sealed(sealed, file.keys.ufrag) is None:
                continue
            there = [link.number for link in links if link.there] or [links[0].number]
            return owner if owner in there and cluster_of(owner) == cluster else there[0]
        return None
